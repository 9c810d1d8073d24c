"""Make `sample.db`: sentence patterns and speech synthesizers in, tables of rows out.

    apt-get install flite espeak-ng        # Debian 12: flite 2.2, espeak-ng 1.51
    python -m thanosql.sample.make_sample  # two minutes

With the same versions of these, soundfile and apsw, every run gives the same file, byte
for byte. README.md says what is in it, and under which licences the voices are.
"""

from __future__ import annotations

import random
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import apsw
import numpy as np
import soundfile

from thanosql.speech.audio import SAMPLE_RATE, load, seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SEED = 0
TABLES = {"commands_train": 480, "commands_test": 60}  # name -> recordings
PATTERNS = (
    "{please}turn the {room} {device} {state}{when}",
    "{please}turn {state} the {room} {device}{when}",
    "{please}open the {room} {opening}{when}",
    "{please}close the {room} {opening}{when}",
    "{please}play music in the {room}{when}",
    "{please}call my {person}{where}{when}",
    "{please}set a timer for {number} minutes",
    "{please}set an alarm for {number}{day}",
)
SLOTS = {
    "please": ("", "", "", "please "),
    "room": ("kitchen", "bedroom", "office", "garden"),
    "device": ("light", "fan", "heater", "radio"),
    "state": ("on", "off"),
    "opening": ("door", "window"),
    "person": ("doctor", "sister", "brother"),
    "where": ("", " at work"),
    "day": ("", " tonight", " tomorrow"),
    "when": ("", "", " tonight", " tomorrow", " at {number}"),
    "number": ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
}

SPREAD = 0.1  # how far a speaker departs from its usual pace
LOUDEST = 0.7  # sample of a recording
SILENCE = 0.01  # of the loudest sample: what is softer at both ends is cut,
MARGIN = SAMPLE_RATE // 20  # but for so many samples
COMPRESSION = 0.96  # soundfile's level, for Opus 16 kbit/s: 2 KB a second


@dataclass(frozen=True, slots=True)
class Speaker:
    """A voice of a synthesizer."""

    name: str
    synthesizer: str
    voice: str
    pace: float
    "Of the synthesizer's own, to come near 14 letters a second, as people speak."


SPEAKERS = (
    Speaker("kal", "flite", "kal16", 0.74),
    Speaker("awb", "flite", "awb", 0.82),
    Speaker("rms", "flite", "rms", 0.92),
    Speaker("slt", "flite", "slt", 0.82),
    Speaker("f2", "espeak-ng", "en-us+f2", 0.81),
    Speaker("m3", "espeak-ng", "en-us+m3", 0.77),
)


@dataclass(frozen=True, slots=True)
class Recording:
    """A row to be made; its place among all rows is its number."""

    number: int
    text: str
    speaker: Speaker
    pace: float


def main() -> None:
    """Write sample.db beside this file."""
    path = Path(__file__).with_name("sample.db")
    path.unlink(missing_ok=True)
    recordings = plan(sum(TABLES.values()))
    with (
        closing(apsw.Connection(str(path))) as connection,
        ThreadPoolExecutor() as pool,
    ):
        rows = pool.map(_row, recordings)
        with connection:
            for table, count in TABLES.items():
                connection.execute(
                    f'CREATE TABLE "{table}" '
                    "(audio BLOB, text TEXT, speaker TEXT, seconds REAL)"
                )
                connection.executemany(
                    f'INSERT INTO "{table}" VALUES (?, ?, ?, ?)', islice(rows, count)
                )
        connection.execute("VACUUM")
    print(f"{path}: {len(recordings)} recordings, {path.stat().st_size:,} bytes")


def plan(count: int) -> list[Recording]:
    """Return what is to be said: no sentence twice, the speakers in turn."""
    source = random.Random(SEED)
    texts = islice(_sentences(source), count)
    return [
        Recording(
            number, text, speaker, speaker.pace * source.uniform(1 - SPREAD, 1 + SPREAD)
        )
        for number, (text, speaker) in enumerate(zip(texts, cycle(SPEAKERS)))
    ]


def _sentences(source: random.Random) -> Iterator[str]:
    """Yield sentences of all patterns, each once."""
    said = set()
    while True:
        words = {slot: source.choice(choices) for slot, choices in SLOTS.items()}
        # Twice, since a slot may hold a slot.
        sentence = source.choice(PATTERNS).format(**words).format(**words)
        if sentence not in said:
            said.add(sentence)
            yield sentence


def _row(recording: Recording) -> tuple[bytes, str, str, float]:
    """Return the row of a recording: audio, text, speaker, seconds."""
    waveform = _trimmed(_speak(recording))
    audio = _encoded(waveform, recording.number)
    return audio, recording.text, recording.speaker.name, seconds(waveform)


def _speak(recording: Recording) -> NDArray[np.float32]:
    """Return the waveform of a sentence: (samples,), 16 kHz."""
    speaker, pace = recording.speaker, recording.pace
    with TemporaryDirectory() as directory:
        path = f"{directory}/speech.wav"
        if speaker.synthesizer == "flite":
            # A voice's durations are stretched, so a quick pace is a small factor.
            options = ["-voice", speaker.voice, "-o", path]
            options += ["--setf", f"duration_stretch={1 / pace:.3f}", "-t"]
        else:
            # In words a minute; 175 is espeak-ng's own pace.
            options = ["-v", speaker.voice, "-w", path, "-s", str(round(175 * pace))]
        subprocess.run([speaker.synthesizer, *options, recording.text], check=True)
        return load(path, None)


def _trimmed(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return it without the silence at both ends, as loud as all others."""
    loudest = np.abs(waveform).max()
    heard = np.flatnonzero(np.abs(waveform) > SILENCE * loudest)
    kept = waveform[max(0, heard[0] - MARGIN) : heard[-1] + MARGIN]
    return np.asarray(kept * (LOUDEST / loudest), dtype=np.float32)


def _encoded(waveform: NDArray[np.float32], serial: int) -> bytes:
    """Return the waveform as an Ogg Opus file whose stream has this serial number.

    libsndfile draws a number from the clock, which would make every run's file another.
    """
    file = BytesIO()
    soundfile.write(
        file,
        waveform,
        SAMPLE_RATE,
        format="OGG",
        subtype="OPUS",
        compression_level=COMPRESSION,
    )
    # No recording holds these four bytes elsewhere: a test decodes them all.
    pages = [b"OggS" + page for page in file.getvalue().split(b"OggS")[1:]]
    return b"".join(_numbered(bytearray(page), serial) for page in pages)


def _numbered(page: bytearray, serial: int) -> bytes:
    """Return an Ogg page (RFC 3533) with that serial number and its checksum."""
    page[14:18] = serial.to_bytes(4, "little")
    page[22:26] = bytes(4)
    checksum = 0
    for byte in page:
        checksum ^= byte << 24
        for _ in range(8):
            overflow = 0x04C11DB7 if checksum & 0x80000000 else 0
            checksum = checksum << 1 & 0xFFFFFFFF ^ overflow
    page[22:26] = checksum.to_bytes(4, "little")
    return bytes(page)


if __name__ == "__main__":
    main()
