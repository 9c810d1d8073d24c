"""Values of any library in, values and types of SQLite out; faults named by line."""

from __future__ import annotations

import json
import math
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NoReturn

from thanosql import errors
from thanosql.execution.relation import Relation, folded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

Numbered = tuple[int, "Sequence[Any]"]
"""The line (or row) of a file, from 1, and what stands there."""

_UNKNOWN: Any = object()


def typed(
    names: Sequence[str], rows: Callable[[], Iterator[Numbered]], what: Path | str
) -> Relation:
    """Return the rows with the types that fit all their values."""
    found: list[set[str]] = [set() for _ in names]
    for number, values in rows():
        for kinds, value in zip(found, sql_row(values, what, number), strict=True):
            if value is not None:
                kinds.add(_TYPES[type(value)])
    types = [
        "TEXT"
        if not kinds
        else "REAL"
        if kinds == {"INTEGER", "REAL"}
        else next(iter(kinds))
        if len(kinds) == 1
        else None
        for kinds in found
    ]

    def scan() -> Iterator[Sequence[Any]]:
        for number, values in rows():
            yield sql_row(values, what, number)

    return Relation(tuple(zip(names, types, strict=True)), scan)


_TYPES = {int: "INTEGER", float: "REAL", str: "TEXT", bytes: "BLOB"}


def sql_row(values: Sequence[Any], what: Path | str, number: int) -> list[Any]:
    """Return the values as SQLite's; DataError names the row of one that is none."""
    row = [
        value if type(value) is str or value is None else _sql(value)
        for value in values
    ]
    if _UNKNOWN in row:
        value = values[row.index(_UNKNOWN)]
        shown = f"{type(value).__name__} {value!r:.40}"
        fail(what, number, f"SQLite has no type for {shown}")
    return row


def _sql(value: Any) -> Any:
    """Return the value as one of SQLite's types; _UNKNOWN if it is none."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**63 else _UNKNOWN
    if isinstance(value, float):
        return None if math.isnan(value) else float(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, datetime):
        return value.isoformat(" ")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dict) and value.keys() == {"bytes", "path"}:
        # A recording, as Hugging Face's datasets keep it.
        return value["path"] if value["bytes"] is None else value["bytes"]
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    if hasattr(value, "tolist"):  # a number or an array of NumPy's
        return _sql(value.tolist())
    return _UNKNOWN


def column_names(
    names: Iterable[Any], where: Path | str, line: int | None
) -> tuple[str, ...]:
    """Return the columns' names as text, each once; else raise DataError."""
    seen: dict[bytes, str] = {}
    for number, name in enumerate(names, start=1):
        text = "" if name is None else str(name)
        if not text.strip():
            reason = (
                f"column {number} has no name; give it one (pandas writes a nameless "
                "index: to_csv(index=False))"
            )
            fail(where, line, reason)
        if folded(text) in seen:
            reason = f"two columns are named {text!r}; rename one (case does not count)"
            fail(where, line, reason)
        seen[folded(text)] = text
    if not seen:
        fail(where, line, "no column, and a table has one or more")
    return tuple(seen.values())


def fail(
    where: Path | str,
    line: int | None,
    reason: str,
    cause: BaseException | None = None,
) -> NoReturn:
    """Raise DataError for what is wrong at a line of a file, or a row of a frame."""
    name = where if isinstance(where, str) else repr(where.name)
    word = "row" if isinstance(where, str) or where.suffix == ".xlsx" else "line"
    place = name if line is None else f"{name}, {word} {line}"
    message = f"{place}: {reason}"
    raise errors.DataError(message) from cause


def fail_undecodable(path: Path, encoding: str, error: UnicodeDecodeError) -> NoReturn:
    """Raise DataError with the line, which decoding in blocks does not tell."""
    bad = None
    with path.open("rb") as file:
        for line, content in enumerate(file, start=1):
            try:
                content.decode(encoding)
            except UnicodeDecodeError:
                bad = line
                break
    name = encoding.removesuffix("-sig")
    reason = f"not {name}; set encoding to what it is, such as 'cp949' or 'latin-1'"
    fail(path, bad, reason, error)
