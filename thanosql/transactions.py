"""All of a block's writes or none, whether a transaction is open already or not."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import apsw

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def transaction(connection: apsw.Connection, patience: float = 0.0) -> Iterator[None]:
    """Write all of the block or nothing; in an open transaction, as part of it.

    A database that another connection writes to is waited for, `patience` seconds
    beyond the connection's own timeout.
    """
    begin, undo, end = (
        ("SAVEPOINT thanosql", "ROLLBACK TO thanosql", "RELEASE thanosql")
        if connection.in_transaction
        else ("BEGIN IMMEDIATE", "ROLLBACK", "COMMIT")
    )
    tried_until = time.monotonic() + patience
    while True:
        try:
            connection.execute(begin)
            break
        except apsw.BusyError:
            if time.monotonic() >= tried_until:
                raise
            time.sleep(0.05)
    try:
        yield
        connection.execute(end)
    except BaseException:
        # SQLite may have rolled the whole transaction back by itself (disk full).
        if connection.in_transaction:
            connection.execute(undo)
            if begin.startswith("SAVEPOINT"):
                connection.execute(end)
        raise
