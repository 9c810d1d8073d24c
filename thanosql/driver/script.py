"""A script's statements: SQL text in, one statement after the other out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import apsw

from thanosql.driver.routes import past_blanks

if TYPE_CHECKING:
    from collections.abc import Iterator

# Stretches in which a semicolon ends nothing, else one semicolon.
_quoted_or_semicolon = re.compile(
    r"""'[^']*+' | "[^"]*+" | `[^`]*+` | \[[^\]]*+\] | --[^\n]*+ | /\*.*?\*/ | ;""",
    re.DOTALL | re.VERBOSE,
).finditer


def statements(script: str) -> Iterator[str]:
    """Yield the statements of a script, each with its semicolon.

    SQLite itself says where one ends (`sqlite3_complete`): a semicolon in a string,
    a comment or a trigger's body ends none. It reads the statement from its start each
    time, so it is not asked about semicolons in strings and comments.
    """
    start = 0
    for found in _quoted_or_semicolon(script):
        if found[0] != ";":
            continue
        statement = script[start : found.end()]
        if apsw.complete(statement):
            yield statement
            start = found.end()
    if past_blanks(script[start:]):
        yield script[start:]
