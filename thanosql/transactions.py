"""All of a block's writes or none, whether a transaction is open already or not."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import apsw

if TYPE_CHECKING:
    from collections.abc import Iterator

_OF_THE_SCHEMA = (
    apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER,
    apsw.SQLITE_DBCONFIG_ENABLE_VIEW,
    apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA,
)


@contextmanager
def transaction(connection: apsw.Connection, patience: float = 0.0) -> Iterator[None]:
    """Write all of the block or nothing; in an open transaction, as part of it.

    A database that others use is waited for, `patience` seconds beyond the connection's
    own timeout: before the block for who writes and, where there is no WAL, behind it
    for who reads.
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
    except BaseException:
        # SQLite may have rolled the whole transaction back by itself (disk full).
        if connection.in_transaction:
            connection.execute(undo)
            if begin.startswith("SAVEPOINT"):
                connection.execute(end)
        raise


def check_snapshot(connection: apsw.Connection) -> None:
    """Raise if a query that is half read stands against writing, for as long as it is.

    So it does in WAL mode once another connection has written.
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
    """Whether waiting cannot help: what this connection reads itself is outdated."""
    code: int | None = getattr(error, "extendedresult", None)
    return code == apsw.SQLITE_BUSY_SNAPSHOT


@contextmanager
def guarded(connection: apsw.Connection) -> Iterator[None]:
    """Have statements prepared in the block run nothing that the database brings.

    For our own tables: whoever wrote the file may have put a view in place of a table,
    a trigger on it, or a function into a constraint. The user's own TEMP triggers still
    work.
    """
    before = [(each, connection.config(each, -1)) for each in _OF_THE_SCHEMA]
    for each, _ in before:
        connection.config(each, 0)
    try:
        yield
    finally:
        for each, value in before:
            connection.config(each, value)
