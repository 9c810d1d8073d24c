"""Bad input: each case the right PEP 249 class, and a message that says what to do."""

import decimal
import multiprocessing
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import thanosql


@pytest.mark.parametrize("execute", ["execute", "executemany"])
@pytest.mark.parametrize(
    ("value", "error", "also", "message"),
    [
        (2**63, thanosql.DataError, OverflowError, "64 bits; bind it as text"),
        (-(2**63) - 1, thanosql.DataError, OverflowError, "64 bits"),
        ("a\ud800", thanosql.DataError, UnicodeEncodeError, "bind bytes instead"),
        (object(), thanosql.ProgrammingError, Exception, "register_adapter"),
        (decimal.Decimal(1), thanosql.ProgrammingError, Exception, "Decimal, which"),
        (1j, thanosql.ProgrammingError, Exception, "parameter 1 is of type complex"),
    ],
)
def test_a_value_that_sqlite_cannot_store(
    connection, execute, value, error, also, message
):
    connection.execute("CREATE TABLE t (a)")
    parameters = (value,) if execute == "execute" else [(value,)]
    for sql in ("INSERT INTO t VALUES (?)", "INSERT INTO t SELECT :a"):
        with pytest.raises(error, match=message) as raised:
            getattr(connection, execute)(sql, parameters)
        assert isinstance(raised.value, also)


def test_the_same_in_a_speech_statement(calls):
    for value in (2**63, "\ud800", object()):
        with pytest.raises(thanosql.DatabaseError, match=r"bits|surrogate|of type"):
            calls.execute("PREDICT USING m AS SELECT ? AS audio", (value,)).fetchall()


@given(
    st.integers() | st.text(st.characters()) | st.floats(allow_nan=False) | st.binary()
)
def test_a_value_comes_back_as_it_was_or_is_a_data_error(value):
    connection = thanosql.connect(":memory:")
    try:
        row = connection.execute("SELECT ?", (value,)).fetchone()
    except thanosql.DataError:
        assert isinstance(value, int | str)
    else:
        assert row == (value,)
    connection.close()


@pytest.mark.parametrize(
    ("sql", "parameters", "message"),
    [
        ("SELECT ?", (), "uses 1 and there are 0"),
        ("SELECT ?, ?", (1,), "uses 2 and there are 1"),
        ("SELECT ?", None, "1 bindings but"),
        ("SELECT :name", {}, "no value is given for the parameter :name"),
        ("SELECT ?", 5, "a sequence or a mapping"),
        ("SELECT ?", object(), "a sequence or a mapping"),
        ("SELECT ?", {5}, "a sequence or a mapping, not set"),
        ("PREDICT USING m AS SELECT ?", {5}, "a sequence or a mapping, not set"),
    ],
)
def test_wrong_parameters(cursor, sql, parameters, message):
    with pytest.raises(thanosql.ProgrammingError, match=message):
        cursor.execute(sql, parameters)


def test_wrong_parameters_of_executemany_name_what_is_missing(connection):
    connection.execute("CREATE TABLE t (a)")
    insert = "INSERT INTO t VALUES (:a)"
    with pytest.raises(thanosql.ProgrammingError, match="parameter :a"):
        connection.executemany(insert, [{"a": 1}, {"b": 2}])
    with pytest.raises(thanosql.ProgrammingError, match="a sequence or a mapping"):
        connection.executemany(insert, [5])


def test_a_key_error_of_the_callers_function_is_no_missing_parameter(connection):
    connection.create_function("look", 1, lambda key: {}[key])
    with pytest.raises(KeyError, match="x"):
        connection.execute("SELECT look(:name)", {"name": "x"})
    connection.execute("CREATE TABLE t (a)")
    with pytest.raises(KeyError, match="x"):
        connection.executemany("INSERT INTO t SELECT look(:name)", [{"name": "x"}])


