"""The SQL functions of every connection, imported when they are first called."""

from __future__ import annotations

import apsw

from thanosql.driver import adapters

TYPE_CHECKING = False  # the `typing` module alone costs as much as `sqlite3`
if TYPE_CHECKING:
    from typing import Any

# They depend on their arguments alone and do nothing else, so that SQLite allows them
# in indexes, generated columns and views, also those of a file that is not trusted.
_FLAGS = apsw.SQLITE_DETERMINISTIC | apsw.SQLITE_INNOCUOUS


def add_to(connection: apsw.Connection) -> None:
    """Make the functions callable in SQL."""
    try:
        for arguments in (2, 3, 4, 5):
            connection.create_scalar_function(
                "subtitles", _subtitles, arguments, flags=_FLAGS
            )
        connection.create_scalar_function("find_phrase", _find_phrase, 2, flags=_FLAGS)
    except apsw.BusyError:  # it has them already, and a statement of it runs
        pass


def _subtitles(*arguments: Any) -> Any:
    from thanosql.execution.functions.subtitles import subtitles  # plain SQL needs none

    return adapters.storable(subtitles(*arguments), "the result of subtitles()")


def _find_phrase(*arguments: Any) -> Any:
    from thanosql.execution.functions.phrases import find_phrase  # as above

    return adapters.storable(find_phrase(*arguments), "the result of find_phrase()")
