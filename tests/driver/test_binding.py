"""Values that are bound or returned: each stored as what it is, or an error."""

import array
import collections
import ctypes
import datetime
import decimal
import enum
import pathlib
import subprocess
import sys
import types
import uuid

import numpy
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

import thanosql


class Colour(enum.Enum):
    RED = 1


class Size(enum.IntEnum):
    SMALL = 1


class Name(enum.StrEnum):
    A = "a"


STORED = [
    (numpy.int64(7), 7),
    (numpy.int8(-7), -7),
    (numpy.uint64(2**63 - 1), 2**63 - 1),
    (numpy.bool_(True), 1),
    (numpy.float16(0.5), 0.5),
    (numpy.float32(0.1), float(numpy.float32(0.1))),
    (numpy.float64(0.1), 0.1),
    (numpy.str_("é"), "é"),
    (numpy.bytes_(b"\x00\xff"), b"\x00\xff"),
    (numpy.array([3, 4]).max(), 4),
    (pandas.Series([3, 4]).sum(), 7),
    (pandas.Timestamp("2026-11-23 12:30:00.123456"), "2026-11-23 12:30:00.123456"),
    (pandas.Timestamp(1, unit="ns"), "1970-01-01 00:00:00.000000001"),
    (Size.SMALL, 1),
    (Name.A, "a"),
    (bytearray(b"ab"), b"ab"),
    (memoryview(b"ab"), b"ab"),
    (memoryview(array.array("i", [1])), array.array("i", [1]).tobytes()),
    (True, 1),
]
REFUSED = [
    numpy.array([1, 2]),
    numpy.array(7),
    numpy.ma.masked,
    numpy.datetime64("2026-11-23"),
    numpy.datetime64("2026-11-23T12:30:00.123456789"),
    numpy.timedelta64(1, "s"),
    numpy.longdouble(1),
    numpy.complex128(1),
    numpy.void(b"ab"),
    pandas.NaT,
    pandas.NA,
    pandas.Series([1]),
    pandas.Timedelta(1),
    array.array("i", [1]),
    (ctypes.c_int * 2)(),
    decimal.Decimal(1),
    datetime.timedelta(1),
    uuid.UUID(int=1),
    pathlib.PurePath("a"),
    Colour.RED,
    [1],
    {"a": 1},
    object(),
]


def named(value):
    shown = value.tobytes() if isinstance(value, memoryview) else value  # no address
    return f"{type(value).__qualname__}-{shown!r:.20}"


def binders(connection, value):
    """Yield calls that bind the value to an INSERT into t, each in another way."""
    connection.execute("CREATE TABLE t (a)")
    insert = "INSERT INTO t VALUES (?)"
    by_name = "INSERT INTO t VALUES (:a)"
    yield lambda: connection.execute(insert, (value,))
    yield lambda: connection.execute(insert, [value])
    yield lambda: connection.execute(by_name, {"a": value})
    yield lambda: connection.executemany(insert, [(value,)])
    yield lambda: connection.executemany(insert, ([value],))
    yield lambda: connection.executemany(insert, iter([(value,)]))
    yield lambda: connection.executemany(by_name, [{"a": value}])


@pytest.mark.parametrize(("value", "expected"), STORED, ids=named)
def test_a_value_is_stored_as_what_it_is(connection, value, expected):
    bound = 0
    for bind in binders(connection, value):
        bind()
        bound += 1
    rows = connection.execute("SELECT a FROM t").fetchall()
    assert rows == [(expected,)] * bound
    assert {type(row[0]) for row in rows} == {type(expected)}


@pytest.mark.parametrize("value", REFUSED, ids=named)
def test_a_value_of_another_type_is_an_error_that_names_it(connection, value):
    name = type(value).__qualname__
    for bind in binders(connection, value):
        with pytest.raises(
            thanosql.ProgrammingError,
            match=f"parameter (1|:a) is of type {name}, which",
        ):
            bind()
    assert connection.execute("SELECT a FROM t").fetchall() == []


def test_an_update_by_a_number_of_numpy_finds_its_row(connection):
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name)")
    connection.execute("INSERT INTO t VALUES (7, 'old')")
    update = "UPDATE t SET name = 'new' WHERE id = ?"
    assert connection.execute(update, (numpy.int64(7),)).rowcount == 1
    assert connection.executemany(update, [(numpy.int32(7),)] * 2).rowcount == 2
    row = numpy.array([7, 8])  # each element is a number of numpy
    assert connection.execute("SELECT ?, ?", row).fetchone() == (7, 8)


