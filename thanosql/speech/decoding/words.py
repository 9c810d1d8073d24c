"""The tokens of a text and when each was heard in, the text's words with times out.

For any decoding over frames: a `Timeline` is told of the windows that a decoder is fed,
and says when a frame was spoken; `timed_words` finds the tokens of each word, and where
the word begins and ends.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_left, bisect_right
from itertools import accumulate
from math import prod
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from thanosql.speech.decoding.spelling import is_unspaced
from thanosql.speech.recording import SAMPLE_RATE, Span
from thanosql.speech.results import Word

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from thanosql.speech.decoding.spelling import Spelling

# Seconds, measured with TinyEn (benchmarks/words.py): how long before the middle of its
# first token a word begins, and how long after its last it ends, where no pause tells.
_BEFORE, _AFTER = 0.1, 0.06
_LEAST = 0.04  # seconds that a word begins before its first token, pause or not
_NEAR = 0.5  # seconds between a token and the pause before or after its word


class Heard(NamedTuple):
    """A token of a text, and when it was heard: seconds from the recording's start."""

    token: int
    "Its id."
    first: float
    "The middle of its first frame."
    last: float
    "The middle of its last frame."
    confidence: float  # 0 to 1


class Grid(NamedTuple):
    """Where the frames of a window lie, or its features, in samples at 16 kHz."""

    step: int
    "From one to the next."
    middle: int
    "From the window's beginning to the middle of what the first stands for."


class Timeline:
    """The frames that a decoder is fed, and the pauses, as times of a recording.

    Frames are counted over all that were kept.
    """

    def __init__(self, grid: Grid) -> None:
        """Begin before the first window. grid: of the frames."""
        self._grid = grid
        self._frames = 0
        self._firsts: list[int] = []  # of each window that was heard
        self._windows: list[tuple[int, Sequence[Span]]] = []
        self.end = 0.0
        "The second at which the last window ends."
        self.pauses: list[tuple[float, float]] = []
        "Where nobody speaks: begin and end of each, in seconds, in order."

    def feed(
        self,
        frames: int,
        kept: slice,
        spans: Sequence[Span],
        pauses: Iterable[tuple[int, int]] = (),
    ) -> None:
        """Take note of the next window.

        frames: the number of those that are kept. spans: where its samples are from;
        empty if it is the recording. pauses: begin and end of each, in samples of the
        window, in order.
        """
        skipped = kept.start or 0
        begin = skipped * self._grid.step
        spans = spans or (Span(0, 0, begin + frames * self._grid.step),)
        for one, other in pauses:
            # What is context belongs to the window that keeps it.
            first, last = max(one, begin), other
            if kept.stop is not None:
                last = min(other, kept.stop * self._grid.step)
            if first < last:
                self._pause(_second(spans, first), _second(spans, last))
        self._firsts.append(self._frames)
        self._windows.append((skipped, spans))
        self._frames += frames
        self.end = (spans[-1].source + spans[-1].samples) / SAMPLE_RATE

    def silence(self) -> None:
        """Take note of a window that was not heard; one frame stands for it."""
        self._frames += 1

    def second(self, frame: int) -> float:
        """Return when the middle of a frame was spoken."""
        number = bisect_right(self._firsts, frame) - 1
        skipped, spans = self._windows[number]
        place = frame - self._firsts[number] + skipped
        return _second(spans, place * self._grid.step + self._grid.middle)

    def _pause(self, begin: float, end: float) -> None:
        if self.pauses and self.pauses[-1][1] == begin:  # it goes over a joint
            begin, _ = self.pauses.pop()
        self.pauses.append((begin, end))


def _second(spans: Sequence[Span], sample: int) -> float:
    """Return when a sample of a window was spoken."""
    span = next((s for s in reversed(spans) if s.begin <= sample), spans[0])
    within = min(max(0, sample - span.begin), span.samples)
    return (span.source + within) / SAMPLE_RATE


