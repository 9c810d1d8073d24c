"""A cursor: SQL text and parameters in, rows out.

Plain SQL goes straight to APSW. In a statement with speech clauses, each clause becomes
a virtual table, and the same APSW cursor runs the rest (`thanosql.execution`).
"""

from __future__ import annotations

import itertools
from _thread import get_ident
from collections import deque

import apsw

from thanosql import errors
from thanosql.driver import adapters, routes
from thanosql.driver.adapters import STORED
from thanosql.driver.routes import OTHER, READ, Route, find_route, known_routes
from thanosql.driver.trace import Trace, described

TYPE_CHECKING = False  # the `typing` module alone costs as much as `sqlite3`
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any, NoReturn, Self

    from thanosql.driver.database import Database
    from thanosql.driver.rows import Columns, Description, RowFactory
    from thanosql.statements.nodes import Parameters


_NONE_GIVEN: tuple[Any, ...] = ()
_UNUSABLE = (
    apsw.ConnectionClosedError,
    apsw.CursorClosedError,
    apsw.ThreadingViolationError,
)


class Cursor:
    """Executes statements and fetches their rows; made by `Connection.cursor`.

    ``rowcount`` is the number of rows that an INSERT, UPDATE, DELETE or REPLACE
    changed, else -1; ``lastrowid`` the rowid of the row last inserted.
    ``row_factory``, at first the connection's, is called with the cursor and a tuple,
    and returns the row.
    """

    __slots__ = (
        "__weakref__",
        "_columns",
        "_cursor",
        "_database",
        "_query",
        "_rows",
        "_trace",
        "arraysize",
        "connection",
        "lastrowid",
        "row_factory",
        "rowcount",
    )

    def __init__(self, connection: Database) -> None:
        self._cursor: apsw.Cursor | None = connection.apsw.cursor()
        self._database = connection
        self._trace = Trace(connection)
        self._rows: Iterator[tuple[Any, ...]] | None = None  # the open result's
        self._columns: Columns | None = ()  # None: not asked of APSW yet
        self._query: tuple[str, Parameters | None] = "", ()
        # A Connection. Its module imports this one, so its type cannot be named here.
        self.connection: Any = connection
        self.arraysize = 1
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.row_factory: RowFactory | None = connection.row_factory

    @property
    def description(self) -> Description | None:
        """A 7-tuple a column, its name and six None; None without a result.

        The type code is None as in `sqlite3`: a column may hold values of any type.
        """
        names = (name for name, _ in self._described())
        if self._database.detect_types & adapters.PARSE_COLNAMES:
            names = (name.partition(" [")[0] for name in names)
        return tuple((name, *(None,) * 6) for name in names) or None

    @property
    def declared_types(self) -> tuple[str | None, ...]:
        """Each column's type as CREATE TABLE has it; None for an expression.

        SQLite enforces it in STRICT tables only. It equals the type object of its kind
        (`STRING`, `NUMBER`...).
        """
        return tuple(declared for _, declared in self._described())

    # Execution

    def execute(self, sql: str, parameters: Parameters | None = ()) -> Self:
        """Execute one statement and return this cursor.

        `parameters` is a sequence for ``?`` and ``?1``, a mapping for ``:name``.
        A result still open on this cursor is dropped first. A statement that
        transcribes has transcribed one batch when this returns.
        """
        interrupts = self._database.interrupts
        cursor = self._idle_cursor()
        route = known_routes.get(sql) or find_route(sql)
        if parameters is not _NONE_GIVEN and route.query is None:
            if type(parameters) is not tuple:
                parameters = adapters.bindable(parameters)
            else:
                for value in parameters:  # faster than a call, for a few of them
                    if type(value) not in STORED:
                        parameters = adapters.bindable(parameters)
                        break
        if route is READ:
            try:
                self._rows = cursor.execute(sql, parameters)
            except BaseException as error:
                self._fail(error, sql)
            self._columns, self._query = None, (sql, parameters)
            return self
        if route.query is not None:
            return self._execute_speech(route, parameters, interrupts)
        self._trace.prepare(sql, route)
        return self._execute_traced(cursor, sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Parameters]) -> Self:
        """Execute a statement that changes rows once for each of `parameters`.

        The rows of RETURNING are dropped, as `sqlite3` does.
        """
        interrupts = self._database.interrupts
        cursor = self._idle_cursor()
        route = known_routes.get(sql) or find_route(sql)
        if not route.may_write_rows:
            message = "executemany takes INSERT, UPDATE, DELETE or REPLACE only"
            raise errors.ProgrammingError(message)
        changed = 0
        rows = adapters.many_bindable(parameters)
        if route.query is None:
            changed = self._execute_plain_many(cursor, sql, route, rows)
        else:
            for each in rows:
                changed += self._execute_speech(route, each, interrupts).rowcount
        self._rows, self._columns = None, ()
        self.rowcount = changed
        return self

    def executescript(self, script: str) -> Self:
        """Execute every statement of `script`, one after the other; rows are dropped.

        As in `sqlite3`, an open transaction is committed first, unless `autocommit` is
        True or False, and the script's writes open none.
        """
        if not isinstance(script, str):
            message = f"a script is a str, not {type(script).__name__}"
            raise errors.ArgumentTypeError(message)
        routes.check_text(script)
        interrupts = self._database.interrupts
        from thanosql.driver.script import statements  # it imports `re`

        self._idle_cursor()
        self._database.commit_before_script()
        for statement in statements(script):
            query = routes.speech(statement)
            if query is not None:
                self._execute_speech(Route(query=query), (), interrupts)
            else:
                cursor = self._idle_cursor()
                self._trace.prepare(statement, OTHER)
                self._execute_traced(cursor, statement, ())
            try:
                deque(self._rows or (), maxlen=0)
            except BaseException as error:
                self._fail(error)
        self._rows, self._columns = None, ()
        return self

    def _execute_plain_many(
        self, cursor: apsw.Cursor, sql: str, route: Route, rows: Iterable[Parameters]
    ) -> int:
        """Execute in APSW's own loop and return the number of rows changed."""
        trace, database = self._trace, self._database.apsw
        before = database.total_changes()
        trace.prepare(sql, route)
        try:
            cursor.exec_trace = trace.trace_many
            # APSW stops at the first row of RETURNING until it is fetched.
            deque(cursor.executemany(sql, rows), maxlen=0)
            cursor.exec_trace = None
        except BaseException as error:
            trace.must_renew = True  # APSW's cursor still has the tracer
            self._fail(error)
        if trace.counted is not None:
            return trace.counted + database.changes()
        return database.total_changes() - before

    def _execute_speech(
        self, route: Route, parameters: Parameters | None, interrupts: int
    ) -> Self:
        """Execute a statement that holds speech clauses.

        interrupts: `Database.interrupts` at the statement's beginning.
        """
        from pathlib import Path  # these only once a speech word is seen

        from thanosql.execution.execution import Execution

        cursor = self._idle_cursor()
        parameters = () if parameters is None else parameters
        assert route.query is not None
        database, root = self._database, self._database.audio_root
        given = adapters.each_as(adapters.for_clauses, parameters)
        try:
            execution = Execution(
                route.query,
                given,
                database=database.apsw,
                audio_root=None if root is None else Path(root),
                cluster=database.cluster,
                transaction_is_implicit=(
                    database.in_transaction and database.began_implicitly
                ),
                serial=database.serial,
                interrupted=lambda: database.interrupts != interrupts,
            )
        except BaseException as error:
            self._fail(error)
        self._trace.prepare(execution.sql, route, execution)
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
        """Execute what the trace is prepared for, and take the columns and counts."""
        trace = self._trace
        try:
            cursor.exec_trace = trace.trace
            cursor.execute(sql, parameters, can_cache=can_cache)
            cursor.exec_trace = None
            if trace.columns and trace.writes_rows:
                # RETURNING: SQLite has made all rows already, and could not commit
                # before the last of them is fetched.
                self._rows = iter(list(cursor))
            elif trace.columns:
                self._rows = cursor
        except BaseException as error:
            trace.must_renew = True  # APSW's cursor still has the tracer
            self._fail(error, sql)
        self._columns = trace.columns
        if trace.writes_rows:
            database = cursor.connection
            self.lastrowid = database.last_insert_rowid()
            self.rowcount = database.changes()
        if trace.execution is not None:
            try:
                trace.execution.written()
            except BaseException as error:
                self._fail(error)
        if trace.route.transaction_control:
            self._database.note_transaction_control(trace.route.transaction_control)
        return self

    def _described(self) -> Columns:
        """Return the columns; for a plain read APSW is asked only here, as few need it.

        After the last row APSW no longer gives them. Then the statement is described
        anew: prepared, which finds it in APSW's cache, and not run.
        """
        if self._columns is None:
            assert self._cursor is not None
            try:
                self._columns = self._cursor.get_description()
            except apsw.ExecutionCompleteError:
                self._columns = described(self._database, *self._query)
        return self._columns

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
        if self._trace.execution is not None:
            self._release()
        if self.row_factory is None and not self._database.detect_types:
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
            if self._trace.execution is not None:
                self._release()
            raise
        except BaseException as error:
            self._fail(error)
        if self.row_factory is None and not self._database.detect_types:
            return row
        return self._shaped(row)

    def _shaped(self, row: tuple[Any, ...]) -> Any:
        """Return a row after the converters and the row factory."""
        if self._database.detect_types:
            columns = self._described()
            row = adapters.converted(row, columns, self._database.detect_types)
        return row if self.row_factory is None else self.row_factory(self, row)

    def setinputsizes(self, sizes: Sequence[Any], /) -> None:
        """Do nothing, as PEP 249 allows."""

    def setoutputsize(self, size: int, column: int | None = None, /) -> None:
        """Do nothing, as PEP 249 allows."""

    # The end

    def close(self) -> None:
        """Close the cursor and stop the work of an open result; again does nothing."""
        if self._cursor is not None:
            self._database.check_use()
            self._release()
            self._cursor.close()
            self._cursor = self._rows = None
            self._columns = ()

    def _idle_cursor(self) -> apsw.Cursor:
        """Return the APSW cursor, with the result that was open on it dropped."""
        owner = self._database.owner
        if owner is not None and owner != get_ident():
            self._database.check_use()
        if self._cursor is None:
            message = "the cursor is closed"
            raise errors.ProgrammingError(message)
        if self._trace.must_renew:
            self._release()
        self._rows, self._columns = None, ()
        self.rowcount = -1
        return self._cursor

    def _result(self) -> Iterator[tuple[Any, ...]]:
        """Return the rows of the open result."""
        owner = self._database.owner
        if owner is not None and owner != get_ident():
            self._database.check_use()
        if self._rows is None:
            self._database.check_open()
            message = "no results to fetch: execute a statement that yields rows first"
            if self._cursor is None:
                message = "the cursor is closed"
            raise errors.ProgrammingError(message)
        return self._rows

    def _fail(self, error: BaseException, sql: str = "") -> NoReturn:
        """End what was open here and raise the error; one of APSW's as PEP 249's."""
        execution = self._trace.execution
        self._release()
        self._rows = None
        explained = error
        try:
            if not isinstance(error, apsw.Error):
                explained = errors.from_binding(error)
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
        trace = self._trace
        execution, trace.execution = trace.execution, None
        if self._cursor is not None and trace.must_renew:
            try:
                database = self._cursor.connection
                # SQLite closes the scans of the virtual tables with the statement.
                self._cursor.close(True)
                self._cursor = database.cursor()
                trace.must_renew = False
            except _UNUSABLE:
                pass  # the cursor is kept: its next use says what is wrong
            if self._rows is not None:
                self._rows = iter(())  # all were fetched
        if execution is not None:
            execution.close()

    def __del__(self) -> None:
        # Without this, the virtual tables of an abandoned cursor would live as long as
        # the connection. `_trace` is missing where `__init__` found that closed.
        execution = getattr(getattr(self, "_trace", None), "execution", None)
        if execution is not None and self._cursor is not None:
            self._cursor.close(True)
            execution.close()


def _hint(error: apsw.SQLError, explained: errors.Error, sql: str) -> None:
    """Add to a syntax error which statement was meant, if its words are misspelled."""
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
