"""Before a statement's first step: the prepared statement in, its columns out.

At that point SQLite has accepted the statement and executed nothing. So it is here that
a write's transaction begins, and that BUILD, COPY, DROP... change the database.
"""

from __future__ import annotations

import apsw

from thanosql import errors
from thanosql.driver.routes import OTHER, Route, past_blanks

TYPE_CHECKING = False  # the `typing` module alone costs as much as `sqlite3`
if TYPE_CHECKING:
    from thanosql.driver.database import Database
    from thanosql.driver.rows import Columns
    from thanosql.execution.execution import Execution
    from thanosql.statements.nodes import Parameters


class Trace:
    """What a cursor knows of its current execution, found out before the first step.

    APSW calls `trace` at that point, except for a `READ`. There is no reference to the
    cursor, so that a dropped cursor is freed at once, not by the garbage collector.
    """

    __slots__ = (
        "columns",
        "counted",
        "database",
        "execution",
        "must_renew",
        "route",
        "sql",
        "writes_rows",
    )

    def __init__(self, database: Database) -> None:
        self.database = database
        self.prepare("", OTHER)

    def prepare(
        self, sql: str, route: Route, execution: Execution | None = None
    ) -> None:
        """Forget the last execution and note what the text tells of the next."""
        self.sql = sql
        self.route = route
        self.columns: Columns = ()
        self.execution = execution
        # Whether the next execution needs a new APSW cursor.
        self.must_renew = execution is not None
        self.writes_rows = False
        self.counted: int | None = None

    def trace(self, cursor: apsw.Cursor, sql: str, _bindings: object) -> bool:
        """Learn the columns, do what comes before the first step; True: go on."""
        if len(sql) != len(self.sql):
            if not past_blanks(sql):  # APSW traces a comment at the end too
                return True
            if past_blanks(self.sql[len(sql) :]):
                message = "execute takes one statement; executescript takes several"
                raise errors.ProgrammingError(message)
            self.must_renew = True  # else APSW would run the comment at the end first
        self.columns = cursor.get_description()
        if self.execution is not None:
            self.columns = self.execution.as_written(self.columns)
        if cursor.is_explain:
            return True
        # Before `begin_for_write`, whose transaction would be open during a training.
        if self.execution is not None:
            self.execution.take_effect()
        if cursor.is_readonly:  # WITH may begin a SELECT
            return True
        if self.route.may_write_rows:
            self.writes_rows = True
            self.database.begin_for_write()
        if self.execution is not None:
            self.execution.read_first()
        return True

    def trace_many(self, cursor: apsw.Cursor, sql: str, bindings: object) -> bool:
        """Trace the first of many executions, and the others if they must be counted.

        SQLite counts the rows that one execution changed, and all rows ever changed.
        The second count also has rows changed by triggers, foreign keys and virtual
        tables. Only where these take part is each execution traced, to add up the
        first count; that costs a call each.
        """
        database = self.database.apsw
        if self.counted is not None:
            self.counted += database.changes()
            return True
        if not self.trace(cursor, sql, bindings):
            return False
        # Not from the cache: SQLite does not prepare a cached EXPLAIN again when its
        # tables were changed or dropped meanwhile.
        program = database.execute(
            f"EXPLAIN {past_blanks(sql)}",
            (None,) * cursor.bindings_count,
            can_cache=False,
        )
        if any(step[1] in ("Program", "VUpdate") for step in program):
            self.counted = 0
        else:
            cursor.exec_trace = None
        return True


def described(database: Database, sql: str, parameters: Parameters | None) -> Columns:
    """Return the columns of a statement by preparing it; it is not run."""
    columns: list[Columns] = []

    def describe(cursor: apsw.Cursor, *_statement: object) -> bool:
        columns.append(cursor.get_description())
        return False

    cursor = database.apsw.cursor()
    cursor.exec_trace = describe
    try:
        cursor.execute(sql, parameters)
    except apsw.ExecTraceAbort:
        return columns[0]
    return ()
