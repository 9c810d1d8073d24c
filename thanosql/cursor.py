"""A cursor: SQL text and parameters in, rows out.

Plain SQL goes straight to APSW. A statement that may hold a speech clause, since it
contains one of the words below, is parsed; its clauses become virtual tables, and
the same APSW cursor runs what is left (see `thanosql.execution`).
"""

from __future__ import annotations

import functools
import itertools
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Self

import apsw

from thanosql import errors

if TYPE_CHECKING:
    from thanosql.connection import Connection
    from thanosql.execution import Execution

Parameters = Sequence[Any] | Mapping[str, Any]

_BLANK = r"(?:\s|;|--[^\n]*(?:\n|\Z)|/\*.*?(?:\*/|\Z))"
_only_blank = re.compile(f"{_BLANK}*+", re.DOTALL).fullmatch
_first_word = re.compile(f"\ufeff?{_BLANK}*+([A-Za-z]+)", re.DOTALL).match
# Only whether parsing is worth its while: what is a clause is decided by tokens. A verb
# is one where one of these words is in the text too; COPY is one by itself.
_MODEL = frozenset(("MODEL", "MODELS"))
_ANY_KIND = _MODEL | {"TABLE", "TABLES", "BASE", "BASES", "DATASET", "DATASETS"}
_SECOND_WORDS: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(("PREDICT", "EVALUATE"), frozenset(("USING",))),
    **dict.fromkeys(
        ("BUILD", "FIT", "DROP", "DELETE", "IMPORT", "UPLOAD", "EXPORT"), _MODEL
    ),
    **dict.fromkeys(("LIST", "DESCRIBE"), _ANY_KIND),
    "GET": _MODEL | {"DATASET"},
    "PRINT": frozenset(("AUDIO",)),
    "COPY": frozenset(("COPY",)),
}
_speech_words = re.compile(
    rf"\b(?:{'|'.join({*_SECOND_WORDS}.union(*_SECOND_WORDS.values()))})\b",
    re.IGNORECASE,
).findall


def _may_be_speech(sql: str) -> bool:
    words = {word.upper() for word in _speech_words(sql)}
    return any(
        not words.isdisjoint(_SECOND_WORDS[word])
        for word in words
        if word in _SECOND_WORDS
    )


class _Route(NamedTuple):
    """What the text alone tells, before SQLite sees it."""

    may_write_rows: bool
    transaction_control: str
    "BEGIN, COMMIT, END or ROLLBACK, where that is the first word; else empty."
    may_be_speech: bool


def _route(sql: str) -> _Route | None:
    """Return what an execution must look out for; None for a plain read."""
    found = _first_word(sql)
    keyword = found[1].upper() if found else ""
    route = _Route(
        keyword in ("INSERT", "UPDATE", "DELETE", "REPLACE", "WITH"),
        keyword if keyword in ("BEGIN", "COMMIT", "END", "ROLLBACK") else "",
        _may_be_speech(sql),
    )
    return route if any(route) else None


_remembered_route = functools.lru_cache(maxsize=256)(_route)
_REMEMBERED_LENGTH = 4096  # characters; longer texts are rarely run twice


class _Run:
    """What one execution learns between SQLite's preparing and its first step.

    APSW calls `trace` there. It holds no reference to the cursor, so that a dropped
    cursor is freed at once rather than by the garbage collector.
    """

    __slots__ = (
        "columns",
        "connection",
        "execution",
        "is_plain",
        "may_write_rows",
        "sql",
        "writes_rows",
    )

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.prepare("", False)

    def prepare(
        self, sql: str, may_write_rows: bool, execution: Execution | None = None
    ) -> None:
        self.sql = sql
        self.columns: tuple[tuple[str, str | None], ...] = ()
        self.may_write_rows = may_write_rows
        self.execution = execution
        self.writes_rows = False
        self.is_plain = execution is None and not may_write_rows

    def trace(self, cursor: apsw.Cursor, sql: str, _bindings: object) -> bool:
        if len(sql) != len(self.sql):
            if _only_blank(sql):  # APSW's second statement: a comment at the end
                return True
            if not _only_blank(self.sql, len(sql)):
                message = "execute takes one statement; executescript takes several"
                raise errors.ProgrammingError(message)
        self.columns = cursor.get_description()
        if self.is_plain or cursor.is_explain:
            return True
        # Before a transaction begins, which would be held while a model trains.
        if self.execution is not None:
            self.execution.take_effect()
        if cursor.is_readonly:  # WITH may begin a SELECT
            return True
        if self.may_write_rows:
            self.writes_rows = True
            self.connection.begin_for_write()
        if self.execution is not None:
            self.execution.read_first()
        return True

    def trace_once(self, cursor: apsw.Cursor, sql: str, bindings: object) -> bool:
        """Trace the first of many executions: a Python call a row would cost more."""
        cursor.exec_trace = None
        return self.trace(cursor, sql, bindings)


