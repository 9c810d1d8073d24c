"""Rows that cannot be learned from: the first of them, and why, in one error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from thanosql.errors import TrainingError

if TYPE_CHECKING:
    from collections.abc import Sequence

LISTED = 10  # bad rows that an error shows
_IS_NUMBER = "text is a number, not text"


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used, and why."""

    row: int
    reason: str


def unusable_text(text: object) -> str:
    """Return why a value cannot be a row's text; "" if it can."""
    if text is None:
        return "text is NULL"
    if isinstance(text, int | float):
        return _IS_NUMBER
    if not isinstance(text, str):
        return f"text is {type(text).__name__}, not text"
    return "" if text.strip() else "text is empty"


def bad_rows_error(
    bad: Sequence[BadRow],
    row_count: int,
    text_col: str,
    source: str = "the query",
    bad_count: int | None = None,
) -> TrainingError:
    """Return an error that lists the first bad rows and counts all of them.

    text_col: the name of the texts' column. source: the query, as the message names it.
    bad_count: how many there are, if `bad` has not all of them.
    """
    count = len(bad) if bad_count is None else bad_count
    lines = [f"row {b.row}: {b.reason}" for b in bad[:LISTED]]
    if count > LISTED:
        lines.append(f"and {count - LISTED} more")
    listed = "\n  ".join(lines)
    way_out = "correct them, or leave them out in its WHERE"
    if all(b.reason == _IS_NUMBER for b in bad):
        way_out = f"write CAST({text_col} AS TEXT) AS {text_col} in it"
    message = (
        f"{count} of {row_count} rows of {source} cannot be used; {way_out}\n  {listed}"
    )
    return TrainingError(message)
