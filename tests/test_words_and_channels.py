"""PREDICT's words, and the channels of a recording, as a user asks for them."""

from __future__ import annotations

import io
import json
import warnings

import numpy as np
import pytest
import soundfile
from tones import tones

import thanosql
from thanosql.speech.sound.audio import load


def stereo(*sides: bytes) -> bytes:
    """Return a recording of several, each in a channel of its own."""
    waveforms = [load(side, None) for side in sides]
    longest = max(map(len, waveforms))
    padded = [np.pad(each, (0, longest - len(each))) for each in waveforms]
    file = io.BytesIO()
    soundfile.write(file, np.stack(padded, axis=1), 16_000, "FLOAT", format="WAV")
    return file.getvalue()


def side(call: bytes, channel: int) -> bytes:
    """Return one channel of a recording as a recording of its own."""
    samples, rate = soundfile.read(io.BytesIO(call), dtype="float32")
    file = io.BytesIO()
    soundfile.write(file, samples[:, channel - 1], rate, "FLOAT", format="WAV")
    return file.getvalue()


@pytest.fixture
def told(calls):
    """Return a connection with recordings of one and of two channels."""
    calls.execute("CREATE TABLE told (id INTEGER PRIMARY KEY, audio)")
    audio = [
        tones("abc bad"),
        stereo(tones("abc fed            bad"), tones("            face", seed=1)),
        stereo(tones("deaf"), tones("ace gabe", seed=2)),
    ]
    calls.executemany("INSERT INTO told (audio) VALUES (?)", [(a,) for a in audio])
    calls.commit()
    return calls


def names(cursor):
    return [name for name, *_ in cursor.description]


@pytest.fixture(autouse=True)
def _different_speech_is_no_error():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "row 2: its channels hold different speech")
        yield


def test_words_are_json_beside_the_text(calls):
    plain = calls.execute("PREDICT USING m AS SELECT id, audio FROM calls").fetchall()
    cursor = calls.execute(
        "PREDICT USING m OPTIONS (words=TRUE, details=TRUE, on_error='null') "
        "AS SELECT id, audio FROM calls"
    )
    assert names(cursor) == [
        *("id", "audio", "predicted", "words", "confidence", "details", "error")
    ]
    rows = cursor.fetchall()
    assert [row[:3] for row in rows] == plain
    for row in rows:
        words = json.loads(row[3])
        assert [each["word"] for each in words] == row[2].split()
        for each in words:
            assert [*each] == ["word", "start", "end", "confidence"]
            assert each["start"] == round(each["start"], 3)
            assert 0 <= each["start"] <= each["end"]
            assert 0 <= each["confidence"] <= 1
        assert 0 <= row[4] <= 1
        assert json.loads(row[5])["windows"] == 1
        assert row[6] is None


def test_words_are_ready_for_json_each(calls):
    joined = calls.execute(
        "SELECT n, predicted, group_concat(value ->> 'word', ' ') "
        "FROM (PREDICT USING m OPTIONS (words=TRUE) "
        "AS SELECT id AS n, audio FROM calls), json_each(words) GROUP BY n, predicted"
    ).fetchall()
    assert len(joined) > 5
    assert all(text == again for _, text, again in joined)


def test_a_row_a_word_holds_what_the_column_does(calls):
    columns = calls.execute(
        "PREDICT USING m OPTIONS (words=TRUE) AS SELECT id, audio FROM calls"
    ).fetchall()
    cursor = calls.execute(
        "PREDICT USING m OPTIONS (per_word=TRUE, batch_size=3) "
        "AS SELECT id, audio FROM calls"
    )
    assert names(cursor) == ["id", "audio", "word", "start", "end", "confidence"]
    rows = cursor.fetchall()
    expected = [
        (row[0], row[1], *each.values())
        for row in columns
        for each in json.loads(row[3])
    ]
    assert [row[:3] for row in rows] == [row[:3] for row in expected]
    found, wanted = (np.array([row[3:] for row in each]) for each in (rows, expected))
    assert np.allclose(found, wanted, atol=0.0011)


def test_a_row_a_word_streams(calls):
    one = "SELECT * FROM (PREDICT USING m OPTIONS (per_word=TRUE, batch_size=1) AS {})"
    rows = "SELECT audio FROM calls WHERE id = 1 UNION ALL SELECT 'not_there.wav'"
    assert calls.execute(f"{one} LIMIT 1".format(rows)).fetchone() is not None
    with pytest.raises(thanosql.AudioError, match="row 2: "):
        calls.execute(one.format(rows)).fetchall()


