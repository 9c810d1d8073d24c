"""A model in, a model that multiplies in int8 out, for inference on a CPU.

A weight matrix has one scale for each output, computed once. The inputs have one scale
for each frame, computed as they come. The usual choice is one scale for all inputs of a
product; with a scale for each frame no utterance changes the text of another. Products
that are not linear layers of the model are rounded by the family (`wav2vec2.py`). The
products within attention, norms, small layers and the layer that scores the vocabulary
stay in fp32.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedModel

# Without VNNI a processor adds two products of 8-bit factors in 16 bits. That overflows
# unless one of the factors has 7 bits only.
_LARGEST = 127 if torch.cpu._is_vnni_supported() else 63
_ZERO = 128  # represents 0 in the inputs, which must be unsigned
LEAST_SIZE = 2**17  # weights; for a smaller layer fp32 is about as fast
_LEAST = 1e-12  # the least scale, for a frame or an output that is all zeros


class Int8Linear(nn.Module):
    """A linear layer that computes in int8: (..., features in) to (..., out).

    weight: (out, features in); bias: (out,).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        weight = weight.detach().float().cpu()
        scales = weight.abs().amax(1).clamp_min(_LEAST) / _LARGEST
        rounded = (weight / scales[:, None]).round().to(torch.int8)
        # Plain attributes, not buffers: weights packed for oneDNN cannot be moved or
        # saved.
        self._weight = torch.ops.onednn.qlinear_prepack(rounded, None)
        self._scales = scales
        self._sums = rounded.sum(1) * scales
        self._zeros = torch.zeros(len(scales), dtype=torch.long)
        self._bias = (
            torch.zeros(len(scales)) if bias is None else bias.detach().float().cpu()
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the layer's output, each frame rounded by its own scale."""
        frames = inputs.flatten(0, -2)
        least = frames.amin(1, keepdim=True).clamp_max_(0)
        scales = frames.amax(1, keepdim=True).clamp_min_(0).sub_(least)
        scales = scales.clamp_min_(_LEAST) / 254  # not 255: `zeros` is rounded too
        # The number that represents 0: whole, so that zeros stay exact; -128 for a
        # frame without negative values.
        zeros = (least / scales).round_().add_(128).neg_()
        # To int8 first, since to(uint8) takes six times as long.
        rounded = torch.addcmul(zeros, frames, 1 / scales).round_().to(torch.int8)
        products = torch.ops.onednn.qlinear_pointwise(
            rounded.view(torch.uint8).bitwise_xor_(_ZERO),  # adds 128
            1.0,
            _ZERO,
            self._weight,
            self._scales,
            self._zeros,
            None,
            1.0,
            0,
            torch.float32,
            "none",
            [],
            "",
        )
        output = torch.addcmul(self._bias, products, scales, out=products)
        output.addcmul_(scales * zeros, self._sums, value=-1)
        return output.view(*inputs.shape[:-1], -1)


def quantized(
    model: PreTrainedModel, stays_fp32: Callable[[str], bool]
) -> PreTrainedModel | None:
    """Return a model whose large linear layers compute in int8; None if it has none.

    stays_fp32: whether the layer of a name stays in fp32. The two models share their
    parameters, so the new one takes only a quarter more memory. For 94 million
    parameters this takes about a second.
    """
    shared: dict[int, Any] = {id(p): p for p in model.parameters()}
    copied: PreTrainedModel = copy.deepcopy(model, shared)
    for name, module in list(copied.named_modules()):
        if type(module) is nn.Linear and not stays_fp32(name):
            layer = rounded(module.weight, module.bias)
            if layer is not None:
                copied.set_submodule(name, layer)
    has_any = any(isinstance(module, Int8Linear) for module in copied.modules())
    return copied if has_any else None


def rounded(weight: Tensor, bias: Tensor | None) -> Int8Linear | None:
    """Return the linear layer in int8; None if it is too small to gain by it."""
    return Int8Linear(weight, bias) if weight.numel() >= LEAST_SIZE else None
