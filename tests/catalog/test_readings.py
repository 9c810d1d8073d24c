"""The readings that ship are what README.md beside them, and their recipe, say."""

import string
from collections import Counter
from contextlib import closing
from importlib import resources
from pathlib import Path

import apsw
import make_readings
import pytest
from make_readings import COUNTS, PEOPLE, READERS, STRANGERS
from make_speech import normalized
from voices import UNHEARD

from thanosql.catalog import sample
from thanosql.speech.sound.audio import SAMPLE_RATE, load

FILE = Path(str(resources.files("thanosql"))) / "catalog/sample/readings.db"
PUNCTUATION = set(".,;?!'")


@pytest.fixture(scope="module")
def readings():
    with closing(apsw.Connection(str(FILE), apsw.SQLITE_OPEN_READONLY)) as connection:
        yield connection


def column(readings, table, name):
    return [value for (value,) in readings.execute(f'SELECT {name} FROM "{table}"')]


def test_they_are_three_whole_tables_in_three_megabytes(readings):
    assert FILE.stat().st_size < 3_000_000
    assert readings.execute("PRAGMA integrity_check").get == "ok"
    tables = readings.execute("SELECT name FROM sqlite_schema").fetchall()
    assert [name for (name,) in tables] == list(COUNTS)
    for table, count in COUNTS.items():
        rows = readings.execute(f'SELECT * FROM "{table}"')
        names = [name for name, _ in rows.get_description()]
        assert names == ["audio", "text", "speaker", "seconds"]
        assert len(rows.fetchall()) == count


@pytest.mark.parametrize("table", COUNTS)
def test_every_recording_is_heard_whole(readings, table):
    for audio, seconds in readings.execute(f'SELECT audio, seconds FROM "{table}"'):
        waveform = load(audio, None)
        assert len(waveform) == round(seconds * SAMPLE_RATE)
        assert 2 <= seconds <= 12
        assert 0.2 < abs(waveform).max() <= 1


def test_readers_take_turns_and_those_of_the_test_are_strangers(readings):
    assert Counter(column(readings, "readings_train", "speaker")) == dict.fromkeys(
        READERS, 12
    )
    assert Counter(column(readings, "readings_test", "speaker")) == dict.fromkeys(
        STRANGERS, 10
    )
    known, strange = (
        {voice for shares in readers.values() for voice in shares}
        for readers in (READERS, STRANGERS)
    )
    assert not known & strange
    assert strange <= set(UNHEARD)


def test_every_blend_is_of_one_voice_in_all():
    for shares in [*READERS.values(), *STRANGERS.values()]:
        assert not shares or sum(shares.values()) == pytest.approx(1)


def test_no_sentence_comes_twice_in_any_table(readings):
    texts = [text for table in COUNTS for text in column(readings, table, "text")]
    assert len({normalized(text) for text in texts}) == len(texts) == 121


@pytest.mark.parametrize("table", ["readings_train", "readings_test"])
def test_sentences_are_as_a_book_has_them(readings, table):
    for text in column(readings, table, "text"):
        assert text[0].isupper()
        assert text[-1] in ".?!"
        assert set(text) <= {*string.ascii_letters, *PUNCTUATION, " "}


def test_a_person_reads_what_the_recipe_says(readings):
    assert column(readings, "readings_people", "text") == list(PEOPLE.values())
    assert set(column(readings, "readings_people", "speaker")) == {"librivox"}


def test_either_sample_is_copied_beside_the_other(connection):
    assert sample.copy_into(connection.apsw, "readings") == 121
    assert sample.copy_into(connection.apsw) == 272
    assert connection.execute("SELECT count(*) FROM readings_people").fetchone() == (5,)


def test_sentences_with_names_figures_quotes_or_old_words_are_left_out():
    today = set(
        make_readings._words(
            "It was so long ago that I had to sail and he came see any thing not do "
            "said were when tall ships with Tom Mrs a time ship"
        )
    )

    def plain(book):
        return list(make_readings._plain(book, today))

    right = "It was so long ago that I had to sail, and he came to see."
    assert plain(right) == [right]
    for wrong in (
        "It was so long ago that Tom had to sail, and he came.",
        "It was 9 ships that came to sail with the tall ships.",
        'He said so: "It was a long time that I had to do it."',
        "It was so long ago that I had not any thing to do.",
        "It was so long ago that he hath had to sail a ship.",
        "It was so long ago--that I had to sail, and he came.",
        "He came to sail.",
    ):
        assert plain(wrong) == []
    # What follows an abbreviation begins no sentence.
    assert plain(f"When he came to see Mrs. {right}") == []
    assert plain(f"When he came to see it. {right}") == [right]
