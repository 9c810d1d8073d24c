"""Make `sample.db` and `words.db`: patterns, words and voices in, tables of rows out.

    python benchmarks/recipes/make_sample.py --books books  # ten minutes of one core

`books` is the folder that README.md beside this file says how to fill. With the
same versions of all packages, on the same kind of processor, every run gives the same
file, byte for byte. thanosql/catalog/sample/README.md says what is in it.
"""

from __future__ import annotations

import argparse
import random
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from itertools import chain, cycle, islice, product
from pathlib import Path
from typing import TYPE_CHECKING

import apsw
import numpy as np
import soundfile
from voices import SAMPLE_RATE, UNHEARD, Spoken, hibari, kokoro, kokoro_folder, trimmed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

SEED = 0
SAMPLE = Path(__file__).parents[2] / "thanosql/catalog/sample"
HEARD = (
    "af_bella", "am_michael", "bf_emma", "bm_george", "af_sarah", "am_puck",
    "hibari", "hibari_low",
)  # fmt: skip
"Voices of both tables: six of Kokoro's, hibari's own and one as low as a man's."
STRANGERS = (UNHEARD[0], UNHEARD[3])
"Voices of the test alone, which the base TinyEn never heard either."
TABLES: Mapping[
    str, Sequence[tuple[Sequence[str], int]]
] = {  # name -> voices and how many recordings they speak in turn
    "commands_train": [(HEARD, 216)],
    "commands_test": [(HEARD, 40), (STRANGERS, 16)],
}
PATTERNS = (
    "{please}turn {state} the {device} in the {room}{when}",
    "{please}turn the {room} {device} {state}{when}",
    "{please}open the {room} {opening}{when}",
    "{please}close the {room} {opening}{when}",
    "is the {room} {opening} still open",
    "{please}play {music} in the {room}",
    "{please}call my {person}{when}",
    "tell my {person} that i will be home at {number}",
    "set a timer for {number} minutes",
    "wake me {day} at {number}",
    "{please}remind me to {task}{when}",
    "what is the weather like in {city} {day}",
    "when does the next train to {city} leave",
    "how long does it take to drive to {city}",
    "add {food} and {drink} to the shopping list",
    "do we still have {food} or {drink} at home",
    "book a table for {number} people {day}",
    "my {person} wants to know who is coming {day}",
)
SLOTS = {
    "please": ("", "", "please ", "could you "),
    "room": ("kitchen", "bedroom", "office", "garden", "bathroom"),
    "device": ("light", "fan", "heater", "radio", "television"),
    "state": ("on", "off"),
    "opening": ("door", "window"),
    "music": ("music", "the news", "something quiet", "my favorite song"),
    "person": ("doctor", "sister", "brother", "mother", "neighbor", "teacher"),
    "task": (
        "water the flowers", "take out the trash", "feed the cat", "pay the rent",
        "bring an umbrella",
    ),
    "city": ("london", "boston", "paris", "chicago"),
    "food": ("bread", "apples", "cheese", "rice", "butter"),
    "drink": ("milk", "coffee", "orange juice", "tea"),
    "day": ("today", "tonight", "tomorrow", "on friday", "on sunday"),
    "when": ("", "", " {day}", " at {number}", " before dinner"),
    "number": ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
}  # fmt: skip
QUESTIONS = {"is", "when", "what", "how", "do", "could"}

WORDS = """
    zero one two three four five six seven eight nine ten eleven twelve twenty thirty
    forty fifty hundred yes no stop go left right up down on off open close call play
    turn start set please hello thanks red green blue white black the my in to and at
    door window light music kitchen house car dog cat today tomorrow morning evening
    monday tuesday wednesday thursday friday saturday sunday
"""

SPREAD = 0.1  # how far a speaker departs from its usual pace
MARGIN = 0.1  # seconds of silence kept at both ends, but of a word
WORD_MARGIN = 0.03
COMPRESSION = 0.96  # soundfile's level, for Opus 16 kbit/s: 2 KB a second


