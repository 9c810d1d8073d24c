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
from thanosql.driver.connection import connect
from thanosql.frontends import package

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thanosql.driver.connection import Connection

_INTRODUCTION = """\
-- thanosql {version}: a speech recognizer used, trained and scored from SQL.
-- All comes with the package: WhisperTinyEn, which is OpenAI's Whisper tiny.en, and
-- readings of old novels, by speech synthesizers (readings_train, readings_test) and by
-- a person (readings_people). The database is {path}.
"""
_END = """\
-- {seconds:.0f} seconds. The database is yours to go on with: thanosql {path}
-- A recording of your own (wav, flac, ogg or mp3):
thanosql {path} "PREDICT USING my_speech_recognition_model AS SELECT 'my.wav' AS audio"
"""
_DEMO = """
GET DATASET readings;

SELECT * FROM readings_train LIMIT 5;

GET MODEL WhisperTinyEn;

PREDICT USING WhisperTinyEn OPTIONS (audio_col='audio')
AS SELECT * FROM readings_test LIMIT 5;

EVALUATE USING WhisperTinyEn OPTIONS (audio_col='audio', text_col='text')
AS SELECT * FROM readings_test;

BUILD MODEL my_speech_recognition_model USING WhisperTinyEn
OPTIONS (audio_col='audio', text_col='text', epochs=1, batch_size=4)
AS SELECT * FROM readings_train;

PREDICT USING my_speech_recognition_model OPTIONS (audio_col='audio')
AS SELECT * FROM readings_test;

PREDICT USING my_speech_recognition_model OPTIONS (audio_col='audio')
AS SELECT * FROM readings_people;

EVALUATE USING my_speech_recognition_model OPTIONS (audio_col='audio', text_col='text')
AS SELECT * FROM readings_test;
"""
_WIDEST = 52  # characters of a cell


def main(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="thanosql demo",
        description="Use, train and score a speech recognizer, in about a minute.",
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
            version = package().__version__
            print(_INTRODUCTION.format(version=version, path=path))
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
    text = "" if value is None else str(value)
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 3]}..."
