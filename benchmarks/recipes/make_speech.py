"""Make the speech that TinyEn learns from: books in, a table of recordings out.

    python benchmarks/recipes/make_speech.py speech.db --books books --voices hibari \
        --hours 8

`books` holds what README.md beside this file says to unpack there. Each row follows
from its number alone, so the script may be stopped, begun again with more hours, and
run for several families of voices at once.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import zlib
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import apsw
import numpy as np
import soundfile
import torch
from voices import SAMPLE_RATE, families, trimmed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

SEED = 9
MARGIN = 0.1  # seconds of silence kept at both ends
WORDS = 24  # in an utterance, at most: about nine seconds
HELD_OUT = 40  # a fortieth of the sentences is for tests only, in voices of their own
SHORT = 0.06  # share of utterances that are a word or a few: commands, numbers
NUMBERS = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen
    fourteen fifteen sixteen seventeen eighteen nineteen twenty thirty forty fifty
    sixty seventy eighty ninety hundred thousand oh
"""
SAID = """
    yes no stop go left right up down on off open close call play start okay hello
    thanks please help red green blue white black morning evening today tomorrow
    monday friday january december dog cat house car happy sad true false
"""
_TABLE = """
CREATE TABLE IF NOT EXISTS speech (
  number INTEGER PRIMARY KEY, audio BLOB, text TEXT, voice TEXT, family TEXT,
  seconds REAL, held_out INTEGER
)
"""


# Text


def sentences(books: Path) -> list[str]:
    """Return the sentences of all books, each once, in an order drawn once."""
    found: dict[str, None] = {}
    for text in _books(books):
        for sentence in re.split(r"(?<=[.!?;])[\"')_*]*\s+", text):
            for part in _parts(re.sub(r"[\s_*\"()\[\]-]+", " ", sentence).strip()):
                found.setdefault(part)
    ordered = sorted(found)
    random.Random(SEED).shuffle(ordered)
    return ordered


def _books(books: Path) -> Iterator[str]:
    # A novel among the tests' recordings is left out.
    library = books / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
    yield from (n for n in novels(library) if "SENSE AND" not in n[:80].upper())
    for path in sorted(books.glob("moby/package/data/*.txt")):
        yield path.read_text(encoding="utf-8")
    for path in sorted(books.glob("sotu/package/data/*.txt")):
        yield path.read_text(encoding="utf-8")
    library = books / "usr/lib"
    program = books / "usr/bin/bible"
    command = [str(program), "-p", str(library), "-f", "gen1:1-rev22:21"]
    verses = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    yield re.sub(r"^\S+\d+:\d+ ", "", verses, flags=re.MULTILINE)


def novels(path: Path) -> Iterator[str]:
    """Yield the novels in a file of R's: vectors of lines, each compressed alone."""
    data = path.read_bytes()
    while data:
        reader = zlib.decompressobj()
        vector = reader.decompress(data[4:])
        data = reader.unused_data
        lines = []
        # A string is its kind, its length and its bytes.
        for match in re.finditer(rb"\x00\x04\x00\x09(.{4})", vector, re.DOTALL):
            length = int.from_bytes(match[1], "big")
            lines.append(vector[match.end() : match.end() + length].decode())
        yield "\n".join(lines)


def _parts(sentence: str) -> Iterator[str]:
    """Yield a sentence in parts short enough, cut at commas; none with a figure."""
    if re.search(r"[^A-Za-z' ,.;:!?]", sentence) or not re.search("[a-z]", sentence):
        return
    part: list[str] = []
    for clause in re.split(r"(?<=[,;:]) ", sentence):
        words = clause.split()
        if part and len(part) + len(words) > WORDS:
            yield " ".join(part)
            part = []
        part += words
        if len(part) > WORDS:
            part = []
    if len(part) >= 3:
        yield " ".join(part)


def normalized(text: str) -> str:
    """Return the transcript of a sentence: small letters, apostrophes, spaces."""
    letters = re.sub(r"[^a-z' ]", " ", text.lower())
    return " ".join(word for w in letters.split() if (word := w.strip("'")))


def _short(choose: random.Random) -> str:
    numbers, said = NUMBERS.split(), SAID.split()
    words = choose.choice([numbers, numbers[:10], said, numbers + said])
    return " ".join(choose.choices(words, k=choose.choice([1, 1, 2, 3, 4, 6])))


# Rows


def rows(
    family: str, books: Path, texts: Sequence[str], have: set[int]
) -> Iterator[tuple[int, bytes, str, str, str, float, int]]:
    """Yield the rows of a family that `have` lacks, without end."""
    speakers = families(books)
    place = list(speakers).index(family)
    for serial in range(len(texts)):
        number = serial * len(speakers) + place
        if number in have:
            continue
        source = np.random.default_rng((SEED, number))
        held_out = (number // HELD_OUT) % HELD_OUT == 0
        if (family == "unheard") != held_out:
            continue
        text = texts[number % len(texts)]
        if source.random() < SHORT and not held_out:
            text = _short(random.Random(number))
        spoken = speakers[family](text, source)
        waveform = trimmed(spoken, MARGIN)
        transcript = normalized(text)
        seconds = len(waveform) / SAMPLE_RATE
        if not 3 < len(transcript) / seconds < 21:
            continue  # it said something else, or nothing
        audio = BytesIO()
        soundfile.write(audio, waveform, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
        voice, blob = spoken.voice, audio.getvalue()
        yield number, blob, transcript, voice, family, seconds, held_out


def main(arguments: Iterable[str] | None = None) -> None:
    """Add recordings until a family of voices has as many hours as asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("database", type=Path)
    parser.add_argument("--books", type=Path, required=True)
    parser.add_argument("--voices", choices=families(Path()), required=True)
    parser.add_argument("--hours", type=float, required=True)
    chosen = parser.parse_args(None if arguments is None else list(arguments))
    torch.set_num_threads(1)
    texts = sentences(chosen.books)
    print(f"{len(texts):,} sentences", flush=True)
    with closing(apsw.Connection(str(chosen.database))) as connection:
        connection.set_busy_timeout(60_000)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(_TABLE)
        known = list(
            connection.execute(
                "SELECT number, seconds FROM speech WHERE family = ?", [chosen.voices]
            )
        )
        hours = sum(seconds for _, seconds in known) / 3600
        have = {number for number, _ in known}
        for row in rows(chosen.voices, chosen.books, texts, have):
            if hours >= chosen.hours:
                break
            connection.execute("INSERT INTO speech VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            hours += row[5] / 3600
    print(f"{chosen.voices}: {hours:.2f} hours", flush=True)


if __name__ == "__main__":
    main()
