"""Scores of frames in, the text of the best path out (Graves et al. 2006, section 3.2).

A decoding has three steps. `start` gives a decoder, one a recording; it is fed the
scores of the recording's windows in their order, and `finish` gives the hypothesis.
What a decoding needs of a model's output is its `scores`: of a best path, one token a
frame, so that a long recording leaves little in memory until it is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from thanosql.speech.results import Hypothesis

if TYPE_CHECKING:
    from torch import Tensor

    from thanosql.speech.decoding.spelling import Spelling


@dataclass(frozen=True, slots=True)
class BestPath:
    """The likeliest token at each frame; repeats merged, then blanks removed."""

    spelling: Spelling
    blank: int

    def scores(self, logits: Tensor, lengths: Tensor) -> list[Tensor]:
        """Return the best path of each row: (frames,), int64, on the CPU.

        logits: (batch, frames, vocab), logarithms of probabilities up to a constant a
        frame; lengths: (batch,), frames that count.
        """
        best = logits.argmax(dim=-1).cpu()  # the one time this waits for a GPU
        return [path[:n] for path, n in zip(best, lengths.tolist(), strict=True)]

    def start(self) -> BestPathDecoder:
        """Return a decoder for a recording."""
        return BestPathDecoder(self)


class BestPathDecoder:
    """The path of one recording, window by window."""

    def __init__(self, decoding: BestPath) -> None:
        self._decoding = decoding
        self._paths: list[Tensor] = []

    def feed(self, scores: Tensor) -> None:
        """Take the frames that follow: (frames,), as `BestPath.scores` gives them."""
        self._paths.append(scores)

    def finish(self) -> Hypothesis:
        """Return the text of all frames; a letter on a joint is there once."""
        tokens = collapse(torch.cat(self._paths), self._decoding.blank)
        return Hypothesis(self._decoding.spelling.decode(tokens))


def collapse(path: Tensor, blank: int) -> list[int]:
    """Return the tokens of a path: repeats merged, blanks removed.

    path: (frames,), a token id for each frame.
    """
    tokens = torch.unique_consecutive(path)
    kept: list[int] = tokens[tokens != blank].tolist()
    return kept
