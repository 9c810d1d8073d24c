"""The words of a text and scores of frames in, when each word was said out.

A recording whose trellis (`trellis.py`) is small is aligned as a whole, so exactly. A
longer one is cut where its text is recognized (`anchors.py`), in as few places as
needed, and each part is aligned by itself. So time is linear in the recording's length.
Its scores are in a temporary file until its last window is fed, and memory holds those
of a part.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, NamedTuple
from weakref import finalize

import numpy as np
import torch
from torch import Tensor

from thanosql.speech.decoding.anchors import Cut, cuts
from thanosql.speech.decoding.best_path import pauses_of
from thanosql.speech.decoding.trellis import Costs, Tokens, best_path
from thanosql.speech.decoding.words import Heard, Timeline, times
from thanosql.speech.results import AlignedWord, Alignment, Hypothesis

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from thanosql.speech.decoding.spelling import Spelling
    from thanosql.speech.decoding.words import Grid
    from thanosql.speech.recording import Span

# Found on TinyEn's training recordings, with words planted in their texts and words
# taken out: on those of others, 3 % of the words that are said count as left out, and
# 6 % of those planted as said (docs/experiments.md).
COSTS = Costs(speech=1.0, leave_out=4.0, token=3.0)
# The least agreement of a text that is likely its recording's. With TinyEn, of people
# that it never heard, right texts have 0.4 to 1, others of the same length at most 0.2.
_MATCHES = 0.25
_CELLS = 2**24  # frames times tokens of a part, where it can be cut: 6 MB of choices
_MOST_CELLS = 2**27  # of one in which nothing is recognized: 50 MB
_IN_MEMORY = 2**25  # bytes of scores; more go to a temporary file
_LEAST = -60.0  # of the log-ratios, which are kept as float16


class Scores(NamedTuple):
    """What an alignment needs of a window's logits, on the CPU."""

    ratios: NDArray[np.float16]
    "(frames, vocab): the log of a token's probability to the frame's highest."
    highest: NDArray[np.float32]
    "(frames,): the log of that."
    path: NDArray[np.int64]
    "(frames,): the likeliest token."
    pauses: list[tuple[int, int]]
    "Begin and end of each, in samples of the window."


@dataclass(frozen=True, slots=True)
class Aligning:
    """The way to find when the words of a text were said."""

    spelling: Spelling
    blank: int
    frames: Grid
    features: Grid

    def scores(
        self, logits: Tensor, lengths: Tensor, features: Sequence[Tensor] = ()
    ) -> list[Scores]:
        """Return the scores of each row.

        logits: (batch, frames, vocab); lengths: (batch,), the frames that are not
        padding. features: of each row, in which pauses are looked for; without them
        none are found.
        """
        log_probs = logits.log_softmax(-1, dtype=torch.float32)
        highest, path = log_probs.max(-1)
        ratios = (log_probs - highest[..., None]).clamp_(min=_LEAST).half()
        arrays = [each.cpu() for each in (ratios, highest, path)]
        found = []
        for row, count in enumerate(lengths.tolist()):
            of_row = [array[row, :count] for array in arrays]
            silences = []
            if features:
                silences = pauses_of(
                    self.spelling, features[row], of_row[2], self.features, self.frames
                )
            shares, peaks, tokens = map(Tensor.numpy, of_row)
            found.append(Scores(shares, peaks, tokens, silences))
        return found

    def start(self, expected: tuple[str, ...] = ()) -> Aligner:
        """Return a decoder for one recording. expected: the words of its text."""
        return Aligner(self, expected)


@dataclass(frozen=True, slots=True)
class _Spelled:
    """The words of a text that the model can spell."""

    words: list[tuple[int, ...]]
    "The token ids of each."
    numbers: list[int]
    "Their places among all words."
    wild: frozenset[int]
    "Before which of them, or after all, there are words that it cannot spell."
    letters: int
    "Of all."


