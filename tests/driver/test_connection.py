import re
import warnings

import apsw
import pytest

import thanosql


@pytest.fixture
def table(connection):
    connection.execute("CREATE TABLE t (a INTEGER, b TEXT)")
    return connection


def rows(connection):
    return connection.execute("SELECT a FROM t ORDER BY a").fetchall()


def test_a_write_begins_a_transaction_and_a_read_does_not(table):
    assert not table.in_transaction
    table.execute("SELECT * FROM t").fetchall()
    assert not table.in_transaction
    table.execute("INSERT INTO t VALUES (1, 'x')")
    assert table.in_transaction
    table.rollback()
    assert not table.in_transaction
    assert rows(table) == []


def test_ddl_begins_no_transaction(connection):
    connection.execute("CREATE TABLE t (a)")
    assert not connection.in_transaction


def test_with_before_an_insert_begins_a_transaction_and_before_a_select_does_not(table):
    table.execute("WITH x AS (SELECT 1 AS a) SELECT * FROM x").fetchall()
    assert not table.in_transaction
    table.execute("WITH x AS (SELECT 1 AS a) INSERT INTO t (a) SELECT a FROM x")
    assert table.in_transaction


def test_explaining_a_write_begins_no_transaction(table):
    table.execute("EXPLAIN QUERY PLAN INSERT INTO t VALUES (1, 'x')").fetchall()
    assert not table.in_transaction


def test_a_write_that_does_not_parse_begins_no_transaction(table):
    with pytest.raises(thanosql.OperationalError):
        table.execute("INSERT INTO nowhere VALUES (1)")
    assert not table.in_transaction


def test_isolation_level_none_leaves_each_write_to_itself(tmp_path):
    path = tmp_path / "x.db"
    con = thanosql.connect(path, isolation_level=None)
    con.execute("CREATE TABLE t (a)")
    con.execute("INSERT INTO t VALUES (1)")
    assert not con.in_transaction
    con.close()


def test_an_audio_root_that_is_no_directory_is_refused_and_no_database_made(tmp_path):
    for root in (tmp_path / "clips", "", __file__):
        with pytest.raises(
            thanosql.ProgrammingError, match="audio_root is no directory"
        ):
            thanosql.connect(tmp_path / "calls.db", audio_root=root)
    assert list(tmp_path.iterdir()) == []


def test_isolation_level_is_checked():
    with pytest.raises(thanosql.ProgrammingError, match="isolation_level is"):
        thanosql.connect(":memory:", isolation_level="SERIALIZABLE")


def test_a_transaction_is_always_open_with_autocommit_false():
    con = thanosql.connect(":memory:", autocommit=False)
    assert con.in_transaction
    con.execute("CREATE TABLE t (a)")
    con.rollback()
    assert con.in_transaction
    assert con.execute("SELECT * FROM sqlite_schema").fetchall() == []
    con.close()


def test_autocommit_true_leaves_transactions_to_sqlite():
    con = thanosql.connect(":memory:", autocommit=True)
    con.execute("CREATE TABLE t (a)")
    con.execute("INSERT INTO t VALUES (1)")
    assert not con.in_transaction
    con.execute("BEGIN")
    con.execute("INSERT INTO t VALUES (2)")
    con.rollback()
    assert con.in_transaction
    con.execute("ROLLBACK")
    assert rows(con) == [(1,)]
    con.close()


def test_setting_autocommit_ends_or_begins_a_transaction(table):
    table.execute("INSERT INTO t VALUES (1, 'x')")
    table.autocommit = True
    assert not table.in_transaction
    table.autocommit = False
    assert table.in_transaction
    with pytest.raises(thanosql.ProgrammingError, match="autocommit is"):
        table.autocommit = "yes"


def test_the_block_of_a_connection_commits_or_rolls_back_and_leaves_it_open(table):
    with table:
        table.execute("INSERT INTO t VALUES (1, 'x')")
    assert rows(table) == [(1,)]

    def fail_half_way():
        with table:
            table.execute("INSERT INTO t VALUES (2, 'x')")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert rows(table) == [(1,)]


def test_a_block_whose_commit_fails_is_rolled_back(connection):
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("CREATE TABLE parent (id INTEGER PRIMARY KEY)")
    connection.execute(
        "CREATE TABLE child (p REFERENCES parent DEFERRABLE INITIALLY DEFERRED)"
    )

    def leave_an_orphan():
        with connection:
            connection.execute("INSERT INTO child VALUES (5)")

    with pytest.raises(thanosql.IntegrityError, match="FOREIGN KEY"):
        leave_an_orphan()
    assert not connection.in_transaction


def test_committing_does_not_end_an_open_query(table):
    table.executemany("INSERT INTO t VALUES (?, ?)", [(i, "x") for i in range(5)])
    table.commit()
    cursor = table.execute("SELECT a FROM t ORDER BY a")
    assert cursor.fetchone() == (0,)
    table.execute("UPDATE t SET b = 'y' WHERE a = 0")
    table.commit()
    assert cursor.fetchall() == [(1,), (2,), (3,), (4,)]


def test_closing_rolls_back_and_may_be_repeated(tmp_path):
    path = tmp_path / "x.db"
    con = thanosql.connect(path)
    con.execute("CREATE TABLE t (a)")
    con.execute("INSERT INTO t VALUES (1)")
    con.close()
    con.close()
    for use in (con.cursor, con.commit, con.rollback, lambda: con.execute("SELECT 1")):
        with pytest.raises(thanosql.ProgrammingError, match="closed"):
            use()
    with thanosql.connect(path) as con:
        assert rows(con) == []
    con.close()


