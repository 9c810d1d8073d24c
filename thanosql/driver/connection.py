"""An open database: owns the `apsw.Connection`, its transactions and its end."""

from __future__ import annotations

import itertools
import os
from _thread import get_ident
from weakref import WeakSet

import apsw

from thanosql import errors
from thanosql.driver import adapters
from thanosql.driver.cursor import Cursor
from thanosql.driver.sqlite_features import SQLiteFeatures

TYPE_CHECKING = False  # the `typing` module alone costs as much as `sqlite3`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType
    from typing import Any, Literal, Self

    from thanosql.driver.cursor import Parameters, RowFactory

    Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]
    IsolationLevel = Literal["", "DEFERRED", "IMMEDIATE", "EXCLUSIVE"] | None

LEGACY_TRANSACTION_CONTROL = -1
"""`autocommit`'s default, as in `sqlite3`: writes open a transaction by themselves."""


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
) -> Connection:
    """Open a SQLite database, made if it is not there, and return the connection.

    The arguments are those of `sqlite3.connect`, and `audio_root`.

    Parameters
    ----------
    database
        A file, or ``":memory:"``; with `uri` a ``file:`` URI. Or a connection that
        APSW has opened: the two are one then, and `close` closes it.
    timeout
        Seconds to wait for another connection's lock before `OperationalError`.
    detect_types
        `PARSE_DECLTYPES`, `PARSE_COLNAMES` or both: what chooses converters.
    isolation_level
        How a transaction opened by a write begins; None opens none.
    check_same_thread
        Whether another thread than this one may not use the connection. If it may,
        two at the same time get `ProgrammingError`.
    factory
        A subclass of `Connection` to open instead.
    cached_statements
        Prepared statements kept for another execution.
    autocommit
        As in Python 3.12's `sqlite3`: `LEGACY_TRANSACTION_CONTROL` follows
        `isolation_level`, False keeps a transaction always open, True leaves
        transactions to SQLite.
    audio_root
        The folder that relative audio paths start from, and that no path of a row may
        lead out of; URLs are refused too. If None, paths start from the working
        directory, and any file or URL may be named. It must be there.

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
    )


def opening_arguments(
    database: Path, cached_statements: int, uri: bool
) -> tuple[str, int, None, int]:
    """Return what `apsw.Connection` is called with."""
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    if uri:
        flags |= apsw.SQLITE_OPEN_URI
    return os.fsdecode(database), flags, None, cached_statements


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

    _open: apsw.Connection | None = None
    owner: int | None = None
    """The thread that may use the connection; None for any."""

    def __init__(
        self,
        database: Path | apsw.Connection,
        timeout: float = 5.0,
        detect_types: int = 0,
        isolation_level: IsolationLevel = "",
        check_same_thread: bool = True,
        *,
        cached_statements: int = 128,
        uri: bool = False,
        autocommit: bool | int = LEGACY_TRANSACTION_CONTROL,
        audio_root: str | os.PathLike[str] | None = None,
    ) -> None:
        self._isolation_level = _checked_isolation_level(isolation_level)
        self._autocommit = _checked_autocommit(autocommit)
        self.detect_types = detect_types
        self.row_factory: RowFactory | None = None
        self.audio_root = _checked_audio_root(audio_root)
        self.owner = get_ident() if check_same_thread else None
        self.began_implicitly = False  # the open transaction is one a write began
        self.interrupts = 0  # calls of `interrupt`, by which a statement sees a new one
        self.serial = itertools.count(1)  # names this connection's virtual tables
        try:
            if isinstance(database, apsw.Connection):
                self._open = database
            else:
                self._open = apsw.Connection(
                    *opening_arguments(database, cached_statements, uri)
                )
        except apsw.Error as error:
            raise errors.from_apsw(error) from error
        except UnicodeEncodeError as error:
            message = "APSW opens files whose name is Unicode only"
            raise errors.not_text(error, message) from error
        self._open.set_busy_timeout(int(timeout * 1000))
        self._open.convert_binding = adapters.adapted
        _opened.add(self)
        if self._autocommit is False:
            self._begin()

    def check_open(self) -> apsw.Connection:
        """Return the APSW connection; ProgrammingError if this is closed."""
        if self._open is None:
            message = "the connection is closed"
            raise errors.ProgrammingError(message)
        return self._open

    @property
    def apsw(self) -> apsw.Connection:
        """The APSW connection underneath, with all that SQLite can do."""
        self.check_use()
        return self.check_open()

    def check_use(self) -> None:
        """Raise ProgrammingError in a thread or process that must not use this."""
        if self.owner in (None, get_ident()):
            return
        message = (
            "the connection was opened in another thread; open one here, or connect "
            "with check_same_thread=False and use it in one thread at a time"
        )
        if self.owner == _IN_PARENT:
            message = (
                "the connection was opened before this process was forked, and using "
                "it here could damage the file; connect anew"
            )
        raise errors.ProgrammingError(message)

    # Statements

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

    # Transactions

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, whoever began it."""
        return self.apsw.in_transaction

    @property
    def total_changes(self) -> int:
        """Rows inserted, updated or deleted since the connection was opened."""
        return self.apsw.total_changes()

    @property
    def isolation_level(self) -> IsolationLevel:
        """How a transaction opened by a write begins; None opens none."""
        return self._isolation_level

    @isolation_level.setter
    def isolation_level(self, level: IsolationLevel) -> None:
        self._isolation_level = _checked_isolation_level(level)
        if level is None and self._autocommit == LEGACY_TRANSACTION_CONTROL:
            self.commit()

    @property
    def autocommit(self) -> bool | int:
        """Who opens transactions; `connect` says what each value does."""
        return self._autocommit

    @autocommit.setter
    def autocommit(self, autocommit: bool | int) -> None:
        autocommit = _checked_autocommit(autocommit)
        if autocommit is True and self.in_transaction:
            self._run("COMMIT")
        if autocommit is False and not self.in_transaction:
            self._begin()
        self._autocommit = autocommit

    def commit(self) -> None:
        """Commit the open transaction, if there is one; open queries go on."""
        if self._autocommit is not True:
            self._end("COMMIT")

    def rollback(self) -> None:
        """Undo the open transaction, if there is one."""
        if self._autocommit is not True:
            self._end("ROLLBACK")

    def begin_for_write(self) -> None:
        """Begin a transaction before a write, if this connection is to and none is."""
        if (
            self._autocommit == LEGACY_TRANSACTION_CONTROL
            and self._isolation_level is not None
            and self._open is not None
            and not self._open.in_transaction
        ):
            self._run(f"BEGIN {self._isolation_level}")
            self.began_implicitly = True

    def note_transaction_control(self, keyword: str) -> None:
        """Take note that a statement with that first word was executed."""
        if keyword == "BEGIN" or not self.in_transaction:
            self.began_implicitly = False

    def commit_before_script(self) -> None:
        """Commit what a write began, as `sqlite3` does before a script."""
        if self._autocommit == LEGACY_TRANSACTION_CONTROL:
            self.commit()

    def _begin(self) -> None:
        self._run("BEGIN")

    def _end(self, how: str) -> None:
        if self.in_transaction:
            self._run(how)
        self.began_implicitly = False
        if self._autocommit is False:
            self._begin()

    def _run(self, sql: str) -> None:
        try:
            self.apsw.execute(sql)
        except apsw.Error as error:
            raise errors.from_apsw(error) from error

    # The end

    def interrupt(self) -> None:
        """Make the statements that run now fail; may be called from any thread."""
        database = self.check_open()
        self.interrupts += 1
        database.interrupt()

    def close(self) -> None:
        """Close the connection and all that is open on it; again does nothing.

        An open transaction is rolled back, as `sqlite3` does.
        """
        if self._open is not None:
            self.check_use()
            try:
                if self._autocommit is False and self._open.in_transaction:
                    self._open.execute("ROLLBACK")  # which hooks see, as sqlite3's
                self._open.close()
            except apsw.Error as error:  # in an SQL function of its own, say
                raise errors.from_apsw(error) from error
            self._open = None

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


