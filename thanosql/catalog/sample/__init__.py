"""The samples' recordings, which ship: a database in, the same with their tables out.

README.md beside this file says what they are and how they are made.
"""

from __future__ import annotations

from contextlib import closing
from importlib import resources

import apsw


def copy_into(connection: apsw.Connection, sample: str = "sample") -> int:
    """Make a sample's tables in a database and return how many recordings they hold.

    sample: `sample` (commands), or `readings`.

    Raises apsw.SQLError if a table of that name is there already.
    """
    before = connection.total_changes()
    with (
        resources.as_file(resources.files(__name__) / f"{sample}.db") as path,
        closing(apsw.Connection(str(path), apsw.SQLITE_OPEN_READONLY)) as source,
        connection,
    ):
        for name, definition in source.execute(
            "SELECT name, sql FROM sqlite_schema WHERE type = 'table'"
        ).fetchall():
            connection.execute(str(definition))
            rows = source.execute(f'SELECT * FROM "{name}" ORDER BY rowid')
            marks = ", ".join("?" * len(rows.get_description()))
            connection.executemany(f'INSERT INTO "{name}" VALUES ({marks})', rows)
    return connection.total_changes() - before
