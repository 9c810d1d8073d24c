"""PEP 249, by the compliance suite and by what it does not ask."""

import datetime
import threading
import time

import pytest

import thanosql

dbapi20 = pytest.importorskip("dbapi20", reason="dbapi-compliance is not installed")


class TestCompliance(dbapi20.DatabaseAPI20Test):
    driver = thanosql
    connect_args = (":memory:",)

    def test_nextset(self):
        """Nothing to test: a statement of SQLite's has one result."""
        with self._connect() as connection:
            assert not hasattr(connection.cursor(), "nextset")

    def test_setoutputsize(self):
        """Setting a size does nothing, which PEP 249 allows."""
        self._connect().cursor().setoutputsize(1000, 0)

    def test_non_idempotent_close(self):
        """Closing again does nothing: `close` in a `finally` must not fail."""
        connection = self._connect()
        connection.close()
        connection.close()


# The suite closes its connections, but not all of those it only asks for an attribute.
del dbapi20


def test_declared_types_equal_their_type_objects(cursor):
    cursor.execute(
        "CREATE TABLE t (a VARCHAR(20), b BLOB, c INTEGER, d DOUBLE PRECISION, "
        "e TIMESTAMP, f DATE, g BOOLEAN, h DECIMAL(5, 2))"
    )
    cursor.execute("SELECT *, a || b FROM t")
    kinds = cursor.declared_types
    assert kinds[0] == thanosql.STRING
    assert kinds[1] == thanosql.BINARY
    assert [kind == thanosql.NUMBER for kind in kinds[2:4]] == [True, True]
    assert [kind == thanosql.DATETIME for kind in kinds[4:6]] == [True, True]
    assert [kind == thanosql.NUMBER for kind in kinds[6:8]] == [True, True]
    assert kinds[8] is None
    assert kinds[0] != thanosql.NUMBER
    assert kinds[4] != thanosql.ROWID


def test_a_type_code_promises_nothing_that_sqlite_does_not_enforce(cursor):
    cursor.execute("CREATE TABLE t (a INTEGER, b TEXT)")
    cursor.execute("SELECT a, b, 1 FROM t")
    codes = [column[1] for column in cursor.description]
    assert codes == [None, None, None]
    # PEP 249: a type code equals the type objects of what the column may hold.
    for kind in (thanosql.STRING, thanosql.BINARY, thanosql.NUMBER, thanosql.DATETIME):
        assert codes == [kind] * 3


def test_values_of_the_constructors_are_stored(cursor):
    values = (
        thanosql.Date(2026, 11, 23),
        thanosql.Time(12, 30),
        thanosql.Timestamp(2026, 11, 23, 12, 30),
        thanosql.Binary(b"\0\xff"),
    )
    assert cursor.execute("SELECT ?, ?, ?, ?", values).fetchone() == (
        "2026-11-23",
        "12:30:00",
        "2026-11-23 12:30:00",
        b"\0\xff",
    )
    ticks = time.mktime((2026, 11, 23, 12, 30, 0, 0, 0, -1))
    assert thanosql.DateFromTicks(ticks) == values[0]
    assert thanosql.TimeFromTicks(ticks) == values[1]
    assert thanosql.TimestampFromTicks(ticks) == values[2]


@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize("fetch", ["before", "after"])
def test_a_read_is_described_whenever_asked_and_however_many_rows(cursor, rows, fetch):
    cursor.execute("CREATE TABLE t (a INTEGER, b TEXT)")
    cursor.executemany("INSERT INTO t VALUES (?, ?)", [(i, "x") for i in range(rows)])
    cursor.execute("SELECT a, b AS c FROM t WHERE a >= ?", (0,))
    if fetch == "after":
        cursor.fetchall()
        cursor.connection.execute("DROP TABLE t")
    assert [column[0] for column in cursor.description] == ["a", "c"]
    assert cursor.declared_types == ("INTEGER", "TEXT")


def test_describing_runs_nothing_again(connection):
    calls = []
    connection.create_function("note", 1, calls.append)
    cursor = connection.execute("SELECT note(?)", ("x",))
    cursor.fetchall()
    assert cursor.description[0][0] == "note(?)"
    assert calls == ["x"]


