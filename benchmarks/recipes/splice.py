"""Cut recordings of people between words, and put the parts together otherwise.

    python benchmarks/recipes/splice.py speech.db --model aligned --hours 5

A model that has heard a person say eight hundred sentences knows the sentences by heart
before it knows the person. Here each person says others: runs of words of their own,
cut where it is quiet, in an order drawn at random (after Lam et al. 2021, "On-the-fly
aligned data augmentation for sequence-to-sequence ASR", who mix people), on a tape that
runs slower or faster. Where words are comes from a model, exported, that reads the
recordings about right: the most likely way through its logits that spells the
transcript.

Fills a table `spliced` beside the view `people` (audio, text, speaker) of recipe.sql.
"""

from __future__ import annotations

import argparse
from contextlib import closing
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import numpy as np
import soundfile
import torch
import torchaudio

from thanosql.errors import DataError
from thanosql.speech.opening.opening import open_base
from thanosql.speech.sound.audio import SAMPLE_RATE, load

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from thanosql.speech.recognizers.recognizer import Recognizer

SEED = 9
QUIET = 0.2  # of a recording's root mean square: cut where it is below
SURE = 0.3  # mean probability of a word's letters, below which it is not used
LOUDNESS = 0.07  # root mean square of what is put together
LONGEST = 6  # words in a row that stay together, about
SECONDS = (2.5, 10.0)  # of what is put together, from and to
TAPE = (0.85, 1.18)  # how much faster it plays: pitch and vocal tract of somebody else
_WINDOW = SAMPLE_RATE // 50  # samples over which it is told how quiet it is
_FADE = SAMPLE_RATE // 100  # samples
# Of frames times labels with the blanks around them. torchaudio 2.11 counts these in 32
# bits; beyond, it writes outside of its memory and ends the process (60 000 frames and
# 18 000 labels did, 45 000 and 20 000 did not).
MOST_CELLS = 2**31 - 1
_TABLE = """
CREATE TABLE IF NOT EXISTS spliced (
  number INTEGER PRIMARY KEY, audio BLOB, text TEXT, speaker TEXT, seconds REAL
)
"""


@dataclass(frozen=True, slots=True)
class Part:
    """Some words in a row, as somebody said them."""

    waveform: NDArray[np.float32]
    "(samples,), 16 kHz"
    text: str
    follows: bool
    "Whether it goes on where the part before it ended."


def parts(recognizer: Recognizer, audio: object, text: str) -> list[Part]:
    """Return what lies between two quiet places, each a word or more, in order.

    Parts with words that the model is not sure of are left out.
    """
    waveform = load(audio, None)
    waveform = waveform * np.float32(LOUDNESS / max(_level(waveform), 1e-6))
    words = text.split()
    spoken = _words(recognizer, waveform, text)
    joints = [0]
    for (_, _, end), (_, start, _) in pairwise(spoken):
        joints.append(_quietest(waveform, end, start))
    joints.append(len(waveform))
    found, first, follows = [], 0, False
    for last in range(1, len(words) + 1):
        cut = joints[last]
        if last < len(words) and _level(_around(waveform, cut)) > QUIET * LOUDNESS:
            continue
        sure = min(score for score, _, _ in spoken[first:last]) >= SURE
        if sure:
            piece = waveform[joints[first] : cut]
            found.append(Part(piece, " ".join(words[first:last]), follows))
        first, follows = last, sure
    return found


def _words(
    recognizer: Recognizer, waveform: NDArray[np.float32], text: str
) -> list[tuple[float, int, int]]:
    """Return each word's score, and the samples where it begins and ends."""
    spelling = recognizer.spelling
    with torch.inference_mode():
        logits, _ = recognizer.logits([recognizer.features(waveform)])
        scores = logits.log_softmax(-1)
    targets = torch.tensor([spelling.encode(text)], dtype=torch.int32)
    path, likely = aligned(scores, targets, recognizer.blank)
    spans = torchaudio.functional.merge_tokens(
        path[0], likely[0].exp(), blank=recognizer.blank
    )
    samples = len(waveform) / scores.shape[1]  # a frame's
    _, space, _ = spelling.encode("a b")
    found: list[tuple[float, int, int]] = []
    letters: list[Any] = []
    for span in [*spans, None]:
        if span is not None and span.token != space:
            letters.append(span)
            continue
        score = sum(s.score for s in letters) / len(letters)
        start, end = letters[0].end * samples, letters[-1].start * samples
        found.append((float(score), int(start), int(end)))
        letters = []
    return found


