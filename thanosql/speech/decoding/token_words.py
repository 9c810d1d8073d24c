"""Words of models that write: a text and its tokens in; which tokens spell which word.

With spaces, the words are those of `text.split()`. A language without spaces has no
words that all agree on: there they are what the tokens part.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from thanosql.speech.recording import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from thanosql.speech.recording import Span
    from thanosql.speech.results import Word

_OPENING = ("Ps", "Pi")  # Unicode's categories of brackets and quotes that open
_MARKS = ("Mn", "Mc", "Me")  # of what is written onto the letter before


@dataclass(frozen=True, slots=True)
class WordTokens:
    """A word of a text, punctuation included."""

    text: str
    spoken: range
    "The tokens between its first and its last letter, by number."


def words_of(text: str, ends: Sequence[int], *, spaced: bool) -> Iterator[WordTokens]:
    """Yield the words of a text, with the tokens that spell them.

    ends: for each token, how many characters of the text are written once it is, as
    `Subwords.ends` returns them. spaced: whether words have spaces between them.
    """
    first = 0
    for chunk in re.finditer(r"\S+", text):
        begin = chunk.start()
        for stop in (*_stops(text, chunk, () if spaced else ends), chunk.end()):
            last = int(np.searchsorted(ends, stop))
            # A token may hold the end of one word and the beginning of the next.
            tokens = range(min(first, last), last + 1)
            yield WordTokens(text[begin:stop], _spoken(text, begin, ends, tokens))
            begin, first = stop, last + 1


def _stops(text: str, chunk: re.Match[str], ends: Sequence[int]) -> list[int]:
    """Return where words end within a chunk of a text without spaces.

    It is behind tokens, but not so that punctuation is parted from its word.
    """
    return [
        end
        for end in dict.fromkeys(ends)
        if chunk.start() < end < chunk.end() and _parted(text[end - 1], text[end])
    ]


def _parted(before: str, after: str) -> bool:
    """Return whether a word may end between two characters."""
    if unicodedata.category(before) in _OPENING:
        return False
    kind = unicodedata.category(after)
    return kind in _OPENING or not (kind in _MARKS or kind.startswith("P"))


def _spoken(text: str, begin: int, ends: Sequence[int], tokens: range) -> range:
    """Return the tokens without those of nothing but punctuation at either end.

    Nobody says those: the model listens to the pause. All of them if no token is left.
    begin: where in the text the word begins.
    """
    starts = [0, *ends]

    def has_letters(token: int) -> bool:
        return any(each.isalnum() for each in text[starts[token] : ends[token]])

    said = [token for token in tokens if has_letters(token)]
    if not said:
        return tokens
    first = tokens.start if text[begin].isalnum() else said[0]
    # What writes nothing yet is a part of the character that comes next.
    while first > tokens.start and starts[first - 1] == ends[first - 1]:
        first -= 1
    return range(first, said[-1] + 1)


def in_recording(word: Word, spans: Sequence[Span]) -> Word:
    """Return a word of a window with the recording's times.

    spans: where the window's samples are from. A word ends with the span in which it
    begins, since what was left out behind that is a pause.
    """
    start = word.start * SAMPLE_RATE
    span = max((each for each in spans if each.begin <= start), default=spans[0])
    shift = (span.source - span.begin) / SAMPLE_RATE
    latest = (span.source + span.samples) / SAMPLE_RATE
    return replace(
        word,
        start=min(word.start + shift, latest),
        end=min(word.end + shift, latest),
    )