def spelled(spelling: Spelling, words: Sequence[str]) -> _Spelled:
    """Return the token ids of the words that can be spelled."""
    found: list[tuple[int, ...]] = []
    numbers, wild, letters = [], set(), 0
    for number, word in enumerate(words):
        text = spelling.normalize(word).text
        ids = spelling.encode(text)
        if ids:
            found.append(ids)
            numbers.append(number)
            letters += len(text)
        elif any(map(str.isalnum, word)):
            wild.add(len(found))
    return _Spelled(found, numbers, frozenset(wild), letters)


class Aligner:
    """Collects the scores of one recording, window by window."""

    def __init__(self, aligning: Aligning, words: tuple[str, ...]) -> None:
        self._aligning = aligning
        self._words = words
        self._file = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - see `finish`
        finalize(self, self._file.close)  # where the recording never comes to its end
        self._highest: list[NDArray[np.float32]] = []
        self._paths: list[NDArray[np.int64]] = []
        self._timeline = Timeline(aligning.frames)
        self._spelled = spelled(aligning.spelling, words)
        silence = [aligning.blank]
        if aligning.spelling.delimiter is not None:
            silence.append(aligning.spelling.delimiter)
        ids = {token for word in self._spelled.words for token in word}
        # Only what the text is made of is kept.
        self._columns = [*silence, *sorted(ids.difference(silence))]
        self._silence = silence

    def feed(self, scores: Scores, kept: slice, spans: Sequence[Span]) -> None:
        """Take the scores of the next window."""
        self._file.write(scores.ratios[kept][:, self._columns].tobytes())
        self._highest.append(scores.highest[kept])
        self._paths.append(scores.path[kept])
        self._timeline.feed(len(self._paths[-1]), kept, spans, scores.pauses)

    def silence(self) -> None:
        """Take note of a window without speech: a blank."""
        ratios = np.full((1, len(self._columns)), _LEAST, np.float16)
        ratios[0, 0] = 0.0
        self._file.write(ratios.tobytes())
        self._highest.append(np.zeros(1, np.float32))
        self._paths.append(np.array([self._aligning.blank]))
        self._timeline.silence()

    def finish(self) -> Hypothesis:
        """Return the alignment of the text."""
        with self._file:
            return Hypothesis(" ".join(self._words), alignment=self._alignment())

    def _alignment(self) -> Alignment:
        path, highest = np.concatenate(self._paths), np.concatenate(self._highest)
        tokens = sum(map(len, self._spelled.words))
        if tokens > len(path):
            message = (
                f"the text is too long for its audio: {tokens} tokens, and {len(path)} "
                f"frames in {self._timeline.end:.1f} s; give no more than what may be "
                "said in this recording"
            )
            return Alignment(error=message)
        said: list[list[Heard] | None] = []
        score = 0.0
        for begin, end in self._parts(path):
            found, part = self._aligned(begin, end, highest)
            said += found
            score += part
        speaking = int((~np.isin(path, self._silence)).sum())
        nothing = COSTS.leave_out + COSTS.token * tokens + COSTS.speech * speaking
        agreement = max(0.0, 1 + score / nothing)
        words = self._placed(said)
        confidences = [w.confidence for w in words if w.confidence is not None]
        return Alignment(
            words=words,
            confidence=fmean(confidences),
            agreement=agreement,
            matches=agreement >= _MATCHES,
        )

    def _parts(self, path: NDArray[np.int64]) -> Iterator[tuple[Cut, Cut]]:
        """Yield the parts that are aligned by themselves: where each begins and ends.

        path: (frames,), the likeliest token of each.
        """
        words = self._spelled.words
        before = np.cumsum([0, *map(len, words)])  # the tokens before each word
        whole = Cut(0, 0), Cut(len(path), len(words))
        anchors: list[Cut] | None = None
        waiting = [whole]
        while waiting:
            begin, end = waiting.pop()
            frames = end.frame - begin.frame
            cells = frames * int(before[end.word] - before[begin.word])
            cut = None
            if cells > _CELLS:
                if anchors is None:
                    anchors = cuts(words, self._spelled.letters, path, {*self._silence})
                middle = (begin.frame + end.frame) / 2
                inside = [
                    each
                    for each in anchors
                    if begin.frame < each.frame < end.frame
                    and begin.word < each.word < end.word
                ]
                cut = min(inside, key=lambda c: abs(c.frame - middle), default=None)
            if cut is None and cells > _MOST_CELLS and end.word - begin.word > 1:
                # Nothing of it is recognized, so that all that can be done is to keep
                # the memory in bounds.
                word = int(
                    np.searchsorted(before, (before[begin.word] + before[end.word]) / 2)
                )
                word = min(max(word, begin.word + 1), end.word - 1)
                cut = Cut((begin.frame + end.frame) // 2, word)
            if cut is None:
                yield begin, end
            else:
                waiting += [(cut, end), (begin, cut)]

    def _aligned(
        self, begin: Cut, end: Cut, highest: NDArray[np.float32]
    ) -> tuple[list[list[Heard] | None], float]:
        """Return when the words of a part are said, and the score of its path."""
        width = 2 * len(self._columns)
        self._file.seek(begin.frame * width)
        data = self._file.read((end.frame - begin.frame) * width)
        kept = np.frombuffer(data, np.float16).reshape(-1, len(self._columns))
        ratios = kept.astype(np.float32)
        columns = {token: i for i, token in enumerate(self._columns)}
        words = [
            [columns[token] for token in word]
            for word in self._spelled.words[begin.word : end.word]
        ]
        wild = frozenset(gap - begin.word for gap in self._spelled.wild)
        silence = tuple(range(len(self._silence)))
        tokens = Tokens(words, silence, wild.intersection(range(len(words) + 1)))
        spans, score = best_path(ratios, tokens, COSTS)
        said: list[list[Heard] | None] = []
        for number, word, frames in zip(
            range(begin.word, end.word), words, spans, strict=True
        ):
            if frames is None:
                said.append(None)
                continue
            heard = []
            for token, column, (first, after) in zip(
                self._spelled.words[number], word, frames, strict=True
            ):
                first, after = begin.frame + first, begin.frame + after
                log_probs = (
                    ratios[first - begin.frame : after - begin.frame, column]
                    + highest[first:after]
                )
                heard.append(
                    Heard(
                        token,
                        self._timeline.second(first),
                        self._timeline.second(after - 1),
                        float(np.exp(log_probs.max())),
                    )
                )
            said.append(heard)
        return said, score

    def _placed(self, said: Sequence[list[Heard] | None]) -> tuple[AlignedWord, ...]:
        """Return all words of the text with their times.

        Words in a row that cannot be spelled share the time between their neighbours,
        if both of these are said.
        """
        timed = iter(times([each for each in said if each is not None], self._timeline))
        placed = [None if each is None else next(timed) for each in said]
        words: list[AlignedWord] = []
        before: float | None = 0.0  # the end of the last word that can be spelled
        for number, each in zip(self._spelled.numbers, placed, strict=True):
            start, end, confidence = each or (None, None, 0.0)
            words += _shared_out(self._words[len(words) : number], before, start)
            words.append(AlignedWord(self._words[number], start, end, confidence))
            before = end
        words += _shared_out(self._words[len(words) :], before, self._timeline.end)
        return tuple(words)


def _shared_out(
    words: Sequence[str], begin: float | None, end: float | None
) -> list[AlignedWord]:
    """Return words that cannot be spelled, each with its share of a stretch of time."""
    if begin is None or end is None:
        return [AlignedWord(word) for word in words]
    share = (end - begin) / max(1, len(words))
    return [
        AlignedWord(word, begin + i * share, begin + (i + 1) * share)
        for i, word in enumerate(words)
    ]