@dataclass(frozen=True, slots=True)
class Recording:
    """A row to be made; its place among all rows is its number."""

    number: int
    text: str
    speaker: str
    speed: float
    "Times the voice's own."


def main() -> None:
    """Write both databases into the package."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--books", type=Path, required=True)
    voices = kokoro_folder(parser.parse_args().books)
    words = (_row(recording, voices, WORD_MARGIN) for recording in plan_words())
    write(SAMPLE / "words.db", {"words": len(plan_words())}, words)
    rows = (_row(recording, voices, MARGIN) for recording in plan())
    counts = {name: sum(n for _, n in parts) for name, parts in TABLES.items()}
    write(SAMPLE / "sample.db", counts, rows)


def write(
    path: Path, counts: Mapping[str, int], rows: Iterator[tuple[bytes, str, str, float]]
) -> None:
    """Write a database: tables, and how many of the rows each has."""
    path.unlink(missing_ok=True)
    with closing(apsw.Connection(str(path))) as connection:
        with connection:
            for table, count in counts.items():
                connection.execute(
                    f'CREATE TABLE "{table}" '
                    "(audio BLOB, text TEXT, speaker TEXT, seconds REAL)"
                )
                connection.executemany(
                    f'INSERT INTO "{table}" VALUES (?, ?, ?, ?)', islice(rows, count)
                )
        connection.execute("VACUUM")
    print(f"{path}: {sum(counts.values())} recordings, {path.stat().st_size:,} bytes")


def plan() -> list[Recording]:
    """Return what is to be said, of all tables: no sentence twice."""
    source = random.Random(SEED)
    parts = chain.from_iterable(TABLES.values())
    speakers = chain.from_iterable(islice(cycle(who), count) for who, count in parts)
    return [
        Recording(number, text, speaker, source.uniform(1 - SPREAD, 1 + SPREAD))
        for number, (speaker, text) in enumerate(
            zip(speakers, _sentences(random.Random(SEED)), strict=False)
        )
    ]


def plan_words() -> list[Recording]:
    """Return the words to be said, each alone."""
    return [
        Recording(number, word, speaker, 0.9)
        for number, (speaker, word) in enumerate(product(HEARD[-2:], WORDS.split()))
    ]


def _sentences(source: random.Random) -> Iterator[str]:
    """Yield sentences of all patterns, each once."""
    said = set()
    while True:
        sentence = source.choice(PATTERNS)
        while "{" in sentence:  # a slot may hold a slot
            words = {slot: source.choice(choices) for slot, choices in SLOTS.items()}
            sentence = sentence.format(**words)
        if sentence not in said:
            said.add(sentence)
            yield sentence


def _row(
    recording: Recording, voices: Path, margin: float
) -> tuple[bytes, str, str, float]:
    """Return the row of a recording: audio, text, speaker, seconds."""
    waveform = trimmed(_spoken(recording, voices), margin)
    audio = encoded(waveform, recording.number)
    return audio, recording.text, recording.speaker, len(waveform) / SAMPLE_RATE


def _spoken(recording: Recording, voices: Path) -> Spoken:
    speaker, speed = recording.speaker, recording.speed
    asks = recording.text.split(" ", 1)[0] in QUESTIONS
    text = recording.text + ("?" if asks else ".")  # heard in the melody
    if not speaker.startswith("hibari"):
        return kokoro(text, voices, [speaker], speed=speed)
    source = np.random.default_rng((SEED, recording.number))
    if speaker == "hibari":
        return hibari(text, source, speed=speed)
    return hibari(text, source, speed=speed, pitch=0.62, tract=0.9)


def encoded(
    waveform: NDArray[np.float32], serial: int, compression: float = COMPRESSION
) -> bytes:
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
        compression_level=compression,
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