class Cursor:
    """Executes statements and fetches their rows; made by `Connection.cursor`.

    ``rowcount`` is the number of rows that an INSERT, UPDATE, DELETE or REPLACE
    changed, else -1; ``lastrowid`` the rowid of the row last inserted.
    """

    __slots__ = (
        "__weakref__",
        "_cursor",
        "_execution",
        "_run",
        "arraysize",
        "connection",
        "lastrowid",
        "rowcount",
    )

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.arraysize = 1
        self.rowcount = -1
        self.lastrowid: int | None = None
        self._execution: Execution | None = None
        self._run = _Run(connection)
        self._cursor: apsw.Cursor | None = connection.apsw.cursor()
        self._cursor.exec_trace = self._run.trace

    @property
    def description(self) -> tuple[tuple[Any, ...], ...] | None:
        """A 7-tuple a column: name, declared type, five None; None without a result."""
        columns = self._run.columns
        return tuple((*each, None, None, None, None, None) for each in columns) or None

    # Execution

    def execute(self, sql: str, parameters: Parameters = ()) -> Self:
        """Execute one statement and return this cursor.

        `parameters` is a sequence for ``?`` and ``?1``, a mapping for ``:name``.
        A result still open on this cursor is dropped first. Of a statement that
        transcribes, one batch has run when this returns.
        """
        cursor = self._idle_cursor()
        route = _remembered_route(sql) if len(sql) < _REMEMBERED_LENGTH else _route(sql)
        run = self._run
        if route is None and run.is_plain:  # a short cut: a plain read after another
            run.sql, run.columns = sql, ()
        elif route is None or not route.may_be_speech:
            run.prepare(sql, route is not None and route.may_write_rows)
        elif self._execute_speech(sql, parameters, route.may_write_rows):
            self._note_writes()
            return self
        try:
            cursor.execute(sql, parameters)
        except _SQLITE_ERRORS as error:
            _raise_explained(error, parameters, sql)
        if route is not None:
            self._note_writes()
            if route.transaction_control:
                self.connection.note_transaction_control(route.transaction_control)
        return self

    def executemany(self, sql: str, parameters: Iterable[Parameters]) -> Self:
        """Execute a statement that changes rows once for each of `parameters`.

        The rows of RETURNING are dropped, as `sqlite3` does.
        """
        cursor = self._idle_cursor()
        route = _route(sql)
        if route is None or not route.may_write_rows:
            message = "executemany takes INSERT, UPDATE, DELETE or REPLACE only"
            raise errors.ProgrammingError(message)
        before = self.connection.total_changes
        if route.may_be_speech:
            for each in parameters:
                deque(self.execute(sql, each), maxlen=0)
        else:
            self._run.prepare(sql, True)
            cursor.exec_trace = self._run.trace_once
            try:
                # APSW stops at the first row of RETURNING until it is fetched.
                deque(cursor.executemany(sql, parameters), maxlen=0)
            except _SQLITE_ERRORS as error:
                _raise_explained(error, ())
            finally:
                cursor.exec_trace = self._run.trace
        self._run.columns = ()
        self.rowcount = self.connection.total_changes - before
        return self

    def executescript(self, script: str) -> Self:
        """Execute every statement of `script`, one after the other; rows are dropped.

        As `sqlite3` does, a transaction that a write opened is committed first, and
        none is opened.
        """
        self._idle_cursor()
        self.connection.commit_before_script()
        for statement in _statements(script):
            if not (
                _may_be_speech(statement)
                and self._execute_speech(statement, (), may_write_rows=False)
            ):
                self._run.prepare(statement, False)
                try:
                    self._open_cursor().execute(statement)
                except _SQLITE_ERRORS as error:
                    _raise_explained(error, (), statement)
            deque(self, maxlen=0)
        self._run.prepare("", False)
        return self

    def _execute_speech(
        self, sql: str, parameters: Parameters, may_write_rows: bool
    ) -> bool:
        """Execute `sql` if it holds a speech clause; return whether it does.

        If not, the run is prepared for the plain statement that it is.
        """
        from thanosql import statements  # only once a speech word is seen

        query = statements.parse(sql)
        if not query.clauses:
            self._run.prepare(sql, may_write_rows)
            return False
        from thanosql.execution import Execution

        try:
            self._execution = execution = Execution(self.connection, query, parameters)
            self._run.prepare(execution.sql, may_write_rows, execution)
            # Not cached: the text names virtual tables that end with this execution.
            self._open_cursor().execute(
                execution.sql, execution.bindings, can_cache=False
            )
        except BaseException as error:
            self._fail(error)
        return True

    def _note_writes(self) -> None:
        if self._run.writes_rows:
            self.lastrowid = self.connection.apsw.last_insert_rowid()
            if not self._run.columns:
                self.rowcount = self.connection.apsw.changes()

    # Results

    def fetchone(self) -> Any:
        """Return the next row as a tuple, or None when there is none left."""
        try:
            row = next(self._result(), None)
        except BaseException as error:
            self._fail(error)
        if row is None:
            self._finish()
        return row

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """Return the next `size` rows, `arraysize` if it is not given."""
        size = self.arraysize if size is None else size
        try:
            rows = list(itertools.islice(self._result(), size))
        except BaseException as error:
            self._fail(error)
        if len(rows) < size:
            self._finish()
        return rows

    def fetchall(self) -> list[Any]:
        """Return all rows that are left."""
        try:
            rows = self._result().fetchall()
        except BaseException as error:
            self._fail(error)
        self._finish()
        return rows

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._open_cursor())
        except StopIteration:
            self._finish()
            raise
        except BaseException as error:
            self._fail(error)

    def setinputsizes(self, sizes: Sequence[Any]) -> None:
        """Do nothing, as PEP 249 allows."""

    def setoutputsize(self, size: int, column: int | None = None) -> None:
        """Do nothing, as PEP 249 allows."""

    def close(self) -> None:
        """Close the cursor and stop the work of an open result; again does nothing."""
        if self._cursor is not None:
            self._release()
            self._cursor.close()
            self._cursor = None

    # Inner state

    def _idle_cursor(self) -> apsw.Cursor:
        """Return the APSW cursor, with the result that was open on it dropped."""
        if self._execution is not None:
            self._release()
        self.rowcount = -1
        return self._cursor or self._open_cursor()

    def _open_cursor(self) -> apsw.Cursor:
        # A closed connection has closed APSW's cursor, which then says so.
        if self._cursor is None:
            message = "the cursor is closed"
            raise errors.ProgrammingError(message)
        return self._cursor

    def _result(self) -> apsw.Cursor:
        cursor = self._open_cursor()
        if not self._run.columns:
            message = "no results to fetch: execute a statement that yields rows first"
            raise errors.ProgrammingError(message)
        return cursor

    def _fail(self, error: BaseException) -> NoReturn:
        """End what was open here and raise the error, PEP 249's for APSW's."""
        execution = self._execution
        self._release()
        try:
            if execution is not None and isinstance(error, apsw.Error):
                raise execution.explained(error) from error
            _raise_explained(error, ())
        finally:
            del error  # its traceback holds this frame: a cycle

    def _finish(self) -> None:
        """Note that the last row was fetched."""
        if not self._run.is_plain:
            if self._run.writes_rows:  # RETURNING: SQLite counts at the end
                self.rowcount = self.connection.apsw.changes()
            self._release()

    def _release(self) -> None:
        """End the speech statement that is open here: its work, its virtual tables."""
        if self._execution is None:
            return
        execution, self._execution = self._execution, None
        self._run.execution = None  # which the relations lead back to
        if self._cursor is not None:
            # SQLite closes the scans of the virtual tables with the statement.
            self._cursor.close()
            # A closed cursor stays where the connection is closed too, to say so.
            with suppress(apsw.ConnectionClosedError):
                self._cursor = execution.database.cursor()
                self._cursor.exec_trace = self._run.trace
        execution.close()

    def __del__(self) -> None:
        # The virtual tables of an abandoned cursor would live as long as the
        # connection; `_execution` is missing if the connection was closed already.
        execution = getattr(self, "_execution", None)
        if execution is not None and self._cursor is not None:
            self._cursor.close()
            execution.close()


