"""A cursor: SQL text and parameters in, rows out.

Plain SQL goes straight to APSW. A statement that holds speech clauses has them become
virtual tables, and the same APSW cursor runs what is left (`thanosql.execution`).
"""

from __future__ import annotations

import itertools
from _thread import get_ident
from collections import deque

import apsw

from thanosql import errors
from thanosql.driver import adapters, routes
from thanosql.driver.routes import OTHER, READ, Route, find_route, known_routes
from thanosql.driver.trace import Run, described

TYPE_CHECKING = False  # the `typing` module alone costs as much as `sqlite3`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any, NoReturn, Self

    from thanosql.driver.connection import Connection
    from thanosql.driver.trace import Columns

    Parameters = Sequence[Any] | Mapping[str, Any]
    RowFactory = Callable[["Cursor", tuple[Any, ...]], Any]


_UNUSABLE = (
    apsw.ConnectionClosedError,
    apsw.CursorClosedError,
    apsw.ThreadingViolationError,
)


class Cursor:
    """Executes statements and fetches their rows; made by `Connection.cursor`.

    ``rowcount`` is the number of rows that an INSERT, UPDATE, DELETE or REPLACE
    changed, else -1; ``lastrowid`` the rowid of the row last inserted.
    ``row_factory``, the connection's unless set, makes a row of the cursor and a tuple.
    """

    __slots__ = (
        "__weakref__",
        "_columns",
        "_cursor",
        "_query",
        "_rows",
        "_run",
        "arraysize",
        "connection",
        "lastrowid",
        "row_factory",
        "rowcount",
    )

    def __init__(self, connection: Connection) -> None:
        self._cursor: apsw.Cursor | None = connection.apsw.cursor()
        self._run = Run(connection)
        self._rows: Iterator[tuple[Any, ...]] | None = None  # the open result's
        self._columns: Columns | None = ()  # None: nobody has asked yet
        self._query: tuple[str, Parameters | None] = "", ()
        self.connection = connection
        self.arraysize = 1
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.row_factory: RowFactory | None = connection.row_factory

    @property
    def description(self) -> tuple[tuple[Any, ...], ...] | None:
        """A 7-tuple a column (name, declared type, five None); None without a result.

        The declared type compares equal to `STRING`, `NUMBER` and so on.
        """
        if self._columns is None:
            self._columns = self._described()
        columns: Iterable[tuple[str, str | None]] = self._columns
        if self.connection.detect_types & adapters.PARSE_COLNAMES:
            columns = [(name.partition(" [")[0], type_) for name, type_ in columns]
        return tuple((*each, None, None, None, None, None) for each in columns) or None

    # Execution

    def execute(self, sql: str, parameters: Parameters | None = ()) -> Self:
        """Execute one statement and return this cursor.

        `parameters` is a sequence for ``?`` and ``?1``, a mapping for ``:name``.
        A result still open on this cursor is dropped first. Of a statement that
        transcribes, one batch has run when this returns.
        """
        interrupts = self.connection.interrupts
        cursor = self._idle_cursor()
        route = known_routes.get(sql) or find_route(sql)
        if route is READ:
            try:
                self._rows = cursor.execute(sql, parameters)
            except BaseException as error:
                self._fail(error, sql)
            self._columns, self._query = None, (sql, parameters)
            return self
        if route.query is not None:
            return self._execute_speech(route, parameters, interrupts)
        self._run.prepare(sql, route)
        return self._execute_traced(cursor, sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Parameters]) -> Self:
        """Execute a statement that changes rows once for each of `parameters`.

        The rows of RETURNING are dropped, as `sqlite3` does.
        """
        interrupts = self.connection.interrupts
        cursor = self._idle_cursor()
        route = known_routes.get(sql) or find_route(sql)
        if not route.may_write_rows:
            message = "executemany takes INSERT, UPDATE, DELETE or REPLACE only"
            raise errors.ProgrammingError(message)
        changed = 0
        if route.query is None:
            changed = self._execute_plain_many(cursor, sql, route, parameters)
        else:
            for each in parameters:
                changed += self._execute_speech(route, each, interrupts).rowcount
        self._rows, self._columns = None, ()
        self.rowcount = changed
        return self

    def executescript(self, script: str) -> Self:
        """Execute every statement of `script`, one after the other; rows are dropped.

        As `sqlite3` does, a transaction that a write opened is committed first, and
        none is opened.
        """
        if not isinstance(script, str):
            message = f"a script is a str, not {type(script).__name__}"
            raise errors.ArgumentTypeError(message)
        routes.check_text(script)
        interrupts = self.connection.interrupts
        from thanosql.driver.script import (
            statements,  # with `re`, which plain SQL needs not
        )

        self._idle_cursor()
        self.connection.commit_before_script()
        for statement in statements(script):
            query = routes.speech(statement)
            if query is not None:
                self._execute_speech(Route(query=query), (), interrupts)
            else:
                cursor = self._idle_cursor()
                self._run.prepare(statement, OTHER)
                self._execute_traced(cursor, statement, ())
            if self._rows is not None:
                deque(self._rows, maxlen=0)
        self._rows, self._columns = None, ()
        return self

    def _execute_plain_many(
        self,
        cursor: apsw.Cursor,
        sql: str,
        route: Route,
        parameters: Iterable[Parameters],
    ) -> int:
        """Execute in APSW's own loop and return the number of rows changed."""
        run, database = self._run, self.connection.apsw
        before = database.total_changes()
        run.prepare(sql, route)
        try:
            cursor.exec_trace = run.trace_many
            # APSW stops at the first row of RETURNING until it is fetched.
            deque(cursor.executemany(sql, parameters), maxlen=0)
            cursor.exec_trace = None
        except BaseException as error:
            run.must_renew = True  # it is traced still
            self._fail(error)
        if run.counted is not None:
            return run.counted + database.changes()
        return database.total_changes() - before

    def _execute_speech(
        self, route: Route, parameters: Parameters | None, interrupts: int
    ) -> Self:
        """Execute a statement that holds speech clauses.

        interrupts: how often the connection was interrupted before it began.
        """
        from pathlib import Path  # only once a speech word is seen

        from thanosql.execution.execution import Execution

        cursor = self._idle_cursor()
        assert route.query is not None
        connection, root = self.connection, self.connection.audio_root
        parameters = () if parameters is None else parameters
        try:
            execution = Execution(
                route.query,
                parameters,
                database=connection.apsw,
                audio_root=None if root is None else Path(root),
                transaction_is_implicit=(
                    connection.in_transaction and connection.began_implicitly
                ),
                serial=connection.serial,
                interrupted=lambda: connection.interrupts != interrupts,
            )
        except BaseException as error:
            self._fail(error)
        self._run.prepare(execution.sql, route, execution)
        # Not cached: the text names virtual tables that end with this execution.
        self._execute_traced(cursor, execution.sql, execution.bindings, can_cache=False)
        if self._rows is None:
            self._release()
        return self

    def _execute_traced(
        self,
        cursor: apsw.Cursor,
        sql: str,
        parameters: Parameters | None,
        *,
        can_cache: bool = True,
    ) -> Self:
        """Execute what the run is prepared for, and take over what it learns."""
        run = self._run
        try:
            cursor.exec_trace = run.trace
            cursor.execute(sql, parameters, can_cache=can_cache)
            cursor.exec_trace = None
        except BaseException as error:
            run.must_renew = True  # it is traced still
            self._fail(error, sql)
        self._columns = run.columns
        if run.columns:
            self._rows = cursor
        if run.writes_rows:
            if run.columns:
                # RETURNING: its rows are there already, and SQLite would not commit
                # before the last of them is fetched.
                self._rows = iter(list(cursor))
            database = cursor.connection
            self.lastrowid = database.last_insert_rowid()
            self.rowcount = database.changes()
        if run.execution is not None:
            try:
                run.execution.written()
            except BaseException as error:
                self._fail(error)
        if run.route.transaction_control:
            self.connection.note_transaction_control(run.route.transaction_control)
        return self

    def _described(self) -> Columns:
        """Return the columns of a plain read, asked for only now: few callers do.

        Once the last row was fetched APSW no longer tells. It still has the prepared
        statement, to be described again without being run.
        """
        assert self._cursor is not None
        try:
            return self._cursor.get_description()
        except apsw.ExecutionCompleteError:
            pass
        return described(self.connection, *self._query)

    # Results

    def fetchone(self) -> Any:
        """Return the next row as a tuple, or None when there is none left."""
        self._result()
        return next(self, None)

    def fetchmany(self, size: int | None = None) -> list[Any]:
        """Return the next `size` rows, `arraysize` if it is not given."""
        size = self.arraysize if size is None else size
        if size < 0:
            message = f"the number of rows to fetch is 0 or more, not {size}"
            raise errors.ArgumentValueError(message)
        self._result()
        return list(itertools.islice(self, size))

    def fetchall(self) -> list[Any]:
        """Return all rows that are left."""
        result = self._result()
        try:
            rows = list(result)
        except BaseException as error:
            self._fail(error)
        if self._run.execution is not None:
            self._release()
        if self.row_factory is None and not self.connection.detect_types:
            return rows
        return [self._shaped(row) for row in rows]

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._rows is None:
            raise StopIteration
        try:
            row = next(self._rows)
        except StopIteration:
            if self._run.execution is not None:
                self._release()
            raise
        except BaseException as error:
            self._fail(error)
        if self.row_factory is None and not self.connection.detect_types:
            return row
        return self._shaped(row)

    def _shaped(self, row: tuple[Any, ...]) -> Any:
        """Return a row as the converters and the row factory make it."""
        if self.connection.detect_types:
            if self._columns is None:
                self._columns = self._described()
            row = adapters.converted(row, self._columns, self.connection.detect_types)
        return row if self.row_factory is None else self.row_factory(self, row)

    def setinputsizes(self, sizes: Sequence[Any], /) -> None:
        """Do nothing, as PEP 249 allows."""

    def setoutputsize(self, size: int, column: int | None = None, /) -> None:
        """Do nothing, as PEP 249 allows."""

    # The end

    def close(self) -> None:
        """Close the cursor and stop the work of an open result; again does nothing."""
        if self._cursor is not None:
            self.connection.check_use()
            self._release()
            self._cursor.close()
            self._cursor = self._rows = None

    def _idle_cursor(self) -> apsw.Cursor:
        """Return the APSW cursor, with the result that was open on it dropped."""
        owner = self.connection.owner
        if owner is not None and owner != get_ident():
            self.connection.check_use()
        if self._cursor is None:
            message = "the cursor is closed"
            raise errors.ProgrammingError(message)
        if self._run.must_renew:
            self._release()
        self._rows, self._columns = None, ()
        self.rowcount = -1
        return self._cursor

    def _result(self) -> Iterator[tuple[Any, ...]]:
        """Return the rows of the open result."""
        owner = self.connection.owner
        if owner is not None and owner != get_ident():
            self.connection.check_use()
        if self._rows is None:
            self.connection.check_open()
            message = "no results to fetch: execute a statement that yields rows first"
            if self._cursor is None:
                message = "the cursor is closed"
            raise errors.ProgrammingError(message)
        return self._rows

    def _fail(self, error: BaseException, sql: str = "") -> NoReturn:
        """End what was open here and raise the error, PEP 249's for APSW's."""
        execution = self._run.execution
        self._release()
        self._rows = None
        explained = error
        try:
            if not isinstance(error, apsw.Error):
                explained = errors.from_python(error)
            elif execution is not None:
                explained = execution.explained(error)
            else:
                explained = errors.from_apsw(error)
                if isinstance(error, apsw.SQLError) and sql:
                    _hint(error, explained, sql)
            if explained is error:
                raise error
            raise explained from error
        finally:
            del error, explained  # their tracebacks hold this frame: a cycle

    def _release(self) -> None:
        """End what is open here: a speech statement's work, its virtual tables."""
        run = self._run
        execution, run.execution = run.execution, None
        if self._cursor is not None and run.must_renew:
            try:
                database = self._cursor.connection
                # SQLite closes the scans of the virtual tables with the statement.
                self._cursor.close(True)
                self._cursor = database.cursor()
                run.must_renew = False
            except _UNUSABLE:
                pass  # the cursor stays, to say so
            if self._rows is not None:
                self._rows = iter(())  # all were fetched
        if execution is not None:
            execution.close()

    def __del__(self) -> None:
        # The virtual tables of an abandoned cursor would live as long as the
        # connection; `_run` is missing if the connection was closed already.
        run = getattr(self, "_run", None)
        if run is not None and run.execution is not None and self._cursor is not None:
            self._cursor.close(True)
            run.execution.close()


def _hint(error: apsw.SQLError, explained: errors.Error, sql: str) -> None:
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
