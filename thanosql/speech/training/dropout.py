"""Dropout with cheaper random numbers on a CPU: a model in, the same one cheaper out.

torch draws a Bernoulli number an element, one after the other: a tenth of the time of
a small model's training step. Sixteen random bits do as well. An element is dropped if
they are below p * 2**16, so p is rounded to a multiple of 2**-16 (0.1 to 0.100006) and
what remains is scaled by exactly as much as makes its mean what it was.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator

_LEVELS = 1 << 16


@contextmanager
def cheap_dropout(model: nn.Module) -> Iterator[None]:
    """Let the dropout layers of a model on a CPU draw sixteen bits an element.

    From torch's default generator, as before, so that gradient checkpointing finds
    the same masks again. What the model drops by other means than `torch.nn.Dropout`,
    such as attention weights, stays as it is.
    """
    layers: list[Any] = [m for m in model.modules() if type(m) is nn.Dropout]
    for layer in layers:
        layer.forward = _forward.__get__(layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _forward(layer: nn.Dropout, inputs: torch.Tensor) -> torch.Tensor:
    dropped = round(layer.p * _LEVELS)
    if not layer.training or dropped == 0 or inputs.device.type != "cpu":
        return nn.functional.dropout(inputs, layer.p, layer.training, layer.inplace)
    words = torch.empty(-(-inputs.numel() // 4), dtype=torch.int64)
    levels = words.random_(-(2**63), None).view(torch.int16)[: inputs.numel()]
    kept = levels >= dropped - _LEVELS // 2  # from -2**15 to 2**15 - 1, each as likely
    scale = _LEVELS / (_LEVELS - dropped) if dropped < _LEVELS else 0.0
    return inputs * (kept.to(inputs.dtype) * scale).view(inputs.shape)
