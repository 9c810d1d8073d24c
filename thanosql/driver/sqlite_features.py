"""What `sqlite3`'s connections offer beyond PEP 249, under its names, over APSW's.

Functions and collations in Python, hooks, extensions, blobs, backup, limits. What is
not here is reached through `Connection.apsw`.
"""

from __future__ import annotations

import apsw

from thanosql import errors
from thanosql.driver import adapters
from thanosql.driver.blob import Blob
from thanosql.driver.database import Database
from thanosql.errors import translating

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class SQLiteFeatures(Database):
    """The part of `Connection` that is `sqlite3`'s and not PEP 249's."""

    # Functions in Python

    @translating
    def create_function(
        self,
        name: str,
        narg: int,
        func: Callable[..., Any] | None,
        /,
        *,
        deterministic: bool = False,
    ) -> None:
        """Make a function callable in SQL; -1 arguments are any number, None drops it.

        An exception that it raises comes out of the statement unchanged. What it
        returns may be of any type that a parameter may be.
        """
        flags = apsw.SQLITE_DETERMINISTIC if deterministic else 0
        stored = func and _storing(name, func)
        self.apsw.create_scalar_function(name, stored, narg, flags=flags)

    @translating
    def create_aggregate(
        self, name: str, n_arg: int, aggregate_class: Callable[[], Any] | None, /
    ) -> None:
        """Make a class with `step` and `finalize` an aggregate; None drops it."""
        self.apsw.create_aggregate_function(
            name,
            aggregate_class and _callbacks(name, aggregate_class, "step", "finalize"),
            n_arg,
        )

    @translating
    def create_window_function(
        self, name: str, num_params: int, aggregate_class: Callable[[], Any] | None, /
    ) -> None:
        """Make a class a window function; None drops it.

        The class has `step`, `inverse`, `value` and `finalize`.
        """
        self.apsw.create_window_function(
            name,
            aggregate_class
            and _callbacks(
                name, aggregate_class, "step", "finalize", "value", "inverse"
            ),
            num_params,
        )

    @translating
    def create_collation(
        self, name: str, callable: Callable[[str, str], int] | None, /
    ) -> None:
        """Make a function that compares two texts a collation; None drops it."""
        self.apsw.create_collation(name, callable)

    # Hooks

    @translating
    def set_authorizer(self, authorizer_callback: Callable[..., int] | None) -> None:
        """Have a function allow or deny each thing that a statement is about to do."""
        self.apsw.set_authorizer(authorizer_callback)

    @translating
    def set_progress_handler(
        self, progress_handler: Callable[[], object] | None, n: int
    ) -> None:
        """Call a function every `n` steps of SQLite's; a true answer interrupts."""
        handler = progress_handler
        self.apsw.set_progress_handler(handler and (lambda: bool(handler())), n)

    @translating
    def set_trace_callback(
        self, trace_callback: Callable[[str], object] | None
    ) -> None:
        """Call a function with the text of each statement that SQLite runs.

        `sqlite3` fills the parameters in; here they stay as written.
        """
        callback: Any = trace_callback
        self.apsw.trace_v2(
            apsw.SQLITE_TRACE_STMT if callback else 0,
            callback and (lambda event: callback(event["sql"])),
            id="trace_callback",
        )

    # Extensions: off unless asked for

    @translating
    def enable_load_extension(self, enable: bool, /) -> None:
        """Allow `load_extension`."""
        self.apsw.enable_load_extension(enable)

    @translating
    def load_extension(self, name: str, /, *, entrypoint: str | None = None) -> None:
        """Load a shared library of SQL functions or virtual tables."""
        self.apsw.load_extension(name, entrypoint)

    # Content

    @translating
    def blobopen(
        self,
        table: str,
        column: str,
        row: int,
        /,
        *,
        readonly: bool = False,
        name: str = "main",
    ) -> Blob:
        """Open the BLOB in a column of the row with that rowid."""
        blob = self.apsw.blob_open(name, table, column, row, not readonly)
        return Blob(self, blob)

    @translating
    def backup(
        self,
        target: Database,
        *,
        pages: int = -1,
        progress: Callable[[int, int, int], object] | None = None,
        name: str = "main",
        sleep: float = 0.25,
    ) -> None:
        """Copy the database into another connection's, even while it is in use.

        `pages` are copied at a time, all if not positive; after each turn `progress`
        is called with SQLite's status, the pages left and the pages in all. `sleep`
        seconds pass before another try where the database is locked.
        """
        if not isinstance(target, Database):
            message = f"the target is a connection, not {type(target).__name__}"
            raise errors.ArgumentTypeError(message)
        if target is self:
            message = "a connection cannot be copied into itself"
            raise errors.ProgrammingError(message)
        with target.apsw.backup("main", self.apsw, name) as job:
            while not job.done:
                status = apsw.SQLITE_OK
                try:
                    if job.step(pages if pages > 0 else -1):
                        status = apsw.SQLITE_DONE
                except (apsw.BusyError, apsw.LockedError) as error:
                    status = getattr(error, "result", apsw.SQLITE_BUSY)
                    apsw.sleep(int(sleep * 1000))
                if progress is not None:
                    progress(status, job.remaining, job.page_count)

    @translating
    def serialize(self, *, name: str = "main") -> bytes:
        """Return the database as the bytes of its file."""
        content: bytes | None = self.apsw.serialize(name)
        if content is None:
            message = f"no database named {name!r} is open here, or it has no content"
            raise errors.OperationalError(message)
        return content

    @translating
    def deserialize(self, data: bytes, /, *, name: str = "main") -> None:
        """Replace the database by one in memory, read from the bytes of a file."""
        self.apsw.deserialize(name, data)

    # Limits and settings

    @translating
    def getlimit(self, category: int, /) -> int:
        """Return one of SQLite's limits; the category is a SQLITE_LIMIT constant."""
        return self.setlimit(category, -1)

    @translating
    def setlimit(self, category: int, limit: int, /) -> int:
        """Lower one of SQLite's limits and return what it was; -1 changes nothing."""
        before = self.apsw.limit(category, limit)
        if before < 0:
            message = f"SQLite has no limit of category {category}"
            raise errors.ProgrammingError(message)
        return before

    @translating
    def getconfig(self, op: int, /) -> bool:
        """Return whether one of the SQLITE_DBCONFIG settings is on."""
        return bool(self.apsw.config(op, -1))

    @translating
    def setconfig(self, op: int, enable: bool = True, /) -> None:
        """Turn one of the SQLITE_DBCONFIG settings on or off."""
        self.apsw.config(op, int(enable))


def _callbacks(
    name: str, aggregate_class: Callable[[], Any], *methods: str
) -> Callable[[], Any]:
    """Return APSW's factory: an instance and its methods as functions."""

    def callback(method: str) -> Callable[..., Any]:
        def call(instance: Any, *values: Any) -> Any:
            return getattr(instance, method)(*values)

        # SQLite ignores what `step` and `inverse` return.
        return _storing(name, call) if method in ("finalize", "value") else call

    called = [callback(method) for method in methods]
    return lambda: (aggregate_class(), *called)


def _storing(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with its results made values that SQLite stores."""
    if not callable(function):
        message = f"{name} is to be a function, not {type(function).__name__}"
        raise errors.ArgumentTypeError(message)

    def call(*values: Any) -> Any:
        return adapters.storable(function(*values), f"the result of {name}()")

    return call
