"""A column `words` for a person: its JSON in, readable text or HTML out.

Any column of that name is taken whose values are what PREDICT writes there, so that it
may also come from a table. Other values stay as they are.
"""

from __future__ import annotations

import html
import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from thanosql.execution.functions.words import LATEST, space_between

if TYPE_CHECKING:
    from collections.abc import Sequence

COLUMN = "words"
_UNSURE = 0.5  # a confidence below is printed

# A click, Enter or Space on a word; the cell of the words has both handlers.
_CLICK = (
    "const w=event.target.closest('[data-start]'),"
    "a=this.closest('tr').querySelector('audio');"
    "if(w&&a){a.currentTime=w.dataset.start;a.play()}"
)
_KEY = (
    "if(event.key==='Enter'||event.key===' ')"
    "{event.preventDefault();event.stopPropagation();event.target.click()}"
)


def parsed(value: object) -> list[dict[str, Any]] | None:
    """Return the words of a value that PREDICT might have written; None of others."""
    if not isinstance(value, str) or not value.startswith("["):
        return None
    try:
        words = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return words if all(map(_is_word, words)) else None


def _is_word(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("word"), str):
        return False
    numbers = [value.get(key) for key in ("start", "end", "confidence")]
    return all(
        number is None or (type(number) in (int, float) and 0 <= number <= LATEST)
        for number in numbers
    )


def readable(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    """Return rows with the words of a column `words` as text."""
    positions = [number for number, name in enumerate(names) if name == COLUMN]
    changed = [list(row) for row in rows]
    for row in changed:
        for position in positions:
            words = parsed(row[position])
            if words is not None:
                row[position] = " ".join(map(_text, words))
    return changed


def _text(word: dict[str, Any]) -> str:
    """Return when a word is said, the word, and its confidence if that is low."""
    confidence = word.get("confidence")
    unsure = confidence is not None and confidence < _UNSURE
    doubt = f" ({confidence:.2f})" if unsure else ""
    start = word.get("start")
    said = "-" if start is None else f"{start:.2f}"
    return f"[{said}] {word['word']}{doubt}"


def cell(words: Sequence[dict[str, Any]], most: int, *, plays: bool) -> str:
    """Return a table's cell with at most `most` words, the less sure the darker.

    plays: whether a word is to be a button that plays the row's recording from there.
    """
    shown = words[:most]
    spaces = [
        space_between(*(each["word"] or " " for each in pair))
        for pair in pairwise(shown)
    ]
    text = "".join(
        f"{_word(word, plays)}{space}"
        for word, space in zip(shown, [*spaces, ""], strict=False)
    )
    left = len(words) - len(shown)
    more = f" and {left:,} more words" if left else ""
    handlers = (
        f' onclick="{html.escape(_CLICK)}" onkeydown="{html.escape(_KEY)}"'
        if plays
        else ""
    )
    style = "text-align:left;white-space:normal;min-width:20em;max-width:60em"
    return f'<td style="{style}"{handlers}>{text}{more}</td>'


def _word(word: dict[str, Any], plays: bool) -> str:
    text = html.escape(word["word"])
    start, end, confidence = (word.get(key) for key in ("start", "end", "confidence"))
    if start is None:
        return f'<s title="not said">{text}</s>'
    said = f"{start:.2f} s" if end is None else f"{start:.2f} to {end:.2f} s"
    shade = ""
    if confidence is not None:
        said += f", confidence {confidence:.2f}"
        # Over the page's own colour, light or dark.
        doubt = round(0.7 * (1 - min(max(confidence, 0), 1)), 2)
        shade = f' style="background:rgba(235,120,0,{doubt})"'
    button = f' role="button" tabindex="0" data-start="{start}"' if plays else ""
    return f'<span title="{said}"{shade}{button}>{text}</span>'
