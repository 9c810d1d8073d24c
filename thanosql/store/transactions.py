"""Transactions: all of a block's writes or none, also inside an open one."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import apsw

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 60.0
"""Seconds to wait for a lock before what took hours to make is given up for it."""


@contextmanager
def transaction(connection: apsw.Connection, patience: float = 0.0) -> Iterator[None]:
    """Write all of the block or nothing; in an open transaction, as part of it.

    patience: seconds to wait for other connections, beyond the connection's own
    timeout. The beginning waits for those that write; the end, where there is no WAL,
    for those that read.
    """
    begin, undo, end = (
        ("SAVEPOINT thanosql", "ROLLBACK TO thanosql", "RELEASE thanosql")
        if connection.in_transaction
        else ("BEGIN IMMEDIATE", "ROLLBACK", "COMMIT")
    )
    _execute(connection, begin, patience)
    try:
        yield
        _execute(connection, end, patience)
    except BaseException as error:
        # SQLite may have rolled the whole transaction back by itself (disk full).
        if connection.in_transaction:
            try:
                connection.execute(undo)
                if begin.startswith("SAVEPOINT"):
                    connection.execute(end)
            except apsw.InterruptError:
                # Until no query is half read, SQLite refuses all that follows an
                # interrupt, ROLLBACK too.
                error.add_note(
                    "a cursor is half read, so SQLite could not undo what was written: "
                    "close it and rollback()"
                )
        raise


def check_snapshot(connection: apsw.Connection) -> None:
    """Raise BusyError if a half-read query of this connection keeps it from writing.

    That is so in WAL mode, once another connection has written: the query reads the
    database as it was before, and SQLite writes to its newest state only. It goes
    unnoticed in an open transaction, which would keep the lock that a try takes.
    """
    try:
        with transaction(connection):
            pass
    except apsw.BusyError as error:
        if _is_in_vain(error):
            raise


def _execute(connection: apsw.Connection, statement: str, patience: float) -> None:
    tried_until = time.monotonic() + patience
    while True:
        try:
            connection.execute(statement)
        except apsw.BusyError as error:
            if _is_in_vain(error) or time.monotonic() >= tried_until:
                raise
            time.sleep(0.05)
        else:
            return


def _is_in_vain(error: apsw.BusyError) -> bool:
    """Whether waiting cannot help: this connection reads an outdated snapshot."""
    code: int | None = getattr(error, "extendedresult", None)
    return code == apsw.SQLITE_BUSY_SNAPSHOT
