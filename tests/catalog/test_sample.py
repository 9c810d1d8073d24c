"""The recordings that ship with the package are what README.md beside them says."""

import io
import json
from collections import Counter
from contextlib import closing
from importlib import resources
from pathlib import Path

import apsw
import make_sample
import pytest
import soundfile
from voices import UNHEARD

SAMPLE = Path(str(resources.files("thanosql"))) / "catalog/sample"
COUNTS = {"commands_train": 216, "commands_test": 56}


@pytest.fixture(scope="module")
def sample():
    path = str(SAMPLE / "sample.db")
    with closing(apsw.Connection(path, apsw.SQLITE_OPEN_READONLY)) as connection:
        yield connection


def texts(sample, table):
    return [text for (text,) in sample.execute(f'SELECT text FROM "{table}"')]


def test_both_databases_are_below_two_and_a_half_megabytes():
    files = (SAMPLE / "sample.db", SAMPLE / "words.db")
    assert sum(file.stat().st_size for file in files) < 2_500_000


def test_the_database_is_whole_and_holds_two_tables(sample):
    assert sample.execute("PRAGMA integrity_check").get == "ok"
    tables = sample.execute("SELECT name FROM sqlite_schema").fetchall()
    assert [name for (name,) in tables] == list(COUNTS)
    for table, count in COUNTS.items():
        rows = sample.execute(f'SELECT * FROM "{table}" LIMIT 1')
        names = [name for name, _ in rows.get_description()]
        assert names == ["audio", "text", "speaker", "seconds"]
        assert sample.execute(f'SELECT count(*) FROM "{table}"').get == count


def test_eight_speakers_share_both_tables_evenly_and_two_are_strangers(sample):
    train, test = (
        Counter(
            speaker for (speaker,) in sample.execute(f'SELECT speaker FROM "{table}"')
        )
        for table in COUNTS
    )
    assert train == dict.fromkeys(make_sample.HEARD, 27)
    assert test == dict.fromkeys(make_sample.HEARD, 5) | dict.fromkeys(
        make_sample.STRANGERS, 8
    )
    assert set(make_sample.STRANGERS) < set(UNHEARD)


@pytest.mark.parametrize("table", COUNTS)
def test_every_recording_decodes_at_its_stated_length(sample, table):
    for audio, seconds in sample.execute(f'SELECT audio, seconds FROM "{table}"'):
        waveform, rate = soundfile.read(io.BytesIO(audio))
        assert (waveform.ndim, rate) == (1, 16_000)
        assert len(waveform) == pytest.approx(seconds * rate)
        assert 0.8 < seconds < 6
        assert 0.3 < abs(waveform).max() <= 1


def test_no_sentence_comes_twice_and_none_of_the_test_is_in_train(sample):
    train, test = (texts(sample, table) for table in COUNTS)
    assert len({*train, *test}) == len(train) + len(test)


def test_every_word_of_the_test_is_heard_in_training(sample):
    train, test = (" ".join(texts(sample, table)).split() for table in COUNTS)
    assert set(test) <= set(train)
    assert len(set(train)) == 124
    assert min(Counter(train).values()) > 1


def test_the_plan_is_what_the_tables_hold(sample):
    held = [
        row
        for table in COUNTS
        for row in sample.execute(f'SELECT text, speaker FROM "{table}"')
    ]
    assert [(r.text, r.speaker) for r in make_sample.plan()] == held


def test_the_tiny_base_is_a_shape_without_weights():
    from thanosql.speech.opening.opening import open_base

    folder = SAMPLE.with_name("parakeet_tiny")
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == "parakeet_ctc"
    recognizer = open_base("ParakeetTiny", lambda: ["turn the kitchen light off"])
    assert 1_000_000 < recognizer.model.num_parameters() < 3_000_000
