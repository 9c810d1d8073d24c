"""The convolutional encoder of wav2vec 2.0: waveforms in, frames of features out.

The layers of `Wav2Vec2FeatureEncoder` (Baevski et al. 2020, section 2) make a frame of
every 320 samples, with a receptive field of 400. transformers runs them as convolutions
of (batch, channels, time). Here they are matrix products over (time, channels), which
on a CPU is faster, forward and backward:

* Frame t of a convolution of kernel k and stride s reads the rows ts ... ts+k-1 of its
  input. In (time, channels) layout these rows are one stretch of memory, and s of them
  are a row of a matrix whose rows lie s*channels apart. So the convolution is a sum of
  ceil(k/s) products, and nothing is copied.
* Without gradients, a stretch of time goes through all layers before the next one does.
  Its activations stay in the cache, and no allocation is so large that the operating
  system has to clear new pages for it each time. Neighbouring stretches share 80
  samples, which are computed twice.
* With gradients, and if there is no GroupNorm, short utterances lie end to end, each
  filled up to a multiple of the frames' hop. Each layer is then a few large products
  instead of many small ones. Frames that span two utterances are left out at the end.
* The GroupNorm of the first layer (each channel is a group) needs the mean and variance
  of that layer's output over the whole utterance. They are known without computing the
  output, because the layer is linear: channel c is w_c.u + b_c over the windows u of
  ten samples, so its mean is w_c.mean(u) + b_c and its variance w_c'Cov(u)w_c. That
  takes ten and a hundred numbers of each utterance. Scale and shift are then folded
  into the layer's weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Module = Any  # of transformers; mypy would take each of its parts for a tensor

STRETCH = 64  # frames computed together: 1.3 s of audio, 8 MB after the first layer
TOGETHER = 80_000  # samples (5 s) of utterances that are computed end to end


@dataclass(frozen=True, slots=True)
class _Layer:
    """A convolution as matrix products, with its norm and activation."""

    weight: Tensor
    "(kernel * channels in, channels out), in the precision of the product."
    bias: Tensor | None
    "(channels out,)"
    kernel: int
    stride: int
    norm: Module | None
    activation: Callable[[Tensor], Tensor]
    int8: Module | None
    "If set, computes (frames, kernel * channels in) to (frames, channels out) instead."

    def __call__(self, rows: Tensor) -> Tensor:
        """Return the output (frames, channels out) for `rows` (time, channels in)."""
        output = self._product(rows)
        if self.norm is not None:
            # Under autocast a norm returns fp32.
            output = self.norm(output).to(self.weight.dtype)
        return self.activation(output)

    def _product(self, rows: Tensor) -> Tensor:
        width = rows.shape[1]
        frames = (len(rows) - self.kernel) // self.stride + 1
        if self.int8 is not None:
            shape, strides = (frames, self.kernel * width), (self.stride * width, 1)
            output: Tensor = self.int8(
                rows.as_strided(shape, strides, rows.storage_offset())
            )
            return output
        windows = [
            rows.as_strided(
                (frames, min(self.stride, self.kernel - tap) * width),
                (self.stride * width, 1),
                rows.storage_offset() + tap * width,
            )
            for tap in range(0, self.kernel, self.stride)
        ]
        weights = torch.split(self.weight, self.stride * width)
        if self.bias is None:
            output = windows[0] @ weights[0]
        else:
            output = torch.addmm(self.bias, windows[0], weights[0])
        for more, weight in zip(windows[1:], weights[1:], strict=True):
            output.addmm_(more, weight)
        return output


def output_length(encoder: Module, samples: int) -> int:
    """Return how many frames `encoder` makes of so many samples."""
    for layer in encoder.conv_layers:
        samples = (samples - layer.conv.kernel_size[0]) // layer.conv.stride[0] + 1
    return max(samples, 0)


def extract(
    encoder: Module,
    waveforms: Sequence[Tensor],
    int8: Sequence[Module | None] | None = None,
) -> list[Tensor]:
    """Return the frames, (frames, channels), of each waveform, (samples,).

    int8: for each layer a module that replaces its product (`_Layer.int8`), or None.

    A waveform too short for a frame gives (0, channels). If gradients are off or the
    encoder's parameters are frozen, nothing is recorded for autograd. With gradient
    checkpointing only the waveform is recorded, and the backward pass computes the
    layers again.
    """
    modules = list(encoder.conv_layers)
    channels = modules[-1].conv.out_channels
    dtype = _product_dtype(modules[0].conv.weight)
    trained = any(parameter.requires_grad for parameter in encoder.parameters())
    with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
        layers = [
            _layer(module, dtype, rounded)
            for module, rounded in zip(
                modules, int8 or [None] * len(modules), strict=True
            )
        ]

        def frames(waveforms: Sequence[Tensor]) -> list[Tensor]:
            if not isinstance(layers[0].norm, nn.GroupNorm):
                return _through(layers, waveforms)
            (waveform,) = waveforms
            # The norm removes the mean in any case; removed here, it costs no digits.
            waveform = waveform - waveform.mean()
            first = _folded(modules[0], waveform, dtype)
            return _through([first, *layers[1:]], [waveform])

        compute: Callable[[Sequence[Tensor]], list[Tensor]] = frames
        if torch.is_grad_enabled() and modules[0].gradient_checkpointing:
            compute = partial(checkpoint, frames, use_reentrant=False)
        alone = isinstance(layers[0].norm, nn.GroupNorm) or not torch.is_grad_enabled()
        results = [waveform.new_empty(0, channels) for waveform in waveforms]
        long = [i for i, w in enumerate(waveforms) if output_length(encoder, len(w))]
        lengths = [len(waveforms[i]) for i in long]
        for group in _groups(lengths, 0 if alone else TOGETHER):
            frames_of_group = compute([waveforms[long[i]] for i in group])
            for i, each in zip(group, frames_of_group, strict=True):
                results[long[i]] = each
        return results


def _groups(lengths: Sequence[int], together: int) -> Iterator[list[int]]:
    """Yield neighbouring indexes of at most `together` samples in all, or lone ones."""
    group: list[int] = []
    total = 0
    for i, length in enumerate(lengths):
        if group and total + length > together:
            yield group
            group, total = [], 0
        group.append(i)
        total += length
    if group:
        yield group


def _through(layers: Sequence[_Layer], waveforms: Sequence[Tensor]) -> list[Tensor]:
    """Return the layers' output, (frames, channels), for each waveform."""
    hop = math.prod(layer.stride for layer in layers)
    field = 1  # samples that one frame sees
    for layer in reversed(layers):
        field = (field - 1) * layer.stride + layer.kernel
    if len(waveforms) > 1:
        filled = [functional.pad(w, (0, -len(w) % hop)) for w in waveforms]
        (rows,) = _through(layers, [torch.cat(filled)])
        starts = accumulate((len(w) // hop for w in filled[:-1]), initial=0)
        return [
            rows[start : start + (len(waveform) - field) // hop + 1]
            for start, waveform in zip(starts, waveforms, strict=True)
        ]
    (waveform,) = waveforms
    frames = (len(waveform) - field) // hop + 1
    samples = waveform.to(layers[0].weight.dtype).contiguous()[:, None]
    in_cache = samples.device.type == "cpu" and not torch.is_grad_enabled()
    at_once = STRETCH if in_cache else frames
    stretches = []
    for start in range(0, frames, at_once):
        end = min(start + at_once, frames)
        rows = samples[start * hop : (end - 1) * hop + field]
        for layer in layers:
            rows = layer(rows)
        stretches.append(rows)
    return [torch.cat(stretches)]


def _layer(module: Module, dtype: torch.dtype, int8: Module | None = None) -> _Layer:
    conv, bias = module.conv, module.conv.bias
    return _Layer(
        weight=conv.weight.permute(2, 1, 0).reshape(-1, conv.out_channels).to(dtype),
        bias=None if bias is None else bias.to(dtype),
        kernel=conv.kernel_size[0],
        stride=conv.stride[0],
        norm=getattr(module, "layer_norm", None),
        activation=module.activation,
        int8=int8,
    )


def _folded(module: Module, waveform: Tensor, dtype: torch.dtype) -> _Layer:
    """Return the first layer with its GroupNorm over this waveform folded into it.

    In float64: speech is mostly low tones, so the covariance is nearly singular, and
    the variance of a channel for high tones is a small difference of large numbers.
    """
    layer, norm = _layer(module, torch.float64), module.layer_norm
    windows = waveform.double().unfold(0, layer.kernel, layer.stride)
    mean = windows.mean(0)
    covariance = (windows - mean).T @ (windows - mean) / len(windows)
    variance = ((covariance @ layer.weight) * layer.weight).sum(0)
    scale = norm.weight.double() / (variance + norm.eps).sqrt()
    return replace(
        layer,
        weight=(layer.weight * scale).to(dtype),
        bias=(norm.bias.double() - (mean @ layer.weight) * scale).to(dtype),
        norm=None,
    )


def _product_dtype(weight: Tensor) -> torch.dtype:
    """Return the type of a product with `weight`: autocast's if it is on."""
    kind = weight.device.type
    on = torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if on else weight.dtype