def test_rowcount_is_what_a_statement_changed(cursor):
    assert cursor.execute("CREATE TABLE t (a)").rowcount == -1
    assert cursor.execute("INSERT INTO t VALUES (1), (2), (3)").rowcount == 3
    assert cursor.lastrowid == 3
    assert cursor.execute("SELECT * FROM t").rowcount == -1
    assert cursor.execute("UPDATE t SET a = 0 WHERE a > 1").rowcount == 2
    assert cursor.execute("DELETE FROM t WHERE a = 9").rowcount == 0
    assert cursor.execute("WITH x AS (SELECT 1) DELETE FROM t").rowcount == 3


@pytest.mark.parametrize("source", [list, iter, tuple])
def test_rowcount_of_executemany_leaves_out_what_triggers_change(connection, source):
    connection.executescript(
        """
        CREATE TABLE t (a UNIQUE);
        CREATE TABLE log (a);
        CREATE TABLE copied (a);
        CREATE TRIGGER r AFTER INSERT ON t BEGIN
          INSERT INTO log VALUES (new.a), (new.a);
        END;
        """
    )
    rows = [(1,), (2,), (1,), (3,)]
    insert = "INSERT OR IGNORE INTO {} VALUES (?)"
    cursor = connection.executemany(insert.format("t"), source(rows))
    assert cursor.rowcount == 3
    assert connection.execute("SELECT count(*) FROM log").fetchone() == (6,)
    cursor = connection.executemany(insert.format("copied"), source(rows))
    assert cursor.rowcount == 4
    assert cursor.executemany("DELETE FROM t WHERE a = ?", []).rowcount == 0


def test_rowcount_of_executemany_leaves_out_what_foreign_keys_change(connection):
    connection.executescript(
        """
        PRAGMA foreign_keys = ON;
        CREATE TABLE parent (id INTEGER PRIMARY KEY);
        CREATE TABLE child (p REFERENCES parent ON DELETE CASCADE);
        INSERT INTO parent VALUES (1), (2);
        INSERT INTO child VALUES (1), (1), (2);
        """
    )
    cursor = connection.executemany("DELETE FROM parent WHERE id = ?", [(1,), (2,)])
    assert cursor.rowcount == 2


def test_what_returning_wrote_is_complete_and_committed_before_it_is_fetched(
    connection,
):
    connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY)")
    cursor = connection.execute("INSERT INTO t VALUES (1), (2) RETURNING a")
    assert cursor.rowcount == 2
    connection.commit()
    assert not connection.in_transaction
    assert cursor.fetchone() == (1,)
    assert cursor.fetchall() == [(2,)]


def test_a_comment_left_over_does_not_hinder_the_next_statement(cursor):
    cursor.execute("SELECT 1; -- and no more")
    cursor.execute("SELECT 2; /* over */ ; ")
    assert cursor.execute("SELECT 3").fetchall() == [(3,)]


def test_reading_row_by_row_while_writing_elsewhere(connection):
    connection.execute("CREATE TABLE t (a)")
    connection.execute("CREATE TABLE u (a)")
    connection.executemany("INSERT INTO t VALUES (?)", [(i,) for i in range(100)])
    writer = connection.cursor()
    for (a,) in connection.execute("SELECT a FROM t"):
        writer.execute("INSERT INTO u VALUES (?)", (a,))
        connection.commit()
    assert connection.execute("SELECT count(*) FROM u").fetchone() == (100,)


def test_committing_does_not_end_an_open_predict(calls):
    cursor = calls.execute(
        "PREDICT USING m OPTIONS (batch_size=2) AS SELECT id, audio FROM calls"
    )
    first = cursor.fetchone()
    calls.execute("CREATE TABLE notes (id)")
    calls.execute("INSERT INTO notes VALUES (?)", first[:1])
    calls.commit()
    assert len(cursor.fetchall()) == 7


def test_the_words_that_jupysql_looks_for(cursor):
    cursor.execute("CREATE TABLE t (a)")
    with pytest.raises(thanosql.ProgrammingError, match="no results to fetch"):
        cursor.fetchmany(2)


@pytest.mark.parametrize("size", [-1, -100])
def test_a_negative_number_of_rows_is_refused(cursor, size):
    cursor.execute("SELECT 1")
    with pytest.raises(thanosql.ProgrammingError, match="0 or more"):
        cursor.fetchmany(size)
    assert cursor.fetchmany(0) == []
    assert cursor.fetchall() == [(1,)]


# Threads


def in_thread(call):
    """Return what a call in another thread returned or raised."""
    outcome = []

    def run():
        try:
            outcome.append(call())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return outcome[0]


