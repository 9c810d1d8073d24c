"""`thanosql demo`: a file's name in, a database with a trained and scored model out."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from thanosql import errors
from thanosql.catalog import sample
from thanosql.driver.connection import connect
from thanosql.frontends import package

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thanosql.driver.connection import Connection

_INTRODUCTION = """\
-- thanosql {version}: a speech model trained, used and scored from SQL.
-- {count} recordings, spoken by speech synthesizers (they ship with the package),
-- in {path}; the model starts from TinyEn, which ships too.
"""
_END = """\
-- {seconds:.0f} seconds. The database is yours to go on with: thanosql {path}
"""
_DEMO = """
SELECT audio, text, speaker FROM commands_train LIMIT 5;

BUILD MODEL commands USING TinyEn
OPTIONS (audio_col='audio', text_col='text', epochs=10, batch_size=8)
AS SELECT * FROM commands_train;

EVALUATE USING commands AS SELECT audio, text FROM commands_test;

SELECT speaker, speaker IN (SELECT speaker FROM commands_train) AS heard,
       count(*) AS clips, sum(predicted = text) AS read_exactly
FROM (PREDICT USING commands AS SELECT audio, speaker, text FROM commands_test)
GROUP BY speaker ORDER BY heard DESC, speaker;

PREDICT USING commands OPTIONS (audio_col='audio')
AS SELECT audio, text FROM commands_test LIMIT 12;
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="thanosql demo",
        description="Train, use and score a small model in about a minute.",
    )
    parser.add_argument(
        "database",
        nargs="?",
        type=Path,
        default=Path("thanosql-demo.db"),
        help="the SQLite file to make (default: %(default)s)",
    )
    chosen = parser.parse_args(arguments)
    try:
        _demo(chosen.database)
    except errors.Error as error:
        print(f"thanosql: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nthanosql: interrupted", file=sys.stderr)
        return 130
    return 0


def _demo(path: Path) -> None:
    if path.exists():
        message = f"{path} exists already; name another file: thanosql demo FILE"
        raise errors.ProgrammingError(message)
    began = time.perf_counter()
    try:
        with closing(connect(path)) as connection:
            count = sample.copy_into(connection.apsw)
            version = package().__version__
            print(_INTRODUCTION.format(version=version, count=count, path=path))
            for statement in _DEMO.strip().split(";\n\n"):
                show(connection, statement.rstrip(";\n"))
    except BaseException:
        path.unlink(missing_ok=True)  # so that the same command can be tried again
        raise
    print(
        _END.format(seconds=time.perf_counter() - began, path=shlex.quote(str(path))),
        end="",
    )


def show(connection: Connection, statement: str) -> None:
    """Print a statement, run it, and print its rows as a table."""
    print(f"{statement};\n", flush=True)
    cursor = connection.execute(statement)
    if cursor.description is not None:
        names = [column[0] for column in cursor.description]
        print(_table(names, cursor.fetchall()), end="\n\n", flush=True)


def _table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return rows as a table: numbers to the right, everything else to the left."""
    lines = [list(names), *([_shown(value) for value in row] for row in rows)]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    numeric = [
        any(isinstance(row[i], int | float) for row in rows) for i in range(len(names))
    ]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if is_numeric else cell.ljust(width)
            for cell, width, is_numeric in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    )


def _shown(value: object) -> str:
    """Return a value as a person wants to read it."""
    if isinstance(value, bytes):
        return f"<{len(value):,} bytes>"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)
