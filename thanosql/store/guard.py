"""Whether the tables of ours in a database file are tables, and nothing besides.

Whoever wrote the file may have put a view in place of one, or had functions called by
its columns, constraints, indexes and triggers. What a file brings is not to run while
our statements work on our tables. SQLite can switch such things off for a connection
(SQLITE_DBCONFIG_ENABLE_VIEW and the like), but ends every statement of that connection
that is being read when it next opens a table: "abort due to ROLLBACK". So it is looked
up instead, in the schema, which runs nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from thanosql import errors
from thanosql.statements import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    import apsw

OURS = (
    "thanosql_runs",
    "thanosql_epochs",
    "thanosql_rows",
    "thanosql_models",
    "thanosql_files",
)
UNDER_WAY = """
CREATE INDEX IF NOT EXISTS thanosql_runs_under_way
  ON thanosql_runs (status) WHERE status = 'training'
"""
"The one index with a condition that our tables have."

_UNDER_WAY_AS_STORED = UNDER_WAY.replace("IF NOT EXISTS ", "").split()
_EXPRESSION = -2
"Where index_xinfo says that what is indexed is no column."

_SCHEMA = f"""
SELECT type, name, tbl_name, rootpage, sql FROM main.sqlite_schema
WHERE tbl_name COLLATE NOCASE IN ({", ".join(map(repr, OURS))})
"""


def check(connection: apsw.Connection, *, to_write: bool = False) -> None:
    """Raise DatabaseError if the file would have our tables run anything of its own.

    to_write: with what runs when a row is written or deleted. TEMP triggers are not of
    the file; they fire.
    """
    for reason in _besides(connection, to_write=to_write):
        message = (
            f"{reason}, which statements about models must not run; drop it, or work "
            "in another database"
        )
        raise errors.DatabaseError(message)


def _besides(connection: apsw.Connection, *, to_write: bool) -> Iterator[str]:
    """Yield what there is besides tables, in words."""
    objects: list[tuple[Any, ...]] = connection.execute(_SCHEMA).fetchall()
    for kind, name, table, root, sql in objects:
        if kind == "view" or (kind == "table" and not root):
            what = "view" if kind == "view" else "virtual table"
            yield f"{name!r} in the database is a {what}"
        elif kind == "table":
            for _, column, _, _, default, _, hidden in connection.execute(
                f"PRAGMA main.table_xinfo({table})"
            ).fetchall():
                if hidden:
                    yield f"column {column!r} of {table!r} is computed"
                if default is not None and to_write:
                    yield f"column {column!r} of {table!r} has a default"
            # A constraint is told by no pragma. The word is no part of what is ours.
            if to_write and re.search(r"\bcheck\b", sql, re.IGNORECASE):
                yield f"table {table!r} has a CHECK constraint"
        elif kind == "trigger" and to_write:
            yield f"table {table!r} has a trigger, {name!r}"
        elif kind == "index" and sql is not None and to_write:
            columns = connection.execute(f"PRAGMA main.index_xinfo({quoted(name)})")
            computed = any(place == _EXPRESSION for _, place, *_ in columns)
            where = re.search(r"\bwhere\b", sql, re.IGNORECASE)
            if computed or (where and sql.split() != _UNDER_WAY_AS_STORED):
                yield f"table {table!r} has an index that computes, {name!r}"