def test_a_recording_without_words_has_no_rows_and_a_bad_one_tells_why(calls):
    calls.execute("UPDATE calls SET audio = NULL WHERE id = 3")
    calls.commit()
    cursor = calls.execute(
        "PREDICT USING m OPTIONS (per_word=TRUE, on_error='null', result_col='x') "
        "AS SELECT id, audio, text AS predicted FROM calls"
    )
    rows = cursor.fetchall()
    bad = [row for row in rows if row[-1] is not None]
    assert [row[:-1] for row in bad] == [(3, None, "face", None, None, None, None)]
    assert bad[0][-1].startswith("row 3: the audio is NULL")
    found = calls.execute(
        "PREDICT USING m OPTIONS (vad=TRUE, words=TRUE) AS SELECT ? AS audio",
        (tones("      "),),
    ).fetchone()
    assert found[1:] == ("", "[]", 1.0)
    assert not calls.execute(
        "PREDICT USING m OPTIONS (vad=TRUE, per_word=TRUE) AS SELECT ? AS audio",
        (tones("      "),),
    ).fetchall()


@pytest.mark.parametrize(
    ("options", "query", "message"),
    [
        ("words=TRUE, per_word=TRUE", "SELECT audio FROM calls", "choose one"),
        ("words=TRUE", "SELECT *, 1 AS words FROM calls", "'words' is one of"),
        ("words=TRUE, result_col='words'", "SELECT audio FROM calls", "'words' is"),
        ("per_word=TRUE", 'SELECT *, 1 AS "end" FROM calls', "'end' is one of"),
        ("channel='each'", "SELECT *, 1 AS Channel FROM calls", "'channel' is one of"),
        ("channel=0", "SELECT audio FROM calls", "channel takes mix, each or a whole"),
        ("channel='left'", "SELECT audio FROM calls", "channel takes mix, each or"),
    ],
)
def test_what_cannot_be_is_an_option_error(calls, options, query, message):
    with pytest.raises(thanosql.OptionError, match=message):
        calls.execute(f"PREDICT USING m OPTIONS ({options}) AS {query}")


def test_evaluate_hears_one_channel_and_refuses_each(told):
    query = (
        "EVALUATE USING m OPTIONS (channel={}, per_row=TRUE) AS SELECT *, 'a' AS text"
    )
    with pytest.raises(
        thanosql.OptionError, match="channel takes mix or a whole number"
    ):
        told.execute(query.format("'each'") + " FROM told")
    rows = told.execute(query.format(2) + " FROM told WHERE id > 1").fetchall()
    expected = told.execute(
        "SELECT predicted FROM (PREDICT USING m OPTIONS (channel=2) "
        "AS SELECT * FROM told WHERE id > 1)"
    ).fetchall()
    assert [row[3:4] for row in rows] == expected


def test_each_side_of_a_call_reads_as_if_it_were_alone(told):
    audio = dict(told.execute("SELECT id, audio FROM told").fetchall())
    expected = []
    for number, channel in [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2)]:
        alone = audio[1] if number == 1 else side(audio[number], channel)
        (row,) = told.execute("PREDICT USING m AS SELECT ? AS audio", (alone,))
        expected.append((number, channel, row[1]))
    for batch_size in (1, 2, 16):
        cursor = told.execute(
            "PREDICT USING m OPTIONS (channel='each', batch_size=?) "
            "AS SELECT id, audio FROM told",
            (batch_size,),
        )
        assert names(cursor) == ["id", "audio", "channel", "predicted"]
        assert [(row[0], *row[2:]) for row in cursor] == expected
    for channel in (1, 2):
        rows = told.execute(
            "SELECT id, predicted FROM (PREDICT USING m OPTIONS (channel=?) "
            "AS SELECT * FROM told WHERE id > 1)",
            (channel,),
        ).fetchall()
        assert rows == [(n, text) for n, c, text in expected if c == channel and n > 1]


def test_words_of_all_channels_are_in_order_of_time(told):
    rows = told.execute(
        "PREDICT USING m OPTIONS (channel='each', per_word=TRUE) "
        "AS SELECT id, audio FROM told"
    ).fetchall()
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    for number, count in ((1, 1), (2, 2), (3, 2)):
        mine = [row for row in rows if row[0] == number]
        assert [row[4] for row in mine] == sorted(row[4] for row in mine)
        assert {row[2] for row in mine} == {*range(1, count + 1)}
        columns = told.execute(
            "SELECT channel, words FROM (PREDICT USING m OPTIONS (channel='each', "
            "words=TRUE) AS SELECT audio FROM told WHERE id = ?)",
            (number,),
        ).fetchall()
        for channel, words in columns:
            spoken = [row[3] for row in mine if row[2] == channel]
            assert spoken == [each["word"] for each in json.loads(words)]