_SQLITE_ERRORS = (apsw.Error, KeyError, TypeError, ValueError)


def _raise_explained(
    error: BaseException, parameters: Parameters, sql: str = ""
) -> NoReturn:
    """Raise the PEP 249 error for one that APSW raised in an execution of `sql`."""
    explained = _explained(error, parameters)
    if sql and isinstance(error, apsw.SQLError):
        _hint(error, explained, sql)
    try:
        if explained is error:
            raise error
        raise explained from error
    finally:
        del error, explained  # their tracebacks hold this frame: a cycle


def _hint(error: apsw.SQLError, explained: BaseException, sql: str) -> None:
    """Say in the error which statement was meant, where its words are misspelled."""
    place = getattr(error, "error_offset", -1)
    if place < 0 or "syntax error" not in str(error):
        return
    from thanosql import statements  # only after a mistake

    before = sql.encode(errors="surrogatepass")[:place]
    offset = len(before.decode(errors="ignore"))
    words = statements.meant(sql, offset)
    if words:
        message = f"{explained}; did you mean {words}?"
        explained.args = (errors.point(message, sql, offset),)


def _explained(error: BaseException, parameters: Parameters) -> BaseException:
    """Return the PEP 249 error for one that APSW raised in an execution.

    APSW answers a missing name with KeyError, a value of a type SQLite lacks with
    TypeError and a NUL in the text with ValueError. One of the caller's own (of an SQL
    function, say) is returned as it is.
    """
    if isinstance(error, apsw.Error):
        return errors.from_apsw(error)
    text = str(error)
    if isinstance(error, UnicodeDecodeError):  # as `sqlite3` answers it
        message = f"text in the database is not UTF-8: {error.object[:50]!r}"
        return errors.OperationalError(message)
    if isinstance(error, UnicodeEncodeError):
        message = f"text that is not Unicode cannot go into the database: {error}"
        return errors.DataError(message)
    if isinstance(error, ValueError) and text == "null character in query":
        message = "the statement contains a NUL character; bind text that has one"
        return errors.ProgrammingError(message)
    if isinstance(error, TypeError) and text.startswith("Bad binding argument"):
        return errors.ProgrammingError(text[0].lower() + text[1:])
    if isinstance(error, TypeError) and "dict or a sequence" in text:
        message = "parameters are a sequence or a mapping"
        return errors.ProgrammingError(message)
    if isinstance(error, KeyError) and isinstance(parameters, Mapping):
        message = f"no value is given for the parameter :{error.args[0]}"
        return errors.ProgrammingError(message)
    return error


# Stretches in which a semicolon ends nothing, else one semicolon.
_quoted_or_semicolon = re.compile(
    r"""'[^']*+' | "[^"]*+" | `[^`]*+` | \[[^\]]*+\] | --[^\n]*+ | /\*.*?\*/ | ;""",
    re.DOTALL | re.VERBOSE,
).finditer


def _statements(script: str) -> Iterator[str]:
    """Yield the statements of a script, each with what ends it.

    SQLite itself says where one ends (`sqlite3_complete`): a semicolon in a string,
    a comment or a trigger's body ends none. It reads the statement from its start each
    time, so it is not asked about those in strings and comments.
    """
    start = 0
    for found in _quoted_or_semicolon(script):
        if found[0] != ";":
            continue
        statement = script[start : found.end()]
        # A NUL, which `complete` refuses, is for the execution to refuse.
        if "\0" in statement or apsw.complete(statement):
            yield statement
            start = found.end()
    if not _only_blank(script, start):
        yield script[start:]
