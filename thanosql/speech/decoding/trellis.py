"""Scores of frames and the tokens of a text's words in, the frames of each token out.

Viterbi over CTC's trellis (Graves et al. 2006, section 4.1, with the maximum in place
of the sum), in which a word may be left out and speech may be passed over, so that a
text that was not read as it is written does not push its other words out of place
(Kürzinger et al., "CTC-Segmentation of Large Corpora for German End-to-end Speech
Recognition", SPECOM 2020, leave frames out in a like way). What each costs is in
`Costs`; a word left out costs as gaps do in the alignment of sequences: to begin, and
for each token (Gotoh 1982).

The scores are log-ratios: of a token's probability to that of the frame's likeliest
one, so that what the model would write by itself costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class Frames(NamedTuple):
    """Frames of a recording in a row: from `begin` to before `end`."""

    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class Costs:
    """What a path pays beside its tokens' log-ratios, in nats."""

    speech: float
    "For a frame between words in which the model hears another token, at most."
    leave_out: float
    "For words in a row that are left out: once,"
    token: float
    "and for each of their tokens."


class Tokens(NamedTuple):
    """The tokens of a text's words, as columns of the scores."""

    words: Sequence[Sequence[int]]
    "Of each word: its tokens, one at least."
    silence: tuple[int, ...]
    "What a frame between words may be: the blank first; the word delimiter, if any."
    wild: frozenset[int] = frozenset()
    """The gaps in which any speech is free, by the number of words before them.

    There the text has a word that the model cannot spell.
    """


def best_path(
    ratios: NDArray[np.float32], tokens: Tokens, costs: Costs
) -> tuple[list[list[Frames] | None], float]:
    """Return the frames of each word's tokens, None for one left out; and the score.

    ratios: (frames, columns), none above 0; one frame at least. The score is the sum of
    the log-ratios on the best path, less its costs.

    Before each word, and after the last, there is a gap: frames of silence, or of other
    speech. Between the tokens of a word there are blanks only, and between two equal
    ones at least one, as in CTC. Of two words neither need have a frame between them,
    unless their tokens there are equal. Words are left out in a gap of a frame at
    least, or before the first frame. Time and memory grow with frames times tokens: 3
    bits a token and frame.
    """
    trellis = _Trellis(tokens, costs)
    trace = [trellis.begin()]
    trace.extend(trellis.step(frame) for frame in ratios)
    return trellis.path(trace)


class _Trellis:
    """The best scores of all states after the frames so far.

    `tokens[i]` is the score of the best path that ends in token i, `blanks[i]` of the
    best in the blank before it; if token i begins a word, that blank is a gap. The last
    blank is the gap after the last word.
    """

    def __init__(self, tokens: Tokens, costs: Costs) -> None:
        self._costs = costs
        self._columns = np.array([c for word in tokens.words for c in word], np.intp)
        self._silence = list(tokens.silence)
        lengths = [len(word) for word in tokens.words]
        # The place of each gap among the blanks is the number of tokens before it.
        self._gaps = np.cumsum([0, *lengths])
        self._passing = np.full(len(self._gaps), -costs.speech)
        self._passing[list(tokens.wild)] = 0.0
        equal = self._columns[1:] == self._columns[:-1]
        self._step = np.where(equal, -np.inf, 0.0)  # from a token to the next
        self._skipped = costs.token * self._gaps
        count = len(self._columns)
        self._tokens = np.full(count, -np.inf)
        self._blanks = np.full(count + 1, -np.inf)
        # Where the choices of a frame begin among its bits.
        self._at = np.cumsum([0, count, count, count, len(self._gaps) - 1])

    def begin(self) -> NDArray[np.uint8]:
        """Enter the first gap; return the choices made, as `step` does."""
        self._blanks[0] = 0.0
        none = np.zeros(self._at[3], bool)
        return np.packbits(np.concatenate([none, *self._leave_out()]))

    def step(self, frame: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Take a frame; return the choices that led to each state, as bits.

        For each token whether it was come to from the blank before, whether from the
        token before (which counts first), and for the blank behind it whether from it;
        then what `_leave_out` returns.
        """
        tokens, blanks = self._tokens, self._blanks
        from_blank = blanks[:-1] > tokens
        best = np.maximum(tokens, blanks[:-1])
        before = tokens[:-1] + self._step
        from_token = np.zeros(len(tokens), bool)
        np.greater(before, best[1:], out=from_token[1:])
        np.maximum(best[1:], before, out=best[1:])
        behind_token = tokens > blanks[1:]
        np.maximum(blanks[1:], tokens, out=blanks[1:])

        self._tokens = best + frame[self._columns]
        silence = frame[self._silence]
        gaps = blanks[self._gaps] + np.maximum(self._passing, silence.max())
        blanks += silence[0]
        blanks[self._gaps] = gaps
        return np.packbits(
            np.concatenate([from_blank, from_token, behind_token, *self._leave_out()])
        )

    def _leave_out(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Leave words out where that is better; return what was chosen.

        For each word, whether the gap behind it is come to so; and for each gap,
        whether words would rather be left out from it than from all gaps before.
        """
        scores = self._blanks[self._gaps] + self._skipped
        best = np.maximum.accumulate(scores)
        arriving = best[:-1] - self._skipped[1:] - self._costs.leave_out
        left_out = arriving > self._blanks[self._gaps[1:]]
        self._blanks[self._gaps[1:]] = np.maximum(
            arriving, self._blanks[self._gaps[1:]]
        )
        return left_out, scores >= best

    def path(
        self, trace: Sequence[NDArray[np.uint8]]
    ) -> tuple[list[list[Frames] | None], float]:
        """Return the best path's frames, as `best_path` does, and its score."""
        count = len(self._columns)
        blank_at, token_at, behind_at, left_out_at, origin_at = self._at

        def chosen(time: int, bit: int) -> bool:
            return bool(trace[time][bit >> 3] >> (7 - (bit & 7)) & 1)

        gap_at = {int(place): number for number, place in enumerate(self._gaps)}
        ends = [0] * count  # of each token on the path: after its last frame
        begins = [0] * count
        said = [True] * (len(self._gaps) - 1)
        in_token = count > 0 and self._tokens[-1] > self._blanks[-1]
        score = float(self._tokens[-1] if in_token else self._blanks[-1])
        i = count - 1 if in_token else count
        for time in range(len(trace) - 1, -1, -1):  # time 0 is before the first frame
            if in_token:
                ends[i] = ends[i] or time
                begins[i] = time - 1
                if chosen(time, token_at + i):
                    i -= 1
                elif chosen(time, blank_at + i):
                    in_token = False
                continue
            gap = gap_at.get(i, 0)
            if gap and chosen(time, left_out_at + gap - 1):
                origin = gap - 1
                while not chosen(time, origin_at + origin):
                    origin -= 1
                said[origin:gap] = [False] * (gap - origin)
                i = int(self._gaps[origin])
            if i and chosen(time, behind_at + i - 1):
                i, in_token = i - 1, True
        spans = [Frames(*each) for each in zip(begins, ends, strict=True)]
        words: list[list[Frames] | None] = [
            spans[first:end] if is_said else None
            for first, end, is_said in zip(
                self._gaps[:-1], self._gaps[1:], said, strict=True
            )
        ]
        return words, score