def test_a_row_of_numpys_among_a_thousand_plain_ones_is_bound_as_numbers(connection):
    connection.execute("CREATE TABLE t (a, b)")
    rows = [(i, str(i)) for i in range(1000)]
    rows[500] = (numpy.int64(500), "500")
    for given_as in (list, tuple, iter):
        connection.executemany("INSERT INTO t VALUES (?, ?)", given_as(rows))
    types = connection.execute("SELECT DISTINCT typeof(a), typeof(b) FROM t")
    assert types.fetchall() == [("integer", "text")]


@given(
    st.integers(-(2**63), 2**63 - 1).map(numpy.int64)
    | st.integers(0, 2**64 - 1).map(numpy.uint64)
    | st.floats(width=32, allow_nan=False).map(numpy.float32)
    | st.floats(width=16, allow_nan=False).map(numpy.float16)
    | st.booleans().map(numpy.bool_)
)
def test_any_number_of_numpy_comes_back_equal_or_is_out_of_range(value):
    connection = thanosql.connect(":memory:")
    if value.item() > 2**63 - 1 and value.dtype.kind == "u":
        with pytest.raises(thanosql.DataError, match="64 bits"):
            connection.execute("SELECT ?", (value,))
    else:
        assert connection.execute("SELECT ?", (value,)).fetchone() == (value.item(),)
    connection.close()


def test_a_registered_adapter_goes_first_and_its_result_is_adapted_too(connection):
    thanosql.register_adapter(numpy.int64, lambda value: f"int {value}")
    thanosql.register_adapter(array.array, array.array.tobytes)
    thanosql.register_adapter(Colour, lambda colour: numpy.int32(colour.value))
    values = (numpy.int64(7), array.array("b", [1]), Colour.RED)
    assert connection.execute("SELECT ?, ?, ?", values).fetchone() == (
        "int 7",
        b"\1",
        1,
    )


def test_a_mapping_may_hold_what_the_statement_does_not_name(connection):
    given_values = {"a": numpy.int64(1), "frame": pandas.DataFrame()}
    assert connection.execute("SELECT :a", given_values).fetchone() == (1,)
    with pytest.raises(thanosql.ProgrammingError, match="parameter :b"):
        connection.execute("SELECT :b", given_values)
    with pytest.raises(thanosql.ProgrammingError, match="parameter :frame is of type"):
        connection.execute("SELECT :frame", given_values)


def test_numbers_of_numpy_in_a_speech_statement(calls):
    sql = "PREDICT USING m OPTIONS (batch_size=?) AS SELECT id, audio FROM calls "
    rows = calls.execute(
        f"{sql} WHERE id = ?", (numpy.int64(4), numpy.int64(7))
    ).fetchall()
    assert [row[0] for row in rows] == [7]
    with pytest.raises(thanosql.ProgrammingError, match="parameter 2 is of type array"):
        calls.execute(f"{sql} WHERE id = ?", (4, array.array("i", [7])))


_WITHOUT_NUMPY = """
import array, sys
import thanosql

assert "numpy" not in sys.modules
con = thanosql.connect(":memory:")
con.execute("CREATE TABLE t (a)")
for execute, parameters in (
    (con.execute, (array.array("i", [1]),)),
    (con.executemany, [(array.array("i", [1]),)]),
):
    try:
        execute("INSERT INTO t VALUES (?)", parameters)
    except thanosql.ProgrammingError as error:
        print(error)
"""


def test_a_buffer_is_refused_where_numpy_is_not_loaded():
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_NUMPY],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("parameter 1 is of type array, which") == 2


# What a function in SQL returns


class Aggregate:
    """An aggregate and window function that gives the value it is to give."""

    given = None

    def step(self, _value):
        return object()  # nobody looks at it

    inverse = step

    def finalize(self):
        return self.given

    value = finalize


