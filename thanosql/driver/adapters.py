"""Values between Python and SQLite: PEP 249's types, adapters and converters.

An adapter turns a Python value into one that SQLite stores. A converter turns a stored
value into a Python one; the column's declared type or its name chooses the converter.
Both are registered for the whole process, as in `sqlite3`, and apart from its own.
"""

from __future__ import annotations

import functools
import itertools
import sqlite3
import sys
import time
from collections.abc import Mapping
from datetime import date, datetime
from datetime import time as time_of_day

import apsw

from thanosql import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from thanosql.driver.rows import Columns
    from thanosql.statements.nodes import Parameters

    Converter = Callable[[bytes], Any]

PARSE_DECLTYPES = sqlite3.PARSE_DECLTYPES
"""For `detect_types`: convert by the declared type's first word, as DATE."""
PARSE_COLNAMES = sqlite3.PARSE_COLNAMES
"""For `detect_types`: convert by a column name such as ``"day [date]"``."""

Date = date
Time = time_of_day
Timestamp = datetime
Binary = memoryview


def DateFromTicks(ticks: float) -> Date:
    """Return the local date of a number of seconds since the epoch."""
    return Date(*time.localtime(ticks)[:3])


def TimeFromTicks(ticks: float) -> Time:
    """Return the local time of day of a number of seconds since the epoch."""
    return Time(*time.localtime(ticks)[3:6])


def TimestampFromTicks(ticks: float) -> Timestamp:
    """Return the local date and time of a number of seconds since the epoch."""
    return Timestamp(*time.localtime(ticks)[:6])


class TypeObject:
    """Equal to every declared type of its kind: ``"VARCHAR(20)" == STRING``.

    SQLite accepts any word as a type and goes by the letters it contains; so does this.
    It also equals None, the type code of every column in `Cursor.description`: a column
    may hold values of any type, whatever was declared.
    """

    def __init__(self, name: str, *parts: str) -> None:
        self.name = name
        self.parts = parts

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            declared = other.upper()
            return any(part in declared for part in self.parts)
        return other is None or self is other

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"thanosql.{self.name}"


STRING = TypeObject("STRING", "CHAR", "CLOB", "TEXT")
BINARY = TypeObject("BINARY", "BLOB", "BINARY")
NUMBER = TypeObject("NUMBER", "INT", "REAL", "FLOA", "DOUB", "NUM", "DEC", "BOOL")
DATETIME = TypeObject("DATETIME", "DATE", "TIME")
ROWID = TypeObject("ROWID", "ROWID")


# Values to SQLite


_adapters: dict[type, Callable[[Any], Any]] = {
    Date: Date.isoformat,
    Time: Time.isoformat,
    Timestamp: lambda value: value.isoformat(" "),
}

STORED = frozenset((type(None), int, float, str, bytes, bytearray, memoryview))
"""The types that SQLite stores."""
_BOUND_BY_APSW: tuple[Any, ...] = (*STORED, apsw.zeroblob, apsw.pyobject, apsw.carray)
_ROWS = frozenset((tuple, list))
_WITH_BUFFERS = ("numpy", "array", "ctypes", "mmap", "pyarrow")


def register_adapter(type_: type, adapter: Callable[[Any], Any], /) -> None:
    """Store values of a class, and of its subclasses, as what `adapter` returns.

    SQLite's own types (None, int, float, str, bytes) are never adapted.
    """
    _adapters[type_] = adapter


def adapted(value: Any, what: str) -> Any:
    """Return a value as one of the types that SQLite stores.

    Raises ProgrammingError, which calls the value `what`, where nothing adapts it.
    """
    if isinstance(value, _BOUND_BY_APSW):
        return value
    for cls in type(value).__mro__:
        if cls is Timestamp and value != value:  # pandas.NaT, which is an instance
            break
        if cls in _adapters:
            return adapted(_adapters[cls](value), what)
    conform = getattr(value, "__conform__", None)
    stored = None if conform is None else conform(sqlite3.PrepareProtocol)
    if stored is not None:
        return adapted(stored, what)
    # NumPy's numbers. Whoever has one has imported NumPy, so it is not imported here.
    scalar: Any = getattr(sys.modules.get("numpy"), "generic", ())
    if isinstance(value, scalar) and value.dtype.kind in "biuf":
        number = value.item()
        if isinstance(number, int | float):  # not so for a long double
            return number
    raise _not_stored(what, value)


def convert_binding(_cursor: object, number: int, value: object) -> Any:
    """Return what to bind for a value whose type APSW does not know; APSW asks this."""
    return adapted(value, f"parameter {number}")


def storable(value: Any, what: str) -> Any:
    """Return what `adapted` does, and raise where SQLite cannot store that very value.

    APSW checks this when it binds a value. Two kinds of values need it earlier: the
    parameters of a speech statement, and what an SQL function returns.
    """
    value = adapted(value, what)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        message = f"{what} does not fit into SQLite's 64 bits; bind it as text"
        raise errors.IntegerRangeError(message)
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            message = f"{what} has a lone surrogate, which is no text; bind bytes"
            raise errors.not_text(error, message) from error
    return value


def for_clauses(value: Any, what: str) -> Any:
    """Return what `storable` does, for a parameter of a speech statement.

    A value that SQLite does not store is returned unchanged: a clause may take it, as
    COPY takes a DataFrame. Should it be bound, `convert_binding` raises. APSW does not
    ask that about a value that exports a buffer, so such a value is refused here.
    """
    try:
        return storable(value, what)
    except errors.ProgrammingError:
        if _exports_buffer(value):
            raise
        return value


