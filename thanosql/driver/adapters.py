"""Values between Python and SQLite: PEP 249's types, adapters and converters.

An adapter turns a Python value into one that SQLite stores, a converter what was
stored into a Python value, chosen by the column's declared type or name. Both are
for the whole process, as in `sqlite3`, which keeps its own.
"""

from __future__ import annotations

import functools
import sqlite3
import time
from datetime import date, datetime
from datetime import time as time_of_day

from thanosql import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Columns = tuple[tuple[str, str | None], ...]
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
    """Equal to every declared type of its kind, as in ``description[0][1] == STRING``.

    SQLite takes any word as a type, and sorts them by what they contain; so does this.
    """

    def __init__(self, name: str, *parts: str) -> None:
        self.name = name
        self.parts = parts

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            declared = other.upper()
            return any(part in declared for part in self.parts)
        return self is other

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


def register_adapter(type_: type, adapter: Callable[[Any], Any], /) -> None:
    """Have values of a class (and of its subclasses) stored as `adapter` makes them.

    SQLite's own types (None, int, float, str, bytes) are never adapted.
    """
    _adapters[type_] = adapter


def adapted(_cursor: object, number: int, value: object) -> Any:
    """Return what to store for a value of a type that SQLite does not have."""
    for cls in type(value).__mro__:
        if cls in _adapters:
            return _adapters[cls](value)
    conform = getattr(value, "__conform__", None)
    stored = None if conform is None else conform(sqlite3.PrepareProtocol)
    if stored is None:
        message = (
            f"parameter {number} is of type {type(value).__qualname__}, which SQLite "
            "does not store; bind None, int, float, str or bytes, or register_adapter "
            "for the type"
        )
        raise errors.ProgrammingError(message)
    return stored


# Values from SQLite

_converters: dict[str, Converter] = {
    "DATE": lambda stored: Date.fromisoformat(stored.decode()),
    "TIMESTAMP": lambda stored: Timestamp.fromisoformat(stored.decode()),
}


def register_converter(name: str, converter: Converter, /) -> None:
    """Have columns of that type given as `converter` makes them of the stored bytes.

    Which columns are of a type is what `connect`'s `detect_types` says.
    """
    _converters[name.upper()] = converter
    _chosen.cache_clear()


def converted(
    row: tuple[Any, ...], columns: Columns, detect_types: int
) -> tuple[Any, ...]:
    """Return a row as its columns' converters make it; NULL stays None.

    columns: the name and the declared type of each.
    """
    return tuple(
        value if convert is None or value is None else convert(_as_bytes(value))
        for value, convert in zip(row, _chosen(columns, detect_types), strict=True)
    )


@functools.lru_cache(maxsize=64)
def _chosen(columns: Columns, detect_types: int) -> list[Converter | None]:
    """Return the converter of each column, or None; the same for many rows."""
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