def returning(connection, value):
    """Yield queries that give a function's result."""
    connection.create_function("f", 0, lambda: value)
    yield "SELECT f()"
    mine = type("Mine", (Aggregate,), {"given": value})
    connection.create_aggregate("g", 1, mine)
    yield "SELECT g(1)"
    connection.create_window_function("h", 1, mine)
    yield "SELECT h(1) OVER () FROM (SELECT 1)"


@pytest.mark.parametrize(("value", "expected"), STORED, ids=named)
def test_a_result_of_a_function_is_what_it_is(connection, value, expected):
    for query in returning(connection, value):
        (row,) = connection.execute(query).fetchall()
        assert row == (expected,)
        assert type(row[0]) is type(expected)


@pytest.mark.parametrize("value", REFUSED, ids=named)
def test_a_result_of_another_type_is_an_error_that_names_it(connection, value):
    name = type(value).__qualname__
    for query in returning(connection, value):
        with pytest.raises(thanosql.ProgrammingError, match=f"of type {name}, which"):
            connection.execute(query).fetchall()


def test_a_result_that_sqlite_cannot_hold_is_a_data_error(connection):
    for value, error in ((2**63, "64 bits"), ("\ud800", "lone surrogate")):
        for query in returning(connection, value):
            with pytest.raises(thanosql.DataError, match=error):
                connection.execute(query).fetchall()


# Errors of the caller's own code


def test_errors_of_functions_written_in_c_come_through(connection):
    connection.create_function("look", 1, {}.__getitem__)
    with pytest.raises(KeyError) as raised:
        connection.execute("SELECT look(:x)", {"x": "x"})
    assert type(raised.value) is KeyError
    connection.execute("CREATE TABLE t (a)")
    rows = map({}.__getitem__, ["a"])
    with pytest.raises(KeyError) as raised:
        connection.executemany("INSERT INTO t VALUES (:a)", rows)
    assert type(raised.value) is KeyError


@pytest.mark.parametrize(
    "error", [KeyError("a"), OverflowError("a"), TypeError("a"), ValueError("a")]
)
def test_errors_of_the_callers_code_come_through_as_they_are(connection, error):
    def fail(*_):
        raise error

    class Sequence:
        def __len__(self):
            return 1

        __getitem__ = fail

    class Mine(dict):
        __getitem__ = fail

    class Iterable:
        __iter__ = fail

    def rows():
        yield (1,)
        raise error

    connection.create_function("fail", 0, fail)
    connection.execute("CREATE TABLE t (a)")
    insert = "INSERT INTO t VALUES (?)"
    calls = [
        lambda: connection.execute("SELECT fail()"),
        lambda: connection.execute("SELECT 1 UNION ALL SELECT fail()").fetchall(),
        lambda: connection.execute(insert, Sequence()),
        lambda: connection.executemany(insert, rows()),
        lambda: connection.executemany(insert, Iterable()),
        lambda: connection.executemany("INSERT INTO t SELECT fail() + ?", [(1,)]),
        lambda: connection.executescript("SELECT 1; SELECT fail();"),
    ]
    if not isinstance(error, KeyError):  # of a mapping it says that a name is missing
        calls.append(lambda: connection.execute("SELECT :a", Mine()))
    for call in calls:
        with pytest.raises(type(error)) as raised:
            call()
        assert raised.value is error


def test_a_mapping_that_is_no_dict_and_lacks_a_name(connection):
    for mapping in (
        collections.ChainMap(),
        collections.OrderedDict(),
        types.MappingProxyType({}),
    ):
        with pytest.raises(thanosql.ProgrammingError, match="for the parameter :a"):
            connection.execute("SELECT :a", mapping)
    assert connection.execute(
        "SELECT :a", collections.defaultdict(lambda: 5)
    ).fetchone() == (5,)


@pytest.mark.parametrize("value", [memoryview(b"abcd")[::2], memoryview(b"a")])
def test_a_buffer_that_cannot_be_read_is_a_programming_error(connection, value):
    if value.contiguous:
        value.release()
    with pytest.raises(thanosql.ProgrammingError, match=r"contiguous|released"):
        connection.execute("SELECT ?", (value,))


def test_executemany_of_what_is_no_iterable(connection):
    connection.execute("CREATE TABLE t (a)")
    with pytest.raises(thanosql.ProgrammingError, match="iterable of parameters") as e:
        connection.executemany("INSERT INTO t VALUES (?)", 5)
    assert isinstance(e.value, TypeError)
