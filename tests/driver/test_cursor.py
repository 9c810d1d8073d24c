import gc

import apsw
import pytest
from counting import calls
from hypothesis import given
from hypothesis import strategies as st

import thanosql


def test_description_names_the_columns_and_their_declared_types(cursor):
    cursor.execute("CREATE TABLE t (a INTEGER, b VARCHAR(10))")
    assert cursor.description is None
    cursor.execute("SELECT a, b AS c, 1 FROM t")
    assert cursor.description == (
        ("a", None, None, None, None, None, None),
        ("c", None, None, None, None, None, None),
        ("1", None, None, None, None, None, None),
    )
    assert cursor.declared_types == ("INTEGER", "VARCHAR(10)", None)
    assert cursor.fetchall() == []
    assert len(cursor.description) == 3
    cursor.close()
    assert cursor.description is None


def test_rows_are_fetched_one_some_all_or_by_iteration(cursor):
    sql = "SELECT value FROM json_each('[1,2,3,4,5]')"
    cursor.execute(sql)
    assert cursor.fetchone() == (1,)
    assert cursor.fetchmany() == [(2,)]
    assert cursor.fetchmany(2) == [(3,), (4,)]
    assert cursor.fetchall() == [(5,)]
    assert cursor.fetchone() is None
    assert cursor.fetchmany(3) == []
    assert [row[0] for row in cursor.execute(sql)] == [1, 2, 3, 4, 5]


def test_arraysize_is_the_default_of_fetchmany(cursor):
    cursor.arraysize = 3
    cursor.execute("SELECT value FROM json_each('[1,2,3,4]')")
    assert cursor.fetchmany() == [(1,), (2,), (3,)]


@pytest.mark.parametrize("fetch", ["fetchone", "fetchmany", "fetchall"])
def test_fetching_without_a_result_is_an_error(cursor, fetch):
    with pytest.raises(thanosql.ProgrammingError, match="no results to fetch"):
        getattr(cursor, fetch)()
    cursor.execute("CREATE TABLE t (a)")
    with pytest.raises(thanosql.ProgrammingError, match="no results to fetch"):
        getattr(cursor, fetch)()


def test_parameters_bind_by_position_number_and_name(cursor):
    assert cursor.execute("SELECT ?, ?", (1, "x")).fetchone() == (1, "x")
    assert cursor.execute("SELECT ?2, ?1", (1, 2)).fetchone() == (2, 1)
    named = {"a": 1, "b": b"x"}
    assert cursor.execute("SELECT :a, @b, $a", named).fetchone() == (1, b"x", 1)


@pytest.mark.parametrize(
    ("sql", "parameters", "message"),
    [
        ("SELECT ?", (), "uses 1 and there are 0"),
        ("SELECT ?", (1, 2), "uses 1 and there are 2"),
        ("SELECT :a", {"b": 1}, "no value is given for the parameter :a"),
        ("SELECT ?", (object(),), "of type object, which SQLite does not store"),
        ("SELECT ?", 5, "a sequence or a mapping"),
    ],
)
def test_wrong_parameters_are_programming_errors(cursor, sql, parameters, message):
    with pytest.raises(thanosql.ProgrammingError, match=message):
        cursor.execute(sql, parameters)


def test_an_error_of_the_callers_own_function_stays_what_it_is(connection):
    def fail(value):
        raise KeyError(value)

    connection.apsw.create_scalar_function("fail", fail)
    with pytest.raises(KeyError, match="x"):
        connection.execute("SELECT fail('x')")


def test_execute_takes_one_statement_and_runs_none_of_two(cursor):
    cursor.execute("CREATE TABLE t (a)")
    with pytest.raises(thanosql.ProgrammingError, match="executescript"):
        cursor.execute("INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)")
    assert cursor.execute("SELECT * FROM t").fetchall() == []


