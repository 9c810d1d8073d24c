"""What the shell and the notebook share: a person's statements in, ready to run out."""

from __future__ import annotations

import re
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from thanosql import errors, statements
from thanosql.driver import connection as driver
from thanosql.driver import script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import apsw

    from thanosql.driver.connection import Connection

_STEPS = 100_000  # of SQLite's machine, some milliseconds


def split(sql: str) -> Iterator[str]:
    """Yield the statements of a script, each at its place in the script.

    The text before it is replaced by blanks, so that an error names the script's line.
    """
    end = 0
    for statement in script.statements(sql):
        start, end = end, end + len(statement)
        yield blanked(sql[:end], start)


def blanked(sql: str, end: int) -> str:
    """Return `sql` with blanks for all up to `end` except the ends of lines."""
    return re.sub(r"[^\n]", " ", sql[:end]) + sql[end:]


def connect(
    database: str | apsw.Connection,
    audio_root: str | None = None,
    ray_address: str | None = None,
) -> Connection:
    """Open a database for a person: each statement is committed, unless after a BEGIN.

    A ``file:`` URI is read as one.
    """
    is_uri = isinstance(database, str) and database.startswith("file:")
    try:
        connection = driver.connect(
            database,
            autocommit=True,
            uri=is_uri,
            audio_root=audio_root,
            ray_address=ray_address,
        )
        connection.execute("PRAGMA schema_version").fetchall()
    except errors.Error as error:  # no such folder, no database
        error.args = (f"cannot open {database!r}: {error}",)
        raise
    # Python notices Ctrl-C only when it runs, as in this handler during a long query.
    connection.apsw.set_progress_handler(lambda: False, _STEPS, id="thanosql")
    return connection


@contextmanager
def explaining(connection: Connection, sql: str) -> Iterator[None]:
    """Add its place in the statement to an error, and to an interrupt what is kept."""
    was_in_transaction = connection.in_transaction
    try:
        yield
    except errors.Error as error:
        offset = getattr(error.__cause__, "error_offset", -1)
        if offset >= 0 and "\n" not in str(error) and _is_plain(sql):
            # SQLite counts the bytes of UTF-8.
            place = len(sql.encode()[:offset].decode(errors="ignore"))
            error.args = (errors.point(str(error), sql, place),)
        raise
    except KeyboardInterrupt:
        # SQLite ends a transaction whose write is interrupted.
        undone = was_in_transaction and not connection.in_transaction
        what = "its transaction was rolled back" if undone else "nothing of it is kept"
        message = f"the statement was interrupted; {what}"
        raise KeyboardInterrupt(message) from None


def _is_plain(sql: str) -> bool:
    """Whether SQLite was given the text unchanged, so that its offsets are right."""
    try:
        return not statements.parse(sql).clauses
    except errors.Error:
        return False


@contextmanager
def short_warnings(write: Callable[[str], object]) -> Iterator[None]:
    """Write the warnings of this package as one line, each time they are raised."""
    others = warnings.showwarning

    def show(message: Any, category: Any, *where: Any) -> None:
        if issubclass(category, errors.Warning):
            write(f"Warning: {message}\n")
        else:
            others(message, category, *where)

    with warnings.catch_warnings():
        # "default" would show one once for each line of code, and all statements here
        # are run by one line.
        warnings.simplefilter("always", errors.Warning)
        warnings.showwarning = show  # type: ignore[assignment]
        yield
