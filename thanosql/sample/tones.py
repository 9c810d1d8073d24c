"""Utterances that need no recording and no synthesizer: text in, a WAV file out.

Each letter is a pair of tones of its own, as on a telephone's keys. It is no speech,
and says nothing about how a model does on people; but it is sound with a text, it can
be listened to, and a model of a few thousand weights learns to read it in seconds.
"""

from __future__ import annotations

import io
import math
import random
import wave
from array import array
from functools import cache

RATE = 16_000  # Hz
SECONDS_A_LETTER = 0.12
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789'"
LOW = [300 * 1.25**i for i in range(6)]  # Hz: 300 to 916
HIGH = [1250 * 1.17**i for i in range(7)]  # Hz: 1250 to 3206
LOUDNESS = 0.3  # of the loudest sample there can be, for each of the two tones
NOISE = 0.005


def tones(text: str, *, seed: int = 0) -> bytes:
    """Return `text` as a WAV file: 16 kHz, mono, 0.12 seconds a letter.

    Takes letters of English in either case, digits, the apostrophe, and spaces, which
    are silent; ValueError for others. `seed` draws a little noise, so that the same
    text sounds a little different.
    """
    noise = random.Random(seed)
    samples = array("h")
    for letter in text.lower():
        samples.extend(_pair(letter))
    for place, sample in enumerate(samples):
        samples[place] = sample + int(32767 * NOISE * (2 * noise.random() - 1))
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(RATE)
        writer.writeframes(samples.tobytes())
    return file.getvalue()


@cache
def _pair(letter: str) -> array[int]:
    """Return the sound of a letter: two tones that swell and fade."""
    count = int(SECONDS_A_LETTER * RATE)
    if letter == " ":
        return array("h", bytes(2 * count))
    if letter not in LETTERS:
        message = f"no sound for {letter!r}; there is one for {LETTERS} and the space"
        raise ValueError(message)
    high, low = divmod(LETTERS.index(letter), len(LOW))
    step = 2 * math.pi / RATE
    return array(
        "h",
        (
            int(
                32767
                * LOUDNESS
                * math.sin(math.pi * i / count) ** 2
                * (math.sin(step * LOW[low] * i) + math.sin(step * HIGH[high] * i))
            )
            for i in range(count)
        ),
    )
