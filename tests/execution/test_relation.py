from __future__ import annotations

import tracemalloc
from dataclasses import dataclass

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thanosql.execution.relation import (
    Relation,
    columns_of,
    register,
    row_of,
    unambiguous,
    unregister,
)
from thanosql.execution.source import KeptPairs, KeptRows, Source, TranscriptCache
from thanosql.speech.recording import Recording
from thanosql.speech.results import Alternative, Details, Transcription, Word
from thanosql.store import runs


@pytest.fixture
def database():
    with apsw.Connection(":memory:") as database:
        yield database
    database.close()


def numbers(closed=None):
    try:
        for i in range(1000):
            yield (i, f"text {i}", None)
    finally:
        if closed is not None:
            closed.append(True)


COLUMNS = (("n", "INTEGER"), ("the text", "VARCHAR(20)"), ('"odd"', None))


def test_a_relation_is_queried_like_a_table(database):
    register(database, "r", Relation(COLUMNS, numbers))
    cursor = database.execute("SELECT * FROM r WHERE n > 997")
    assert cursor.get_description() == COLUMNS
    assert cursor.fetchall() == [(998, "text 998", None), (999, "text 999", None)]
    assert database.execute(
        'SELECT count(*), max(a."the text") FROM r AS a JOIN r AS b USING (n)'
    ).fetchall() == [(1000, "text 999")]
    assert database.execute("SELECT rowid, n FROM r LIMIT 1").get == (1, 0)


def test_a_scan_given_up_half_way_is_closed(database):
    closed = []
    register(database, "r", Relation(COLUMNS, lambda: numbers(closed)))
    assert database.execute("SELECT n FROM r LIMIT 2").fetchall() == [(0,), (1,)]
    assert closed == [True]
    cursor = database.execute("SELECT n FROM r")
    next(cursor)
    assert closed == [True]
    cursor.close()
    assert closed == [True, True]


def test_a_relation_that_was_taken_back_can_be_read_to_its_end(database):
    register(database, "r", Relation(COLUMNS, numbers))
    cursor = database.execute("SELECT n FROM r")
    next(cursor)
    unregister(database, "r")
    assert len(cursor.fetchall()) == 999
    with pytest.raises(apsw.SQLError, match="no such table"):
        database.execute("SELECT * FROM r")


def test_an_error_in_a_scan_is_the_statements_error(database):
    def broken():
        yield (1,)
        message = "row 2 is bad"
        raise ValueError(message)

    register(database, "r", Relation((("a", None),), broken))
    cursor = database.execute("SELECT a FROM r")
    with pytest.raises(ValueError, match="row 2 is bad"):
        cursor.fetchall()


@pytest.mark.parametrize(
    "declared", ["INTEGER", "VARCHAR(20)", "DOUBLE PRECISION", 'a "b"', ""]
)
def test_declared_types_pass_through(database, declared):
    register(database, "r", Relation((("a", declared),), lambda: iter([(1,)])))
    cursor = database.execute("SELECT * FROM r")
    assert cursor.get_description() == (("a", declared),)
    assert cursor.fetchall() == [(1,)]


def test_a_type_that_sqlite_would_read_as_a_hidden_column_is_left_out(database):
    register(database, "r", Relation((("a", "HIDDEN"),), lambda: iter([(1,)])))
    assert database.execute("SELECT * FROM r").fetchall() == [(1,)]


def test_repeated_names_become_distinct_as_in_sqlite(database):
    sql = "SELECT 1 AS a, 2 AS A, 3 AS b, 4 AS a, 5 AS ä, 6 AS Ä, 7 AS ß, 8 AS SS"
    database.execute(f"CREATE TABLE t AS {sql}")
    theirs = [row[1] for row in database.execute("PRAGMA table_info(t)")]
    given = [(name, None) for name, _ in database.execute(sql).get_description()]
    assert [name for name, _ in unambiguous(given)] == theirs


def test_a_source_reads_anew_at_every_turn_until_it_is_kept(database):
    database.execute("CREATE TABLE t (a INTEGER, b)")
    database.execute("INSERT INTO t VALUES (1, x'00'), (2, NULL)")
    source = Source(database, "SELECT * FROM t WHERE a > ?", (0,))
    assert source.columns == (("a", "INTEGER"), ("b", None))
    assert source.position("B") == 1
    assert source.position("c") is None
    assert list(source) == [(1, b"\0"), (2, None)]
    source.keep()
    database.execute("DELETE FROM t")
    assert list(source) == [(1, b"\0"), (2, None)]


