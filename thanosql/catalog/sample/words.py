"""Recorded words: a text in, a WAV file of it out, with no synthesizer at hand.

A synthesizer spoke each word alone, in two voices; here they are put one behind
the other. It sounds like a speaking clock: words that people understand, and
that the base TinyEn reads.
"""

from __future__ import annotations

from contextlib import closing
from functools import cache
from importlib import resources
from io import BytesIO
from typing import TYPE_CHECKING

import apsw
import numpy as np
import soundfile

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

RATE = 16_000  # Hz
NOISE = 0.002  # its standard deviation; samples are between -1 and 1


def say(text: str, *, seed: int = 0) -> bytes:
    """Return `text` as a WAV file: 16 kHz, mono.

    Takes the words of `vocabulary()`, in either case; ValueError for another. `seed`
    chooses the voice, and draws some pace, loudness and noise, so that the same text
    sounds a little different.
    """
    source = np.random.default_rng(seed)
    spoken = _recordings()
    bank = spoken[sorted(spoken)[seed % len(spoken)]]
    words = text.lower().split()
    for word in words:
        if word not in bank:
            message = f"no recording of {word!r}; there is one of {', '.join(bank)}"
            raise ValueError(message)
    parts = [np.zeros(RATE // 10, np.float32)]
    for word in words:
        pause = np.zeros(int(RATE * source.uniform(0.0, 0.1)), np.float32)
        parts += [bank[word], pause]
    waveform = np.concatenate(parts) * np.float32(source.uniform(0.5, 1.2))
    waveform += source.normal(0, NOISE, len(waveform)).astype(np.float32)
    file = BytesIO()
    soundfile.write(file, waveform.clip(-1, 1), RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


def vocabulary() -> list[str]:
    """Return the words that there are recordings of."""
    return list(next(iter(_recordings().values())))


@cache
def _recordings() -> Mapping[str, Mapping[str, NDArray[np.float32]]]:
    """Return the waveform of each word, for each voice."""
    found: dict[str, dict[str, NDArray[np.float32]]] = {}
    with (
        resources.as_file(resources.files(__package__) / "words.db") as path,
        closing(apsw.Connection(str(path), apsw.SQLITE_OPEN_READONLY)) as connection,
    ):
        for audio, text, speaker in connection.execute(
            "SELECT audio, text, speaker FROM words ORDER BY rowid"
        ):
            waveform, _ = soundfile.read(BytesIO(audio), dtype="float32")
            found.setdefault(str(speaker), {})[str(text)] = waveform
    return found
