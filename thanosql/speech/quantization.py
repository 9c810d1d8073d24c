"""A recognizer in, the same with linear layers in int8 out: for inference on a CPU.

A weight matrix has one scale for each of its outputs, made once; the inputs have one
for each frame, made as they come. A scale of a frame's own, unlike the usual one for
all that is multiplied together, keeps the promise that no neighbour changes a text.
Convolutions, attention, norms and the layer that scores the letters stay in fp32.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from thanosql.speech.recognizer import LAST_LAYERS, Recognizer

# Without VNNI a processor adds two products of 8 bits in 16, which overflow unless one
# of the factors has 7.
_LARGEST = 127 if torch.cpu._is_vnni_supported() else 63
_ZERO = 128  # what stands for 0 in the inputs, which must be unsigned
_LEAST = 1e-12  # a scale: of a frame or an output that is all zeros

# Layers whose weights are looked at from outside, so that they stay as they are.
_KEPT = {
    "GraniteSpeech5ForCTC": (".input_linear",),
    "WavLMForCTC": (".q_proj", ".k_proj", ".v_proj", ".out_proj"),
}


class Int8Linear(nn.Module):
    """What `nn.Linear` computes, in int8: (..., features in) to (..., features out)."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float().cpu()
        scales = weight.abs().amax(1).clamp_min(_LEAST) / _LARGEST
        rounded = (weight / scales[:, None]).round().to(torch.int8)
        # Plain attributes: what is packed for oneDNN cannot be moved or saved.
        self._weight = torch.ops.onednn.qlinear_prepack(rounded, None)
        self._scales = scales
        self._zeros = torch.zeros(len(scales), dtype=torch.long)
        self._bias = (
            torch.zeros(len(scales))
            if linear.bias is None
            else linear.bias.detach().float().cpu()
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the layer's output, each frame rounded by its own scale."""
        frames = inputs.flatten(0, -2)
        scales = frames.abs().amax(1, keepdim=True).clamp_min_(_LEAST) / 127
        # Half is added since to() cuts off.
        rounded = (frames / scales).add_(_ZERO + 0.5).to(torch.uint8)
        products = torch.ops.onednn.qlinear_pointwise(
            rounded,
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
        output = torch.addcmul(self._bias, products, scales)
        return output.view(*inputs.shape[:-1], -1)


def quantized(recognizer: Recognizer) -> Recognizer:
    """Return a recognizer whose linear layers are int8; the given one stays as it is.

    All other parameters are shared by the two, so that it takes a quarter of the
    memory more, and about a second to make of 94 million parameters.
    """
    shared: dict[int, Any] = {id(p): p for p in recognizer.model.parameters()}
    model: Any = copy.deepcopy(recognizer.model, shared)
    kept = _KEPT.get(type(model).__name__, ())
    for name, module in list(model.named_modules()):
        last = f"{name}.".startswith(LAST_LAYERS)
        if type(module) is nn.Linear and not last and not name.endswith(kept):
            model.set_submodule(name, Int8Linear(module))
    return replace(recognizer, model=model)
