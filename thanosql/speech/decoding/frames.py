"""Logits in, the likely tokens of each frame out, and the path of a text through them.

Few tokens are likely at a frame, so the frames of a long recording take little memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
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
_UNLIKELY = math.exp(LEAST_LIKELY)


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


def likely(logits: Tensor, lengths: Tensor, written: Tensor) -> list[Frames]:
    """Return the likely tokens of each row's frames.

    logits: (batch, frames, vocab); lengths: (batch,), the frames that are not padding;
    written: (vocab,), bool, whether a token is text.
    """
    log_probs = torch.log_softmax(logits.to(torch.float32), dim=-1)
    best = log_probs.argmax(dim=-1)
    written = written.to(logits.device)
    keep = log_probs >= LEAST_LIKELY
    keep.scatter_(-1, best[..., None], value=True)
    keep &= written
    blanks = log_probs.masked_fill(written, -torch.inf).logsumexp(-1).exp()
    kept = log_probs.cpu().exp().numpy(), keep.cpu().numpy()
    rows = zip(
        *kept, best.cpu().numpy(), blanks.cpu().numpy(), lengths.tolist(), strict=True
    )
    found = []
    for probabilities, likely, path, blank, length in rows:
        mask = likely[:length]
        found.append(
            Frames(
                best=path[:length].astype(np.int32),
                blanks=blank[:length].copy(),
                ends=mask.sum(-1).cumsum(),
                tokens=mask.nonzero()[1].astype(np.int32),
                probabilities=probabilities[:length][mask],
            )
        )
    return found


def forced_path(
    frames: Frames, tokens: Sequence[int], *, blank: int, space: int | None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the likeliest path that reads as `tokens`, and its probabilities.

    Both are (frames,). blank: what stands for all that writes nothing. space: as a
    `PrefixBeamSearch` has it: where one is written already, another writes nothing.

    Viterbi's algorithm over the tokens with a blank before, between and after them. What
    is unlikely in a frame is taken for just that, so that there is a path for every
    text; only if there are fewer frames than tokens, the last are left out.
    """
    count = len(frames.ends)
    tokens = tokens[:count]
    states = np.full(2 * len(tokens) + 1, blank, np.int64)
    states[1::2] = tokens
    # From a token to the next without a blank, unless they are equal.
    skips = np.zeros(len(states), bool)
    skips[3::2] = states[3::2] != states[1:-2:2]
    after_space = np.zeros(len(states), bool)
    after_space[2::2] = states[1::2] == space
    after_space[0] = space is not None
    score = np.full(len(states), -np.inf)
    score[0] = 0.0
    came = np.zeros((count, len(states)), np.int8)
    heard = np.empty((count, len(states)), np.float32)
    entry = np.zeros(1 + max(states.max(initial=0), frames.tokens.max(initial=0)))
    begin = 0
    for frame, end in enumerate(frames.ends.tolist()):
        here = frames.tokens[begin:end]
        entry[here] = frames.probabilities[begin:end]
        entry[blank] = frames.blanks[frame]
        probabilities = np.maximum(entry[states], _UNLIKELY)
        if space is not None:
            probabilities[after_space] += entry[space] if space in here else 0.0
        entry[here] = 0.0
        begin = end
        choices = np.full((3, len(states)), -np.inf)
        choices[0] = score
        choices[1, 1:] = score[:-1]
        choices[2, 2:] = np.where(skips[2:], score[:-2], -np.inf)
        came[frame] = choices.argmax(0)
        score = choices.max(0) + np.log(probabilities)
        heard[frame] = probabilities
    path = np.empty(count, np.int64)
    state = len(states) - 1
    if len(states) > 1 and score[-2] > score[-1]:
        state -= 1
    for frame in reversed(range(count)):
        path[frame] = state
        state -= int(came[frame, state])
    return states[path], heard[np.arange(count), path]
