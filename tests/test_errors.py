import pickle
import sqlite3

import apsw
import pytest

import thanosql
from thanosql import errors


def subclasses(cls):
    for each in cls.__subclasses__():
        yield each
        yield from subclasses(each)


@pytest.mark.parametrize("cls", sorted(subclasses(apsw.Error), key=str), ids=str)
def test_every_apsw_error_has_a_pep_249_class(cls):
    assert cls in errors._PEP_249
    assert isinstance(errors.from_apsw(cls("the reason")), thanosql.Error)


@pytest.mark.parametrize(
    "name",
    [
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
    ],
)
def test_each_class_derives_from_the_one_of_sqlite3(name):
    assert issubclass(getattr(thanosql, name), getattr(sqlite3, name))


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELEC 1", thanosql.OperationalError),
        ("SELECT * FROM nowhere", thanosql.OperationalError),
        ("INSERT INTO t VALUES (1)", thanosql.IntegrityError),
        ("INSERT INTO t VALUES (zeroblob(2000000000))", thanosql.DataError),
    ],
)
def test_what_sqlite3_would_raise_is_raised(connection, sql, expected):
    connection.execute("CREATE TABLE t (a UNIQUE)")
    connection.execute("INSERT INTO t VALUES (1)")
    standard = sqlite3.connect(":memory:")
    standard.execute("CREATE TABLE t (a UNIQUE)")
    standard.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(sqlite3.Error) as theirs:
        standard.execute(sql)
    with pytest.raises(expected) as ours:
        connection.execute(sql)
    assert isinstance(ours.value, type(theirs.value))
    assert str(ours.value) == str(theirs.value)
    assert ours.value.sqlite_errorname == theirs.value.sqlite_errorname
    standard.close()


def test_a_syntax_error_points_at_the_place():
    error = thanosql.StatementSyntaxError("expected a name", "BUILD\n\tMODEL ,", 13)
    assert (error.line, error.column, error.offset) == (2, 8, 13)
    assert str(error) == "expected a name (line 2, column 8)\n  \tMODEL ,\n  \t      ^"


def test_the_nearest_name_is_offered_whatever_its_case():
    assert errors.nearest("DIGIT", ["digits", "calls"]) == "; did you mean 'digits'?"
    assert errors.nearest("zebra", ["digits", "calls"]) == ""


def test_errors_survive_pickling():
    error = thanosql.StatementSyntaxError("expected a name", "BUILD ,", 6)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.offset) == (str(error), 6)
