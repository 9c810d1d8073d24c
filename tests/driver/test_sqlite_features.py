"""What `sqlite3` users reach for, under its names."""

import datetime
import decimal
import sqlite3

import apsw
import pytest

import thanosql


@pytest.fixture
def table(connection):
    connection.execute("CREATE TABLE t (a INTEGER, b TEXT)")
    connection.executemany("INSERT INTO t VALUES (?, ?)", [(1, "x"), (2, "y")])
    connection.commit()
    return connection


def test_a_row_is_read_by_name_in_any_case_and_by_position(table):
    table.row_factory = thanosql.Row
    row = table.execute("SELECT a, b AS Letter FROM t").fetchone()
    assert (row["a"], row["LETTER"], row[1], row[-1]) == (1, "x", "x", "x")
    assert row[0:1] == (1,)
    assert row.keys() == ["a", "Letter"]
    assert dict(row) == {"a": 1, "Letter": "x"}
    assert (len(row), tuple(row)) == (2, (1, "x"))
    assert repr(row) == "Row(a=1, Letter='x')"
    with pytest.raises(IndexError, match="there are a, Letter"):
        row["c"]


def test_rows_are_equal_as_in_sqlite3(table):
    table.row_factory = thanosql.Row
    one, two = table.execute("SELECT a, b FROM t UNION ALL SELECT 1, 'x'").fetchmany(2)
    again = table.execute("SELECT a, b FROM t").fetchone()
    assert one == again
    assert hash(one) == hash(again)
    assert one != two
    assert one != (1, "x")


@pytest.mark.parametrize("fetch", ["fetchone", "fetchmany", "fetchall", "next"])
def test_every_fetch_uses_the_row_factory(table, fetch):
    cursor = table.cursor()
    assert cursor.row_factory is None
    cursor.execute("SELECT a, b FROM t")
    cursor.row_factory = lambda cursor, row: {
        column[0]: value for column, value in zip(cursor.description, row, strict=True)
    }
    got = next(cursor) if fetch == "next" else getattr(cursor, fetch)()
    assert (got[0] if isinstance(got, list) else got) == {"a": 1, "b": "x"}


def test_a_row_factory_makes_the_rows_of_a_predict(calls):
    calls.row_factory = thanosql.Row
    cursor = calls.execute("PREDICT USING m AS SELECT id, audio FROM calls")
    rows = cursor.fetchall()
    assert [row["id"] for row in rows] == list(range(1, 9))
    assert all(isinstance(row["predicted"], str) for row in rows)


class Point:
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __conform__(self, protocol):
        assert protocol is sqlite3.PrepareProtocol
        return f"{self.x};{self.y}"


def test_adapters_and_converters_carry_decimals_there_and_back():
    thanosql.register_adapter(decimal.Decimal, str)
    thanosql.register_converter("decimal", lambda s: decimal.Decimal(s.decode()))
    con = thanosql.connect(
        ":memory:", detect_types=thanosql.PARSE_DECLTYPES | thanosql.PARSE_COLNAMES
    )
    con.execute("CREATE TABLE t (price DECIMAL(10, 2), note TEXT)")
    price = decimal.Decimal("12.30")
    con.execute("INSERT INTO t VALUES (?, ?)", (price, "x"))
    con.execute("INSERT INTO t VALUES (NULL, NULL)")
    assert con.execute("SELECT * FROM t").fetchall() == [(price, "x"), (None, None)]
    cursor = con.execute("SELECT '1.5' AS \"half [decimal]\"")
    assert cursor.description[0][0] == "half"
    assert cursor.fetchone() == (decimal.Decimal("1.5"),)
    con.close()


def test_an_object_may_say_itself_how_it_is_stored(connection):
    assert connection.execute("SELECT ?", (Point(1, 2),)).fetchone() == ("1;2",)


def test_a_subclass_is_adapted_like_its_base(connection):
    class Moment(datetime.datetime):
        pass

    moment = Moment(2026, 11, 23, 1, 2)
    assert connection.execute("SELECT ?", (moment,)).fetchone() == (
        "2026-11-23 01:02:00",
    )


def test_functions_aggregates_windows_and_collations(connection):
    class Longest:
        def __init__(self):
            self.longest = ""

        def step(self, text):
            self.longest = max(self.longest, text, key=len)

        def finalize(self):
            return self.longest

    class Total:
        def __init__(self):
            self.total = 0

        def step(self, number):
            self.total += number

        def inverse(self, number):
            self.total -= number

        def value(self):
            return self.total

        finalize = value

    connection.create_function("twice", 1, lambda x: x * 2, deterministic=True)
    connection.create_aggregate("longest", 1, Longest)
    connection.create_window_function("total", 1, Total)
    connection.create_collation("by_length", lambda a, b: len(a) - len(b))
    values = "(SELECT column1 AS v FROM (VALUES ('bb'), ('a'), ('ccc')))"
    assert connection.execute("SELECT twice(21)").fetchone() == (42,)
    assert connection.execute(f"SELECT longest(v) FROM {values}").fetchone() == ("ccc",)
    assert connection.execute(
        f"SELECT total(length(v)) OVER (ORDER BY v ROWS 1 PRECEDING) FROM {values}"
    ).fetchall() == [(1,), (3,), (5,)]
    assert connection.execute(
        f"SELECT v FROM {values} ORDER BY v COLLATE by_length"
    ).fetchall() == [("a",), ("bb",), ("ccc",)]
    connection.create_function("twice", 1, None)
    with pytest.raises(thanosql.OperationalError, match="no such function"):
        connection.execute("SELECT twice(1)")


