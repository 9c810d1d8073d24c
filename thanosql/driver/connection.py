"""What PEP 249 and `sqlite3` call a connection: a database in, cursors out."""

from __future__ import annotations

from thanosql import errors
from thanosql.driver.cursor import Cursor
from thanosql.driver.database import LEGACY_TRANSACTION_CONTROL
from thanosql.driver.sqlite_features import SQLiteFeatures

TYPE_CHECKING = False  # the `typing` module alone costs as much as `sqlite3`
if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Self

    import apsw

    from thanosql.driver.database import IsolationLevel, Path
    from thanosql.statements.nodes import Parameters


def connect(
    database: Path | apsw.Connection,
    timeout: float = 5.0,
    detect_types: int = 0,
    isolation_level: IsolationLevel = "",
    check_same_thread: bool = True,
    factory: type[Connection] | None = None,
    cached_statements: int = 128,
    uri: bool = False,
    *,
    autocommit: bool | int = LEGACY_TRANSACTION_CONTROL,
    audio_root: str | os.PathLike[str] | None = None,
    ray_address: str | None = None,
) -> Connection:
    """Open a SQLite database, made if it is not there, and return the connection.

    The arguments are those of `sqlite3.connect`, `audio_root` and `ray_address`.

    Parameters
    ----------
    database
        A file, or ``":memory:"``; with `uri` a ``file:`` URI, but not one of a shared
        cache in memory, which APSW's SQLite does not have. Or a connection that APSW
        has opened, which `close` then closes.
    timeout
        Seconds to wait for another connection's lock before `OperationalError`.
    detect_types
        `PARSE_DECLTYPES`, `PARSE_COLNAMES` or both: what a converter is chosen by.
    isolation_level
        How a transaction that a write opens begins; with None, a write opens none.
    check_same_thread
        Whether only this thread may use the connection. If False, any thread may; two
        that use it at the same time get `ProgrammingError`.
    factory
        A subclass of `Connection` to open instead.
    cached_statements
        Prepared statements kept for another execution.
    autocommit
        As in Python 3.12's `sqlite3`: `LEGACY_TRANSACTION_CONTROL` follows
        `isolation_level`, False keeps a transaction always open, True leaves
        transactions to SQLite.
    audio_root
        An existing folder: relative audio paths start from it, no path of a row may
        lead out of it, and URLs are refused. If None, paths start from the working
        directory, and a row may name any file or URL.
    ray_address
        The Ray cluster for statements with the option `workers`, such as
        ``"ray://head:10001"``. If None, the one that the environment variable
        ``RAY_ADDRESS`` names, else a Ray of this machine, which ends with the
        connection. Where the program has connected to Ray itself, that one is used.

    """
    return (factory or Connection)(
        database,
        timeout,
        detect_types,
        isolation_level,
        check_same_thread,
        cached_statements=cached_statements,
        uri=uri,
        autocommit=autocommit,
        audio_root=audio_root,
        ray_address=ray_address,
    )


class Connection(SQLiteFeatures):
    """A database connection; `connect` says what its arguments mean.

    As a context manager it commits at the end of the block, or rolls back on an
    exception, and stays open, as `sqlite3`'s does.
    """

    # PEP 249, optional extension: the exceptions as attributes of the connection.
    Warning = errors.Warning
    Error = errors.Error
    InterfaceError = errors.InterfaceError
    DatabaseError = errors.DatabaseError
    DataError = errors.DataError
    OperationalError = errors.OperationalError
    IntegrityError = errors.IntegrityError
    InternalError = errors.InternalError
    ProgrammingError = errors.ProgrammingError
    NotSupportedError = errors.NotSupportedError

    @property
    def total_changes(self) -> int:
        """Rows inserted, updated or deleted since the connection was opened."""
        return self.apsw.total_changes()

    def cursor(self, factory: Callable[[Connection], Cursor] = Cursor) -> Cursor:
        """Return a new cursor, made by `factory`."""
        cursor = factory(self)
        if not isinstance(cursor, Cursor):
            message = f"a cursor factory makes a Cursor, not {type(cursor).__name__}"
            raise errors.ArgumentTypeError(message)
        return cursor

    def execute(self, sql: str, parameters: Parameters | None = ()) -> Cursor:
        """Return a new cursor that has executed `sql`."""
        return self.cursor().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Iterable[Parameters]) -> Cursor:
        """Return a new cursor that has executed `sql` once for each of `parameters`."""
        return self.cursor().executemany(sql, parameters)

    def executescript(self, script: str) -> Cursor:
        """Return a new cursor that has executed every statement of `script`."""
        return self.cursor().executescript(script)

    def __enter__(self) -> Self:
        self.check_use()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.rollback()
            return
        try:
            self.commit()
        except errors.Error:  # a deferred constraint, say
            self.rollback()
            raise