def timed_words(
    spelling: Spelling, text: str, heard: Sequence[Heard], timeline: Timeline
) -> tuple[Word, ...]:
    """Return the words of a text, as `split_words` has them.

    heard: the tokens that read as the text, in order. CTC marks a token at one moment
    of its sound. So beside a pause a word begins and ends where the pause ends and
    begins; elsewhere a little before its first token and after its last. Words neither
    overlap nor go backwards. A word's confidence is that all its tokens are right:
    the product of theirs.
    """
    places = _places(spelling, text, [each.token for each in heard])
    words, tokens = split_words(text), []
    end = 0
    for word in words:
        begin, end = end, end + len(word)
        first = bisect_right(places, begin) - 1
        tokens.append(heard[first : bisect_left(places, end)])
    firsts = [each[0].first for each in tokens]
    lasts = [each[-1].last for each in tokens]
    starts = [
        _start(first, before, timeline.pauses)
        for first, before in zip(firsts, [0.0, *lasts], strict=False)
    ]
    # What follows the last word is the recording's end.
    following, limits = [[*each[1:], timeline.end] for each in (firsts, starts)]
    ends = [
        min(_end(last, after, timeline.pauses), limit)
        for last, after, limit in zip(lasts, following, limits, strict=False)
    ]
    confidences = (prod(one.confidence for one in each) for each in tokens)
    return tuple(map(Word, words, starts, ends, confidences))


def _start(first: float, before: float, pauses: Sequence[tuple[float, float]]) -> float:
    """Return when a word begins. first: its first token; before: the last one before.

    pauses: in order.
    """
    number = bisect_left(pauses, (first,)) - 1
    start = first - _BEFORE
    if number >= 0:
        end = pauses[number][1]
        if before < end and first - end <= _NEAR:
            start = min(end, first - _LEAST)
    return max(before, start)


def _end(last: float, after: float, pauses: Sequence[tuple[float, float]]) -> float:
    """Return when a word ends. last: its last token; after: the first one after it."""
    number = bisect_right(pauses, last, key=itemgetter(1))
    if number < len(pauses):
        begin = pauses[number][0]
        if begin < after and begin - last <= _NEAR:
            return max(last, begin)
    return last + _AFTER


def split_words(text: str) -> list[str]:
    """Return the words of a text: what stands between its spaces.

    Of a script that puts no space between words, such as Chinese, Japanese or Thai,
    each letter counts as a word.
    """
    return [part for word in text.split() for part in _parts(word)]


def _parts(word: str) -> Iterator[str]:
    part = ""
    for letter in word:
        is_mark = unicodedata.category(letter)[0] == "M"
        if part and not is_mark and (is_unspaced(letter) or is_unspaced(part[0])):
            yield part
            part = ""
        part += letter
    yield part


def _places(spelling: Spelling, text: str, tokens: Sequence[int]) -> Sequence[float]:
    """Return where in the text each token begins, and after the last where it ends.

    Letters are counted without spaces, so a token that writes none has no length. Jamo
    are written as syllables, bytes as letters: several tokens share one letter.
    """
    letters = _letters(text)
    alone = {token: _letters(spelling.decode([token])) for token in set(tokens)}
    if "".join(alone[token] for token in tokens) == letters:
        return [0, *accumulate(len(alone[token]) for token in tokens)]
    groups = [*_groups(spelling, tokens)]
    written = [len(_letters(spelling.decode(group))) for group in groups]
    if sum(written) != len(letters):  # other letters where other words stand beside
        groups, written = [[*tokens]], [len(letters)]
    places: list[float] = [0]
    for group, count in zip(groups, written, strict=True):
        lengths = [len(alone[token]) for token in group]
        if not any(lengths):
            lengths = [1] * len(group)
        begin, total = places[-1], sum(lengths)
        places += [begin + count * end / total for end in accumulate(lengths)]
    return places


def _groups(spelling: Spelling, tokens: Sequence[int]) -> Iterator[list[int]]:
    """Yield the tokens of each word; one that parts words begins the next."""
    group: list[int] = []
    for token in tokens:
        if group and spelling.begins_word(token):
            yield group
            group = []
        group.append(token)
    if group:
        yield group


def _letters(text: str) -> str:
    return "".join(text.split())