def _exports_buffer(value: object) -> bool:
    try:
        memoryview(value)  # type: ignore[arg-type]
    except TypeError:
        return False
    except (BufferError, ValueError):  # a buffer that memoryview cannot read
        return True
    return True


def bindable(parameters: Parameters | None) -> Parameters | None:
    """Return parameters with every value adapted to a type that SQLite stores.

    APSW by itself would bind a value that exports a buffer as a BLOB: a `numpy.int64`
    as its 8 bytes.
    """
    if isinstance(parameters, tuple | list):
        if STORED.issuperset(map(type, parameters)):
            return parameters
    elif parameters is None or (
        type(parameters) is dict and STORED.issuperset(map(type, parameters.values()))
    ):
        return parameters
    return each_as(adapted, parameters)


def each_as(convert: Callable[[Any, str], Any], parameters: Parameters) -> Parameters:
    """Return parameters with each value converted; a mapping's only when it is asked.

    A mapping may hold values that the statement does not use and nothing converts.
    """
    if isinstance(parameters, Mapping):
        return _Named(convert, parameters)
    expected = "parameters are a sequence or a mapping"
    if isinstance(parameters, set | frozenset):  # APSW would bind it in any order
        message = f"{expected}, not {type(parameters).__name__}"
        raise errors.ArgumentTypeError(message)
    values = list(_iterated(parameters, expected))
    return [convert(v, f"parameter {i}") for i, v in enumerate(values, start=1)]


def many_bindable(rows: Iterable[Parameters]) -> Iterable[Parameters]:
    """Return the rows that `executemany` binds, each as `bindable` returns it.

    To look at every value costs a quarter of an INSERT into memory, so it is done only
    where a module is loaded that has types with buffers.
    """
    look = not sys.modules.keys().isdisjoint(_WITH_BUFFERS)
    if isinstance(rows, list | tuple) and not (look and _may_need_adapting(rows)):
        return rows
    each = _iterated(rows, "executemany takes an iterable of parameters")
    if look:
        return (bindable(row) or () for row in each)
    # The generator adds a Python frame, by which `errors.from_binding` tells an error
    # of an iterator that is written in C from one of APSW's.
    return (row for row in each)


def _may_need_adapting(rows: Sequence[Parameters]) -> bool:
    """Return whether a row is no tuple or list, or a value not of a type in STORED.

    This is one loop in C over all values; a Python loop over the rows takes twice as
    long.
    """
    return not _ROWS.issuperset(map(type, rows)) or not STORED.issuperset(
        map(type, itertools.chain.from_iterable(rows))
    )


def _iterated(values: Iterable[Any], message: str) -> Iterator[Any]:
    try:
        return iter(values)
    except TypeError as error:
        if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
            raise  # raised in the __iter__ of `values`
        message = f"{message}, not {type(values).__name__}"
        raise errors.ArgumentTypeError(message) from None


class _Named(Mapping[str, "Any"]):
    """A mapping of names to values, each converted when it is asked for."""

    __slots__ = ("_convert", "_values")

    def __init__(
        self, convert: Callable[[Any, str], Any], values: Mapping[str, Any]
    ) -> None:
        self._convert = convert
        self._values = values

    def __getitem__(self, name: str) -> Any:
        try:
            value = self._values[name]
        except KeyError as error:
            if error.args != (name,):  # about another key, inside of the mapping
                raise
            message = f"no value is given for the parameter :{name}"
            raise errors.ProgrammingError(message) from None
        return self._convert(value, f"parameter :{name}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def _not_stored(what: str, value: object) -> errors.ProgrammingError:
    return errors.ProgrammingError(
        f"{what} is of type {type(value).__qualname__}, which SQLite does not store; "
        "bind None, int, float, str or bytes, or register_adapter for the type"
    )


# Values from SQLite

_converters: dict[str, Converter] = {
    "DATE": lambda stored: Date.fromisoformat(stored.decode()),
    "TIMESTAMP": lambda stored: Timestamp.fromisoformat(stored.decode()),
}


def register_converter(name: str, converter: Converter, /) -> None:
    """Return the values of a column of that type as `converter` makes them of bytes.

    `detect_types` of `connect` says which columns are of a type.
    """
    _converters[name.upper()] = converter
    _chosen.cache_clear()


def converted(
    row: tuple[Any, ...], columns: Columns, detect_types: int
) -> tuple[Any, ...]:
    """Return a row with each value converted by its column's converter, except NULL.

    columns: each one's name and declared type.
    """
    return tuple(
        value if convert is None or value is None else convert(_as_bytes(value))
        for value, convert in zip(row, _chosen(columns, detect_types), strict=True)
    )


@functools.lru_cache(maxsize=64)
def _chosen(columns: Columns, detect_types: int) -> list[Converter | None]:
    """Return each column's converter, or None; remembered, as all rows share them."""
    return [_converter(name, declared, detect_types) for name, declared in columns]


def _converter(name: str, declared: str | None, detect_types: int) -> Converter | None:
    if detect_types & PARSE_COLNAMES and name.endswith("]"):
        found = _converters.get(name[name.rfind("[") + 1 : -1].upper())
        if found is not None:
            return found
    if detect_types & PARSE_DECLTYPES and declared:
        return _converters.get(declared.partition("(")[0].split(" ", 1)[0].upper())
    return None


def _as_bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
