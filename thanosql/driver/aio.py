"""thanosql for asyncio: `await connect`, `await execute`, `async for`.

::

    con = await thanosql.aio.connect("calls.db")
    async for row in await con.execute("PREDICT USING m AS SELECT audio FROM calls"):
        ...

Every call runs in one worker thread, the connection's own, so a training or a batch
that is transcribed leaves the event loop free. What a call does, and raises, is what
the method of the same name of `thanosql.Connection` does. `close` ends the thread; if
it is never called, the end of the program does.
"""

from __future__ import annotations

import asyncio
from _thread import allocate_lock
from concurrent.futures import ThreadPoolExecutor

from thanosql import errors
from thanosql.driver import connection as blocking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future
    from types import TracebackType
    from typing import Any, ParamSpec, Self, TypeVar

    import apsw

    from thanosql.driver.cursor import Cursor as BlockingCursor
    from thanosql.driver.database import Path
    from thanosql.driver.rows import Description
    from thanosql.statements.nodes import Parameters

    P = ParamSpec("P")
    R = TypeVar("R")


async def connect(database: Path | apsw.Connection, **arguments: Any) -> Connection:
    """Open a database; the arguments are those of `thanosql.connect`."""
    worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="thanosql.aio")
    # Opened in the worker, since only the thread that opens a connection may use it.
    opening = worker.submit(blocking.connect, database, **arguments)
    try:
        return Connection(await asyncio.wrap_future(opening), worker)
    except BaseException:  # cancelled, perhaps while the worker opens the file
        worker.submit(_close_opened, opening)
        worker.shutdown(wait=False)
        raise


def _close_opened(opening: Future[blocking.Connection]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


class Connection:
    """A connection whose methods are awaited; made by `connect`.

    As an asynchronous context manager it commits or rolls back, and stays open.
    """

    def __init__(
        self, connection: blocking.Connection, worker: ThreadPoolExecutor
    ) -> None:
        self.blocking = connection
        """The connection itself, to be used in functions given to `run` only."""
        self._worker = worker
        self._closed = False
        self._abandoned: list[BlockingCursor] = []
        self._running: object = None  # identifies the call that the worker runs now
        self._switching = allocate_lock()  # held to change or interrupt that call

    async def run(
        self, call: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """Call a function in the connection's thread and return what it returns.

        When the waiting task is cancelled, what SQLite runs for it is interrupted; the
        batch that is being transcribed is finished first.
        """
        if self._closed:
            message = "the connection is closed"
            raise errors.ProgrammingError(message)
        turn, is_cancelled = object(), False

        def in_worker() -> R | None:
            with self._switching:
                if is_cancelled:  # while it waited for its turn
                    return None
                self._running = turn
            try:
                while self._abandoned:
                    self._abandoned.pop().close()
                return call(*args, **kwargs)
            finally:
                with self._switching:
                    self._running = None

        try:
            result = await asyncio.wrap_future(self._worker.submit(in_worker))
        except asyncio.CancelledError:
            with self._switching:
                is_cancelled = True
                if self._running is turn:
                    self.blocking.interrupt()
            raise
        return result  # type: ignore[return-value]  # None only where cancelled

    async def cursor(self) -> Cursor:
        """Return a new cursor."""
        return Cursor(self, await self.run(self.blocking.cursor))

    async def execute(self, sql: str, parameters: Parameters | None = ()) -> Cursor:
        """Return a new cursor that has executed `sql`."""
        return await (await self.cursor()).execute(sql, parameters)

    async def executemany(self, sql: str, parameters: Iterable[Parameters]) -> Cursor:
        """Return a new cursor that has executed `sql` once for each of `parameters`."""
        return await (await self.cursor()).executemany(sql, parameters)

    async def executescript(self, script: str) -> Cursor:
        """Return a new cursor that has executed every statement of `script`."""
        return await (await self.cursor()).executescript(script)

    async def commit(self) -> None:
        """Commit the open transaction, if there is one; open queries go on."""
        await self.run(self.blocking.commit)

    async def rollback(self) -> None:
        """Undo the open transaction, if there is one."""
        await self.run(self.blocking.rollback)

    def interrupt(self) -> None:
        """Make the statements that run now fail."""
        self.blocking.interrupt()

    async def close(self) -> None:
        """Close the connection and all that is open on it; again does nothing."""
        if not self._closed:
            closing = self._worker.submit(self.blocking.close)
            self._closed = True
            self._worker.shutdown(wait=False)
            await asyncio.shield(asyncio.wrap_future(closing))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.run(self.blocking.__exit__, kind, value, traceback)


class Cursor:
    """A cursor whose methods are awaited; iterate over it with ``async for``."""

    def __init__(self, connection: Connection, cursor: BlockingCursor) -> None:
        self.connection = connection
        self.description: Description | None = None
        self.declared_types: tuple[str | None, ...] = ()
        self._cursor = cursor

    @property
    def rowcount(self) -> int:
        """The number of rows that were changed, else -1."""
        return self._cursor.rowcount

    @property
    def lastrowid(self) -> int | None:
        """The rowid of the row last inserted."""
        return self._cursor.lastrowid

    @property
    def arraysize(self) -> int:
        """The number of rows that `fetchmany` returns if none is given."""
        return self._cursor.arraysize

    @arraysize.setter
    def arraysize(self, size: int) -> None:
        self._cursor.arraysize = size

    async def execute(self, sql: str, parameters: Parameters | None = ()) -> Self:
        """Execute one statement and return this cursor."""
        return await self._executed(self._cursor.execute, sql, parameters)

    async def executemany(self, sql: str, parameters: Iterable[Parameters]) -> Self:
        """Execute a statement that changes rows once for each of `parameters`."""
        return await self._executed(self._cursor.executemany, sql, parameters)

    async def executescript(self, script: str) -> Self:
        """Execute every statement of `script`, one after the other."""
        return await self._executed(self._cursor.executescript, script)

    async def _executed(
        self, execute: Callable[..., BlockingCursor], *args: Any
    ) -> Self:
        self.description, self.declared_types = None, ()

        def describe() -> tuple[Description | None, tuple[str | None, ...]]:
            cursor = execute(*args)
            return cursor.description, cursor.declared_types

        # `description` may ask SQLite, which only the worker may do.
        self.description, self.declared_types = await self.connection.run(describe)
        return self

    async def fetchone(self) -> Any:
        """Return the next row as a tuple, or None when there is none left."""
        return await self.connection.run(self._cursor.fetchone)

    async def fetchmany(self, size: int | None = None) -> list[Any]:
        """Return the next `size` rows, `arraysize` if it is not given."""
        return await self.connection.run(self._cursor.fetchmany, size)

    async def fetchall(self) -> list[Any]:
        """Return all rows that are left."""
        return await self.connection.run(self._cursor.fetchall)

    async def close(self) -> None:
        """Close the cursor and stop the work of an open result."""
        await self.connection.run(self._cursor.close)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        row = await self.connection.run(next, self._cursor, None)
        if row is None:
            raise StopAsyncIteration
        return row

    def __del__(self) -> None:
        # Closed in its thread, before the connection's next call.
        self.connection._abandoned.append(self._cursor)