def aligned(
    log_probs: torch.Tensor, targets: torch.Tensor, blank: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the label at each frame, and its log probability: (1, time) each.

    log_probs: (1, time, vocab); targets: (1, labels). Raises DataError where they are
    too many for torchaudio, which would end the process.
    """
    frames, labels = log_probs.shape[1], targets.shape[1]
    if frames * (2 * labels + 1) > MOST_CELLS:
        message = (
            f"{frames} frames and {labels} labels are too many to be aligned at once; "
            "cut the recording, and its text, into parts"
        )
        raise DataError(message)
    return torchaudio.functional.forced_align(log_probs, targets, blank=blank)


def _quietest(waveform: NDArray[np.float32], start: int, end: int) -> int:
    """Return the sample, of those from start to end, around which it is quietest."""
    places = range(start, max(end, start + 1), _WINDOW // 4)
    return min(places, key=lambda place: _level(_around(waveform, place)))


def _around(waveform: NDArray[np.float32], place: int) -> NDArray[np.float32]:
    return waveform[max(0, place - _WINDOW // 2) : place + _WINDOW // 2]


def _level(waveform: NDArray[np.float32]) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.mean(np.square(waveform)))) if len(waveform) else 0.0


def spliced(
    people: Mapping[str, Sequence[Part]], number: int
) -> tuple[NDArray[np.float32], str, str]:
    """Return a waveform, its text and its speaker; the same for the same number."""
    source = np.random.default_rng((SEED, number))
    # As often as there is of each to choose from.
    names = sorted(people)
    weights = np.asarray([len(people[name]) for name in names], float)
    speaker = names[int(source.choice(len(names), p=weights / weights.sum()))]
    theirs = people[speaker]
    wanted, have = source.uniform(*SECONDS), 0.0
    runs: list[NDArray[np.float32]] = []
    text: list[str] = []
    while have < wanted:
        place = int(source.integers(len(theirs)))
        run = [theirs[place]]
        words = int(source.integers(1, LONGEST + 1))
        for part in theirs[place + 1 :]:
            if not part.follows or sum(len(p.text.split()) for p in run) >= words:
                break
            run.append(part)
        runs.append(_faded(np.concatenate([part.waveform for part in run])))
        text += (part.text for part in run)
        have += len(runs[-1]) / SAMPLE_RATE
    return np.concatenate(runs), " ".join(text), speaker


def _faded(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    ramp = np.linspace(0, 1, min(_FADE, len(waveform)), dtype=np.float32)
    faded = waveform.copy()
    faded[: len(ramp)] *= ramp
    faded[len(faded) - len(ramp) :] *= ramp[::-1]
    return faded


def rows(
    people: Mapping[str, Sequence[Part]], have: int
) -> Iterator[tuple[int, bytes, str, str, float]]:
    """Yield rows of the table from number `have` on, without end."""
    number = have
    while True:
        waveform, text, speaker = spliced(people, number)
        audio = BytesIO()
        quieter = waveform / max(1.0, float(np.abs(waveform).max()) / 0.99)
        tape = np.random.default_rng((SEED, number, 1)).uniform(*TAPE)
        rate = round(SAMPLE_RATE * tape / 40) * 40
        soundfile.write(audio, quieter, rate, format="FLAC", subtype="PCM_16")
        yield number, audio.getvalue(), text, speaker, len(waveform) / rate
        number += 1


def main(arguments: Iterable[str] | None = None) -> None:
    """Add rows until there are as many hours as asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("database", type=Path)
    parser.add_argument("--model", type=Path, required=True, help="what EXPORT wrote")
    parser.add_argument("--hours", type=float, required=True)
    chosen = parser.parse_args(None if arguments is None else list(arguments))
    recognizer = open_base(str(chosen.model), list)
    with closing(apsw.Connection(str(chosen.database))) as connection:
        connection.set_busy_timeout(60_000)
        connection.execute(_TABLE)
        people: dict[str, list[Part]] = {}
        for audio, text, speaker in connection.execute(
            "SELECT audio, text, speaker FROM people"
        ):
            people.setdefault(speaker, []).extend(parts(recognizer, audio, text))
        for speaker, theirs in sorted(people.items()):
            seconds = sum(len(part.waveform) for part in theirs) / SAMPLE_RATE
            print(f"{speaker}: {len(theirs)} parts, {seconds / 60:.1f} minutes")
        have, seconds = next(
            connection.execute("SELECT count(*), total(seconds) FROM spliced")
        )
        for row in rows(people, have):
            if seconds >= chosen.hours * 3600:
                break
            connection.execute("INSERT INTO spliced VALUES (?, ?, ?, ?, ?)", row)
            seconds += row[4]


if __name__ == "__main__":
    main()