@pytest.mark.parametrize(
    "sql",
    ["SELECT 1;", " ;; SELECT 1 ; ; ", "SELECT 1; -- over", "/* a */ SELECT 1; /* b"],
)
def test_blanks_comments_and_semicolons_around_a_statement_are_no_statement(
    cursor, sql
):
    assert cursor.execute(sql).fetchall() == [(1,)]


def test_executescript_splits_at_no_semicolon_inside_a_statement(connection):
    connection.executescript(
        """
        CREATE TABLE t (a); -- first; of all
        CREATE TABLE log (a);
        INSERT INTO t VALUES ('x;y'); /* ; */
        CREATE TRIGGER r AFTER INSERT ON t BEGIN
          INSERT INTO log VALUES (new.a || ';');
          INSERT INTO log SELECT CASE WHEN 1 THEN 2 END;
        END;
        INSERT INTO t VALUES ('predict; list models')
        """
    )
    assert connection.execute("SELECT a FROM t").fetchall() == [
        ("x;y",),
        ("predict; list models",),
    ]
    assert connection.execute("SELECT a FROM log").fetchall() == [
        ("predict; list models;",),
        (2,),
    ]
    assert not connection.in_transaction


def test_executescript_commits_what_a_write_began(connection):
    connection.execute("CREATE TABLE t (a)")
    connection.execute("INSERT INTO t VALUES (1)")
    connection.executescript("SELECT 1")
    assert not connection.in_transaction
    connection.rollback()
    assert connection.execute("SELECT * FROM t").fetchall() == [(1,)]


def test_executemany_runs_once_for_each_row_and_counts_them(connection):
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE t (a, b)")
    cursor.executemany("INSERT INTO t VALUES (?, ?)", ((i, str(i)) for i in range(10)))
    assert cursor.rowcount == 10
    assert connection.in_transaction
    with pytest.raises(thanosql.ProgrammingError, match="executemany takes"):
        cursor.executemany("SELECT ?", [(1,)])


def test_rowcount_and_lastrowid_follow_writes(cursor):
    assert cursor.rowcount == -1
    cursor.execute("CREATE TABLE t (a)")
    cursor.execute("INSERT INTO t VALUES (1), (2)")
    assert (cursor.rowcount, cursor.lastrowid) == (2, 2)
    cursor.execute("UPDATE t SET a = 3")
    assert cursor.rowcount == 2
    cursor.execute("SELECT * FROM t")
    assert cursor.rowcount == -1
    assert cursor.fetchall() == [(3,), (3,)]
    cursor.execute("DELETE FROM t WHERE rowid = 1 RETURNING a")
    assert cursor.fetchall() == [(3,)]
    assert cursor.rowcount == 1


def test_a_closed_cursor_says_so_and_may_be_closed_again(cursor):
    cursor.execute("SELECT 1")
    cursor.close()
    cursor.close()
    for use in (cursor.fetchone, cursor.fetchall, lambda: cursor.execute("SELECT 1")):
        with pytest.raises(thanosql.ProgrammingError, match="the cursor is closed"):
            use()


def test_a_dropped_cursor_is_freed_without_the_garbage_collector(connection):
    gc.collect()
    gc.disable()
    try:
        before = (
            len(connection.apsw.cursors())
            if hasattr(connection.apsw, "cursors")
            else None
        )
        connection.execute("SELECT 1").fetchone()
        assert not any(
            type(o) is thanosql.Cursor and o.connection is connection
            for o in gc.get_objects()
        )
    finally:
        gc.enable()
    assert before is None or before == 0


ordinary = st.recursive(
    st.sampled_from(
        ["1", "NULL", "'PREDICT USING m'", "'it''s; LIST MODELS'", "x'41'", "2.5e1"]
    ),
    lambda inner: st.tuples(inner, st.sampled_from(["||", "=", "IS", ", "]), inner).map(
        " ".join
    ),
    max_leaves=6,
)
alias = st.sampled_from(
    ["predict", '"BUILD MODEL"', "list", "[evaluate using]", "`drop model`", "models"]
)
comment = st.sampled_from(["", "-- BUILD MODEL x\n", "/* PREDICT USING m */", " ; "])


