"""A cursor: SQL text and parameters in, rows out.

Plain SQL goes straight to APSW. A statement that holds speech clauses has them become
virtual tables, and the same APSW cursor runs what is left (see `thanosql.execution`).
"""

from __future__ import annotations

import itertools
from _thread import get_ident
from collections import deque

import apsw

from thanosql import errors, routes, types
from thanosql.routes import PLAIN, find_route, known_routes

TYPE_CHECKING = False  # the `typing` module alone costs as much as `sqlite3`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any, NoReturn, Self

    from thanosql.connection import Connection
    from thanosql.execution import Execution

    Parameters = Sequence[Any] | Mapping[str, Any] | None
    RowFactory = Callable[["Cursor", tuple[Any, ...]], Any]


class _Run:
    """What one execution learns between SQLite's preparing and its first step.

    APSW calls `trace` there. It holds no reference to the cursor, so that a dropped
    cursor is freed at once rather than by the garbage collector.
    """

    __slots__ = (
        "columns",
        "connection",
        "converters",
        "counted",
        "detect_types",
        "execution",
        "must_renew",
        "route",
        "sql",
        "writes_rows",
    )

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.detect_types = connection.detect_types
        self.prepare("", PLAIN)

    def prepare(
        self, sql: str, route: routes.Route, execution: Execution | None = None
    ) -> None:
        self.sql = sql
        self.route = route
        self.columns: tuple[tuple[str, str | None], ...] = ()
        self.converters: Sequence[types.Converter | None] | None = None
        self.execution = execution
        self.must_renew = execution is not None  # the APSW cursor, for another run
        self.writes_rows = False
        self.counted: int | None = None

    def trace(self, cursor: apsw.Cursor, sql: str, _bindings: object) -> bool:
        if len(sql) != len(self.sql):
            if not routes.past_blanks(sql):  # a comment at the end is a statement too
                return True
            if routes.past_blanks(self.sql[len(sql) :]):
                message = "execute takes one statement; executescript takes several"
                raise errors.ProgrammingError(message)
            self.must_renew = True  # APSW insists on running the comment first
        self.columns = cursor.get_description()
        if self.detect_types:
            self.converters = types.converters(self.columns, self.detect_types)
        return self.route is PLAIN or self._before_first_step(cursor)

    def _before_first_step(self, cursor: apsw.Cursor) -> bool:
        if cursor.is_explain:
            return True
        # Before a transaction begins, which would be held while a model trains.
        if self.execution is not None:
            self.execution.take_effect()
        if cursor.is_readonly:  # WITH may begin a SELECT
            return True
        if self.route.may_write_rows:
            self.writes_rows = True
            self.connection.begin_for_write()
        if self.execution is not None:
            self.execution.read_first()
        return True

    def trace_many(self, cursor: apsw.Cursor, sql: str, bindings: object) -> bool:
        """Trace the first of many executions, and the others if they must be counted.

        SQLite counts the rows that one execution changed, and all rows ever changed;
        the latter is not the sum where triggers, foreign keys or virtual tables write
        too. Only then each execution is traced, which costs a call.
        """
        database = self.connection.apsw
        if self.counted is not None:
            self.counted += database.changes()
            return True
        if not self.trace(cursor, sql, bindings):
            return False
        program = database.execute(
            f"EXPLAIN {routes.past_blanks(sql)}", (None,) * cursor.bindings_count
        )
        if any(step[1] in ("Program", "VUpdate") for step in program):
            self.counted = 0
        else:
            cursor.exec_trace = None
        return True


