"""The user's tables: rows in, a table out; and what tables there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from thanosql import errors
from thanosql.execution.relation import Column, Relation, definition, folded
from thanosql.statements import quoted
from thanosql.store.transactions import transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import apsw

IfExists = Literal["fail", "replace", "append"]
PREFIX = "thanosql_"
"""What the names of this project's own tables begin with."""


def names(connection: apsw.Connection) -> Sequence[tuple[Any, ...]]:
    """Return the name and the kind (table or view) of the user's tables, by name."""
    return connection.execute(
        """
        SELECT name, type FROM main.sqlite_schema
        WHERE type IN ('table', 'view')
          AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
          AND name NOT LIKE 'thanosql\\_%' ESCAPE '\\'
        ORDER BY name
        """
    ).fetchall()


def columns(connection: apsw.Connection, name: str) -> Sequence[tuple[Any, ...]]:
    """Return (name, declared type, not null, part of the key) of a table's columns."""
    return connection.execute(
        "SELECT name, type, \"notnull\", pk FROM pragma_table_xinfo(?, 'main') "
        "WHERE hidden <> 1",
        (name,),
    ).fetchall()


def count(connection: apsw.Connection, name: str) -> int:
    """Return how many rows a table has."""
    rows: int = connection.execute(f"SELECT count(*) FROM main.{quoted(name)}").get
    return rows


def find(connection: apsw.Connection, name: str) -> str | None:
    """Return "table" or "view", if one has that name in any case; else None."""
    kind: str | None = connection.execute(
        """
        SELECT type FROM main.sqlite_schema
        WHERE name = ? COLLATE NOCASE AND type IN ('table', 'view')
        """,
        (name,),
    ).get
    return kind


def check(connection: apsw.Connection, name: str, if_exists: IfExists) -> str | None:
    """Raise where rows cannot be written to a table of that name; else as `find`."""
    if name.lower().startswith(PREFIX):
        message = (
            f"the name {name!r} is refused: names that begin with {PREFIX} are those "
            "of thanosql's own tables"
        )
        raise errors.ProgrammingError(message)
    kind = find(connection, name)
    if kind == "view":
        message = f"{name!r} is a view; copy into a table of another name"
        raise errors.ProgrammingError(message)
    if kind is not None and if_exists == "fail":
        message = (
            f"a table named {name!r} exists already; set if_exists='replace' or "
            "if_exists='append', or DROP TABLE first"
        )
        raise errors.ProgrammingError(message)
    return kind


def write(
    connection: apsw.Connection,
    name: str,
    rows: Relation,
    if_exists: IfExists,
    check_interrupted: Callable[[], None],
) -> int:
    """Write all rows into a table, or change nothing; return how many they were.

    Appended rows find their columns by name, in any case. check_interrupted: called for
    each row and before the end, raises to undo the writing.
    """
    count = 0

    # Counted here, since SQLite's count has rows that triggers write, too.
    def counted() -> Iterator[Sequence[Any]]:
        nonlocal count
        for row in rows.scan():
            check_interrupted()
            yield row
            count += 1

    with transaction(connection):
        kind = check(connection, name, if_exists)
        if kind is not None and if_exists == "replace":
            connection.execute(f"DROP TABLE main.{quoted(name)}")
            kind = None
        if kind is None:
            listed = ", ".join(map(definition, rows.columns))
            connection.execute(f"CREATE TABLE main.{quoted(name)} ({listed})")
        else:
            _check_columns(connection, name, rows.columns)
        into = ", ".join(quoted(column) for column, _ in rows.columns)
        marks = ", ".join("?" * len(rows.columns))
        connection.executemany(
            f"INSERT INTO main.{quoted(name)} ({into}) VALUES ({marks})", counted()
        )
        check_interrupted()
    return count


def _check_columns(
    connection: apsw.Connection, name: str, wanted: tuple[Column, ...]
) -> None:
    known = [column for column, *_ in columns(connection, name)]
    known_folded = {folded(column) for column in known}
    for column, _ in wanted:
        if folded(column) not in known_folded:
            hint = errors.nearest(column, known) or f"; it has {', '.join(known)}"
            message = f"the table {name!r} has no column {column!r}{hint}"
            raise errors.ProgrammingError(message)
