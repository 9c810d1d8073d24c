"""Optimizer and schedule: a model in, AdamW out; progress in, a learning rate out."""

from __future__ import annotations

import torch

HELD_UNTIL = 0.5  # share of the training after which the rate falls


def rate_factor(progress: float, warmup: float) -> float:
    """Return the learning rate at `progress` (0 to 1) as a share of its peak.

    The rate rises linearly over the first `warmup` share, stays at the peak up to the
    middle, then falls linearly to zero, as in the fine-tuning of wav2vec 2.0 (Baevski
    et al. 2020, section 4.3). If it fell from the start, a fresh model would have too
    little time at the peak. A cosine in place of the line makes less difference than
    noise.
    """
    if progress < warmup:
        return progress / warmup
    fall = 1 - max(warmup, HELD_UNTIL)
    return min(1.0, max(0.0, 1 - progress) / fall) if fall > 0 else 1.0


def adamw(model: torch.nn.Module, weight_decay: float) -> torch.optim.AdamW:
    """Return AdamW over the parameters that are not frozen.

    Weight decay is for matrices and convolutions only. To pull biases and gains to zero
    would undo the normalisations rather than regularise.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    # fused: one kernel for all weights, a third of the time on a CPU, less on a GPU.
    return torch.optim.AdamW(groups, fused=True)
