"""The JSON of PREDICT's column `words` in, the words that were said out."""

from __future__ import annotations

import json
import unicodedata
from typing import Any, NamedTuple

from thanosql.errors import DataError

LATEST = 10_000_000.0
"""Seconds at which a word may be; no recording lasts four months."""

# The first word of the Unicode names of letters that are written without spaces, beside
# those that are as wide as two. Korean has wide letters and spaces.
_UNSPACED = ("THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN", "HALFWIDTH")
_SPACED = "HANGUL"


class Spoken(NamedTuple):
    """A word that was said, and when; in a subtitle also several that stay together."""

    text: str
    start: float  # seconds from the recording's beginning
    end: float


def spoken(function: str, words: object) -> list[Spoken]:
    """Return the words that were said, in their order.

    Left out are words without times, which ALIGN gives to those of its text that were
    not said, and words without text. White space inside a word becomes one space.

    Raises DataError, which names the SQL function and the word, counted from 1.
    """
    if not isinstance(words, str):
        kind = type(words).__name__
        message = f"{function}: words are JSON text, as PREDICT has it, not {kind}"
        raise DataError(message)
    try:
        listed = json.loads(words)
    except (ValueError, RecursionError) as error:
        message = f"{function}: words are no JSON: {error}"
        raise DataError(message) from error
    if not isinstance(listed, list):
        message = f"{function}: words are a JSON array of objects, one a word"
        raise DataError(message)
    found: list[Spoken] = []
    for number, each in enumerate(listed, start=1):
        word = _word(f"{function}: word {number}", each)
        if word is None:
            continue
        if found and word.start < found[-1].start:
            message = (
                f"{function}: word {number} starts at {word.start} s, before the one "
                "that comes before it; order the words by start"
            )
            raise DataError(message)
        found.append(word)
    return found


def _word(place: str, value: Any) -> Spoken | None:
    if not isinstance(value, dict):
        message = f'{place} is no object {{"word": ..., "start": ..., "end": ...}}'
        raise DataError(message)
    lacking = [key for key in ("word", "start", "end") if key not in value]
    if lacking:
        message = f"{place} has no {lacking[0]!r}"
        raise DataError(message)
    text, start, end = value["word"], value["start"], value["end"]
    if not isinstance(text, str):
        message = f"{place}: 'word' is a text, not {text!r:.80}"
        raise DataError(message)
    if start is None and end is None:
        return None
    for key, time in (("start", start), ("end", end)):
        if type(time) not in (int, float) or not 0 <= time <= LATEST:
            message = f"{place}: {key!r} is a time in seconds, not {time!r:.80}"
            raise DataError(message)
    if end < start:
        message = f"{place} ends before it starts"
        raise DataError(message)
    text = " ".join(text.split())
    return Spoken(text, start, end) if text else None


def space_between(left: str, right: str) -> str:
    """Return what parts two words: a space, or nothing in a script without spaces."""
    return "" if is_unspaced(left[-1]) and is_unspaced(right[0]) else " "


def is_unspaced(character: str) -> bool:
    """Whether a letter or sign is of a script that puts no space between words."""
    if character.isascii():
        return False
    name = unicodedata.name(character, "")
    return name.startswith(_UNSPACED) or (
        unicodedata.east_asian_width(character) in "WF" and not name.startswith(_SPACED)
    )
