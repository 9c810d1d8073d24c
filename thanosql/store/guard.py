"""Our tables in a database file, looked at before they are used.

Whoever wrote the file may have put a view in place of one, or had functions called by
its columns, constraints, indexes and triggers. What a file brings must not run while
our statements work on our tables. SQLite can switch such things off for a connection
(SQLITE_DBCONFIG_ENABLE_VIEW and the like), but that ends every statement of the
connection that is being read, at the next table it opens: "abort due to ROLLBACK". So
the schema is looked at instead, which runs nothing.
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
"Where index_xinfo says that what is indexed is no column."

_OBJECTS = f"""
SELECT type, name, tbl_name, rootpage, sql FROM main.sqlite_schema
WHERE tbl_name COLLATE NOCASE IN ({", ".join(map(repr, TABLES))})
"""


class GuardedTables:
    """The only way to our tables: refuses those that would run what the file brings.

    What was found is remembered for as long as the schema stays as it is.
    """

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection
        "For what is not done with our tables."
        self.has_models = False
        "Whether the database had a table of models when it was last looked at."
        self._schema: int | None = None  # the number of the schema that was looked at
        self._version = 0
        self._is_writing = False

    def reading(self) -> apsw.Connection:
        """Return the connection, to read our tables with now and not later.

        Raises DatabaseError if the file has anything run when our tables are read,
        NotSupportedError where they are those of a later thanosql.
        """
        if self._is_writing:
            return self.connection
        # After a ROLLBACK another schema may come to the number that this one has.
        if self.connection.txn_state("main") == apsw.SQLITE_TXN_WRITE:
            self._look()
            return self.connection
        schema: int = self.connection.execute("PRAGMA main.schema_version").get
        if schema != self._schema:
            self._look()
            self._schema = schema
        return self.connection

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return what a query of our tables gives; raises as `reading` does.

        And OperationalError where a text in them is not UTF-8.
        """
        connection = self.reading()
        try:
            return connection.execute(sql, parameters).fetchall()
        except UnicodeDecodeError as error:
            raise errors.from_binding(error) from error

    @contextmanager
    def writing(self, patience: float = 0.0) -> Iterator[apsw.Connection]:
        """Begin a transaction, in which our tables are there and may be written to.

        Within an open one it is a part of that. An older version's tables are brought
        up to date first. patience: as `transaction` takes it. Raises as
        `check_to_write` does.
        """
        with transaction(self.connection, patience):
            self.check_to_write()
            if self._version < VERSION:
                self.connection.execute("".join(STEPS[self._version :]))
                self.connection.execute(
                    f"UPDATE main.{_OF_VERSION} SET version = ?", (VERSION,)
                )
            self.has_models = self._is_writing = True
            try:
                yield self.connection
            finally:
                self._is_writing = False

    def check_to_write(self) -> None:
        """Raise as `reading`, and where the file has anything run by a write.

        TEMP triggers are not of the file; they fire.
        """
        if not self._is_writing:
            self._look(to_write=True)

    def _look(self, *, to_write: bool = False) -> None:
        self._schema = None
        objects: list[tuple[Any, ...]] = self.connection.execute(_OBJECTS).fetchall()
        of_version = [each for each in objects if each[2].lower() == _OF_VERSION]
        self._refuse(of_version, to_write=to_write)
        self._version = self._found_version() if of_version else 0
        # After the version: the tables of a later one may have what is refused here.
        others = [each for each in objects if each not in of_version]
        self._refuse(others, to_write=to_write)
        self.has_models = any(
            kind == "table" and name.lower() == "thanosql_models"
            for kind, name, *_ in others
        )

    def _refuse(self, objects: Iterable[Sequence[Any]], *, to_write: bool) -> None:
        for reason in _besides(self.connection, objects, to_write=to_write):
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


def _besides(
    connection: apsw.Connection, objects: Iterable[Sequence[Any]], *, to_write: bool
) -> Iterator[str]:
    """Yield what there is besides tables, in words."""
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
            # No pragma tells of constraints. Our own tables do not have the word.
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
