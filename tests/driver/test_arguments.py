"""Arguments of calls beyond PEP 249: what cannot be used is one of its errors."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

import thanosql

anything = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**31, 2**63, 2**70, -(2**31) - 1, -(2**70), -1, 0, 1, 1000])
    | st.floats()
    | st.text()
    | st.sampled_from(["\ud800", "t\0", "", "main", "x" * 300])
    | st.binary(max_size=5)
    | st.just(memoryview(b"abcd")[::2])
    | st.builds(object)
    | st.lists(st.integers(), max_size=2)
)


@contextlib.contextmanager
def database():
    """Open a database for one example: a limit that one sets is not the next one's."""
    with contextlib.closing(thanosql.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.execute("INSERT INTO t VALUES (zeroblob(8))")
        connection.commit()
        yield connection


@pytest.fixture
def opened():
    with database() as connection:
        yield connection


def use(call):
    """Make a call; an error must be PEP 249's, or an index that there is none of."""
    with contextlib.suppress(thanosql.Error, IndexError):
        call()


def backup(con, **arguments):
    with contextlib.closing(thanosql.connect(":memory:")) as target:
        con.backup(target, **arguments)


CALLS = [
    lambda con, a, b: con.blobopen("t", "a", a).close(),
    lambda con, a, b: con.blobopen(a, b, 1).close(),
    lambda con, a, b: con.blobopen("t", "a", 1, name=a, readonly=b).close(),
    lambda con, a, b: con.create_function(a, b, len),
    lambda con, a, b: con.create_function("f", 1, a, deterministic=b),
    lambda con, a, b: con.create_aggregate(a, b, object),
    lambda con, a, b: con.create_window_function(a, b, object),
    lambda con, a, b: con.create_collation(a, b),
    lambda con, a, b: con.create_collation("c", a),
    lambda con, a, b: con.getlimit(a),
    lambda con, a, b: con.setlimit(a, -1),
    lambda con, a, b: con.setlimit(thanosql.SQLITE_LIMIT_VDBE_OP, a),
    lambda con, a, b: con.getconfig(a),
    lambda con, a, b: con.serialize(name=a),
    lambda con, a, b: con.load_extension(a, entrypoint=b),
    lambda con, a, b: con.set_progress_handler(a and len, b),
    lambda con, a, b: con.set_progress_handler(None, a),
    lambda con, a, b: con.backup(a),
    lambda con, a, b: backup(con, name=a),
    lambda con, a, b: backup(con, pages=a),
]


@pytest.mark.parametrize("number", range(len(CALLS)))
@given(anything, anything)
def test_any_argument_is_taken_or_refused_by_a_pep_249_error(number, a, b):
    with database() as opened:
        use(lambda: CALLS[number](opened, a, b))


@given(
    st.sampled_from(["read", "write", "seek", "get", "set", "slice", "set slice"]),
    anything,
    anything,
)
def test_any_argument_of_a_blob_is_taken_or_refused_so(how, a, b):
    with database() as opened, opened.blobopen("t", "a", 1) as blob:
        use(
            {
                "read": lambda: blob.read(a),
                "write": lambda: blob.write(a),
                "seek": lambda: blob.seek(a, b),
                "get": lambda: blob[a],
                "set": lambda: blob.__setitem__(a, b),
                "slice": lambda: blob[a:b],
                "set slice": lambda: blob.__setitem__(slice(0, 4), a),
            }[how]
        )
        assert len(blob) == 8


@given(timeout=anything, cached_statements=anything)
def test_any_argument_of_connect_is_taken_or_refused_so(timeout, cached_statements):
    use(lambda: thanosql.connect(":memory:", timeout=timeout).close())
    use(
        lambda: thanosql.connect(
            ":memory:", cached_statements=cached_statements
        ).close()
    )


@pytest.mark.parametrize("database", [5, None, 1.5, object(), "a\0b"])
def test_a_database_that_is_no_path(database):
    with pytest.raises(thanosql.ProgrammingError) as raised:
        thanosql.connect(database)
    assert isinstance(raised.value, TypeError | ValueError)


def test_an_integer_too_large_and_a_text_that_is_none_are_data_errors(opened):
    for call in (
        lambda: opened.blobopen("t", "a", 2**70),
        lambda: opened.create_function("f", 2**70, len),
        lambda: opened.getlimit(2**70),
    ):
        with pytest.raises(thanosql.DataError, match="too large") as raised:
            call()
        assert isinstance(raised.value, OverflowError)
    for call in (
        lambda: opened.blobopen("\ud800", "a", 1),
        lambda: opened.create_function("\ud800", 1, len),
        lambda: opened.create_collation("\ud800", None),
    ):
        with pytest.raises(thanosql.DataError, match="lone surrogate"):
            call()


def test_a_call_with_too_few_arguments_is_pythons_own_error(opened):
    with pytest.raises(TypeError) as raised:
        opened.blobopen()
    assert type(raised.value) is TypeError


def test_an_error_of_the_callers_function_is_not_translated(opened, tmp_path):
    def fail(*_):
        message = "mine"
        raise OverflowError(message)

    target = thanosql.connect(tmp_path / "copy.db")
    with pytest.raises(OverflowError, match="mine") as raised:
        opened.backup(target, progress=fail)
    assert type(raised.value) is OverflowError
    target.close()


def test_an_error_that_sqlite_gives_no_words_for_has_its_name(opened):
    with pytest.raises(thanosql.InterfaceError, match="SQLITE_MISUSE"):
        opened.create_function("x" * 300, 1, len)
    with pytest.raises(thanosql.OperationalError, match="'nowhere' is open here"):
        opened.serialize(name="nowhere")