def test_an_error_of_the_callers_mapping_or_iterator_stays_what_it_is(connection):
    class Lazy(dict):
        def __missing__(self, key):
            message = f"not yet: {key}"
            raise KeyError(message)

    with pytest.raises(KeyError, match="not yet"):
        connection.execute("SELECT :a", Lazy())

    def rows():
        yield (1,)
        message = "mine"
        raise OverflowError(message)

    connection.execute("CREATE TABLE t (a)")
    with pytest.raises(OverflowError, match="mine") as raised:
        connection.executemany("INSERT INTO t VALUES (?)", rows())
    assert not isinstance(raised.value, thanosql.Error)


def test_none_for_parameters_is_none_given(calls):
    assert calls.execute("SELECT 1", None).fetchall() == [(1,)]
    assert len(calls.execute("LIST MODELS", None).fetchall()) == 1


@pytest.mark.parametrize("sql", [b"SELECT 1", None, 5])
@pytest.mark.parametrize("method", ["execute", "executescript"])
def test_a_statement_that_is_no_text(cursor, method, sql):
    with pytest.raises(thanosql.ProgrammingError, match="is a str, not"):
        getattr(cursor, method)(sql)


@pytest.mark.parametrize("method", ["execute", "executescript"])
@pytest.mark.parametrize("sql", ["SELECT '\ud800'", "LIST MODELS -- \ud800"])
def test_a_lone_surrogate_in_a_statement(cursor, method, sql):
    with pytest.raises(thanosql.DataError, match="surrogate"):
        getattr(cursor, method)(sql)


def test_text_with_a_nul_is_kept_as_a_value_and_refused_in_a_statement(cursor):
    assert cursor.execute("SELECT ?", ("a\0b",)).fetchone() == ("a\0b",)
    for sql in ("SELECT 'a\0b'", "PREDICT USING m AS SELECT 'a\0b' AS audio"):
        with pytest.raises(thanosql.ProgrammingError, match="bind text that has one"):
            cursor.execute(sql)


def test_text_in_the_database_that_is_not_utf_8(cursor):
    with pytest.raises(thanosql.OperationalError, match="AS BLOB"):
        cursor.execute("SELECT CAST(x'ff41' AS TEXT)").fetchall()
    cursor.execute("SELECT CAST(CAST(x'ff41' AS TEXT) AS BLOB)")
    assert cursor.fetchall() == [(b"\xffA",)]


def test_a_file_name_that_is_no_text(tmp_path):
    with pytest.raises(thanosql.DataError, match="Unicode"):
        thanosql.connect(os.fsencode(tmp_path) + b"/\xff.db")


def test_everything_says_that_the_connection_is_closed():
    connection = thanosql.connect(":memory:")
    cursor = connection.execute("SELECT 1")
    blob_table = connection.cursor()
    blob_table.execute("CREATE TABLE b (x)")
    blob_table.execute("INSERT INTO b VALUES (zeroblob(3))")
    blob = connection.blobopen("b", "x", 1)
    connection.close()
    for use in (
        connection.cursor,
        connection.commit,
        connection.rollback,
        connection.interrupt,
        connection.serialize,
        lambda: connection.in_transaction,
        lambda: connection.execute("SELECT 1"),
        lambda: connection.create_function("f", 0, lambda: 1),
        lambda: cursor.execute("SELECT 1"),
        lambda: cursor.execute("LIST MODELS"),
        lambda: cursor.executemany("INSERT INTO b VALUES (?)", [(1,)]),
        lambda: cursor.executescript("SELECT 1"),
        cursor.fetchone,
        cursor.fetchmany,
        cursor.fetchall,
        blob.read,
    ):
        with pytest.raises(thanosql.ProgrammingError, match="closed"):
            use()
    cursor.close()
    connection.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("check_same_thread", [True, False])