@given(comment, ordinary, alias, comment)
def test_speech_words_elsewhere_stay_plain_sql(before, expression, name, after):
    sql = f"{before} SELECT {expression} AS {name} {after}"
    plain = apsw.Connection(":memory:").execute(sql)
    columns, rows = plain.get_description(), plain.fetchall()
    connection = thanosql.connect(":memory:")
    cursor = connection.execute(sql)
    names = [column[0] for column in cursor.description]
    assert [*zip(names, cursor.declared_types, strict=True)] == [*columns]
    assert cursor.fetchall() == rows
    connection.close()


def test_executemany_runs_every_row_of_a_statement_that_returns_some(connection):
    connection.execute("CREATE TABLE t (a)")
    cursor = connection.executemany(
        "INSERT INTO t VALUES (?) RETURNING a", [(1,), (2,), (3,)]
    )
    assert cursor.rowcount == 3
    connection.commit()
    assert connection.execute("SELECT count(*) FROM t").fetchone() == (3,)


def test_the_callers_own_error_is_not_its_own_cause(connection):
    connection.apsw.create_scalar_function("fail", lambda value: {}[value])
    with pytest.raises(KeyError) as error:
        connection.execute("SELECT fail('x')")
    assert error.value.__cause__ is None


@pytest.mark.parametrize("method", ["execute", "executescript"])
def test_a_nul_in_the_text_is_a_programming_error(cursor, method):
    with pytest.raises(thanosql.ProgrammingError, match="NUL character"):
        getattr(cursor, method)("SELECT 1;\0SELECT 2;")


def test_a_script_is_not_asked_about_the_semicolons_in_its_strings(connection):
    text = "a { b: c; }\n" * 1_000
    with calls() as counts:
        connection.executescript(
            f"CREATE TABLE t (a); INSERT INTO t VALUES ('{text}');"
        )
    # SQLite reads the statement anew each time it is asked whether it is complete.
    assert counts["apsw.complete"] == 2
    assert connection.execute("SELECT a FROM t").fetchone() == (text,)


@pytest.mark.parametrize(
    "quoted", ["'a;''b;'", '"a;"', "`a;`", "[a;]", "/* a; */ 1", "-- a;\n 1"]
)
def test_a_script_is_not_split_inside_any_kind_of_quotes(connection, quoted):
    connection.execute('CREATE TABLE t ("a;")')
    connection.executescript(f"CREATE TABLE u AS SELECT {quoted} FROM t; SELECT 1")
    assert connection.execute("SELECT count(*) FROM u").fetchone() == (0,)


def test_executemany_survives_that_its_table_was_made_anew(connection):
    for _ in range(20):
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT UNIQUE)")
        cursor = connection.executemany(
            "INSERT INTO t (name) VALUES (?)", [("a",), ("b",)]
        )
        assert cursor.rowcount == 2
        connection.commit()
        connection.execute("DROP TABLE t")


def test_an_error_at_a_later_row_of_returning_is_pep_249s(connection):
    connection.execute("CREATE TABLE t (a)")
    with pytest.raises(thanosql.OperationalError, match="integer overflow"):
        connection.execute(
            "INSERT INTO t VALUES (1), (-9223372036854775808) RETURNING abs(a)"
        )
    with pytest.raises(thanosql.OperationalError, match="AS BLOB"):
        connection.execute("INSERT INTO t VALUES (1) RETURNING CAST(x'ff' AS TEXT)")


def test_an_error_at_a_later_row_of_a_script_is_pep_249s(connection):
    with pytest.raises(thanosql.OperationalError, match="integer overflow"):
        connection.executescript(
            "SELECT abs(column1) FROM (VALUES (1), (-9223372036854775808));"
        )
