"""Utterances that need no recording: text in, sound out."""

from __future__ import annotations

import io

import numpy as np
import soundfile

SECONDS_A_LETTER = 0.16


def tones(text: str, rate: int = 16_000, seed: int = 0) -> bytes:
    """Return `text` as an encoded WAV file: one tone a letter, a little noise."""
    time = np.arange(int(SECONDS_A_LETTER * rate)) / rate
    parts = [
        np.sin(2 * np.pi * (300 + 250 * (ord(letter) - ord("a"))) * time)
        * np.hanning(len(time))
        * (letter != " ")
        for letter in text
    ]
    waveform = 0.5 * np.concatenate(parts)
    waveform += np.random.default_rng(seed).normal(0, 0.01, len(waveform))
    file = io.BytesIO()
    soundfile.write(file, waveform, rate, format="WAV")
    return file.getvalue()


def spoken(count: int, letters: str = "abcd", seed: int = 0) -> list[tuple[bytes, str]]:
    """Return rows (audio, text): `count` words of two to four letters."""
    random = np.random.default_rng(seed)
    words = [
        "".join(random.choice(list(letters), size=random.integers(2, 5)))
        for _ in range(count)
    ]
    return [(tones(word, seed=i), word) for i, word in enumerate(words)]
