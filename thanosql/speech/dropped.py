"""Counts of characters that a model cannot spell in, a warning out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thanosql import errors

if TYPE_CHECKING:
    from collections.abc import Mapping


def warn_of_dropped(dropped: Mapping[str, int]) -> None:
    """Warn of the letters and digits in the texts that the model can never write."""
    letters = {c: n for c, n in dropped.items() if c.isalnum()}
    if letters:
        listed = ", ".join(f"{c!r} ({n})" for c, n in list(letters.items())[:10])
        errors.warn(
            f"the model's vocabulary cannot spell {listed}"
            f"{' and others' if len(letters) > 10 else ''}: left out of the texts; "
            "spell them out in the query, or start from a base that has them"
        )
