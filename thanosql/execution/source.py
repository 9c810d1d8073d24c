"""A query's rows: read again at every turn, or kept aside on disk.

In comes SQL that SQLite can run, out come its columns and rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, overload

import apsw

from thanosql import errors, statements
from thanosql.execution.relation import Column, folded, unambiguous


class Source:
    """What the query after AS gives.

    Iterating runs the query anew, with SQLite's ordinary isolation: on one
    connection a reader may see what the same connection writes meanwhile. After
    `keep` it reads a copy instead, made at that moment. `close` ends what still reads.
    """

    def __init__(self, connection: apsw.Connection, sql: str, bindings: Any) -> None:
        self._connection = connection
        self._sql = sql
        self._bindings = bindings
        self._kept: KeptRows | None = None
        self._open: set[apsw.Cursor] = set()
        self.columns = self._describe()

    def __iter__(self) -> Iterator[Sequence[Any]]:
        if self._kept is not None:
            yield from self._kept
            return
        cursor = self._connection.cursor()
        self._open.add(cursor)
        try:
            for row in cursor.execute(self._sql, self._bindings, can_cache=False):
                if len(row) != len(self.columns):  # of SELECT *, after ALTER TABLE
                    message = (
                        "the columns of the query have changed since the statement "
                        "began; run it again"
                    )
                    raise errors.OperationalError(message)
                yield row
        except apsw.Error as error:
            # Translated here, since its place is one in this text, not the statement's.
            raise errors.from_apsw(error) from error
        finally:
            self._open.discard(cursor)
            cursor.close()

    def close(self) -> None:
        """End every reading, and with it SQLite's lock.

        Leaving that to the garbage collector would not do: the traceback of an error
        holds what was being read for as long as somebody keeps the error.
        """
        while self._open:
            self._open.pop().close()

    def keep(self) -> None:
        """Read the rows now, so that what is written later is not among them."""
        self._kept = KeptRows(self, len(self.columns))

    def position(self, column: str) -> int | None:
        """Return the place of the column of that name, in any case, or None."""
        names = [folded(name) for name, _ in self.columns]
        wanted = folded(column)
        return names.index(wanted) if wanted in names else None

    def _describe(self) -> tuple[Column, ...]:
        """Prepare the query, without running it, for its columns."""
        description: list[Column] = []

        def trace(cursor: apsw.Cursor, sql: str, _bindings: object) -> bool:
            # The parser lets nothing follow a query after AS; the text of an option
            # comes here as it is, and APSW would run whatever follows in it.
            rest = self._sql[len(sql) :]
            if follows := [t for t in statements.tokenize(rest) if t.text != ";"]:
                message = (
                    "a query is one statement, after AS as in the option validation, "
                    f"and another follows it: {rest[follows[0].start :]!r:.60}"
                )
                raise errors.OptionError(message)
            if not cursor.is_readonly:
                message = "the query after AS may only read"
                raise errors.ProgrammingError(message)
            description.extend(
                (name, declared) for name, declared in cursor.get_description()
            )
            return False

        cursor = self._connection.cursor()
        cursor.exec_trace = trace
        try:
            cursor.execute(self._sql, self._bindings, can_cache=False)
        except apsw.ExecTraceAbort:
            pass
        finally:
            cursor.close()
        return unambiguous(description)


class KeptRows(Sequence[tuple[Any, ...]]):
    """Rows in a temporary file, by position; memory does not grow with their number.

    SQLite makes the file (the database named ""), deletes it on closing, and uses
    it only once its own page cache is full.
    """

    def __init__(self, rows: Iterable[Sequence[Any]], width: int) -> None:
        self._connection = apsw.Connection("")
        columns = ", ".join(f"c{i}" for i in range(width))
        marks = ", ".join("?" * width)
        self._connection.execute("PRAGMA journal_mode = OFF")
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute(f"CREATE TABLE kept ({columns})")
        self._connection.execute("BEGIN")
        self._connection.cursor().executemany(
            f"INSERT INTO kept VALUES ({marks})", rows
        )
        self._connection.execute("COMMIT")
        self._length: int = self._connection.execute("SELECT count(*) FROM kept").get

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> tuple[Any, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[Any, ...]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._length))]
        if not -self._length <= index < self._length:
            message = "row index out of range"
            raise IndexError(message)
        return next(
            self._connection.execute(
                "SELECT * FROM kept WHERE rowid = ?", (index % self._length + 1,)
            )
        )

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self._connection.execute("SELECT * FROM kept ORDER BY rowid"))


class KeptTexts:
    """Texts, or why there is none, by key; a dict whose memory does not grow."""

    def __init__(self) -> None:
        self._connection = apsw.Connection("")
        self._connection.execute("PRAGMA journal_mode = OFF")
        self._connection.execute("PRAGMA synchronous = OFF")
        self._connection.execute(
            "CREATE TABLE texts (key BLOB PRIMARY KEY, text, error) WITHOUT ROWID"
        )

    def get(self, key: bytes) -> tuple[str | None, str | None] | None:
        """Return the text and the error kept under `key`, or None."""
        found: tuple[str | None, str | None] | None = self._connection.execute(
            "SELECT text, error FROM texts WHERE key = ?", (key,)
        ).fetchone()
        return found

    def put(self, items: Iterable[tuple[bytes, str | None, str | None]]) -> None:
        """Keep each text and error under its key."""
        with self._connection:
            self._connection.executemany(
                "INSERT OR REPLACE INTO texts VALUES (?, ?, ?)", items
            )