def test_a_forked_process_is_refused_and_harms_nothing(tmp_path, check_same_thread):
    path = tmp_path / "x.db"
    con = thanosql.connect(path, check_same_thread=check_same_thread)
    con.execute("CREATE TABLE t (a)")
    con.execute("INSERT INTO t VALUES (1)")
    cursor = con.execute("SELECT a FROM t")
    reader, writer = multiprocessing.get_context("fork").Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        said = []
        for use in (
            lambda: con.execute("SELECT 1"),
            lambda: cursor.execute("SELECT 1"),
            lambda: cursor.execute("LIST MODELS"),
            cursor.fetchall,
            con.commit,
            con.close,
        ):
            try:
                use()
                said.append("nothing")
            except thanosql.ProgrammingError as error:
                said.append(str(error))
        own = thanosql.connect(path)
        said.append(own.execute("SELECT count(*) FROM t").fetchone())
        own.close()
        writer.send(said)
        os._exit(0)
    os.waitpid(child, 0)
    *refused, counted = reader.recv()
    assert all("forked" in message and "connect anew" in message for message in refused)
    assert counted == (0,)
    con.commit()
    assert con.execute("SELECT a FROM t").fetchall() == [(1,)]
    con.close()


def test_a_file_that_is_not_sqlite(tmp_path):
    path = tmp_path / "x.db"
    path.write_bytes(b"RIFF\0\0\0\0WAVEfmt " * 100)
    con = thanosql.connect(path)
    for sql in (
        "SELECT * FROM t",
        "LIST MODELS",
        "PREDICT USING m AS SELECT audio FROM t",
    ):
        with pytest.raises(thanosql.DatabaseError, match="not a database"):
            con.execute(sql).fetchall()
    con.close()


def test_a_read_only_file_is_read_and_transcribed_but_not_built_in(calls):
    path = calls.execute("PRAGMA database_list").fetchone()[2]
    calls.close()
    con = thanosql.connect(f"file:{path}?mode=ro", uri=True)
    assert con.execute("SELECT count(*) FROM calls").fetchone() == (8,)
    predict = "PREDICT USING m AS SELECT id, audio FROM calls"
    assert len(con.execute(predict).fetchall()) == 8
    assert len(con.execute("LIST MODELS").fetchall()) == 1
    build = "BUILD MODEL n USING m OPTIONS (epochs=1) AS SELECT audio, text FROM calls"
    with pytest.raises(thanosql.OperationalError, match="read-only; open it"):
        con.execute(build).fetchall()
    con.close()


def test_a_locked_file_is_named_so(tmp_path):
    path = tmp_path / "x.db"
    holder = thanosql.connect(path)
    holder.execute("CREATE TABLE t (a)")
    holder.execute("BEGIN EXCLUSIVE")
    con = thanosql.connect(path, timeout=0.01)
    for sql in ("SELECT * FROM t", "LIST MODELS", "INSERT INTO t VALUES (1)"):
        with pytest.raises(thanosql.OperationalError, match="locked") as error:
            con.execute(sql).fetchall()
        assert error.value.sqlite_errorname == "SQLITE_BUSY"
    con.close()
    holder.close()


def test_a_full_database_loses_nothing_that_was_there(calls, base):
    pages = calls.execute("PRAGMA page_count").fetchone()[0]
    calls.execute(f"PRAGMA max_page_count = {pages + 2}").fetchall()
    with pytest.raises(thanosql.OperationalError, match="full") as error:
        calls.execute("IMPORT MODEL n FROM ?", (str(base),))
    assert error.value.sqlite_errorname == "SQLITE_FULL"
    assert [row[0] for row in calls.execute("LIST MODELS")] == ["m"]
    assert not calls.in_transaction
    predict = "PREDICT USING m AS SELECT id, audio FROM calls"
    assert len(calls.execute(predict).fetchall()) == 8
    assert calls.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


_FULL_DISK = """
import resource, signal, sys
import thanosql

con = thanosql.connect(sys.argv[1])
con.execute("CREATE TABLE t (a)")
con.execute("INSERT INTO t VALUES (1)")
con.commit()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    with con:
        con.execute("INSERT INTO t VALUES (zeroblob(5000000))")
except thanosql.OperationalError as error:
    print(error.sqlite_errorname, con.in_transaction)
print(con.execute("SELECT * FROM t").fetchall())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on a file's size")
def test_a_file_that_cannot_grow_keeps_what_was_committed(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, str(tmp_path / "x.db")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.splitlines() in (
        ["SQLITE_FULL False", "[(1,)]"],
        ["SQLITE_IOERR_WRITE False", "[(1,)]"],
    ), done.stderr
