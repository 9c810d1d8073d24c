"""Utterances that need no recording: text in, sound out."""

from __future__ import annotations

import io

import numpy as np
import soundfile

LETTERS = "abcdefgh "
SECONDS_A_LETTER = 0.12


def tones(text: str, rate: int = 16_000, seed: int = 0) -> bytes:
    """Return `text` as an encoded WAV file: one tone a letter, a little noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(SECONDS_A_LETTER * rate)) / rate
    parts = [
        np.sin(2 * np.pi * (250 + 180 * LETTERS.index(letter)) * time)
        * np.hanning(len(time))
        * (letter != " ")
        for letter in text
    ]
    waveform = np.concatenate(parts) * 0.5
    waveform += rng.normal(0, 0.01, len(waveform))
    file = io.BytesIO()
    soundfile.write(file, waveform, rate, format="WAV")
    return file.getvalue()
