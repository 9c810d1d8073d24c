"""The speakers of finetuning.py: a name in, clips to train on and to test with out.

All texts are LibriSpeech's. The clips of a speaker come in an order drawn once: the
first are trained on, the last tested with, and no sentence is in both.
"""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING

from common import RECORDINGS, Clip

if TYPE_CHECKING:
    from collections.abc import Iterator

READER = "2803"
CHILD = {"pitch": 1.7, "tract": 1.25}  # times those of hibari-tts, as in tiny_en.py
TELEPHONE = 8_000  # samples a second
LONGEST = 28  # seconds of a clip
LETTERS = 330  # of the sentences of the child that make a clip, at most
SPEAKERS = {
    "reader": f"speaker {READER} of LibriSpeech, whom TinyEn does not know either",
    "child": f"hibari-tts at {CHILD}, through a telephone of {TELEPHONE} Hz; sentences "
    "of LibriSpeech, joined to clips",
}


def write(directory: Path, speaker: str, minutes: float, tested: float) -> float:
    """List the clips of a speaker in `directory`; return the minutes to train on.

    minutes: that are wanted, beside those that are tested with. Who is spoken for this
    has them; who is recorded has what there is.
    """
    clips = list(
        _reader() if speaker == "reader" else _child(directory, minutes + tested)
    )
    random.Random(0).shuffle(clips)
    test: list[Clip] = []
    while sum(clip.seconds for clip in test) < 60 * tested:
        test.append(clips.pop())
    listed = {"train": clips, "test": test}
    (directory / f"{speaker}.json").write_text(json.dumps(listed, default=str))
    return sum(clip.seconds for clip in clips) / 60


def read(
    directory: Path, speaker: str, minutes: float
) -> tuple[list[Clip], list[Clip]]:
    """Return so many minutes to train on, and all that is tested with."""
    listed = json.loads((directory / f"{speaker}.json").read_text())
    train, test = (
        [Clip(Path(path), text, seconds) for path, text, seconds in listed[split]]
        for split in ("train", "test")
    )
    chosen: list[Clip] = []
    for clip in train:
        if sum(each.seconds for each in chosen) + clip.seconds / 2 < 60 * minutes:
            chosen.append(clip)
    return chosen, test


def _manifest(folder: str) -> Iterator[dict[str, str]]:
    with (RECORDINGS / folder / "manifest.csv").open(encoding="utf-8") as file:
        yield from csv.DictReader(file)


def _reader() -> Iterator[Clip]:
    for folder in ("librispeech", "librispeech_mp3"):
        for row in _manifest(folder):
            if row["speaker"] == READER and float(row["seconds"]) < LONGEST:
                path = RECORDINGS / folder / row["audio"]
                yield Clip(path, row["text"], float(row["seconds"]))


def _child(directory: Path, minutes: float) -> Iterator[Clip]:
    """Speak sentences, some to a clip, for so many minutes and half of one more."""
    import numpy as np
    import soundfile
    import torch
    from recipes.voices import SAMPLE_RATE, hibari, trimmed
    from torchaudio.functional import resample

    left = 60 * minutes + 30
    for number, text in enumerate(_joined()):
        source = np.random.default_rng(number)
        speed = source.uniform(0.85, 1.15)
        waveform = trimmed(hibari(text, source, speed=speed, **CHILD), 0.1)
        seconds = len(waveform) / SAMPLE_RATE
        if seconds >= LONGEST:
            continue
        path = directory / f"child-{number}.flac"
        line = resample(torch.from_numpy(waveform), SAMPLE_RATE, TELEPHONE)
        heard = resample(line, TELEPHONE, SAMPLE_RATE).numpy()  # as both sides read
        soundfile.write(path, heard, SAMPLE_RATE)
        yield Clip(path, text, seconds)
        left -= seconds
        if left < 0:
            return
    message = f"{left:.0f} s of the child are lacking: too few sentences"
    raise RuntimeError(message)


def _joined() -> Iterator[str]:
    """Yield the sentences of LibriSpeech that are for training, some at a time."""
    together = ""
    for row in _manifest("librispeech_mp3"):
        if row["split"] != "train":
            continue
        if together and len(together) + len(row["text"]) > LETTERS:
            yield together
            together = ""
        together = f"{together} {row['text']}".strip()