def test_a_channel_that_is_not_there_names_its_row(told):
    query = "PREDICT USING m OPTIONS (channel=2{}) AS SELECT id, audio FROM told"
    with pytest.raises(thanosql.AudioError, match="row 1: the BLOB has no channel 2"):
        told.execute(query.format("")).fetchall()
    rows = told.execute(query.format(", on_error='null'")).fetchall()
    assert [row[2] is None for row in rows] == [True, False, False]
    assert rows[0][3] == "row 1: the BLOB has no channel 2; it has one channel only"


def test_a_bad_recording_among_those_of_which_each_channel_is_heard(told):
    told.execute("UPDATE told SET audio = substr(audio, 1, 30) WHERE id = 2")
    told.commit()
    query = "PREDICT USING m OPTIONS (channel='each'{}) AS SELECT id, audio FROM told"
    with pytest.raises(thanosql.AudioError, match="row 2: the BLOB is"):
        told.execute(query.format("")).fetchall()
    rows = told.execute(query.format(", on_error='null'")).fetchall()
    assert [(row[0], row[2]) for row in rows] == [(1, 1), (2, None), (3, 1), (3, 2)]
    assert rows[1][3] is None
    assert rows[1][4].startswith("row 2: the BLOB is")


def test_a_bad_channel_is_named_and_the_others_are_heard(told):
    samples, rate = soundfile.read(io.BytesIO(stereo(*[tones("abc bad")] * 3)))
    samples[:, 1] = np.nan
    file = io.BytesIO()
    soundfile.write(file, samples, rate, "FLOAT", format="WAV")
    query = "PREDICT USING m OPTIONS (channel='each'{}) AS SELECT ? AS audio"
    with pytest.raises(thanosql.AudioError, match="row 1: the BLOB has samples that"):
        told.execute(query.format(""), (file.getvalue(),)).fetchall()
    lenient = query.format(", on_error='null'")
    rows = told.execute(lenient, (file.getvalue(),)).fetchall()
    assert [channel for _, channel, *_ in rows] == [1, 2, 3]
    (first, second, third) = (text for _, _, text, _ in rows)
    assert first == third is not None
    assert second is None
    assert [error is None for *_, error in rows] == [True, False, True]
    (bad,) = told.execute(
        lenient.replace("'each'", "'each', per_word=TRUE").replace(
            "PREDICT", "SELECT channel, word, error FROM (PREDICT"
        )
        + ") WHERE error IS NOT NULL",
        (file.getvalue(),),
    ).fetchall()
    assert bad[:2] == (2, None)


def test_a_later_scan_finds_all_channels_and_words_again(told, monkeypatch):
    plain = told.execute(
        "PREDICT USING m OPTIONS (channel='each', words=TRUE, details=TRUE) "
        "AS SELECT id, audio FROM told"
    ).fetchall()
    rows = told.execute(
        "SELECT a.n, p.* FROM (SELECT 1 AS n UNION SELECT 2) AS a CROSS JOIN "
        "(PREDICT USING m OPTIONS (channel='each', words=TRUE, details=TRUE) "
        "AS SELECT id, audio FROM told) AS p"
    ).fetchall()
    assert rows == [(n, *row) for n in (1, 2) for row in plain]


DIFFERENT = "row 2: its channels hold different speech, which is heard mixed"


def test_different_speech_in_a_mix_is_warned_of_once(told):
    told.execute("INSERT INTO told (audio) SELECT audio FROM told WHERE id = 2")
    told.commit()
    for sql in (
        "PREDICT USING m AS SELECT * FROM told",
        "EVALUATE USING m AS SELECT *, 'a' AS text FROM told",
    ):
        with pytest.warns(thanosql.Warning, match=DIFFERENT) as caught:
            told.execute(sql).fetchall()
        (message,) = (str(w.message) for w in caught if DIFFERENT in str(w.message))
        assert "PREDICT's channel='each'" in message  # EVALUATE has no such value


@pytest.mark.parametrize("channel", ["1", "'each'"])
def test_nothing_is_warned_of_where_a_channel_is_heard_alone(told, channel):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told.execute(
            f"PREDICT USING m OPTIONS (channel={channel}) AS SELECT audio FROM told"
        ).fetchall()
