"""Vary recordings for training: a waveform in, the same words at other conditions out.

Speed perturbation is from Ko et al. 2015, "Audio augmentation for speech recognition":
the recording is resampled, so that tempo and pitch change together, as with another
speaker. The factors here are finer than the paper's 0.9, 1.0 and 1.1, and reach a
little further.

Noise perturbation is multi-condition training. Everything is synthesized, so it needs
no other recordings. A room is exponentially decaying noise (Polack 1988; Ko et al.
2017, "A study on data augmentation of reverberant speech", compare simulated rooms with
measured ones). A noise has a sloping spectrum. A microphone is a tilt or a band.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
import torchaudio

from thanosql.speech.sound.audio import SAMPLE_RATE

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLEAN_SHARE = 0.2  # share of an epoch's recordings without noise perturbation
_POWER_OF_OCTAVE = 20 * math.log10(2)  # dB of an amplitude that doubles
_LOWEST = 50.0  # Hz; below it a slope is flat, so that noise is not mostly inaudible
_ORDER = 8  # of the Butterworth filters at the edges of a band
_BLOCK = 2**15  # samples of an FFT, and of a noise before it repeats: two seconds
_TAPS = 1024  # length of a microphone's filter
_SWELL = 0.8  # share of its amplitude by which a swelling noise rises and falls

# Multiples of 1/25, so that each resampling filter is short.
SPEEDS = (0.88, 0.92, 0.96, 1.0, 1.04, 1.08, 1.12)


def draw_speeds(count: int, seed: int, epoch: int) -> list[float]:
    """Return a speed for each of `count` utterances, by seed and epoch."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Acoustics:
    """The conditions of a recording: a room, a noise, a microphone, in that order."""

    seed: int = 0
    "Of the random samples of the noise and the room."
    reverberation: float = 0.0
    "Seconds in which the room's sound falls by 60 dB (RT60); 0: no room."
    direct: float = 0.0
    "Level of the direct sound over the room's, in dB."
    snr: float | None = None
    "Level of all the speech over all the noise, in dB; None: no noise."
    slope: float = 0.0
    "Slope of the noise's spectrum in dB per octave: 0 is white, -3 pink, -6 brown."
    swell: float = 0.0
    "Frequency in Hz at which the noise rises and falls; 0: steady."
    tilt: float = 0.0
    "Slope of the microphone's response in dB per octave."
    band: tuple[float, float] | None = None
    "The frequencies that the microphone passes, from and to, in Hz; None: all."
    clip: float | None = None
    "Level below the peak at which samples are clipped, in dB; None: no clipping."
    gain: float = 0.0
    "Of the result, in dB."


def draw_acoustics(seed: int, epoch: int, row: int) -> Acoustics | None:
    """Return random conditions for a row in an epoch, by seed, epoch and row.

    None, in a share `CLEAN_SHARE` of cases, means no change.
    """
    random = np.random.default_rng((seed, epoch, row, 2))

    def sometimes(share: float) -> bool:
        return bool(random.random() < share)

    if sometimes(CLEAN_SHARE):
        return None
    band = None
    if sometimes(0.1):
        band = (300.0, 3400.0)  # a telephone
    elif sometimes(0.2):
        band = (0.0, random.uniform(3400, 7000))
    return Acoustics(
        seed=int(random.integers(2**62)),
        reverberation=random.uniform(0.1, 0.6) if sometimes(0.4) else 0.0,
        direct=random.uniform(0, 12),
        snr=random.uniform(8, 35) if sometimes(0.8) else None,
        slope=random.uniform(-6, 0),
        swell=random.uniform(0.2, 4) if sometimes(0.4) else 0.0,
        tilt=random.uniform(-3, 3) if sometimes(0.5) else 0.0,
        band=band,
        clip=random.uniform(2, 10) if sometimes(0.1) else None,
        gain=random.uniform(-20, 0),
    )


def hear(waveform: NDArray[np.float32], acoustics: Acoustics) -> NDArray[np.float32]:
    """Return `waveform` (samples,) as recorded under `acoustics`: (samples,).

    Silence stays silent, since the level of the noise is relative to the speech.
    """
    samples = len(waveform)
    if samples == 0:
        return waveform
    generator = torch.Generator().manual_seed(acoustics.seed)
    speech = _transmitted(torch.from_numpy(waveform), acoustics, generator)
    if acoustics.snr is not None:
        noise = _noise(samples, acoustics, generator)
        # In float64, so that no square overflows.
        loud, soft = (
            float(torch.linalg.vector_norm(x, dtype=torch.float64))
            for x in (speech, noise)
        )
        level = loud / max(soft, 1e-30) * 10 ** (-acoustics.snr / 20)
        speech = torch.add(speech, noise, alpha=level)
    if acoustics.clip is not None:
        peak = float(speech.abs().max()) * 10 ** (-acoustics.clip / 20)
        speech = speech.clamp(-peak, peak)
    return np.asarray(speech * 10 ** (acoustics.gain / 20))


