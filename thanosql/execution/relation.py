"""Rows of Python as a read-only virtual table that SQLite can query.

A relation is a list of columns and a function that starts a scan. SQLite scans it as
often as a statement needs (once for each row of a join's other side, say), so each
call of the function gives the same rows from the start.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import apsw

from thanosql.statements import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Column = tuple[str, str | None]
"""A column's name and its declared type, or None where it has none."""


@dataclass(frozen=True, slots=True)
class Relation:
    """Columns, and a function that starts a scan over the rows.

    A row is a sequence of SQLite values, one a column. A scan that SQLite gives up
    half-way is closed, if it is a generator.
    """

    columns: tuple[Column, ...]
    scan: Callable[[], Iterator[Sequence[Any]]]


def register(connection: apsw.Connection, name: str, relation: Relation) -> None:
    """Make `relation` readable under `name` on this connection."""
    module: Any = _Module(relation)  # APSW's type has methods for writing, too
    connection.create_module(
        name, module, eponymous=True, eponymous_only=True, read_only=True
    )


def unregister(connection: apsw.Connection, name: str) -> None:
    """Drop the virtual table; a cursor that still reads the relation may go on."""
    connection.create_module(name, None)


def columns_of(values: type, *, without: Sequence[str] = ()) -> tuple[Column, ...]:
    """Return a column for each field of a dataclass of numbers and texts.

    without: the names of fields that are left out.
    """
    return tuple(
        (field.name, _DECLARED[str(field.type).removesuffix(" | None")])
        for field in fields(values)
        if field.name not in without
    )


_DECLARED = {"int": "INTEGER", "float": "REAL", "str": "TEXT"}


def row_of(value: object, columns: Sequence[Column]) -> tuple[Any, ...]:
    """Return the fields of a dataclass that the columns name; for None, all None."""
    if value is None:
        return (None,) * len(columns)
    return tuple(getattr(value, name) for name, _ in columns)


def unambiguous(columns: Sequence[Column]) -> tuple[Column, ...]:
    """Return the columns with ":1", ":2"... after a repeated name, as SQLite does."""
    seen: set[bytes] = set()
    distinct: list[Column] = []
    for name, declared in columns:
        candidate, count = name, 0
        while folded(candidate) in seen:
            count += 1
            candidate = f"{name}:{count}"
        seen.add(folded(candidate))
        distinct.append((candidate, declared))
    return tuple(distinct)


def folded(name: str) -> bytes:
    """Return a column's name in the one form by which SQLite compares names.

    Only ASCII letters lose their case: ä and Ä are two columns, as are ß and SS.
    """
    return name.encode(errors="surrogatepass").lower()


def definition(column: Column) -> str:
    """Return a column as CREATE TABLE has it."""
    name, declared = column
    # In a virtual table the word "hidden" in a type hides the column from `*`.
    if declared is None or "hidden" in declared.casefold():
        return quoted(name)
    return f"{quoted(name)} {quoted(declared)}"


class _Module:
    """APSW's data source: tells SQLite the columns."""

    def __init__(self, relation: Relation) -> None:
        self.relation = relation

    def Connect(
        self, connection: apsw.Connection, _module: str, _database: str, table: str
    ) -> tuple[str, _Table]:
        # Views and triggers may not read it: whoever wrote the file may have made them.
        connection.vtab_config(apsw.SQLITE_VTAB_DIRECTONLY)
        columns = ", ".join(map(definition, self.relation.columns))
        return f"CREATE TABLE {quoted(table)} ({columns})", _Table(self.relation)

    Create = Connect


class _Table:
    def __init__(self, relation: Relation) -> None:
        self.relation = relation

    def BestIndex(self, *_constraints_and_orders: Any) -> None:
        """Offer no index: SQLite filters and sorts, and scans from the start."""

    def Open(self) -> _Scan:
        return _Scan(self.relation)

    def Disconnect(self) -> None:
        """Do nothing: there is nothing to release."""

    Destroy = Disconnect


class _Scan:
    """APSW's cursor over a virtual table."""

    def __init__(self, relation: Relation) -> None:
        self.relation = relation
        self.rows: Iterator[Sequence[Any]] = iter(())
        self.row: Sequence[Any] | None = None
        self.number = 0

    def Filter(self, *_index: Any) -> None:
        self.Close()
        self.rows = self.relation.scan()
        self.number = 0
        self.Next()

    def Next(self) -> None:
        self.row = next(self.rows, None)
        self.number += 1

    def Eof(self) -> bool:
        return self.row is None

    def Column(self, number: int) -> Any:
        if number < 0 or self.row is None:
            return self.number
        return self.row[number]

    def Rowid(self) -> int:
        return self.number

    def Close(self) -> None:
        close = getattr(self.rows, "close", None)
        if close is not None:
            close()
