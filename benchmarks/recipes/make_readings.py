"""Make `readings.db`: books, voices and a few recordings of a person in, tables out.

    python benchmarks/recipes/make_readings.py --books books  # half an hour of one core

`books` is the folder that README.md beside this file says how to fill. With the same
versions of all packages, on the same kind of processor, every run gives the same file,
byte for byte. thanosql/catalog/sample/README.md says what is in it.
"""

from __future__ import annotations

import argparse
import random
import re
from collections import Counter
from io import BytesIO
from itertools import chain, cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

import jiwer
import numpy as np
import soundfile
import torch
from make_sample import SAMPLE, encoded, write
from make_speech import normalized, novels
from safetensors.torch import load_file
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperForConditionalGeneration,
    WhisperProcessor,
)
from voices import SAMPLE_RATE, Spoken, hibari, kokoro, kokoro_folder, trimmed

from thanosql.speech.opening.weights import widened
from thanosql.speech.sound.augmentation import Acoustics, hear

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

SEED = 0
EAR = SAMPLE.with_name("whisper_tiny_en")
READERS: Mapping[str, Mapping[str, float]] = {
    "bella_heart": {"af_bella": 0.6, "af_heart": 0.4},
    "michael_fenrir": {"am_michael": 0.6, "am_fenrir": 0.4},
    "emma_isabella": {"bf_emma": 0.7, "bf_isabella": 0.3},
    "george_fable": {"bm_george": 0.5, "bm_fable": 0.5},
    "sarah_kore": {"af_sarah": 0.6, "af_kore": 0.4},
    "puck_eric": {"am_puck": 0.7, "am_eric": 0.3},
    "nicole_aoede": {"af_nicole": 0.3, "af_aoede": 0.7},
    "hibari": {},
}
"Who reads the sentences to train on: blends of Kokoro's voices by shares, and hibari."
STRANGERS: Mapping[str, Mapping[str, float]] = {
    "nova_lily": {"af_nova": 0.5, "bf_lily": 0.5},
    "liam_lewis": {"am_liam": 0.5, "bm_lewis": 0.5},
}
"Who reads the sentences to test with, of voices that are in no other reader."
COUNTS = {"readings_train": 96, "readings_test": 20, "readings_people": 5}
PEOPLE = {
    "0870": "And Mr. John Dashwood had then leisure to consider how much there might "
    "be prudently in his power to do for them.",
    "0880": "He was not an ill-disposed young man,",
    "0890": "unless to be rather cold hearted and rather selfish "
    "is to be ill-disposed:",
    "0920": "Had he married a more amiable woman, he might have been made still more "
    "respectable than he was:",
    "0930": "he might even have been made amiable himself;",
}
"What a person reads: how the recording's name ends, and the words of the novel."
LIBRIVOX = "usr/share/pocketsphinx/test/data/librivox"

WORDS = range(8, 27)  # in a sentence
SINCE, USED = 1945, 3  # a word is of today if addresses since use it so often
PARTED = re.compile(
    r"\b(any|every|some|no) (body|thing|one|where)\b|\bfor ever\b|\b(Mr|Mrs|Dr)\.$"
)
"Two words that are one today, and ends of no sentence."
SECONDS = (2, 12)  # that a recording may last
MISHEARD = 0.15  # word error rate above which a recording to train on is left out
MARGIN = 0.25  # seconds kept at both ends
COMPRESSION = 0.928  # soundfile's level, for Opus at 24 kbit/s: 3 KB a second

Row = tuple[bytes, str, str, float]
"audio, text, speaker, seconds"


