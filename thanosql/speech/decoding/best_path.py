"""Scores of frames in, the text of the best path out (Graves et al. 2006, section 3.2).

The scores that a best path needs are one token id for each frame, and its probability
where words are asked for. So the windows of a long recording take little memory until
the last of them is fed.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from thanosql.speech.decoding.quiet import pauses
from thanosql.speech.decoding.words import Heard, Timeline, timed_words
from thanosql.speech.results import Hypothesis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thanosql.speech.decoding.spelling import Spelling
    from thanosql.speech.decoding.words import Grid
    from thanosql.speech.recording import Span


@dataclass(frozen=True, slots=True)
class BestPath:
    """The most likely token at each frame; repeats merged, then blanks removed."""

    spelling: Spelling
    blank: int

    def scores(
        self, logits: Tensor, lengths: Tensor, features: Sequence[Tensor] = ()
    ) -> list[Tensor]:
        """Return the best path of each row: (frames,), int64, on the CPU.

        logits: (batch, frames, vocab); lengths: (batch,), the frames that are not
        padding. features: what the logits are of; the text does not need them.
        """
        best = logits.argmax(dim=-1).cpu()  # the one time this waits for a GPU
        return [path[:n] for path, n in zip(best, lengths.tolist(), strict=True)]

    def start(self, expected: tuple[str, ...] = ()) -> BestPathDecoder:
        """Return a decoder for one recording. expected: is for a beam search."""
        return BestPathDecoder(self)


class BestPathDecoder:
    """Collects the path of one recording, window by window."""

    def __init__(self, decoding: BestPath) -> None:
        self._decoding = decoding
        self._paths: list[Tensor] = []

    def feed(self, scores: Tensor, kept: slice, spans: Sequence[Span]) -> None:
        """Take the path of the next window: (frames,), as in `BestPath.scores`."""
        self._paths.append(scores[kept])

    def silence(self) -> None:
        """Take note of a window without speech: a blank."""
        self._paths.append(torch.tensor([self._decoding.blank]))

    def finish(self) -> Hypothesis:
        """Return the text of all frames.

        The windows' paths are joined before repeats are merged, so a letter that two
        windows share is written once.
        """
        tokens = collapse(torch.cat(self._paths), self._decoding.blank)
        return Hypothesis(self._decoding.spelling.decode(tokens))


class TimedPath(NamedTuple):
    """The best path of a window, how sure the model was of it, and the pauses."""

    tokens: Tensor
    "(frames,), int64."
    probabilities: Tensor
    "(frames,), float32: of each token."
    pauses: list[tuple[int, int]]
    "Begin and end of each, in samples of the window."


@dataclass(frozen=True, slots=True)
class TimedBestPath:
    """The best path, with the time and the confidence of each word in it."""

    spelling: Spelling
    blank: int
    frames: Grid
    features: Grid

    def scores(
        self, logits: Tensor, lengths: Tensor, features: Sequence[Tensor] = ()
    ) -> list[TimedPath]:
        """Return the best path of each row, on the CPU.

        logits, lengths: as in `BestPath.scores`. features: of each row, in which pauses
        are looked for; without them none are found.
        """
        best = logits.argmax(dim=-1)
        probabilities = logits.softmax(dim=-1, dtype=torch.float32)
        probabilities = probabilities.gather(-1, best[..., None])[..., 0].cpu()
        best = best.cpu()
        found = []
        for row, count in enumerate(lengths.tolist()):
            path = best[row, :count]
            found.append(
                TimedPath(
                    path,
                    probabilities[row, :count],
                    self._pauses(features[row], path) if features else [],
                )
            )
        return found

    def start(self, expected: tuple[str, ...] = ()) -> TimedBestPathDecoder:
        """Return a decoder for one recording. expected: is for a beam search."""
        return TimedBestPathDecoder(self)

    def _pauses(self, features: Tensor, path: Tensor) -> list[tuple[int, int]]:
        return pauses_of(self.spelling, features, path, self.features, self.frames)


def pauses_of(
    spelling: Spelling, features: Tensor, path: Tensor, grid: Grid, frames: Grid
) -> list[tuple[int, int]]:
    """Return the pauses of a window as `pauses` does; path: (frames,), token ids."""
    letters = torch.isin(path, torch.tensor([*spelling.ids]))
    return pauses(features, torch.nonzero(letters)[:, 0], grid, frames)


class TimedBestPathDecoder:
    """Collects the path of one recording, window by window, and its times."""

    def __init__(self, decoding: TimedBestPath) -> None:
        self._decoding = decoding
        self._timeline = Timeline(decoding.frames)
        self._tokens: list[Tensor] = []
        self._probabilities: list[Tensor] = []

    def feed(self, scores: TimedPath, kept: slice, spans: Sequence[Span]) -> None:
        """Take the path of the next window."""
        tokens = scores.tokens[kept]
        self._tokens.append(tokens)
        self._probabilities.append(scores.probabilities[kept])
        self._timeline.feed(len(tokens), kept, spans, scores.pauses)

    def silence(self) -> None:
        """Take note of a window without speech: a blank."""
        self._tokens.append(torch.tensor([self._decoding.blank]))
        self._probabilities.append(torch.ones(1))
        self._timeline.silence()

    def finish(self) -> Hypothesis:
        """Return the text of all frames, as `BestPathDecoder` does, and its words.

        The text's confidence is the mean of its words': the share of them that is to be
        expected right. It is 1 of a text without words.
        """
        path = torch.cat(self._tokens)
        probabilities = torch.cat(self._probabilities)
        decoding = self._decoding
        return read(
            decoding.spelling, decoding.blank, path, probabilities, self._timeline
        )


def read(
    spelling: Spelling,
    blank: int,
    path: Tensor,
    probabilities: Tensor,
    timeline: Timeline,
) -> Hypothesis:
    """Return the text of a path and its words.

    path, probabilities: (frames,), a token of each frame, and how likely it is.
    """
    chances = probabilities.tolist()
    tokens, counts = torch.unique_consecutive(path, return_counts=True)
    heard, end = [], 0
    for token, count in zip(tokens.tolist(), counts.tolist(), strict=True):
        first, end = end, end + count
        if token != blank:
            heard.append(
                Heard(
                    token,
                    timeline.second(first),
                    timeline.second(end - 1),
                    max(chances[first:end]),
                )
            )
    text = spelling.decode([each.token for each in heard])
    words = timed_words(spelling, text, heard, timeline)
    confidence = fmean(word.confidence for word in words) if words else 1.0
    return Hypothesis(text, confidence, words)


def collapse(path: Tensor, blank: int) -> list[int]:
    """Return the tokens of a path: repeats merged, blanks removed.

    path: (frames,), a token id for each frame.
    """
    tokens = torch.unique_consecutive(path)
    kept: list[int] = tokens[tokens != blank].tolist()
    return kept