def test_threads_share_the_module_and_each_has_its_connection(tmp_path):
    path = tmp_path / "x.db"
    with thanosql.connect(path) as con:
        con.execute("PRAGMA journal_mode = wal").fetchall()
        con.execute("CREATE TABLE t (thread, a)")
    con.close()

    def write(number):
        con = thanosql.connect(path, timeout=30, autocommit=True)
        for a in range(20):
            con.execute("INSERT INTO t VALUES (?, ?)", (number, a))
        counted = con.execute("SELECT count(*) FROM t WHERE thread = ?", (number,))
        found = counted.fetchone()
        con.close()
        return found

    found = []
    threads = [
        threading.Thread(target=lambda i=i: found.append(write(i))) for i in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [(20,)] * 6


def test_another_thread_is_refused_unless_it_is_allowed(connection):
    cursor = connection.execute("SELECT 1")
    for use in (
        connection.cursor,
        connection.commit,
        connection.close,
        lambda: connection.execute("SELECT 1"),
        lambda: cursor.execute("SELECT 1"),
        cursor.fetchone,
        cursor.close,
    ):
        refused = in_thread(use)
        assert isinstance(refused, thanosql.ProgrammingError)
        assert "check_same_thread=False" in str(refused)
    free = thanosql.connect(":memory:", check_same_thread=False)
    assert in_thread(lambda: free.execute("SELECT 1").fetchall()) == [(1,)]
    free.close()


COUNTING = """
    SELECT began() UNION ALL SELECT * FROM (
      WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
      SELECT count(*) FROM n
    )
"""


def test_two_threads_at_once_on_one_connection_are_told_so():
    con = thanosql.connect(":memory:", check_same_thread=False)
    began = threading.Event()
    con.create_function("began", 0, began.set)
    outcome = []

    def count():
        try:
            con.execute(COUNTING).fetchall()
        except thanosql.OperationalError as error:
            outcome.append(error)

    thread = threading.Thread(target=count)
    thread.start()
    assert began.wait(10)

    def disturb():
        while True:  # until it is in SQLite again, out of our function
            con.execute("SELECT 1")

    with pytest.raises(thanosql.ProgrammingError, match="busy in another thread"):
        disturb()
    con.interrupt()
    thread.join()
    assert [error.sqlite_errorname for error in outcome] == ["SQLITE_INTERRUPT"]
    con.close()


def test_interrupting_from_another_thread_ends_a_statement(connection):
    began = threading.Event()
    connection.create_function("began", 0, began.set)

    def interrupt():
        began.wait()
        time.sleep(0.01)  # into SQLite
        connection.interrupt()

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(thanosql.OperationalError, match="interrupt"):
        connection.execute(COUNTING).fetchall()
    thread.join()
    assert connection.execute("SELECT 1").fetchall() == [(1,)]


def test_interrupting_from_another_thread_ends_a_predict(calls):
    cursor = calls.execute(
        "PREDICT USING m OPTIONS (batch_size=1) AS "
        "SELECT a.audio FROM calls a, calls b, calls c, calls d, calls e"
    )
    thread = threading.Timer(0.05, calls.interrupt)
    thread.start()
    with pytest.raises(thanosql.OperationalError, match="interrupt"):
        cursor.fetchall()
    thread.join()
    assert calls.execute("SELECT count(*) FROM calls").fetchone() == (8,)


def test_a_lock_that_is_released_in_time_is_waited_for(tmp_path):
    path = tmp_path / "x.db"
    holder = thanosql.connect(path, check_same_thread=False)
    holder.execute("CREATE TABLE t (a)")
    holder.execute("INSERT INTO t VALUES (1)")
    waiter = thanosql.connect(path, timeout=30)
    release = threading.Timer(0.1, holder.commit)
    release.start()
    waiter.execute("INSERT INTO t VALUES (2)")
    waiter.commit()
    release.join()
    assert waiter.execute("SELECT a FROM t").fetchall() == [(1,), (2,)]
    waiter.close()
    holder.close()


def test_dates_come_back_as_dates_where_types_are_detected():
    con = thanosql.connect(":memory:", detect_types=thanosql.PARSE_DECLTYPES)
    con.execute("CREATE TABLE t (d DATE, t TIMESTAMP, n INTEGER)")
    row = (datetime.date(2026, 11, 23), datetime.datetime(2026, 11, 23, 1, 2, 3, 4), 5)
    con.executemany("INSERT INTO t VALUES (?, ?, ?)", [row, (None, None, None)])
    assert con.execute("SELECT * FROM t").fetchall() == [row, (None, None, None)]
    assert con.execute("SELECT * FROM t").fetchone() == row
    con.close()
