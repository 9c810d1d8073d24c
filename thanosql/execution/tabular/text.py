"""Text files of rows in, a Relation out: csv, tsv, jsonl."""

from __future__ import annotations

import csv
import json
import re
from itertools import islice
from typing import TYPE_CHECKING, Any, NoReturn

from thanosql import errors
from thanosql.execution.relation import Relation
from thanosql.execution.tabular.cells import (
    Numbered,
    column_names,
    fail,
    fail_undecodable,
    typed,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

_AT_ONCE = 1_000  # rows


def _delimited(path: Path, encoding: str, **dialect: Any) -> Relation:
    def records() -> Iterator[Numbered]:
        with path.open(encoding=encoding, newline="") as file:
            reader = csv.reader(file, **dialect)
            line = 1
            try:
                for fields in reader:
                    if fields:  # a blank line is no row
                        yield line, fields
                    line = reader.line_num + 1
            except csv.Error as error:
                fail(path, line, str(error), error)
            except UnicodeDecodeError as error:
                fail_undecodable(path, encoding, error)

    header = next(records(), None)
    if header is None:
        message = f"the file {path.name!r} is empty; its first line names the columns"
        raise errors.DataError(message)
    names = column_names(header[1], path, header[0])

    def rows() -> Iterator[Sequence[str]]:
        width = len(names)
        for line, fields in islice(records(), 1, None):
            if len(fields) != width:
                found = f"{len(fields)} field{'s' * (len(fields) != 1)}"
                fail(path, line, f"{found}, where the header has {width}")
            yield fields

    types = _written_types(len(names), rows())
    readers = [_READERS[each] for each in types]

    def scan() -> Iterator[Sequence[Any]]:
        for columns in _columns(rows()):
            read = [readers[i](column) for i, column in enumerate(columns)]
            yield from zip(*read, strict=True)

    return Relation(tuple(zip(names, types, strict=True)), scan)


def _columns(rows: Iterator[Sequence[str]]) -> Iterator[Sequence[Sequence[str]]]:
    """Yield the fields of some rows at a time, by column: twice as fast to look at."""
    while batch := [*islice(rows, _AT_ONCE)]:
        yield [*zip(*batch, strict=True)]


_READERS: Mapping[str, Callable[[Sequence[str]], Iterable[Any]]] = {
    "INTEGER": lambda column: (int(field) if field else None for field in column),
    "REAL": lambda column: (float(field) if field else None for field in column),
    "TEXT": lambda column: (field or None for field in column),
}


def csv_rows(path: Path, encoding: str) -> Relation:
    """Return the rows of a file of comma-separated values, as RFC 4180 has them."""
    return _delimited(path, encoding, strict=True)


def tsv_rows(path: Path, encoding: str) -> Relation:
    """Return the rows of a file of tab-separated values.

    A quote is a letter, as in the format's definition and in Common Voice's files.
    """
    return _delimited(path, encoding, delimiter="\t", quoting=csv.QUOTE_NONE)


# What reads back as it was written, so that 007 and a number of 20 digits stay text.
_is_integer = re.compile(r"0|-?[1-9][0-9]{0,17}").fullmatch
_is_real = re.compile(
    r"-?(?:0|[1-9][0-9]{0,14})(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,2})?"
).fullmatch


def _written_types(width: int, rows: Iterator[Sequence[str]]) -> list[str]:
    """Return the type that fits all written values of each column; empty fits any."""
    fitting = [["INTEGER", "REAL", "TEXT"] for _ in range(width)]
    is_empty = [True] * width
    for columns in _columns(rows):
        for i, column in enumerate(columns):
            if fitting[i] == ["TEXT"] or not any(column):
                continue
            is_empty[i] = False
            filled = column if all(column) else [field for field in column if field]
            fitting[i] = [each for each in fitting[i] if _FITS[each](filled)]
    return [
        "TEXT" if empty else types[0]
        for types, empty in zip(fitting, is_empty, strict=True)
    ]


_FITS: Mapping[str, Callable[[Sequence[str]], bool]] = {
    "INTEGER": lambda column: all(map(_is_integer, column)),
    "REAL": lambda column: all(map(_is_real, column)),
    "TEXT": lambda _column: True,
}


def jsonl_rows(path: Path, encoding: str) -> Relation:
    """Return the rows of a file with a JSON object a line."""

    def objects() -> Iterator[tuple[int, dict[str, Any]]]:
        with path.open(encoding=encoding) as file:
            line = 0
            try:
                for line, text in enumerate(file, start=1):
                    if not text.strip():
                        continue
                    value = json.loads(text, parse_constant=_no_constant)
                    if not isinstance(value, dict):
                        fail(path, line, f"{text.strip()[:40]!r} is no JSON object")
                    yield line, value
            except json.JSONDecodeError as error:
                fail(path, line, f"{error.msg} (column {error.colno})", error)
            except UnicodeDecodeError as error:
                fail_undecodable(path, encoding, error)
            except (ValueError, RecursionError) as error:
                fail(path, line, str(error), error)

    keys: dict[str, None] = {}
    for _, each in objects():
        keys |= dict.fromkeys(each)
    if not keys:
        message = f"the file {path.name!r} is empty; each of its lines is a JSON object"
        raise errors.DataError(message)
    names = column_names([*keys], path, 1)
    return typed(
        names,
        lambda: ((line, [each.get(key) for key in keys]) for line, each in objects()),
        path,
    )


def _no_constant(name: str) -> NoReturn:
    message = f"{name} is no JSON"
    raise ValueError(message)