def _transmitted(
    speech: torch.Tensor, acoustics: Acoustics, generator: torch.Generator
) -> torch.Tensor:
    """Return speech (samples,) after room and microphone, without delay.

    Overlap-add: FFTs that fit into a core's cache take a tenth of the time of one FFT
    of the whole recording.
    """
    filters, delay = [], 0
    if acoustics.reverberation:
        filters.append(_room(acoustics, generator))
    response = _response(_octaves(_TAPS), acoustics)
    if response is not None:
        filters.append(torch.fft.irfft(response, _TAPS).roll(_TAPS // 2))
        delay = _TAPS // 2
    if not filters:
        return speech
    longer = sum(len(taps) - 1 for taps in filters)  # samples that a block grows by
    size = _block_size(len(speech) + delay + longer)
    hop = size - longer
    count = -(-(len(speech) + delay) // hop)
    blocks = torch.nn.functional.pad(speech, (0, count * hop - len(speech)))
    spectra = torch.fft.rfft(blocks.view(count, hop), size)
    for taps in filters:
        spectra *= torch.fft.rfft(taps, size)
    output: torch.Tensor = torch.fft.irfft(spectra, size)
    output[1:, :longer] += output[:-1, hop:]
    return output[:, :hop].flatten()[delay : delay + len(speech)]


def _block_size(samples: int) -> int:
    """Return the size of FFTs for so many samples: a power of two up to `_BLOCK`."""
    return min(_BLOCK, 1 << samples.bit_length())


@cache
def _octaves(size: int) -> torch.Tensor:
    """Return log2 of the frequency in Hz of each FFT bin: (size / 2 + 1,)."""
    hertz = torch.linspace(0, SAMPLE_RATE / 2, size // 2 + 1)
    return hertz.clamp(min=_LOWEST).log2()


def _slope(octaves: torch.Tensor, decibels: float) -> torch.Tensor:
    """Return a spectrum (bins,) that rises by `decibels` an octave, and is 1 at 1 kHz.

    octaves: (bins,), log2 of the frequencies in Hz.
    """
    return torch.exp2((octaves - math.log2(1000)) * (decibels / _POWER_OF_OCTAVE))


def _response(octaves: torch.Tensor, acoustics: Acoustics) -> torch.Tensor | None:
    """Return the microphone's frequency response (bins,); None if it is flat."""
    response = _slope(octaves, acoustics.tilt) if acoustics.tilt else None
    if acoustics.band is None:
        return response
    low, high = acoustics.band
    stopped = torch.exp2(2 * _ORDER * (octaves - math.log2(high)))
    if low:
        stopped += torch.exp2(-2 * _ORDER * (octaves - math.log2(low)))
    passed = stopped.add_(1).rsqrt_()
    return passed if response is None else response * passed


def _room(acoustics: Acoustics, generator: torch.Generator) -> torch.Tensor:
    """Return a room's impulse response (samples,): the direct sound, then echoes."""
    samples = round(acoustics.reverberation * SAMPLE_RATE)
    decay = torch.exp(torch.linspace(0, -math.log(1000), samples))
    echoes = torch.randn(samples, generator=generator) * decay
    echoes *= 10 ** (-acoustics.direct / 20) / torch.linalg.vector_norm(echoes)
    return torch.cat([torch.ones(1), echoes])


def _noise(
    samples: int, acoustics: Acoustics, generator: torch.Generator
) -> torch.Tensor:
    """Return a noise (samples,) after the microphone, at an arbitrary level."""
    size = _block_size(samples)
    octaves = _octaves(size)
    spectrum = torch.randn(len(octaves), dtype=torch.complex64, generator=generator)
    spectrum *= _slope(octaves, acoustics.slope)
    response = _response(octaves, acoustics)
    if response is not None:
        spectrum *= response
    # An inverse FFT is periodic, so the block repeats without a seam.
    noise: torch.Tensor = torch.fft.irfft(spectrum, size)
    noise = noise.repeat(-(-samples // size))[:samples]
    if acoustics.swell:
        phase = 2 * math.pi * float(torch.rand((), generator=generator))
        turns = 2 * math.pi * acoustics.swell * samples / SAMPLE_RATE
        wave = torch.linspace(phase, phase + turns, samples).sin_()
        noise *= wave.mul_(_SWELL).add_(1)
    return noise