def test_a_connection_that_cannot_be_closed_stays_open(connection):
    connection.apsw.create_scalar_function("close", connection.close)
    with pytest.raises(thanosql.ProgrammingError, match="cannot close"):
        connection.execute("SELECT close()")
    assert connection.execute("SELECT 1").fetchall() == [(1,)]


def test_a_busy_database_is_an_operational_error_after_the_timeout(tmp_path):
    path = tmp_path / "x.db"
    one = thanosql.connect(path)
    one.execute("CREATE TABLE t (a)")
    one.execute("INSERT INTO t VALUES (1)")
    two = thanosql.connect(path, timeout=0.05)
    with pytest.raises(thanosql.OperationalError, match="locked"):
        two.execute("INSERT INTO t VALUES (2)")
    one.close()
    two.close()


def test_a_file_that_is_not_a_database_is_a_database_error(tmp_path):
    path = tmp_path / "x.db"
    path.write_text("this is no database at all, only a line of text" * 20)
    con = thanosql.connect(path)
    with pytest.raises(thanosql.DatabaseError, match="not a database"):
        con.execute("SELECT * FROM t")
    con.close()


def test_a_database_that_cannot_be_opened_is_an_operational_error(tmp_path):
    with pytest.raises(thanosql.OperationalError, match="unable to open"):
        thanosql.connect(tmp_path / "no" / "such" / "folder" / "x.db")


def test_a_uri_opens_read_only(tmp_path):
    path = tmp_path / "x.db"
    con = thanosql.connect(path)
    con.execute("CREATE TABLE t (a)")
    con.close()
    con = thanosql.connect(f"file:{path}?mode=ro", uri=True)
    assert rows(con) == []
    with pytest.raises(thanosql.OperationalError, match="readonly"):
        con.execute("INSERT INTO t VALUES (1)")
    con.close()


@pytest.mark.parametrize(
    "uri",
    [
        "file:q?mode=memory&cache=shared",
        "file:q?cache=shared&mode=memory",
        "file:q?cache=private&cache=shared&mode=memory#part",
        "file:q?m%6fde=mem%6Fry&cache=sh%61red",
        "file::memory:?cache=shared",
        "file:%3Amemory:?cache=shared",
        b"file:q?mode=memory&cache=shared",
    ],
)
def test_a_shared_cache_in_memory_is_refused_with_what_to_open_instead(uri):
    with pytest.raises(thanosql.NotSupportedError, match=r"'file:/\w+\?vfs=memdb'"):
        thanosql.connect(uri, uri=True)


def test_what_the_refusal_names_is_one_database_of_two_connections():
    with pytest.raises(thanosql.NotSupportedError) as refused:
        thanosql.connect("file:q?mode=memory&cache=shared", uri=True)
    named = re.search(r"'(file:/[^']+)'", str(refused.value))[1]
    assert named == "file:/q?vfs=memdb"
    one = thanosql.connect(named, uri=True, autocommit=True)
    two = thanosql.connect(named, uri=True)
    one.execute("CREATE TABLE t (a)")
    assert two.execute("SELECT * FROM t").fetchall() == []
    one.close()
    two.close()


@pytest.mark.parametrize(
    "uri",
    [
        "file:q?mode=memory",
        "file:q?mode=memory&cache=private",
        "file:q?mode=memory&cache=shared&cache=private",
        "file:{path}?cache=shared",
        "file:{path}",
        ":memory:",
    ],
)
def test_a_uri_that_shares_nothing_in_memory_is_opened(tmp_path, uri):
    thanosql.connect(uri.format(path=tmp_path / "x.db"), uri=True).close()


def test_a_file_may_be_called_like_a_uri(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    thanosql.connect("file:q?mode=memory&cache=shared").close()


@pytest.mark.parametrize("timeout", [1e300, float("inf"), 1e9, 0, -1])
def test_any_number_of_seconds_is_a_timeout(timeout):
    thanosql.connect(":memory:", timeout=timeout).close()


@pytest.mark.parametrize("timeout", [float("nan"), "5", None])
def test_a_timeout_that_is_no_number_is_refused(timeout):
    with pytest.raises(thanosql.ProgrammingError, match="number of seconds"):
        thanosql.connect(":memory:", timeout=timeout)


def test_the_exceptions_are_attributes_of_the_connection(connection):
    for name in [
        "Warning",
        "Error",
        "InterfaceError",
        "DatabaseError",
        "DataError",
        "OperationalError",
        "IntegrityError",
        "InternalError",
        "ProgrammingError",
        "NotSupportedError",
    ]:
        assert getattr(connection, name) is getattr(thanosql, name)


def test_plain_use_warns_of_nothing(connection):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        connection.execute("SELECT 1").fetchall()


def test_a_connection_that_apsw_opened_is_shared(tmp_path):
    opened = apsw.Connection(str(tmp_path / "a.db"))
    connection = thanosql.connect(opened, autocommit=True)
    connection.execute("CREATE TABLE t (a)")
    assert connection.apsw is opened
    assert opened.execute("SELECT count(*) FROM t").get == 0
    assert connection.execute("LIST MODELS").fetchall() == []
    connection.close()
    with pytest.raises(apsw.ConnectionClosedError):
        opened.execute("SELECT 1")
