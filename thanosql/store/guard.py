"""Our tables in a database file, checked before they are used.

Whoever wrote the file may have put a view in the place of a table, or computed columns,
constraints, indexes and triggers that call functions. None of that may run while our
statements use our tables. SQLite can switch such things off for a connection
(SQLITE_DBCONFIG_ENABLE_VIEW and the like), but then each half-read statement of the
connection fails at the next table that it opens: "abort due to ROLLBACK". So the schema
is read instead, which runs nothing.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import apsw

from thanosql import errors
from thanosql.statements import quoted
from thanosql.store.schema import STEPS, TABLES, UNDER_WAY, VERSION
from thanosql.store.transactions import transaction

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_OF_VERSION = "thanosql_schema"
_EXPRESSION = -2
"The column number that index_xinfo has for an expression."

_OBJECTS = f"""
SELECT type, name, tbl_name, rootpage, sql FROM main.sqlite_schema
WHERE tbl_name COLLATE NOCASE IN ({", ".join(map(repr, TABLES))})
"""


class GuardedTables:
    """The only way to our tables; raises if their use would run code from the file.

    They are checked again only after the schema has changed.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection
        "For statements that do not use our tables; nothing is checked."
        self.has_models = False
        "Whether the database had a table of models at the last check."
        self._schema: int | None = None  # schema_version at a check that still holds
        self._version = 0
        self._is_writing = False

    def reading(self) -> apsw.Connection:
        """Return the connection, for one reading of our tables that begins now.

        Raises DatabaseError if that would run code from the file, NotSupportedError if
        a later thanosql has made the tables.
        """
        if self._is_writing:
            return self.connection
        # Checked each time: after a ROLLBACK, another schema may get the same number.
        if self.connection.txn_state("main") == apsw.SQLITE_TXN_WRITE:
            self._look()
            return self.connection
        schema: int = self.connection.execute("PRAGMA main.schema_version").get
        if schema != self._schema:
            self._look()
            self._schema = schema
        return self.connection

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query of our tables.

        Raises as `reading` does, and OperationalError if a text in them is not UTF-8.
        """
        connection = self.reading()
        try:
            return connection.execute(sql, parameters).fetchall()
        except UnicodeDecodeError as error:
            raise errors.from_binding(error) from error

    @contextmanager
    def writing(self, patience: float = 0.0) -> Iterator[apsw.Connection]:
        """Begin a transaction to write to our tables; an open one is continued.

        Tables that are missing are made, and those of an older version brought up to
        date. patience: as `transaction` takes it. Raises as `check_to_write` does.
        """
        with transaction(self.connection, patience):
            self.check_to_write()
            if self._version < VERSION:
                self.connection.execute("".join(STEPS[self._version :]))
                self.connection.execute(
                    f"UPDATE main.{_OF_VERSION} SET version = ?", (VERSION,)
                )
                self._version = VERSION  # for a block inside this one
            was_writing, self._is_writing = self._is_writing, True
            self.has_models = True
            try:
                yield self.connection
            finally:
                self._is_writing = was_writing

    def check_to_write(self) -> None:
        """Raise as `reading` does, and if a write would run code from the file.

        TEMP triggers are not in the file; they fire.
        """
        if not self._is_writing:
            self._look(to_write=True)

    def _look(self, *, to_write: bool = False) -> None:
        self._schema = None
        objects: list[tuple[Any, ...]] = self.connection.execute(_OBJECTS).fetchall()
        of_version = [each for each in objects if each[2].lower() == _OF_VERSION]
        self._refuse(of_version, to_write=to_write)
        self._version = self._found_version() if of_version else 0
        # The version comes first: a later one's tables may have what is refused here.
        others = [each for each in objects if each not in of_version]
        self._refuse(others, to_write=to_write)
        self.has_models = any(
            kind == "table" and name.lower() == "thanosql_models"
            for kind, name, *_ in others
        )

    def _refuse(self, objects: Iterable[Sequence[Any]], *, to_write: bool) -> None:
        for reason in _reasons(self.connection, objects, to_write=to_write):
            message = (
                f"{reason}, which statements about models must not run; drop it, or "
                "work in another database"
            )
            raise errors.DatabaseError(message)

    def _found_version(self) -> int:
        found = self.connection.execute(
            f"SELECT version FROM main.{_OF_VERSION} LIMIT 2"
        ).fetchall()
        if len(found) != 1 or not isinstance(found[0][0], int) or found[0][0] < 1:
            message = (
                f"the table {_OF_VERSION} is damaged: it is to hold one row, with the "
                f"version of thanosql's tables, not {found!r:.100}; restore a backup"
            )
            raise errors.DatabaseError(message)
        version: int = found[0][0]
        if version > VERSION:
            message = (
                f"thanosql's tables in the database are of version {version}, and this "
                f"thanosql knows them up to version {VERSION}; upgrade thanosql (pip "
                "install --upgrade thanosql-local), or work in another database"
            )
            raise errors.NotSupportedError(message)
        return version


def _reasons(
    connection: apsw.Connection, objects: Iterable[Sequence[Any]], *, to_write: bool
) -> Iterator[str]:
    """Yield the reasons, in words, why these objects are not just stored tables."""
    for kind, name, table, root, sql in objects:
        if kind == "view" or (kind == "table" and not root):
            what = "view" if kind == "view" else "virtual table"
            yield f"{name!r} in the database is a {what}"
        elif kind == "table":
            for _, column, _, _, default, _, hidden in connection.execute(
                f"PRAGMA main.table_xinfo({table})"
            ).fetchall():
                if hidden:
                    yield f"column {column!r} of {table!r} is computed"
                if default is not None and to_write:
                    yield f"column {column!r} of {table!r} has a default"
            # No pragma lists CHECK constraints. The SQL of our own tables has none.
            if to_write and re.search(r"\bcheck\b", sql, re.IGNORECASE):
                yield f"table {table!r} has a CHECK constraint"
        elif kind == "trigger" and to_write:
            yield f"table {table!r} has a trigger, {name!r}"
        elif kind == "index" and sql is not None and to_write:
            columns = connection.execute(f"PRAGMA main.index_xinfo({quoted(name)})")
            computed = any(place == _EXPRESSION for _, place, *_ in columns)
            where = re.search(r"\bwhere\b", sql, re.IGNORECASE)
            if computed or (where and sql.split() != UNDER_WAY):
                yield f"table {table!r} has an index that computes, {name!r}"
