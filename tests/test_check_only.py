"""BUILD MODEL with check_only: what it would meet, told without training."""

import io
import time

import numpy as np
import pytest
import soundfile
from tones import spoken, tones
from toys import whisper

import thanosql


def wav(waveform, rate=16_000):
    file = io.BytesIO()
    soundfile.write(file, waveform, rate, format="WAV")
    return file.getvalue()


@pytest.fixture
def mixed(calls):
    """Return a connection with calls 1 to 8 fine, 9 to 15 each with a quirk."""
    calls.executemany(
        "INSERT INTO calls (id, audio, text) VALUES (?, ?, ?)",
        [
            (9, b"no audio at all", "abc"),
            (10, tones("abc"), None),
            (11, tones("a"), "a much too long text " * 5),
            (12, wav(np.zeros(16_000)), "abc"),
            (13, tones("face", rate=8_000), "face"),
            (14, tones("fade", seed=99), "fade é é 7"),
            (15, tones("fade", seed=99), "fade"),
        ],
    )
    calls.commit()
    return calls


def findings(connection, base, more=""):
    return connection.execute(
        f"BUILD MODEL new USING '{base}' OPTIONS (check_only=TRUE, batch_size=2{more}) "
        "AS SELECT * FROM calls ORDER BY id"
    ).fetchall()


def test_all_that_is_wrong_is_told_at_once_and_nothing_is_trained(mixed, base):
    before = mixed.total_changes
    found = findings(mixed, base)
    facts = {name: value for name, row, value in found if row is None}
    assert facts["rows"] == 15
    assert facts["bad rows"] == 3
    assert facts["rows to train on"] + facts["rows to validate on"] == 12
    assert 0 < facts["hours of audio"] < 0.01
    assert facts["estimated seconds of training"] > 0
    assert facts["rows of 8000 Hz"] == 1
    assert facts["left out of the texts: '7'"] == 1
    bad = {row: reason for name, row, reason in found if name == "bad"}
    assert set(bad) == {9, 10, 11}
    assert "NULL" in bad[10]
    assert "too long" in bad[11]
    assert [row for name, row, _ in found if name == "silent"] == [12]
    assert ("same recording", 15, "as row 14") in found
    assert mixed.total_changes == before
    assert mixed.execute("SELECT * FROM (LIST MODELS)").fetchall()[0][0] == "m"


def test_the_estimate_counts_what_a_gpu_has_still_to_do(calls, base, monkeypatch):
    monkeypatch.setattr(
        "thanosql.speech.recognizers.precision.wait_for", lambda _: time.sleep(0.5)
    )
    estimated = {name: value for name, _, value in findings(calls, base, ", epochs=1")}
    assert estimated["estimated seconds of training"] > 1


def test_a_check_is_a_query_like_any_other(mixed, base):
    rows = mixed.execute(
        f"SELECT row FROM (BUILD MODEL m USING '{base}' OPTIONS (check_only=TRUE) "
        "AS SELECT * FROM calls ORDER BY id) WHERE finding = 'bad' ORDER BY row"
    ).fetchall()
    assert rows == [(9,), (10,), (11,)]


def test_bad_rows_of_a_validation_query_are_told_apart(mixed, base):
    query = "SELECT * FROM calls WHERE id IN (1, 9)"
    found = findings(mixed, base, f", validation='{query}'")
    (bad,) = [each for each in found if each[0] == "bad, of the validation query"]
    assert bad[1] == 2
    assert {f[0]: f[2] for f in found}["rows to validate on"] == 1


def test_a_training_of_bad_rows_still_refuses_them(mixed, base):
    with pytest.raises(thanosql.Error, match="3 of 15 rows"):
        mixed.execute(f"BUILD MODEL new USING '{base}' AS SELECT * FROM calls")


def test_what_is_left_to_the_rows_is_told_before_and_after(connection, tmp_path):
    directory = whisper(tmp_path / "whisper")
    connection.execute("CREATE TABLE clips (audio, text)")
    connection.executemany("INSERT INTO clips VALUES (?, ?)", spoken(9))
    connection.commit()
    statement = f"""BUILD MODEL m USING '{directory}'
                    OPTIONS (overwrite=TRUE, epochs=1, validation=0, {{}})
                    AS SELECT * FROM clips"""
    described = """SELECT value FROM (DESCRIBE MODEL m)
                   WHERE property = 'option freeze_encoder'"""
    trained = {}
    for choice in ("'auto'", "TRUE", "FALSE"):
        frozen = f"freeze_encoder={choice}"
        found = connection.execute(statement.format(f"{frozen}, check_only=TRUE"))
        facts = {name: value for name, _, value in found}
        trained[choice] = facts["parameters to train"]
        connection.execute(statement.format(frozen))
        told = connection.execute(described).fetchone()
        assert told == (0 if choice == "FALSE" else 1,)
    # The recordings are less than an hour.
    assert (
        trained["'auto'"] == trained["TRUE"] < trained["FALSE"] <= facts["parameters"]
    )