def main() -> None:
    """Write the database into the package."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--books", type=Path, required=True)
    books = parser.parse_args().books
    torch.set_num_threads(1)
    texts = iter(sentences(books))
    write(
        SAMPLE / "readings.db",
        COUNTS,
        chain(_read(books, texts), _people(books)),
    )


# Sentences


def sentences(books: Path) -> list[str]:
    """Return sentences of the novels in words of today, in an order drawn once."""
    library = books / "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
    chapters = sorted(books.glob("moby/package/data/*.txt"))
    today = _words_of_today(books)
    found: dict[str, None] = {}
    for book in [
        # The one that a person reads from is no other table's.
        *(novel for novel in novels(library) if "SENSE AND" not in novel[:80].upper()),
        "\n".join(path.read_text(encoding="utf-8") for path in chapters),
    ]:
        found.update(dict.fromkeys(_plain(re.sub(r"\s+", " ", book), today)))
    drawn = sorted(found)
    random.Random(SEED).shuffle(drawn)
    return drawn


def _words_of_today(books: Path) -> set[str]:
    """Return words that addresses to Congress use: neither archaic nor British."""
    uses: Counter[str] = Counter()
    for path in books.glob("sotu/package/data/*.txt"):
        if int(path.name[:4]) >= SINCE:
            uses.update(_words(path.read_text(encoding="utf-8")))
    return {word for word, count in uses.items() if count >= USED}


def _plain(book: str, today: set[str]) -> Iterator[str]:
    """Yield the sentences without names, figures, quotes and dashes."""
    before = ""
    for sentence in re.split(r"(?<=[.!?]) (?=[A-Z])", book):
        words = _words(sentence)
        if (
            len(words) in WORDS
            and re.fullmatch(r"[A-Z][a-z',; ]*(?: I\b[a-z',; ]*)*[.?!]", sentence)
            and today.issuperset(words)
            and not PARTED.search(sentence)
            and not PARTED.search(before)
        ):
            yield sentence
        before = sentence


def _words(text: str) -> list[str]:
    return re.findall("[a-z']+", text.lower())


# Recordings


def _read(books: Path, texts: Iterator[str]) -> Iterator[Row]:
    """Yield the rows to train on, then those to test with; no sentence comes twice."""
    hears = ear()
    turns = [
        *((reader, MISHEARD) for reader in _in_turn(READERS, "readings_train")),
        *((reader, float("inf")) for reader in _in_turn(STRANGERS, "readings_test")),
    ]
    for number, (reader, limit) in enumerate(turns):
        for text in texts:
            audio = _recorded(text, reader, number, kokoro_folder(books))
            waveform, _ = soundfile.read(BytesIO(audio), dtype="float32")
            seconds = len(waveform) / SAMPLE_RATE
            if not SECONDS[0] <= seconds <= SECONDS[1]:
                continue
            heard = hears(waveform)
            errors = jiwer.wer(normalized(text), normalized(heard))
            print(f"{number} {reader} {seconds:.1f} s {errors:.2f} {text} | {heard}")
            if errors <= limit:
                yield audio, text, reader, seconds
                break


def _in_turn(readers: Mapping[str, object], table: str) -> Iterator[str]:
    return islice(cycle(readers), COUNTS[table])


def _recorded(text: str, reader: str, number: int, voices: Path) -> bytes:
    """Return a sentence as this reader says it in a room, an Opus file."""
    source = np.random.default_rng((SEED, number))
    spoken = _spoken(text, reader, source, voices)
    waveform = hear(trimmed(spoken, MARGIN), _room(source))
    loudest = source.uniform(0.3, 0.8) / np.abs(waveform).max()
    return encoded(waveform * np.float32(loudest), number, COMPRESSION)


def _spoken(
    text: str, reader: str, source: np.random.Generator, voices: Path
) -> Spoken:
    speed = source.uniform(0.9, 1.1)
    shares = {**READERS, **STRANGERS}[reader]
    if not shares:
        return hibari(text, source, speed=speed)
    return kokoro(text, voices, list(shares), list(shares.values()), speed)


def _room(source: np.random.Generator) -> Acoustics:
    """Return a quiet room, a noise well below the voice, and a microphone."""
    return Acoustics(
        seed=int(source.integers(2**62)),
        reverberation=source.uniform(0.15, 0.45),
        direct=source.uniform(4, 12),
        snr=source.uniform(15, 35),
        slope=source.uniform(-6, -2),
        tilt=source.uniform(-2, 2),
    )


def _people(books: Path) -> Iterator[Row]:
    """Yield the rows that a person of LibriVox reads, as they are but for the codec."""
    first = COUNTS["readings_train"] + COUNTS["readings_test"]
    for number, (name, text) in enumerate(PEOPLE.items(), first):
        (path,) = (books / LIBRIVOX).glob(f"*-{name}.wav")
        waveform, rate = soundfile.read(path, dtype="float32")
        if rate != SAMPLE_RATE:
            message = f"{path} has {rate} Hz, not {SAMPLE_RATE}"
            raise ValueError(message)
        audio = encoded(waveform, number, COMPRESSION)
        yield audio, text, "librivox", len(waveform) / SAMPLE_RATE


def ear() -> Callable[[NDArray[np.float32]], str]:
    """Return what transcribes a waveform: Whisper tiny.en as it is, greedy."""
    processor = WhisperProcessor.from_pretrained(EAR)
    model = WhisperForConditionalGeneration(WhisperConfig.from_pretrained(EAR)).eval()
    model.generation_config = GenerationConfig.from_pretrained(EAR)
    weights = widened(load_file(EAR / "model.safetensors"))
    model.load_state_dict(weights, strict=False)  # the last layer is the embedding's

    def heard(waveform: NDArray[np.float32]) -> str:
        given = processor(waveform, sampling_rate=SAMPLE_RATE, return_tensors="pt")
        (tokens,) = model.generate(given.input_features, num_beams=1, do_sample=False)
        return str(processor.decode(tokens, skip_special_tokens=True)).strip()

    return heard


if __name__ == "__main__":
    main()
