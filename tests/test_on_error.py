"""PREDICT and EVALUATE over rows some of which are bad."""

from collections import deque

import pytest
from tones import tones

import thanosql


@pytest.fixture
def spoilt(calls):
    """Return a connection whose calls 3 and 6 are bad, of eight."""
    calls.execute("UPDATE calls SET audio = NULL WHERE id = 3")
    calls.execute("UPDATE calls SET audio = substr(audio, 1, 30) WHERE id = 6")
    calls.commit()
    return calls


def test_a_bad_row_ends_the_statement_by_default(spoilt):
    with pytest.raises(thanosql.DataError, match="row 3: "):
        spoilt.execute("PREDICT USING m AS SELECT * FROM calls").fetchall()


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t SELECT predicted FROM ({})",
        "CREATE TABLE t2 AS {}",
        "INSERT INTO t SELECT predicted FROM ({}) RETURNING text",
    ],
)
def test_a_bad_row_leaves_nothing_of_a_writing_in_the_transaction(spoilt, sql):
    spoilt.execute("CREATE TABLE t (text)")
    spoilt.execute("INSERT INTO t VALUES ('earlier')")
    predict = "PREDICT USING m OPTIONS (batch_size=1) AS SELECT * FROM calls"
    with pytest.raises(thanosql.DataError, match="row 3: "):
        spoilt.execute(sql.format(predict))
    assert spoilt.in_transaction
    assert spoilt.execute("SELECT * FROM t").fetchall() == [("earlier",)]
    deque(spoilt.execute(sql.format(f"{predict} WHERE id < 3")))
    spoilt.commit()
    tables = spoilt.execute("SELECT name FROM (LIST TABLES)").fetchall()
    rows = sum(
        spoilt.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
        for (name,) in tables
        if name != "calls"
    )
    assert rows == 3


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_a_bad_row_is_null_and_tells_why_where_that_is_asked_for(spoilt, batch_size):
    good = dict(
        spoilt.execute(
            "SELECT id, predicted FROM (PREDICT USING m AS "
            "SELECT * FROM calls WHERE id NOT IN (3, 6))"
        )
    )
    cursor = spoilt.execute(
        "PREDICT USING m OPTIONS (on_error='null', batch_size=?) "
        "AS SELECT id, audio FROM calls",
        (batch_size,),
    )
    assert [name for name, *_ in cursor.description][-2:] == ["predicted", "error"]
    rows = cursor.fetchall()
    assert [row[0] for row in rows] == list(range(1, 9))
    assert {row[0]: row[2] for row in rows if row[3] is None} == good
    assert [row[0] for row in rows if row[2] is None] == [3, 6]
    assert all(f"row {row[0]}: " in row[3] for row in rows if row[2] is None)


def test_a_long_recording_that_breaks_off_has_no_half_of_a_text(spoilt):
    whole = tones("head bed " * 4)
    spoilt.execute("UPDATE calls SET audio = ? WHERE id = 5", (whole[:-20_000],))
    rows = spoilt.execute(
        "PREDICT USING m OPTIONS (on_error='null', chunk_seconds=1.5) "
        "AS SELECT id, audio FROM calls"
    ).fetchall()
    assert len(rows) == 8
    assert [row[0] for row in rows if row[3] is not None] == [3, 5, 6]
    assert rows[4][2] is None
    assert "row 5: the BLOB is not whole" in rows[4][3]


def test_a_bad_row_is_asked_for_once_in_a_join(spoilt):
    rows = spoilt.execute(
        "SELECT a.id, p.id, p.error IS NULL FROM (SELECT 1 AS id UNION SELECT 2) AS a "
        "CROSS JOIN (PREDICT USING m OPTIONS (on_error='null') "
        "AS SELECT id, audio FROM calls) AS p"
    ).fetchall()
    expected = [(a, i, i not in (3, 6)) for a in (1, 2) for i in range(1, 9)]
    assert rows == expected


def test_two_rows_with_one_bad_recording_are_told_apart_in_every_scan(calls):
    calls.execute("UPDATE calls SET audio = 'not_there.wav' WHERE id IN (3, 6)")
    rows = calls.execute(
        "SELECT a.id, p.id, p.error FROM (SELECT 1 AS id UNION SELECT 2) AS a "
        "CROSS JOIN (PREDICT USING m OPTIONS (on_error='null', batch_size=2) "
        "AS SELECT id, audio FROM calls) AS p WHERE p.error IS NOT NULL"
    ).fetchall()
    assert [row[:2] for row in rows] == [(1, 3), (1, 6), (2, 3), (2, 6)]
    for _, number, error in rows:
        assert error.startswith(f"row {number}: ")
        assert "not_there.wav" in error
        assert error.count("row ") == 1


def test_scores_leave_bad_rows_out_and_count_them(spoilt):
    spoilt.execute("UPDATE calls SET text = NULL WHERE id = 2")
    names = "rows, wer, words, audio_seconds"
    (good,) = spoilt.execute(
        f"SELECT {names} FROM (EVALUATE USING m AS "
        "SELECT * FROM calls WHERE id NOT IN (2, 3, 6))"
    ).fetchall()
    query = "EVALUATE USING m OPTIONS (on_error='null') AS SELECT * FROM calls"
    (all_,) = spoilt.execute(f"SELECT {names}, left_out FROM ({query})").fetchall()
    assert all_ == (*good, 3)
    rows = spoilt.execute(
        "SELECT id, wer, error FROM (EVALUATE USING m OPTIONS (on_error='null', "
        "per_row=TRUE) AS SELECT * FROM calls)"
    ).fetchall()
    assert [id_ for id_, wer, error in rows if wer is None and error] == [2, 3, 6]
    assert all(error is None for id_, wer, error in rows if wer is not None)


def test_a_column_of_the_name_error_is_not_hidden(spoilt):
    with pytest.raises(thanosql.OptionError, match="'error'"):
        spoilt.execute(
            "PREDICT USING m OPTIONS (on_error='null') "
            "AS SELECT *, 1 AS error FROM calls"
        )
