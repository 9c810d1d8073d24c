"""Between SQLite's preparing and its first step: a prepared statement in, facts out.

There the columns are known and nothing has happened yet: a transaction is begun, and
what speech clauses do to the database is done.
"""

from __future__ import annotations

import apsw

from thanosql import errors
from thanosql.driver.routes import OTHER, Route, past_blanks

TYPE_CHECKING = False  # the `typing` module alone costs as much as `sqlite3`
if TYPE_CHECKING:
    from thanosql.driver.adapters import Parameters
    from thanosql.driver.database import Database
    from thanosql.driver.rows import Columns
    from thanosql.execution.execution import Execution


class Trace:
    """What an execution learns and does between SQLite's preparing and its first step.

    APSW calls `trace` there, for all but a `READ`. It holds no reference to the
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
        """Forget the last execution and take what is known of the next."""
        self.sql = sql
        self.route = route
        self.columns: Columns = ()
        self.execution = execution
        self.must_renew = execution is not None  # the APSW cursor, for the next
        self.writes_rows = False
        self.counted: int | None = None

    def trace(self, cursor: apsw.Cursor, sql: str, _bindings: object) -> bool:
        """Do what comes before the first step; SQLite goes on if True."""
        if len(sql) != len(self.sql):
            if not past_blanks(sql):  # a comment at the end is a statement too
                return True
            if past_blanks(self.sql[len(sql) :]):
                message = "execute takes one statement; executescript takes several"
                raise errors.ProgrammingError(message)
            self.must_renew = True  # else APSW insists on running the comment first
        self.columns = cursor.get_description()
        if self.execution is not None:
            self.columns = self.execution.as_written(self.columns)
        if cursor.is_explain:
            return True
        # Before a transaction begins, which would be held while a model trains.
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

        SQLite counts the rows that one execution changed, and all rows ever changed;
        the latter is not the sum where triggers, foreign keys or virtual tables write
        too. Only then each execution is traced, which costs a call.
        """
        database = self.database.apsw
        if self.counted is not None:
            self.counted += database.changes()
            return True
        if not self.trace(cursor, sql, bindings):
            return False
        # Not from the cache: stepping an EXPLAIN looks at tables as they were when it
        # was prepared, without the check that finds them changed or gone.
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
    """Return the columns of a statement, which is prepared and not run."""
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
