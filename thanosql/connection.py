"""An open database: owns the `apsw.Connection`, its transactions and its end."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING, Any, Literal, Self

import apsw

from thanosql import errors
from thanosql.cursor import Cursor, Parameters

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

LEGACY_TRANSACTION_CONTROL = -1
"""`autocommit`'s default, as in `sqlite3`: writes open a transaction by themselves."""

IsolationLevel = Literal["DEFERRED", "IMMEDIATE", "EXCLUSIVE"] | None


def connect(
    database: str | os.PathLike[str] | apsw.Connection,
    timeout: float = 5.0,
    isolation_level: IsolationLevel = "DEFERRED",
    *,
    cached_statements: int = 128,
    uri: bool = False,
    autocommit: bool | int = LEGACY_TRANSACTION_CONTROL,
    audio_root: str | os.PathLike[str] | None = None,
) -> Connection:
    """Open a SQLite database, made if it is not there, and return the connection.

    Parameters
    ----------
    database
        A file, or ``":memory:"``; with `uri` a ``file:`` URI. Or a connection that
        APSW has opened: the two are one then, and `close` closes it.
    timeout
        Seconds to wait for another connection's lock before `OperationalError`.
    isolation_level
        How a transaction opened by a write begins; None opens none.
    cached_statements
        Prepared statements kept for another execution.
    autocommit
        As in Python 3.12's `sqlite3`: `LEGACY_TRANSACTION_CONTROL` follows
        `isolation_level`, False keeps a transaction always open, True leaves
        transactions to SQLite.
    audio_root
        The folder that relative audio paths start from, and that no path of a row may
        lead out of; URLs are refused too. If None, paths start from the working
        directory, and any file or URL may be named.

    """
    return Connection(
        database,
        timeout,
        isolation_level,
        cached_statements=cached_statements,
        uri=uri,
        autocommit=autocommit,
        audio_root=audio_root,
    )


class Connection:
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

    def __init__(
        self,
        database: str | os.PathLike[str] | apsw.Connection,
        timeout: float = 5.0,
        isolation_level: IsolationLevel = "DEFERRED",
        *,
        cached_statements: int = 128,
        uri: bool = False,
        autocommit: bool | int = LEGACY_TRANSACTION_CONTROL,
        audio_root: str | os.PathLike[str] | None = None,
    ) -> None:
        self._open: apsw.Connection | None = None
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        if uri:
            flags |= apsw.SQLITE_OPEN_URI
        self._isolation_level = _checked_isolation_level(isolation_level)
        self._autocommit = _checked_autocommit(autocommit)
        self.audio_root = audio_root
        self.began_implicitly = False  # the open transaction is one a write began
        self.serial = itertools.count(1)  # names this connection's virtual tables
        try:
            if isinstance(database, apsw.Connection):
                self._open = database
            else:
                self._open = apsw.Connection(
                    os.fspath(database), flags, statementcachesize=cached_statements
                )
            self._open.set_busy_timeout(int(timeout * 1000))
        except apsw.Error as error:
            raise errors.from_apsw(error) from error
        if self._autocommit is False:
            self._begin()

    @property
    def apsw(self) -> apsw.Connection:
        """The APSW connection underneath: user functions, blobs, backup, hooks."""
        if self._open is None:
            message = "the connection is closed"
            raise errors.ProgrammingError(message)
        return self._open

    # Statements

    def cursor(self) -> Cursor:
        """Return a new cursor."""
        return Cursor(self)

    def execute(self, sql: str, parameters: Parameters = ()) -> Cursor:
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
        """PEP 249 transaction control: True, False or `LEGACY_TRANSACTION_CONTROL`."""
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
            and not self.apsw.in_transaction
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
        self.apsw.interrupt()

    def close(self) -> None:
        """Close the connection and all that is open on it; again does nothing.

        An open transaction is rolled back, as `sqlite3` does.
        """
        if self._open is not None:
            try:
                self._open.close()
            except apsw.Error as error:  # in an SQL function of its own, say
                raise errors.from_apsw(error) from error
            self._open = None

    def __enter__(self) -> Self:
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
        # sqlite3 takes "" for a plain BEGIN, which SQLite reads as DEFERRED.
        folded = level.upper() or "DEFERRED"
        if folded in ("DEFERRED", "IMMEDIATE", "EXCLUSIVE"):
            return folded  # type: ignore[return-value]
    message = (
        "isolation_level is 'DEFERRED', 'IMMEDIATE', 'EXCLUSIVE' or None, "
        f"not {level!r}"
    )
    raise errors.ProgrammingError(message)


def _checked_autocommit(autocommit: Any) -> bool | int:
    if autocommit is True or autocommit is False:
        return bool(autocommit)
    if autocommit == LEGACY_TRANSACTION_CONTROL:
        return LEGACY_TRANSACTION_CONTROL
    message = (
        "autocommit is True, False or thanosql.LEGACY_TRANSACTION_CONTROL, "
        f"not {autocommit!r}"
    )
    raise errors.ProgrammingError(message)
