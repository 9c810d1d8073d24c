"""What a clause sees of its statement: options and sources in, effects out."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

import apsw

from thanosql import errors, speech, statements
from thanosql.catalog import bases
from thanosql.execution.progress import Progress
from thanosql.execution.source import Source
from thanosql.store.files import digest
from thanosql.store.models import ModelStore
from thanosql.store.transactions import transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from thanosql.cluster import Session
    from thanosql.statements.nodes import Parameters
    from thanosql.store.records import AdapterBase, StoredModel

_Options = TypeVar("_Options", bound=statements.Options)


class Context:
    """The statement of a clause: its database, parameters, sources and effects."""

    def __init__(
        self,
        statement: statements.Query,
        parameters: Parameters,
        *,
        database: apsw.Connection,
        audio_root: Path | None,
        cluster: Callable[[], Session],
        transaction_is_implicit: bool,
        was_interrupted: Callable[[], bool],
        register: Callable[[statements.Query], list[str]],
    ) -> None:
        """Begin without sources and effects.

        cluster: returns the connection's session of Ray. register: registers the
        clauses of a query as virtual tables and returns their names.
        """
        self.database = database
        self.models = ModelStore(database)
        self.audio_root = audio_root
        self.cluster = cluster
        self.sources: list[Source] = []
        self.scanned: list[Source] = []  # those that relations read, not effects
        self.effects: list[Callable[[], None]] = []
        self._statement = statement
        self._parameters = parameters
        self._transaction_is_implicit = transaction_is_implicit
        self._was_interrupted = was_interrupted
        self._register = register

    # What is written in the clause

    def options(
        self, cls: type[_Options], raw: Sequence[statements.RawOption]
    ) -> _Options:
        """Return a clause's options, checked."""
        return statements.bind(cls, raw, self.value, self._statement.sql)

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

    def source(
        self,
        query: statements.Query,
        *,
        for_effect: bool = False,
        called: str = "the query",
    ) -> Source:
        """Register the clauses of a clause's query and return the rows of the query.

        for_effect: only an effect reads the rows, so before anything is written.
        called: what errors call the query.
        """
        names = self._register(query)
        sql, bindings = query.text(names), query.bindings(self._parameters)
        try:
            source = Source(self.database, sql, bindings, called)
        except apsw.SQLError as error:
            raise pointing(error, query, names) from error
        self.sources.append(source)
        if not for_effect:
            self.scanned.append(source)
        return source

    # What the clause does

    def effect(self, do: Callable[[], None]) -> None:
        """Call `do` once, after SQLite has accepted the statement."""
        self.effects.append(do)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write all of the block or nothing, and nothing where it is interrupted."""
        with transaction(self.database):
            yield
            self.check_interrupted()

    def warn_if_transaction_is_implicit(self, what: str) -> None:
        """Warn that what is about to be written is lost without a commit()."""
        if self._transaction_is_implicit:
            errors.warn(
                f"{what} becomes part of the transaction that an earlier write opened; "
                "commit() to keep it"
            )

    # Long work

    def stored_files(self, model: StoredModel) -> speech.StoredFiles:
        """Return a stored model's digest and the functions that read its files.

        Of an adapter, those of its base as well; ModelNotFoundError if that is gone.
        """
        of = model.adapter_base
        return speech.StoredFiles(
            model.sha256,
            partial(self.models.read_settings, model),
            partial(self.models.read, model),
            None if of is None else self.base_files(model.name, of),
        )

    def base_files(self, name: str, of: AdapterBase) -> speech.StoredFiles:
        """Return the files of an adapter's base, found by its digest.

        name: of the adapter, for errors. Raises ModelNotFoundError if no stored model
        has that digest, nor the base of that name in the package.
        """
        stored = self.models.find_digest(of.sha256)
        if stored is not None and stored.adapter_base is None:
            return self.stored_files(stored)
        known, named = bases.find(of.name), self.models.find(of.name)
        there = "it is not stored any more"
        if named is not None:
            there = "the model stored under that name now is another"
        elif known is not None and known.directory is not None:
            if package_digest(known.directory) == of.sha256:
                return speech.package_files(known.directory, of.sha256)
            there = "the one that comes with this thanosql is another"
        message = (
            f"model {name!r} is an adapter of {of.name!r}, whose digest begins "
            f"{of.sha256[:12]!r}, and {there}; bring that model back from a copy of "
            "the database, or train the adapter anew"
        )
        raise errors.ModelNotFoundError(message)

    def progress(self) -> Progress:
        """Return a display for long work; calling it raises after an interrupt."""
        self.check_interrupted()
        return Progress(self.check_interrupted)

    def interrupted(self) -> bool:
        """Whether another thread has called `interrupt` since the statement began.

        SQLite's own flag is not enough: SQLite clears it while it runs no statement, as
        before a first step, and so while a model trains.
        """
        return self._was_interrupted() or self.database.is_interrupted

    def check_interrupted(self) -> None:
        """Raise OperationalError, as SQLite would, if the statement is interrupted."""
        if self.interrupted():
            error = errors.OperationalError("interrupted")
            error.sqlite_errorcode = apsw.SQLITE_INTERRUPT
            error.sqlite_errorname = "SQLITE_INTERRUPT"
            raise error


@cache
def package_digest(directory: Path) -> str:
    """Return the digest of a base in the package, as stored models have one."""
    return digest(sorted(directory.iterdir()))


def pointing(
    error: apsw.Error, query: statements.Query, names: Sequence[str]
) -> errors.Error:
    """Return SQLite's error with its place in the statement, where SQLite tells it.

    names: the virtual tables of the query's clauses.
    """
    translated = errors.from_apsw(error)
    offset = getattr(error, "error_offset", -1)
    if offset >= 0:
        place = query.locate(offset, names)
        translated.args = (errors.point(str(translated), query.sql, place),)
    return translated
