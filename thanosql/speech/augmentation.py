"""Vary recordings for training: a waveform in, the same words at another speed out.

Speed perturbation is from Ko et al. 2015, "Audio augmentation for speech
recognition": the recording is resampled, so that tempo and pitch change together, as
from another speaker. The factors here are finer and reach a little further than
the paper's 0.9, 1.0 and 1.1.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
import torchaudio

from thanosql.speech.audio import SAMPLE_RATE

if TYPE_CHECKING:
    from numpy.typing import NDArray

# In steps of 1/25, so that each resampling filter is short.
SPEEDS = (0.88, 0.92, 0.96, 1.0, 1.04, 1.08, 1.12)


def draw_speeds(count: int, seed: int, epoch: int) -> list[float]:
    """Return a speed for each of `count` utterances, the same for the same epoch."""
    random = np.random.default_rng((seed, epoch, 1))
    return [SPEEDS[i] for i in random.integers(len(SPEEDS), size=count).tolist()]


def change_speed(waveform: NDArray[np.float32], speed: float) -> NDArray[np.float32]:
    """Return `waveform` (samples,) played `speed` times as fast: (samples / speed,)."""
    if speed == 1.0:
        return waveform
    changed: torch.Tensor = _speed(speed)(torch.from_numpy(waveform))[0]
    return np.asarray(changed)


@cache
def _speed(factor: float) -> torchaudio.transforms.Speed:
    """Return the resampling for one factor; its filter is computed once."""
    return torchaudio.transforms.Speed(SAMPLE_RATE, factor)
