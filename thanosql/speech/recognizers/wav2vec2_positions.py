"""The convolutional position embedding of wav2vec 2.0: frames in, positions out.

It is a grouped convolution over time with a kernel of K (128) frames, from which a
frame learns where it is (Baevski et al. 2020, section 2). Each utterance runs alone.

In int8 the rest of the model is fast and the kernel never changes, so a product of
Fourier transforms is used instead: overlap-save over stretches of 2K frames (Oppenheim
and Schafer, Discrete-Time Signal Processing, section 8.7). A transform treats time as a
circle; so K-1 results of each stretch are wrong, and are left out. At each of the K+1
frequencies, a group is a product with a small complex matrix. In fp32 this gains
nothing (docs/experiments.md).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

Module = Any  # of transformers; mypy would take each of its parts for a tensor


def positions(
    embedding: Module,
    hidden: Tensor,
    counts: Sequence[int],
    transformed: Tensor | None = None,
) -> Tensor:
    """Return the position embedding of all frames: (sum of counts, features).

    hidden: (sum of counts, features), the utterances' frames one after the other.
    transformed: the result of `transform`, for int8; None: the convolution itself.
    """
    if not hasattr(embedding, "conv"):  # data2vec: layers of convolution and norm
        utterances = torch.split(hidden, list(counts))
        return torch.cat([embedding(utterance[None])[0] for utterance in utterances])
    if getattr(embedding, "batch_norm", None) is not None:
        hidden = embedding.batch_norm(hidden)
    conv = embedding.conv
    weight = conv.weight  # weight norm computes it on each access: 5 million numbers
    results = []
    for utterance in torch.split(hidden, list(counts)):
        if transformed is None:
            convolved = functional.conv1d(
                utterance.T, weight, conv.bias, padding=conv.padding, groups=conv.groups
            )
        else:
            convolved = _by_fourier(utterance, transformed, conv)
        # An even kernel gives a frame too many, which `padding` cuts off.
        results.append(embedding.activation(embedding.padding(convolved[None]))[0].T)
    return torch.cat(results)


def transform(embedding: Module) -> Tensor | None:
    """Return the kernel's transform for `positions`, on the CPU; None for data2vec."""
    if not hasattr(embedding, "conv"):
        return None
    # The model may still be on a GPU: int8 is made before the model is moved.
    return _transform(embedding.conv.weight.cpu(), embedding.conv.groups)


def _transform(weight: Tensor, groups: int) -> Tensor:
    """Return (K + 1 frequencies, groups, channels in, channels out), complex.

    weight: (groups * channels out, channels in, K). The result is the conjugate of its
    transform over 2K, since a convolution layer computes a correlation.
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


def _by_fourier(utterance: Tensor, transformed: Tensor, conv: Module) -> Tensor:
    """Return the convolution of (frames, features), as (features, frames + 1)."""
    kernel, padding, bias = conv.kernel_size[0], conv.padding[0], conv.bias
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
