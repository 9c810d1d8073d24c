"""A recognizer in, the same that multiplies in int8 out: for inference on a CPU.

A weight matrix has one scale for each of its outputs, made once; the inputs have one
for each frame, made as they come. A scale of a frame's own, unlike the usual one for
all that is multiplied together, keeps the promise that no neighbour changes a text.
For a convolution of the wav2vec 2.0 family (`wav2vec2_encoder.py`), the window of
frames that an output frame sees is what has a scale. Its first layer, positions,
attention's own products, norms, small layers and the one that scores the letters stay
in fp32.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from thanosql.speech.recognizers import wav2vec2
from thanosql.speech.recognizers.recognizer import LAST_LAYERS, Recognizer
from thanosql.speech.recognizers.wav2vec2_positions import keep_transform

# Without VNNI a processor adds two products of 8 bits in 16, which overflow unless one
# of the factors has 7.
_LARGEST = 127 if torch.cpu._is_vnni_supported() else 63
_ZERO = 128  # what stands for 0 in the inputs, which must be unsigned
LEAST_SIZE = 2**17  # weights of a layer, below which fp32 is about as fast
_LEAST = 1e-12  # a scale: of a frame or an output that is all zeros

# Layers whose weights are looked at from outside, so that they stay as they are.
_KEPT = {
    "GraniteSpeech5ForCTC": (".input_linear",),
    "WavLMForCTC": (".q_proj", ".k_proj", ".v_proj", ".out_proj"),
}


class Int8Linear(nn.Module):
    """What a linear layer computes, in int8: (..., features in) to (..., out).

    weight: (out, features in); bias: (out,).
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        weight = weight.detach().float().cpu()
        scales = weight.abs().amax(1).clamp_min(_LEAST) / _LARGEST
        rounded = (weight / scales[:, None]).round().to(torch.int8)
        # Plain attributes: what is packed for oneDNN cannot be moved or saved.
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
        scales = scales.clamp_min_(_LEAST) / 254  # and 1 for the rounding of zero
        # What stands for 0, whole so that zeros stay zeros; -128 for what is positive.
        zeros = (least / scales).round_().add_(128).neg_()
        # To int8 first, since to(uint8) takes six times as long.
        rounded = torch.addcmul(zeros, frames, 1 / scales).round_().to(torch.int8)
        products = torch.ops.onednn.qlinear_pointwise(
            rounded.view(torch.uint8).bitwise_xor_(_ZERO),  # adds it
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


def quantized(recognizer: Recognizer) -> Recognizer:
    """Return a recognizer that computes in int8; the given one stays as it is.

    Parameters are shared by the two, so that it takes a quarter of the memory more,
    and about a second to make of 94 million parameters. Where every layer is too small
    to gain by it, the given one is returned.
    """
    shared: dict[int, Any] = {id(p): p for p in recognizer.model.parameters()}
    model: Any = copy.deepcopy(recognizer.model, shared)
    kept = _KEPT.get(type(model).__name__, ())
    if wav2vec2.supports(model):
        _prepare_ragged(model.base_model)
        kept = ("q_proj", "k_proj", "v_proj")
    for name, module in list(model.named_modules()):
        last = f"{name}.".startswith(LAST_LAYERS)
        if type(module) is nn.Linear and not last and not name.endswith(kept):
            rounded = _rounded(module.weight, module.bias)
            if rounded is not None:
                model.set_submodule(name, rounded)
    if not any(isinstance(module, Int8Linear) for module in model.modules()):
        return recognizer
    return replace(recognizer, model=model)


@torch.no_grad()
def _prepare_ragged(base: Any) -> None:
    """Give the modules that `wav2vec2.py` runs what it then takes in their place."""
    for module in base.feature_extractor.conv_layers[1:]:
        weight = module.conv.weight.transpose(1, 2).flatten(1)  # (out, kernel * in)
        module.int8 = _rounded(weight, module.conv.bias)
    for layer in base.encoder.layers:
        projections = [getattr(layer.attention, f"{name}_proj") for name in "qkv"]
        layer.attention.int8 = _rounded(
            torch.cat([each.weight for each in projections]),
            torch.cat([each.bias for each in projections]),
        )
    keep_transform(base.encoder.pos_conv_embed)


def _rounded(weight: Tensor, bias: Tensor | None) -> Int8Linear | None:
    """Return that layer in int8, or None where it is too small to gain by it."""
    return Int8Linear(weight, bias) if weight.numel() >= LEAST_SIZE else None