def _checked_isolation_level(level: Any) -> IsolationLevel:
    if level is None:
        return None
    if isinstance(level, str):
        folded = level.upper()
        if folded in ("", "DEFERRED", "IMMEDIATE", "EXCLUSIVE"):
            return folded  # type: ignore[return-value]
    message = (
        "isolation_level is '', 'DEFERRED', 'IMMEDIATE', 'EXCLUSIVE' or None, "
        f"not {level!r}"
    )
    raise errors.ArgumentValueError(message)


def _checked_autocommit(autocommit: Any) -> bool | int:
    if autocommit is True or autocommit is False:
        return bool(autocommit)
    if autocommit == LEGACY_TRANSACTION_CONTROL:
        return LEGACY_TRANSACTION_CONTROL
    message = (
        "autocommit is True, False or thanosql.LEGACY_TRANSACTION_CONTROL, "
        f"not {autocommit!r}"
    )
    raise errors.ArgumentValueError(message)


def _checked_audio_root(
    root: str | os.PathLike[str] | None,
) -> str | os.PathLike[str] | None:
    # Not pathlib: it would be part of what `import thanosql` costs.
    if root is not None and not os.path.isdir(root):  # noqa: PTH112
        message = f"audio_root is no directory: {os.fspath(root)!r}"
        raise errors.ArgumentValueError(message)
    return root


_IN_PARENT = -1
_opened: WeakSet[Connection] = WeakSet()
_left_to_parent: list[apsw.Connection | None] = []


def _leave_to_parent() -> None:
    """Take every connection out of use in a forked process, never to be closed.

    SQLite's locks stay with the parent: to use, or even close, its connections here
    can damage the file (https://www.sqlite.org/howtocorrupt.html, 2.6).
    """
    for connection in _opened:
        connection.owner = _IN_PARENT
        _left_to_parent.append(connection._open)


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_leave_to_parent)
