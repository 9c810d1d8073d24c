"""The convolutional position embedding of wav2vec 2.0: frames in, positions out.

A convolution over time of kernel K (128 frames) in groups, by which a frame learns
where it is (Baevski et al. 2020, section 2). Per utterance it is

* a convolution, where gradients are wanted or there are few frames; or
* a product of Fourier transforms, six times as fast on a CPU as the former: over
  stretches of 2K frames, the first K-1 results of which are wrong, since the transform
  takes time for a circle, and are left out (overlap-save: Oppenheim and Schafer,
  Discrete-Time Signal Processing, section 8.7). At each of K+1 frequencies a group is a
  product with a small complex matrix. To transform the kernel, itself a product with a
  matrix of cosines and sines, costs about what 5K frames do the first way.

They differ by the order of floating-point sums.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Module = Any  # transformers', made of parts that mypy can only take for tensors

WORTH_A_TRANSFORM = 8  # times as many frames as the kernel has


def positions(embedding: Module, hidden: Tensor, counts: Sequence[int]) -> Tensor:
    """Return the position embedding of each utterance's frames, as `hidden` is.

    hidden: (sum of counts, features), the utterances' frames one after the other.
    """
    if not hasattr(embedding, "conv"):  # data2vec: layers of convolution and norm
        utterances = torch.split(hidden, list(counts))
        return torch.cat([embedding(utterance[None])[0] for utterance in utterances])
    if getattr(embedding, "batch_norm", None) is not None:
        hidden = embedding.batch_norm(hidden)
    convolve = _convolution(embedding, hidden)
    return torch.cat(
        [
            embedding.activation(embedding.padding(convolve(utterance)[None]))[0].T
            for utterance in torch.split(hidden, list(counts))
        ]
    )


def keep_transform(embedding: Module) -> None:
    """Have `positions` on a CPU transform no kernel again; it must not change."""
    if hasattr(embedding, "conv"):
        conv = embedding.conv
        # From where a PREDICT on a GPU may have left it.
        embedding.transformed = _transform(conv.weight.cpu(), conv.groups)


def _convolution(embedding: Module, hidden: Tensor) -> Callable[[Tensor], Tensor]:
    """Return what makes (features, frames + 1) of an utterance's (frames, features).

    The frame too many, of an even kernel, is what transformers has, and cuts off.
    """
    conv = embedding.conv
    kept = getattr(embedding, "transformed", None)
    kernel, padding = conv.kernel_size[0], conv.padding[0]
    if kept is not None:
        return lambda utterance: _by_fourier(
            utterance, kept, conv.bias, kernel, padding
        )
    weight = conv.weight  # computed at each look: 5 million numbers in a base model
    if (
        torch.is_grad_enabled()
        or hidden.device.type != "cpu"
        or hidden.dtype != torch.float32
        or len(hidden) < WORTH_A_TRANSFORM * kernel
    ):
        return lambda utterance: functional.conv1d(
            utterance.T[None],
            weight,
            conv.bias,
            padding=conv.padding,
            groups=conv.groups,
        )[0]
    transformed = _transform(weight, conv.groups)
    return lambda utterance: _by_fourier(
        utterance, transformed, conv.bias, kernel, padding
    )


def _transform(weight: Tensor, groups: int) -> Tensor:
    """Return (K + 1 frequencies, groups, channels in, channels out), complex.

    weight: (groups * channels out, channels in, K). The conjugate of its transform
    over 2K, since layers called convolutions correlate.
    """
    kernel = weight.shape[2]
    frequencies = torch.arange(kernel + 1, dtype=torch.float64)[:, None]
    turns = frequencies * torch.arange(kernel, dtype=torch.float64) / (2 * kernel)
    flat = weight.reshape(-1, kernel).T
    real, imaginary = (
        (wave(2 * math.pi * turns).float() @ flat).view(
            kernel + 1, groups, -1, weight.shape[1]
        )
        for wave in (torch.cos, torch.sin)
    )
    return torch.complex(real, imaginary).transpose(2, 3)


def _by_fourier(
    utterance: Tensor, transformed: Tensor, bias: Tensor, kernel: int, padding: int
) -> Tensor:
    circle, step = 2 * kernel, kernel + 1
    results = len(utterance) + 2 * padding - kernel + 1
    stretches = -(-results // step)
    behind = stretches * step + kernel - 1 - padding - len(utterance)
    samples = functional.pad(utterance.T, (padding, behind)).unfold(1, circle, step)
    spectrum = torch.fft.rfft(samples)  # (features, stretches, frequencies)
    groups, channels = transformed.shape[1:3]
    spectrum = spectrum.unflatten(0, (groups, channels)).permute(3, 0, 2, 1)
    product = (spectrum @ transformed).permute(1, 3, 2, 0)
    convolved = torch.fft.irfft(product, n=circle)[..., :step]
    output: Tensor = convolved.reshape(len(bias), -1)[:, :results] + bias[:, None]
    return output
