"""An open database: owns the `apsw.Connection`, its transactions and its end."""

from __future__ import annotations

import itertools
import os
from _thread import get_ident
from weakref import WeakSet

import apsw

from thanosql import errors
from thanosql.driver import adapters, functions

TYPE_CHECKING = False  # the `typing` module alone costs as much as `sqlite3`
if TYPE_CHECKING:
    from typing import Any, Literal

    from thanosql.cluster import Session
    from thanosql.driver.rows import RowFactory

    Path = str | bytes | os.PathLike[str] | os.PathLike[bytes]
    IsolationLevel = Literal["", "DEFERRED", "IMMEDIATE", "EXCLUSIVE"] | None

LEGACY_TRANSACTION_CONTROL = -1
"""`autocommit`'s default, as in `sqlite3`: writes open a transaction by themselves."""
_LONGEST_TIMEOUT = 2**31 - 1  # milliseconds; SQLite counts them in 32 bits


class Database:
    """What a connection and its cursors share; `connect` explains the arguments."""

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
        ray_address: str | None = None,
    ) -> None:
        self._isolation_level = _checked_isolation_level(isolation_level)
        self._autocommit = _checked_autocommit(autocommit)
        self.detect_types = detect_types
        self.row_factory: RowFactory | None = None
        self.audio_root = _checked_audio_root(audio_root)
        self.ray_address = ray_address
        self._cluster: Session | None = None
        self.owner = get_ident() if check_same_thread else None
        self.began_implicitly = False  # whether a write began the open transaction
        self.interrupts = 0  # calls of `interrupt`; a long statement looks for new ones
        self.serial = itertools.count(1)  # names this connection's virtual tables
        milliseconds = _milliseconds(timeout)
        if isinstance(database, apsw.Connection):
            self._open = database
        else:
            self._open = _opened(database, cached_statements, uri)
        try:
            self._open.set_busy_timeout(milliseconds)
            functions.add_to(self._open)
        except apsw.Error as error:  # the given connection is closed, say
            raise errors.from_apsw(error) from error
        self._open.convert_binding = adapters.convert_binding
        _all_open.add(self)
        if self._autocommit is False:
            self._run("BEGIN")

    def check_open(self) -> apsw.Connection:
        """Return the APSW connection; raise ProgrammingError if it is closed."""
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
        """Raise ProgrammingError in a thread or process that must not use it."""
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

    def cluster(self) -> Session:
        """Return what this connection has to do with Ray; nothing is started yet."""
        if self._cluster is None:
            from thanosql.cluster import Session  # only where there are workers

            self._cluster = Session(self.ray_address)
        return self._cluster

    # Transactions

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, whoever began it."""
        return self.apsw.in_transaction

    @property
    def isolation_level(self) -> IsolationLevel:
        """How a transaction begins that a write opens; with None, it opens none."""
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
            self.began_implicitly = False
        if autocommit is False and not self.in_transaction:
            self._run("BEGIN")
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
        """Begin a transaction, if a write is to open one and none is open."""
        if (
            self._autocommit == LEGACY_TRANSACTION_CONTROL
            and self._isolation_level is not None
            and self._open is not None
            and not self._open.in_transaction
        ):
            self._run(f"BEGIN {self._isolation_level}")
            self.began_implicitly = True

    def note_transaction_control(self, keyword: str) -> None:
        """Update `began_implicitly` after a BEGIN, COMMIT, END or ROLLBACK."""
        if keyword == "BEGIN" or not self.in_transaction:
            self.began_implicitly = False

    def commit_before_script(self) -> None:
        """Commit the open transaction before a script, where `sqlite3` does so."""
        if self._autocommit == LEGACY_TRANSACTION_CONTROL:
            self.commit()

    def _end(self, how: str) -> None:
        if self.in_transaction:
            self._run(how)
        self.began_implicitly = False
        if self._autocommit is False:
            self._run("BEGIN")

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
                    self._open.execute("ROLLBACK")  # so that hooks run, as in sqlite3
                self._open.close()
            except apsw.Error as error:  # an SQL function of the connection called it
                raise errors.from_apsw(error) from error
            self._open = None
            if self._cluster is not None:
                self._cluster.close()


# Opening


def _opened(database: Path, cached_statements: int, uri: bool) -> apsw.Connection:
    """Open a file, or a ``file:`` URI, with APSW."""
    flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
    try:
        name = os.fsdecode(database)
        if uri:
            flags |= apsw.SQLITE_OPEN_URI
            _refuse_shared_memory(name)
        return apsw.Connection(name, flags, None, cached_statements)
    except apsw.Error as error:
        raise errors.from_apsw(error) from error
    except UnicodeEncodeError as error:
        message = "APSW opens files whose name is Unicode only"
        raise errors.not_text(error, message) from error
    except (OverflowError, TypeError, ValueError) as error:
        raise errors.from_argument(error) from error


def _refuse_shared_memory(uri: str) -> None:
    """Raise NotSupportedError for a URI of a database in memory with a shared cache.

    APSW's SQLite is built without shared caches: each connection would get a database
    of its own, without an error.
    """
    path, _, query = uri.partition("#")[0].partition("?")
    if not query or not path.startswith("file:"):
        return
    from urllib.parse import unquote  # slow to import, and few open by a URI

    pairs = (pair.partition("=") for pair in query.split("&"))
    options = {unquote(name): unquote(value) for name, _, value in pairs}
    name = unquote(path.removeprefix("file:"))
    in_memory = options.get("mode") == "memory" or name == ":memory:"
    if in_memory and options.get("cache") == "shared":
        shared = f"file:/{name.strip('/:')}?vfs=memdb"
        message = (
            "APSW's SQLite has no shared cache, so every connection to "
            f"{uri!r} would get a database of its own; open {shared!r} for one in "
            "memory that the connections of this process share"
        )
        raise errors.NotSupportedError(message)


def _milliseconds(timeout: float) -> int:
    try:
        return int(min(max(timeout, 0) * 1000, _LONGEST_TIMEOUT))
    except (TypeError, ValueError) as error:  # no number; NaN
        message = f"timeout is a number of seconds, not {timeout!r}"
        raise errors.from_argument(type(error)(message)) from None


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
    if isinstance(autocommit, bool):
        return autocommit
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
    # Not pathlib, which would make `import thanosql` slower.
    if root is not None and not os.path.isdir(root):  # noqa: PTH112
        message = f"audio_root is no directory: {os.fspath(root)!r}"
        raise errors.ArgumentValueError(message)
    return root


# In a forked process

_IN_PARENT = -1
_all_open: WeakSet[Database] = WeakSet()
_left_to_parent: list[apsw.Connection | None] = []


def _leave_to_parent() -> None:
    """Make every connection unusable in a forked process, and never close it there.

    SQLite's locks stay with the parent: to use, or even close, its connections here
    can damage the file (https://www.sqlite.org/howtocorrupt.html, 2.6).
    """
    for database in _all_open:
        database.owner = _IN_PARENT
        _left_to_parent.append(database._open)


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_leave_to_parent)
