"""CTC's objective: a model's logits and target characters in, the loss out.

Graves et al. 2006, "Connectionist temporal classification": each frame emits a
character or a blank; repeats are merged and blanks dropped; the loss is the negative
log-probability of all frame sequences that read as the target.
"""

from __future__ import annotations

from itertools import chain, pairwise
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from thanosql.speech.recognizers.precision import sent

if TYPE_CHECKING:
    from collections.abc import Sequence


def frames_needed(targets: Sequence[int]) -> int:
    """Return the fewest frames that can spell `targets`.

    One a character, and one more for the blank that keeps two equal ones apart.
    """
    return len(targets) + sum(a == b for a, b in pairwise(targets))


def ctc_loss(
    logits: torch.Tensor,
    lengths: torch.Tensor,
    targets: Sequence[Sequence[int]],
    blank: int,
) -> torch.Tensor:
    """Return the mean over the batch of each utterance's loss per target character.

    logits: (batch, frames, vocab), any precision; lengths: (batch,), on the CPU, the
    frames that count. Each utterance weighs the same, however long its text;
    transformers calls this ``ctc_loss_reduction="mean"``. Infinite where a text does
    not fit its frames.
    """
    log_probs = functional.log_softmax(logits, dim=-1, dtype=torch.float32)
    characters = torch.tensor(list(chain.from_iterable(targets)))
    return functional.ctc_loss(
        log_probs.transpose(0, 1),
        sent(characters, logits.device),
        lengths,
        torch.tensor([len(target) for target in targets]),
        blank=blank,
        reduction="mean",
    )


def speaking_share(
    logits: torch.Tensor, lengths: torch.Tensor, blank: int
) -> torch.Tensor:
    """Return the share of frames whose most likely output is not the blank: a scalar.

    logits: (batch, frames, vocab); lengths: (batch,), on the CPU. Zero is the plateau
    on which CTC training begins, and on which a bad one stays.
    """
    counts = torch.arange(logits.shape[1]) < lengths[:, None]
    speaking = (logits.argmax(-1) != blank) & sent(counts, logits.device)
    return speaking.sum() / int(lengths.sum())