def test_hooks_see_and_stop_statements(table):
    seen = []
    table.set_trace_callback(seen.append)
    table.execute("INSERT INTO t VALUES (3, 'z')")
    table.rollback()
    table.set_trace_callback(None)
    table.execute("SELECT 1")
    assert seen == ["BEGIN ", "INSERT INTO t VALUES (3, 'z')", "ROLLBACK"]

    table.set_progress_handler(lambda: True, 1)
    with pytest.raises(thanosql.OperationalError, match="interrupted"):
        table.execute("SELECT * FROM t").fetchall()
    table.set_progress_handler(None, 1)

    table.set_authorizer(lambda *what: thanosql.SQLITE_DENY)
    with pytest.raises(thanosql.DatabaseError, match="not authorized"):
        table.execute("SELECT * FROM t")
    table.set_authorizer(None)
    assert len(table.execute("SELECT * FROM t").fetchall()) == 2


def test_extensions_are_off_unless_enabled(connection):
    with pytest.raises(thanosql.OperationalError, match="not authorized"):
        connection.load_extension("nowhere")
    with pytest.raises(thanosql.OperationalError, match="not authorized"):
        connection.execute("SELECT load_extension('nowhere')")
    connection.enable_load_extension(True)
    with pytest.raises(thanosql.OperationalError, match="nowhere"):
        connection.load_extension("nowhere")


def test_a_blob_is_read_and_written_in_parts(connection):
    connection.execute("CREATE TABLE b (x)")
    connection.execute("INSERT INTO b VALUES (x'000102030405')")
    with connection.blobopen("b", "x", 1) as blob:
        assert (len(blob), blob.read(2), blob.tell()) == (6, b"\0\1", 2)
        blob.write(b"\xff")
        assert (blob[2], blob[-1], blob[0:4:2]) == (255, 5, b"\0\xff")
        blob[4:6] = b"ab"
        blob.seek(-2, 2)
        assert blob.read() == b"ab"
        with pytest.raises(thanosql.ProgrammingError, match="longer than what is left"):
            blob.write(b"c")
    with pytest.raises(thanosql.ProgrammingError, match="the blob is closed"):
        blob.read()
    assert connection.execute("SELECT x FROM b").fetchone() == (b"\0\1\xff\3ab",)
    with (
        connection.blobopen("b", "x", 1, readonly=True) as blob,
        pytest.raises(thanosql.OperationalError, match="readonly"),
    ):
        blob.write(b"a")


def test_a_backup_carries_rows_and_models(calls, tmp_path):
    copy = thanosql.connect(tmp_path / "copy.db")
    turns = []
    calls.backup(copy, pages=20, progress=lambda *turn: turns.append(turn))
    assert len(turns) > 1
    assert turns[-1][:2] == (thanosql.SQLITE_DONE, 0)
    predict = "PREDICT USING m AS SELECT id, audio FROM calls"
    assert copy.execute(predict).fetchall() == calls.execute(predict).fetchall()
    copy.close()


def test_a_database_becomes_bytes_and_again_a_database(table):
    data = table.serialize()
    other = thanosql.connect(":memory:")
    other.deserialize(data)
    assert other.execute("SELECT * FROM t").fetchall() == [(1, "x"), (2, "y")]
    other.close()


def test_limits_and_settings(connection):
    before = connection.setlimit(thanosql.SQLITE_LIMIT_SQL_LENGTH, 20)
    assert connection.getlimit(thanosql.SQLITE_LIMIT_SQL_LENGTH) == 20 < before
    with pytest.raises(thanosql.DataError, match="too big"):
        connection.execute("SELECT 'a text that is too long'")
    with pytest.raises(thanosql.ProgrammingError, match="no limit of category 999"):
        connection.getlimit(999)
    connection.setconfig(thanosql.SQLITE_DBCONFIG_ENABLE_FKEY, True)
    assert connection.getconfig(thanosql.SQLITE_DBCONFIG_ENABLE_FKEY)


def test_a_connection_that_apsw_opened_is_taken_over(tmp_path):
    opened = apsw.Connection(str(tmp_path / "x.db"))
    con = thanosql.connect(opened)
    assert con.apsw is opened
    assert con.execute("LIST MODELS").fetchall() == []
    con.close()


def test_factories_make_the_connection_and_the_cursor(tmp_path):
    class Mine(thanosql.Connection):
        pass

    class MyCursor(thanosql.Cursor):
        pass

    con = thanosql.connect(":memory:", factory=Mine)
    assert isinstance(con, Mine)
    assert isinstance(con.cursor(MyCursor), MyCursor)
    with pytest.raises(thanosql.ProgrammingError, match="makes a Cursor"):
        con.cursor(lambda connection: None)
    con.close()
