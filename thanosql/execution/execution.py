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

from typing import TYPE_CHECKING, Any, TypeVar

import apsw

from thanosql import errors, statements
from thanosql.execution import clauses
from thanosql.execution.progress import Progress
from thanosql.execution.relation import register, unregister
from thanosql.execution.source import Source
from thanosql.store import runs
from thanosql.store.models import ModelStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from thanosql.execution.relation import Column
    from thanosql.statements.nodes import Parameters

_Options = TypeVar("_Options", bound=statements.Options)


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
        transaction_is_implicit: bool,
        serial: Iterator[int],
    ) -> None:
        statements.check_parameters(query, parameters)
        runs.settle(database)
        self.audio_root = audio_root
        self.database = database
        self.store = ModelStore(database)
        self.transaction_is_implicit = transaction_is_implicit
        self._serial = serial
        self._parameters = parameters
        self._query = query
        self._registered: list[str] = []
        self._names_of: dict[int, str] = {}
        self._sources: list[Source] = []
        self._scanned: list[Source] = []  # those that relations read, not effects
        self._effects: list[Callable[[], None]] = []
        try:
            self._names = self._register(query)
        except BaseException:
            self.close()
            raise
        is_left = len(self._names) == len(query.clauses)
        self.sql = query.text(self._names) if is_left else ""
        self.bindings = query.bindings(parameters) if is_left else []

    def as_written(self, columns: Sequence[Column]) -> tuple[Column, ...]:
        """Return columns as SQLite would call them if it read the clauses itself.

        Where a column has no AS, its name is its text.
        """
        return tuple(
            (self._query.as_written(name, self._names), declared)
            for name, declared in columns
        )

    def take_effect(self) -> None:
        """Do what the clauses do to the database."""
        for effect in self._effects:
            effect()

    def read_first(self) -> None:
        """Read the queries to their end, before the statement writes.

        SQLite does not see that a virtual table reads other tables, so a statement
        that writes would feed on its own rows.
        """
        for source in self._scanned:
            source.keep()

    def close(self) -> None:
        """End all reading and drop the virtual tables.

        A connection that is closed has dropped them.
        """
        for source in self._sources:
            source.close()
        while self._registered:
            try:
                unregister(self.database, self._registered.pop())
            except apsw.ConnectionClosedError:
                self._registered.clear()

    def explained(self, error: apsw.Error) -> errors.Error:
        """Return SQLite's error as PEP 249's, pointing into the statement."""
        return _pointing(error, self._query, self._names)

    # For the functions of `clauses`

    def source(self, query: statements.Query, *, for_effect: bool = False) -> Source:
        """Return the rows of a clause's query, whose own clauses are registered.

        `for_effect`: they are read by an effect, so before anything is written.
        """
        names = self._register(query)
        try:
            source = Source(
                self.database, query.text(names), query.bindings(self._parameters)
            )
        except apsw.SQLError as error:
            raise _pointing(error, query, names) from error
        self._sources.append(source)
        if not for_effect:
            self._scanned.append(source)
        return source

    def effect(self, do: Callable[[], None]) -> None:
        """Have `do` called once, when SQLite has accepted the statement."""
        self._effects.append(do)

    def warn_if_transaction_is_implicit(self, what: str) -> None:
        """Warn that what is about to be written is lost without a commit()."""
        if self.transaction_is_implicit:
            errors.warn(
                f"{what} becomes part of the transaction that an earlier write opened; "
                "commit() to keep it"
            )

    def options(
        self, cls: type[_Options], raw: Sequence[statements.RawOption]
    ) -> _Options:
        """Return a clause's options, checked."""
        return statements.bind(cls, raw, self.value, self._query.sql)

    def progress(self) -> Progress:
        """Return a display for long work, which also stops it on `interrupt`."""
        return Progress(self.interrupted)

    def interrupted(self) -> bool:
        """Whether another thread has called the connection's `interrupt`."""
        return self.database.is_interrupted

    def value(self, parameter: statements.Parameter) -> Any:
        """Return what is bound to a parameter of the statement."""
        return parameter.value(self._parameters)

    def place(self, written: str | statements.Parameter) -> str:
        """Return the directory or hub id that a clause names."""
        value = written if isinstance(written, str) else self.value(written)
        if not isinstance(value, str):
            message = f"a directory or hub id is text, not {value!r}"
            raise errors.ProgrammingError(message)
        try:
            value.encode()
        except UnicodeEncodeError as error:
            message = f"a directory's name is to be Unicode text: {error}"
            raise errors.DataError(message) from error
        return value

    def _register(self, query: statements.Query) -> list[str]:
        """Register the clauses of a query as virtual tables; return their names."""
        return [
            name for clause in query.clauses if (name := self._register_clause(clause))
        ]

    def _register_clause(self, clause: statements.Clause) -> str:
        """Register a clause once: several queries may share one in a WITH list."""
        name = self._names_of.get(id(clause))
        if name is None:
            relation = clauses.relation(self, clause.node)
            if relation is None:
                return ""
            name = self._free_name(type(clause.node).__name__.lower())
            register(self.database, name, relation)
            self._registered.append(name)
            self._names_of[id(clause)] = name
        return name

    def _free_name(self, kind: str) -> str:
        """Return a name that no table has, nor a WITH table of the statement."""
        sql = self._query.sql.lower()
        while True:
            name = f"thanosql_{kind}_{next(self._serial)}"
            if name not in sql and not self.database.table_exists(None, name):
                return name


def _pointing(
    error: apsw.Error, query: statements.Query, names: Sequence[str]
) -> errors.Error:
    """Return SQLite's error with its place in the statement, where SQLite tells it."""
    translated = errors.from_apsw(error)
    offset = getattr(error, "error_offset", -1)
    if offset >= 0:
        place = query.locate(offset, names)
        translated.args = (errors.point(str(translated), query.sql, place),)
    return translated
