"""What was done, counted: a measure of work that no busy machine changes."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from typing import TYPE_CHECKING

import apsw

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def calls() -> Iterator[Counter[str]]:
    """Count the calls that this thread makes in the block, by the function's name.

    Functions of C count too: "apsw.complete", "statements" (a Python function has no
    module before its name).
    """
    counts: Counter[str] = Counter()

    def count(frame, event, function):
        if event == "call":
            counts[frame.f_code.co_qualname] += 1
        elif event == "c_call":
            counts[f"{function.__module__}.{function.__qualname__}"] += 1

    sys.setprofile(count)
    try:
        yield counts
    finally:
        sys.setprofile(None)


@contextlib.contextmanager
def statements(connection) -> Iterator[Counter[str]]:
    """Count the statements that SQLite begins on a connection in the block."""
    counts: Counter[str] = Counter()
    tracing = (apsw.SQLITE_TRACE_STMT, lambda facts: counts.update([facts["sql"]]))
    connection.apsw.trace_v2(*tracing, id=counts)
    try:
        yield counts
    finally:
        connection.apsw.trace_v2(0, None, id=counts)
