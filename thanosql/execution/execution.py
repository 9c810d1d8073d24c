"""One run of a statement that holds speech clauses: parsed statement in, SQL out.

Every clause becomes a relation, registered as a virtual table for this run alone,
and SQLite runs the statement that is left when each clause is replaced by
``SELECT * FROM`` its table. So a clause nests wherever a query may stand, rows
stream, and LIMIT stops the work.

What a clause does to the database (BUILD, COPY, DROP...) happens once, after
SQLite has accepted the whole statement and before its first step; not at all under
EXPLAIN.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import apsw

from thanosql import statements
from thanosql.execution import clauses
from thanosql.execution.context import Context, pointing
from thanosql.execution.relation import register, unregister

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from thanosql import errors
    from thanosql.cluster import Session
    from thanosql.execution.relation import Column
    from thanosql.statements.nodes import Parameters


_SAVEPOINT = "thanosql_statement"


class Execution:
    """The relations of one statement, from their registration to their end.

    ``sql`` and ``bindings`` are what SQLite is to run; ``sql`` is empty where nothing
    is left for it.
    """

    def __init__(
        self,
        query: statements.Query,
        parameters: Parameters,
        *,
        database: apsw.Connection,
        audio_root: Path | None,
        cluster: Callable[[], Session],
        transaction_is_implicit: bool,
        serial: Iterator[int],
        interrupted: Callable[[], bool],
    ) -> None:
        """Register the clauses of `query`.

        cluster: returns the connection's session of Ray. serial: numbers for the names
        of virtual tables; no other execution on the database gets the same.
        interrupted: whether `interrupt` was called since the statement began.
        """
        statements.check_parameters(query, parameters)
        self._database = database
        self._serial = serial
        self._query = query
        self._has_savepoint = False
        self._registered: list[str] = []
        self._names_of: dict[int, str] = {}
        self._context = Context(
            query,
            parameters,
            database=database,
            audio_root=audio_root,
            cluster=cluster,
            transaction_is_implicit=transaction_is_implicit,
            was_interrupted=interrupted,
            register=self._register,
        )
        try:
            self._names = self._register(query)
        except BaseException:
            self.close()
            raise
        is_left = len(self._names) == len(query.clauses)
        self.sql = query.text(self._names) if is_left else ""
        self.bindings = query.bindings(parameters) if is_left else []

    def as_written(self, columns: Sequence[Column]) -> tuple[Column, ...]:
        """Return columns with names in the words of the statement as it was written.

        SQLite names a column without AS by its text, in which virtual tables stand for
        the clauses.
        """
        return tuple(
            (self._query.as_written(name, self._names), declared)
            for name, declared in columns
        )

    def take_effect(self) -> None:
        """Do what the clauses do to the database."""
        for effect in self._context.effects:
            self._context.check_interrupted()
            effect()

    def read_first(self) -> None:
        """Read the queries to their end, before the statement writes.

        SQLite does not know which tables a virtual table reads, so without this a
        statement could read the rows that it writes. In a transaction a savepoint is
        opened, too: when a virtual table fails, SQLite keeps what was written before,
        and `close` undoes it by the savepoint.
        """
        for source in self._context.scanned:
            source.keep()
        if self._database.in_transaction:
            self._database.execute(f"SAVEPOINT {_SAVEPOINT}")
            self._has_savepoint = True

    def written(self) -> None:
        """Keep what the statement wrote; without this, `close` undoes it."""
        if self._has_savepoint:
            self._database.execute(f"RELEASE {_SAVEPOINT}")
            self._has_savepoint = False

    def close(self) -> None:
        """End all reading, undo what was not `written`, and drop the virtual tables.

        Closing the connection has the same effect, so that a closed one is no error.
        """
        for source in self._context.sources:
            source.close()
        if self._has_savepoint:
            self._has_savepoint = False
            # SQLite ends the transaction of a write that it interrupts, and refuses
            # ROLLBACK after an interrupt for as long as a cursor is half read.
            with suppress(apsw.ConnectionClosedError, apsw.InterruptError):
                if self._database.in_transaction:
                    self._database.execute(f"ROLLBACK TO {_SAVEPOINT}")
                    self._database.execute(f"RELEASE {_SAVEPOINT}")
        while self._registered:
            try:
                unregister(self._database, self._registered.pop())
            except apsw.ConnectionClosedError:
                self._registered.clear()

    def explained(self, error: apsw.Error) -> errors.Error:
        """Return SQLite's error as PEP 249's, pointing into the statement."""
        return pointing(error, self._query, self._names)

    def _register(self, query: statements.Query) -> list[str]:
        """Register the clauses of a query as virtual tables; return their names."""
        return [
            name for clause in query.clauses if (name := self._register_clause(clause))
        ]

    def _register_clause(self, clause: statements.Clause) -> str:
        """Register a clause and return its table's name; "" if it yields no rows.

        Several queries may share a clause of a WITH list, which is registered once.
        """
        name = self._names_of.get(id(clause))
        if name is None:
            relation = clauses.relation(self._context, clause.node)
            if relation is None:
                return ""
            name = self._free_name(type(clause.node).__name__.lower())
            register(self._database, name, relation)
            self._registered.append(name)
            self._names_of[id(clause)] = name
        return name

    def _free_name(self, kind: str) -> str:
        """Return a name that no table has, nor a WITH table of the statement."""
        sql = self._query.sql.lower()
        while True:
            name = f"thanosql_{kind}_{next(self._serial)}"
            if name not in sql and not self._database.table_exists(None, name):
                return name
