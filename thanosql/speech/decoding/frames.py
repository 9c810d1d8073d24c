"""Logits in, the likely tokens of each frame out.

Few tokens are likely at a frame, so the frames of a long recording take little memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

# A token counts at a frame if its log-probability is at least this, and always if it is
# the likeliest.
LEAST_LIKELY = -7.0


@dataclass(frozen=True, slots=True)
class Frames:
    """The likely tokens of frames. The others count as impossible."""

    best: NDArray[np.int32]
    "(frames,): the likeliest token."
    blanks: NDArray[np.float32]
    "(frames,): the probability of the blank, and of tokens that are no text."
    ends: NDArray[np.int64]
    "(frames,): where the frame's entries end in the following."
    tokens: NDArray[np.int32]
    "(entries,): the likely tokens that are text, frame by frame."
    probabilities: NDArray[np.float32]
    "(entries,): theirs."

    def __getitem__(self, kept: slice) -> Frames:
        first, end, _ = kept.indices(len(self.ends))
        begins = [0, *self.ends.tolist()]
        entries = slice(begins[first], begins[max(first, end)])
        return Frames(
            self.best[kept],
            self.blanks[kept],
            self.ends[kept] - begins[first],
            self.tokens[entries],
            self.probabilities[entries],
        )

    def __iter__(self) -> Iterator[tuple[float, list[tuple[int, float]]]]:
        """Yield for each frame the blank's probability, and tokens with theirs."""
        entries = list(
            zip(self.tokens.tolist(), self.probabilities.tolist(), strict=True)
        )
        begin = 0
        for blank, end in zip(self.blanks.tolist(), self.ends.tolist(), strict=True):
            yield blank, entries[begin:end]
            begin = end


def silent(blank: int) -> Frames:
    """Return one frame that is sure to be blank."""
    return Frames(
        best=np.array([blank], np.int32),
        blanks=np.ones(1, np.float32),
        ends=np.zeros(1, np.int64),
        tokens=np.zeros(0, np.int32),
        probabilities=np.zeros(0, np.float32),
    )


def likely(logits: Tensor, lengths: Tensor, written: Tensor) -> list[Frames]:
    """Return the likely tokens of each row's frames.

    logits: (batch, frames, vocab); lengths: (batch,), the frames that are not padding;
    written: (vocab,), bool, whether a token is text.
    """
    log_probs = torch.log_softmax(logits.to(torch.float32), dim=-1)
    best = log_probs.argmax(dim=-1)
    written = written.to(logits.device)
    blanks = log_probs.masked_fill(written, -torch.inf).logsumexp(-1).exp()
    keep = log_probs >= LEAST_LIKELY
    keep.scatter_(-1, best[..., None], value=True)
    counts = torch.arange(logits.shape[1]) < lengths[:, None]
    keep &= written & counts.to(logits.device)[..., None]
    # Only what is kept leaves a GPU, row by row and frame by frame.
    tokens = keep.nonzero()[:, 2].to(torch.int32).cpu().numpy()
    probabilities = log_probs[keep].exp().cpu().numpy()
    entries = keep.sum(-1).cpu().numpy()
    best, blanks = best.to(torch.int32).cpu(), blanks.cpu()
    found, begin = [], 0
    for row, length in enumerate(lengths.tolist()):
        end = begin + int(entries[row].sum())
        found.append(
            Frames(
                best=best[row, :length].numpy(),
                blanks=blanks[row, :length].numpy(),
                ends=entries[row, :length].cumsum(),
                tokens=tokens[begin:end],
                probabilities=probabilities[begin:end],
            )
        )
        begin = end
    return found


def joined(pieces: Sequence[Frames]) -> Frames:
    """Return frames that follow one another as one."""
    counts = [len(each.tokens) for each in pieces]
    before = [0, *accumulate(counts)]
    return Frames(
        np.concatenate([each.best for each in pieces]),
        np.concatenate([each.blanks for each in pieces]),
        np.concatenate(
            [each.ends + first for each, first in zip(pieces, before, strict=False)]
        ),
        np.concatenate([each.tokens for each in pieces]),
        np.concatenate([each.probabilities for each in pieces]),
    )
