"""A long recording and its text in; places at which both can be cut in two, out.

Where the model, left to itself, writes letters that stand in the text, and in only one
place in each, the two belong together. Of these places the longest chain is kept that
goes forward in both: the anchors (so "patience" compares files; of recordings: Moreno
et al., "A recursive algorithm for the forced alignment of very long audio segments",
ICSLP 1998).
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_LETTERS = 16  # in a row that make an anchor; fewer coincide in an hour of speech
_LEAST_TOKENS = 4  # of word pieces


class Cut(NamedTuple):
    """A place where a word begins."""

    frame: int
    "The first one that may be the word's, or of the silence before it."
    word: int
    "Its number."


def cuts(
    words: Sequence[Sequence[int]],
    letters: int,
    path: NDArray[np.int64],
    blanks: set[int],
) -> list[Cut]:
    """Return the places where a recording may be cut, each further on in both.

    words: the token ids of each, which write so many letters in all. path: (frames,),
    the likeliest token of each frame. blanks: the tokens that no word is made of.
    """
    heard, begins, ends = _heard(path, blanks)
    text = np.array([token for word in words for token in word], np.int32)
    word_at = {}  # place of its first token -> number of the word
    place = 0
    for i, word in enumerate(words):
        word_at[place] = i
        place += len(word)
    size = max(_LEAST_TOKENS, round(_LETTERS * len(text) / max(1, letters)))
    in_text, in_heard = _unique(text, size), _unique(heard, size)
    shared = sorted(
        (at, in_heard[key]) for key, at in in_text.items() if key in in_heard
    )
    found: list[Cut] = []
    for at, at_heard in _rising(shared):
        # The first word that begins inside, so that there is a token before it, too.
        for inside in range(1, size):
            if (number := word_at.get(at + inside)) is not None:
                token = at_heard + inside
                frame = (ends[token - 1] + begins[token]) // 2
                if not found or (number > found[-1].word and frame > found[-1].frame):
                    found.append(Cut(int(frame), number))
                break
    return found


def _heard(
    path: NDArray[np.int64], blanks: set[int]
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """Return the tokens of a path, and the frames at which each begins and ends."""
    begins = np.flatnonzero(np.diff(path, prepend=-1))
    ends = np.append(begins[1:], len(path))
    kept = ~np.isin(path[begins], [*blanks])
    return path[begins][kept].astype(np.int32), begins[kept], ends[kept]


def _unique(tokens: NDArray[np.int32], size: int) -> dict[bytes, int]:
    """Return where each run of so many tokens is that comes only once."""
    data = tokens.tobytes()
    places: dict[bytes, int] = {}
    for at in range(len(tokens) - size + 1):
        key = data[4 * at : 4 * (at + size)]
        places[key] = -1 if key in places else at
    return {key: at for key, at in places.items() if at >= 0}


def _rising(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the longest chain of pairs whose second numbers rise, as the first do."""
    lasts: list[int] = []  # the least second number that a chain of each length ends in
    at: list[int] = []  # its pair
    before: list[int] = []
    for i, (_, second) in enumerate(pairs):
        length = bisect_left(lasts, second)
        before.append(at[length - 1] if length else -1)
        lasts[length : length + 1] = [second]
        at[length : length + 1] = [i]
    chain = []
    i = at[-1] if at else -1
    while i >= 0:
        chain.append(pairs[i])
        i = before[i]
    return chain[::-1]
