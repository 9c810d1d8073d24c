"""The features of a window in, the pauses between its words out.

CTC marks a letter at one moment of its sound, up to a fifth of a second after a word
has begun. Where a pause comes before the word, the pause's end is the better mark.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

    from thanosql.speech.decoding.words import Grid

# Samples of a waveform's spectrum and from one spectrum to the next, as in log-mels.
_WINDOW, _HOP = 400, 160
_FLOOR = 1e-10  # added to power; stands for digital silence
_SMOOTHED = 480  # samples, 30 ms, over which levels are averaged
_LEAST = 1_280  # samples, 80 ms: a shorter gap may be within a word, as before a t
# A pause is where the level is within this share of the way from the quietest tenth to
# what three quarters of the letters do not exceed.
_SHARE, _QUIETEST, _LOUD = 0.2, 0.1, 0.75


def pauses(
    features: Tensor, letters: Tensor, grid: Grid, frames: Grid
) -> list[tuple[int, int]]:
    """Return begin and end of each pause of a window, in samples, in order.

    features: (samples,) or (steps, mels), which lie in the window as `grid` says.
    letters: (n,), the frames at which a letter is heard; they lie as `frames` says.
    """
    if not len(letters):
        return []
    levels, hop = _levels(features), grid.step
    if features.ndim == 1:
        hop = _HOP
    width = max(1, round(_SMOOTHED / hop))
    levels = functional.avg_pool1d(
        levels[None], width, 1, width // 2, count_include_pad=False
    )[0, : len(levels)]
    places = (letters * frames.step + frames.middle - grid.middle) // hop
    loud = levels[places.clamp(0, len(levels) - 1)].quantile(_LOUD)
    quietest = levels.quantile(_QUIETEST)
    quiet = (levels < quietest + _SHARE * (loud - quietest)).int()
    steps = functional.pad(quiet, (1, 1)).diff()
    begins, ends = (torch.nonzero(steps == step)[:, 0] for step in (1, -1))
    found = torch.stack([begins, ends], dim=1) * hop + grid.middle
    return [(begin, end) for begin, end in found.tolist() if end - begin >= _LEAST]


def _levels(features: Tensor) -> Tensor:
    """Return how loud each step of the features is: (steps,), float32, on the CPU.

    It is the mean over frequency of the logarithm of the power. In that a quiet f or s
    stands out of silence as a loud vowel does, since it has all high frequencies.
    """
    if features.ndim == 2:
        return features.float().mean(dim=1).cpu()
    window = torch.hann_window(_WINDOW, device=features.device)
    padded = functional.pad(features.float(), (_WINDOW // 2, _WINDOW // 2))
    spectrum = torch.stft(
        padded, _WINDOW, _HOP, window=window, center=False, return_complex=True
    )
    return (spectrum.abs().square() + _FLOOR).log().mean(dim=0).cpu()
