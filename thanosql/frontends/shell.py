"""The `thanosql` command: arguments in, statements and their tables printed.

thanosql demo [database]     train, use and score a small model, start to end
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import thanosql
from thanosql import sample

if TYPE_CHECKING:
    from collections.abc import Sequence

_INTRODUCTION = """\
-- thanosql {version}: a speech model trained, used and scored from SQL.
-- {count} recordings, spoken by speech synthesizers (they ship with the package),
-- in {path}; the model starts from random weights.
"""
_DEMO = """
SELECT * FROM commands_train LIMIT 5;

BUILD MODEL commands USING ParakeetTiny
OPTIONS (epochs=12, batch_size=16, learning_rate=2e-3)
AS SELECT audio, text FROM commands_train;

PREDICT USING commands
AS SELECT audio, speaker, text FROM commands_test ORDER BY random() LIMIT 10;

EVALUATE USING commands AS SELECT audio, text FROM commands_test;

SELECT speaker, count(*) AS clips, sum(predicted = text) AS exact
FROM (PREDICT USING commands AS SELECT audio, text, speaker FROM commands_test)
GROUP BY speaker;

LIST MODELS;
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="thanosql", description="Speech recognition as SQL, in one SQLite file."
    )
    parser.add_argument("--version", action="version", version=thanosql.__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser(
        "demo",
        help="train, use and score a small model, start to end, in about two minutes",
    )
    demo.add_argument(
        "database",
        nargs="?",
        type=Path,
        default=Path("thanosql-demo.db"),
        help="the SQLite file to make (default: %(default)s)",
    )
    chosen = parser.parse_args(arguments)
    try:
        return _demo(chosen.database)
    except thanosql.Error as error:
        print(f"thanosql: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("thanosql: interrupted", file=sys.stderr)
        return 130


def _demo(path: Path) -> int:
    if path.exists():
        print(
            f"thanosql: {path} exists already; name another file: thanosql demo FILE",
            file=sys.stderr,
        )
        return 1
    began = time.perf_counter()
    connection = thanosql.connect(path)
    try:
        count = sample.copy_into(connection.apsw)
        print(
            _INTRODUCTION.format(version=thanosql.__version__, count=count, path=path)
        )
        for statement in _DEMO.strip().split(";\n\n"):
            show(connection, statement.rstrip(";\n"))
    finally:
        connection.close()
    print(
        f"-- {time.perf_counter() - began:.0f} seconds. Go on with: sqlite3 {path}, or"
    )
    print(f'-- python -c "import thanosql; con = thanosql.connect({str(path)!r})"')
    return 0


def show(connection: thanosql.Connection, statement: str) -> None:
    """Print a statement, run it, and print its rows as a table."""
    print(f"{statement};\n", flush=True)
    cursor = connection.execute(statement)
    if cursor.description is not None:
        print(_table([column[0] for column in cursor.description], cursor.fetchall()))
        print(flush=True)


def _table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    import pandas as pd  # only for the table

    frame = pd.DataFrame([[_shown(value) for value in row] for row in rows])
    frame.columns = pd.Index(names)
    return frame.to_string(index=False, max_colwidth=60, na_rep="")


def _shown(value: object) -> object:
    if isinstance(value, bytes):
        return f"<{len(value):,} bytes>"
    return float(f"{value:.4g}") if isinstance(value, float) else value