def test_describing_a_source_runs_nothing_and_refuses_writes(database):
    database.execute("CREATE TABLE t (a)")
    with pytest.raises(Exception, match="may only read"):
        Source(database, "INSERT INTO t VALUES (1) RETURNING a", ())
    assert database.execute("SELECT count(*) FROM t").get == 0


def test_kept_rows_are_a_sequence():
    rows = [(i, str(i), bytes([i]), i / 2, None) for i in range(100)]
    kept = KeptRows(iter(rows), 5)
    assert len(kept) == 100
    assert list(kept) == rows
    assert kept[0] == rows[0]
    assert kept[-1] == rows[-1]
    assert kept[2:5] == rows[2:5]
    with pytest.raises(IndexError):
        kept[100]


def test_kept_pairs_have_digests_that_are_no_part_of_the_rows():
    rows = [(b"x" * 9_000, "a"), ("path", None), (None, 3), (b"", "")]
    kept = KeptPairs(iter(rows))
    assert list(kept) == [kept[i] for i in range(len(kept))] == rows
    digests = [(runs.digest(audio), runs.digest(text)) for audio, text in rows]
    assert len(set(kept.row_digests())) == len(list(kept.row_digests())) == 4
    assert [kept.digests_of(row) for row in range(1, 5)] == digests
    assert list(kept.texts()) == ["a", ""]


def test_what_is_kept_of_a_training_row_is_on_disk():
    def most_memory(count):
        rows = ((f"recording {i}.wav", f"text {i}") for i in range(count))
        tracemalloc.start()
        try:
            assert sum(1 for _ in KeptPairs(rows).row_digests()) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    most_memory(10)
    assert most_memory(5_000) < most_memory(500) + 50_000  # 11 bytes a row


words = st.builds(Word, st.text(), *[st.floats(allow_nan=False)] * 3)
alternatives = st.builds(Alternative, st.text(), st.floats(0, 1))
transcriptions = st.builds(
    Transcription,
    text=st.none() | st.text(),
    confidence=st.none() | st.floats(0, 1),
    words=st.lists(words, max_size=3).map(tuple),
    alternatives=st.lists(alternatives, max_size=3).map(tuple),
    details=st.builds(
        Details,
        language=st.none() | st.text(),
        windows=st.integers(0, 9),
        repeats_itself=st.none() | st.booleans(),
        token_probability=st.none() | st.floats(0, 1),
    ),
    seconds=st.floats(0, 1e6),
    channel=st.none() | st.integers(1, 9),
    channels=st.none() | st.integers(1, 9),
    mixes_speech=st.booleans(),
    error=st.none() | st.text(),
)
audio_values = st.none() | st.binary() | st.text() | st.integers() | st.floats()


recordings = st.builds(
    Recording,
    audio_values,
    channel=st.sampled_from(["mix", "each", 1, 2]),
    hotwords=st.lists(st.text(), max_size=2).map(tuple),
)


@given(
    st.lists(
        st.tuples(recordings, st.lists(transcriptions, min_size=1, max_size=2)),
        max_size=4,
    )
)
def test_transcriptions_come_whole_out_of_the_cache(items):
    cache = TranscriptCache()
    assert cache.get(Recording(b"not there")) is None
    for recording, found in items:
        cache.put(recording, found)
        assert cache.get(recording) == found


@pytest.mark.parametrize(
    "other",
    [Recording(b"b"), Recording(b"a", channel=1), Recording(b"a", hotwords=("Kyiv",))],
)
def test_the_cache_tells_recordings_apart_by_all_that_they_are(other):
    cache = TranscriptCache()
    cache.put(Recording(b"a"), [Transcription(text="x")])
    assert cache.get(other) is None


@dataclass(frozen=True)
class Fact:
    count: int
    rate: float | None
    name: str
    best: bool = False


def test_columns_and_rows_come_from_the_fields_of_a_dataclass():
    columns = columns_of(Fact, without="best")
    assert columns == (("count", "INTEGER"), ("rate", "REAL"), ("name", "TEXT"))
    assert row_of(Fact(1, 0.5, "a"), columns) == (1, 0.5, "a")
    assert row_of(None, columns) == (None, None, None)