class Cursor:
    """Executes statements and fetches their rows; made by `Connection.cursor`.

    ``rowcount`` is the number of rows that an INSERT, UPDATE, DELETE or REPLACE
    changed, else -1; ``lastrowid`` the rowid of the row last inserted.
    ``row_factory``, the connection's unless set, makes a row of the cursor and a tuple.
    """

    __slots__ = (
        "__weakref__",
        "_cursor",
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
        self._run = _Run(connection)
        self._cursor.exec_trace = self._run.trace
        self._rows: Iterator[tuple[Any, ...]] | None = None  # the open result's
        self.connection = connection
        self.arraysize = 1
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.row_factory: RowFactory | None = connection.row_factory

    @property
    def description(self) -> tuple[tuple[Any, ...], ...] | None:
        """A 7-tuple a column: name, declared type, five None; None without a result.

        The declared type compares equal to `STRING`, `NUMBER` and so on.
        """
        columns: Iterable[tuple[str, str | None]] = self._run.columns
        if self.connection.detect_types & types.PARSE_COLNAMES:
            columns = [(name.partition(" [")[0], type_) for name, type_ in columns]
        return tuple((*each, None, None, None, None, None) for each in columns) or None

    # Execution

    def execute(self, sql: str, parameters: Parameters = ()) -> Self:
        """Execute one statement and return this cursor.

        `parameters` is a sequence for ``?`` and ``?1``, a mapping for ``:name``.
        A result still open on this cursor is dropped first. Of a statement that
        transcribes, one batch has run when this returns.
        """
        cursor = self._idle_cursor()
        route = known_routes.get(sql) or find_route(sql)
        if route.query is not None:
            return self._execute_speech(sql, route, parameters)
        run = self._run
        run.sql, run.route, run.columns = sql, route, ()
        try:
            cursor.execute(sql, parameters)
        except BaseException as error:
            self._fail(error)
        if run.columns:
            self._rows = cursor
        if route is not PLAIN:
            self._note_effects()
        return self

    def executemany(self, sql: str, parameters: Iterable[Parameters]) -> Self:
        """Execute a statement that changes rows once for each of `parameters`.

        The rows of RETURNING are dropped, as `sqlite3` does.
        """
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
                changed += self._execute_speech(sql, route, each).rowcount
        self._run.columns = ()
        self._rows = None
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
        from thanosql.script import statements  # with `re`, which plain SQL needs not

        self._idle_cursor()
        self.connection.commit_before_script()
        for statement in statements(script):
            query = routes.speech(statement)
            if query is not None:
                self._execute_speech(statement, routes.Route(query=query), ())
            else:
                self._run.prepare(statement, PLAIN)
                try:
                    self._rows = self._idle_cursor().execute(statement)
                except BaseException as error:
                    self._fail(error)
            if self._rows is not None:
                self.fetchall()
        self._run.prepare("", PLAIN)
        self._rows = None
        return self

    def _execute_plain_many(
        self,
        cursor: apsw.Cursor,
        sql: str,
        route: routes.Route,
        parameters: Iterable[Parameters],
    ) -> int:
        """Execute in APSW's own loop and return the number of rows changed."""
        run, database = self._run, self.connection.apsw
        before = database.total_changes()
        run.prepare(sql, route)
        cursor.exec_trace = run.trace_many
        try:
            # APSW stops at the first row of RETURNING until it is fetched.
            deque(cursor.executemany(sql, parameters), maxlen=0)
        except BaseException as error:
            self._fail(error)
        finally:
            cursor.exec_trace = run.trace
        if run.counted is not None:
            return run.counted + database.changes()
        return database.total_changes() - before

    def _execute_speech(
        self, sql: str, route: routes.Route, parameters: Parameters
    ) -> Self:
        from thanosql.execution import Execution  # only once a speech word is seen

        cursor = self._idle_cursor()
        try:
            execution = Execution(
                self.connection, route.query, () if parameters is None else parameters
            )
            self._run.prepare(execution.sql, route, execution)
            # Not cached: the text names virtual tables that end with this execution.
            cursor.execute(execution.sql, execution.bindings, can_cache=False)
        except BaseException as error:
            self._fail(error)
        if self._run.columns:
            self._rows = cursor
        self._note_effects()
        if self._rows is None:
            self._release()
        return self

    def _note_effects(self) -> None:
        """Take over what an execution that was no plain read did."""
        run = self._run
        if run.route.transaction_control:
            self.connection.note_transaction_control(run.route.transaction_control)
        if run.writes_rows:
            run.writes_rows = False
            if self._rows is not None:
                # RETURNING: its rows are there already, and SQLite would not commit
                # before the last of them is fetched.
                self._rows = iter(list(self._rows))
            self.lastrowid = self.connection.apsw.last_insert_rowid()
            self.rowcount = self.connection.apsw.changes()

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
        if self.row_factory is None and self._run.converters is None:
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
        if self.row_factory is None and self._run.converters is None:
            return row
        return self._shaped(row)

    def _shaped(self, row: tuple[Any, ...]) -> Any:
        """Return a row as the converters and the row factory make it."""
        if self._run.converters is not None:
            row = types.converted(row, self._run.converters)
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
        self._rows = None
        self.rowcount = -1
        return self._cursor

    def _result(self) -> Iterator[tuple[Any, ...]]:
        """Return the rows of the open result."""
        owner = self.connection.owner
        if owner is not None and owner != get_ident():
            self.connection.check_use()
        if self._rows is None:
            message = "no results to fetch: execute a statement that yields rows first"
            if self._cursor is None:
                message = "the cursor is closed"
            raise errors.ProgrammingError(message)
        return self._rows

    def _fail(self, error: BaseException) -> NoReturn:
        """End what was open here and raise the error, PEP 249's for APSW's."""
        execution = self._run.execution
        self._release()
        explained = error
        try:
            if not isinstance(error, apsw.Error):
                explained = errors.from_python(error)
            elif execution is not None:
                explained = execution.explained(error)
            else:
                explained = errors.from_apsw(error)
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
            run.must_renew = False
            try:
                database = self._cursor.connection
                # SQLite closes the scans of the virtual tables with the statement.
                self._cursor.close(True)
                self._cursor = database.cursor()
                self._cursor.exec_trace = run.trace
            except (apsw.ConnectionClosedError, apsw.CursorClosedError):
                pass  # the closed cursor stays, to say so
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
