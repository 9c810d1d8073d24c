"""Scores of frames in, the text of the best path out (Graves et al. 2006, section 3.2).

The scores that a best path needs are one token id for each frame. So the windows of a
long recording take little memory until the last of them is fed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from thanosql.speech.results import Hypothesis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from thanosql.speech.decoding.spelling import Spelling
    from thanosql.speech.recording import Span


@dataclass(frozen=True, slots=True)
class BestPath:
    """The most likely token at each frame; repeats merged, then blanks removed."""

    spelling: Spelling
    blank: int

    def scores(self, logits: Tensor, lengths: Tensor) -> list[Tensor]:
        """Return the best path of each row: (frames,), int64, on the CPU.

        logits: (batch, frames, vocab); lengths: (batch,), the frames that are not
        padding.
        """
        best = logits.argmax(dim=-1).cpu()  # the one time this waits for a GPU
        return [path[:n] for path, n in zip(best, lengths.tolist(), strict=True)]

    def start(self, hotwords: tuple[str, ...] = ()) -> BestPathDecoder:
        """Return a decoder for one recording. hotwords: are left to a beam search."""
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


def collapse(path: Tensor, blank: int) -> list[int]:
    """Return the tokens of a path: repeats merged, blanks removed.

    path: (frames,), a token id for each frame.
    """
    tokens = torch.unique_consecutive(path)
    kept: list[int] = tokens[tokens != blank].tolist()
    return kept
