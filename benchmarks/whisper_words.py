"""How exactly PREDICT tells when Whisper's words were said, and at what cost.

    python benchmarks/whisper_words.py               ten minutes
    python benchmarks/whisper_words.py --full        three times as many recordings

Clips are joined with silence of known length, so it is known when each begins: in its
first 10 ms within 25 dB of its loudest. WhisperTinyEn and faster-whisper (CTranslate2),
with the same weights, greedy both, read the recordings and time the words. Those that
were read right are compared. Where a word was left out between equal ones, the pairs
count that are nearest in time. Needs the recordings of shared/speech.
"""

from __future__ import annotations

import csv
import random
import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import common
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from thanosql.speech.results import Word

PACKAGES = ("torch", "transformers", "faster-whisper", "ctranslate2")
RATE = 16_000
BATCH = 16
LOUD_DB = 25  # below a clip's loudest 10 ms; what is softer counts as silence
NOISE_DB = 25  # below the recording, of the noise that is added
SILENCE = 0.3, 1.0  # seconds between clips; drawn evenly
BETWEEN = 0.0, 0.06  # of connected digits, which follow each other as in a number
LONGEST = 28.0  # seconds of a recording, so that it is one window
MARGIN = 800  # samples of a reading kept on either side of its speech
NAMES = "zero one two three four five six seven eight nine".split()  # noqa: SIM905
DIGITS = dict(zip("0123456789", NAMES, strict=True))
WITHIN = 0.08, 0.2  # seconds
BINS = 0.0, 0.5, 0.7, 0.9, 0.97, 1.001  # of confidence
RIGHT_COST = 1e-4  # of a second's difference, beside 1 for a word that is not right

Times = tuple[float | None, float | None]


class Recording(NamedTuple):
    """A waveform and its words, with start and end as far as they are known."""

    waveform: NDArray[np.float32]
    words: list[tuple[str, Times]]


class Spoken(NamedTuple):
    """A word as a contestant has it."""

    text: str
    start: float
    end: float
    confidence: float


# Recordings


def speech(waveform: NDArray[np.float32]) -> tuple[int, int]:
    """Return the first sample of a clip's speech, and the one behind its last."""
    hop = RATE // 100
    frames = waveform[: len(waveform) // hop * hop].reshape(-1, hop).astype(float)
    levels = 10 * np.log10((frames**2).mean(1) + 1e-12)
    (loud,) = np.nonzero(levels > levels.max() - LOUD_DB)
    return int(loud[0]) * hop, (int(loud[-1]) + 1) * hop


def joined(
    clips: Sequence[common.Clip],
    draw: random.Random,
    margin: int | None,
    between: Callable[[int], tuple[float, float]],
    noise: float | None,
) -> Recording:
    """Return clips one after the other.

    margin: samples kept around a clip's speech; None for all. between: seconds of
    silence before a clip, by its number, from and to. noise: decibels below the
    recording.
    """
    from thanosql.speech.sound.audio import load

    parts: list[NDArray[np.float32]] = []
    words: list[tuple[str, Times]] = []
    end = 0
    for number, clip in enumerate(clips):
        waveform = load(clip.path, None)
        first, last = speech(waveform)
        if margin is not None:
            cut = max(0, first - margin)
            waveform = waveform[cut : last + margin]
            first, last = first - cut, last - cut
        silence = round(draw.uniform(*between(number)) * RATE)
        parts += [np.zeros(silence, np.float32), waveform / np.abs(waveform).max() / 3]
        begin = end + silence
        end = begin + len(waveform)
        texts = clip.text.split()
        starts = [(begin + first) / RATE, *[None] * (len(texts) - 1)]
        ends = [*[None] * (len(texts) - 1), (begin + last) / RATE]
        words += zip(texts, zip(starts, ends, strict=True), strict=True)
    parts.append(np.zeros(RATE // 2, np.float32))
    whole = np.concatenate(parts)
    if noise is not None:
        deviation = np.sqrt((whole**2).mean()) * 10 ** (-noise / 20)
        sound = np.random.default_rng(len(whole)).normal(0, deviation, len(whole))
        whole += sound.astype(np.float32)
    return Recording(whole, words)


def manifest(folder: str) -> list[tuple[common.Clip, str]]:
    """Return the test clips of a folder of shared/speech, and who speaks."""
    path = common.RECORDINGS / folder / "manifest.csv"
    with path.open(encoding="utf-8") as file:
        return [
            (
                common.Clip(
                    path.parent / row["audio"], row["text"], float(row["seconds"])
                ),
                row["speaker"],
            )
            for row in csv.DictReader(file)
            if row["split"] == "test"
        ]


def apart(number: int) -> tuple[float, float]:
    return SILENCE


def connected(number: int) -> tuple[float, float]:
    return BETWEEN if number % 5 else SILENCE


def digits(draw: random.Random, count: int, noise: float | None) -> list[Recording]:
    """Return recordings of ten digits, with silence between them."""
    clips = [clip for clip, _ in manifest("digits")]
    return [
        joined(draw.sample(clips, 10), draw, None, apart, noise) for _ in range(count)
    ]


def connected_digits(draw: random.Random, count: int) -> list[Recording]:
    """Return recordings of twenty digits by one speaker, in groups of five."""
    clips = manifest("digits")
    speakers = sorted({speaker for _, speaker in clips})
    found = []
    for number in range(count):
        speaker = speakers[number % len(speakers)]
        own = [clip for clip, other in clips if other == speaker]
        found.append(joined(draw.sample(own, 20), draw, 0, connected, 30.0))
    return found


def readings(draw: random.Random, count: int, noise: float | None) -> list[Recording]:
    """Return recordings of short readings, with silence between them."""
    clips = [clip for clip, _ in manifest("librispeech") if clip.seconds < 6]
    draw.shuffle(clips)
    found = []
    for _ in range(count):
        chosen: list[common.Clip] = []
        while clips and sum(c.seconds + 1 for c in (*chosen, clips[-1])) < LONGEST:
            chosen.append(clips.pop())
        if chosen:
            found.append(joined(chosen, draw, MARGIN, apart, noise))
    return found


# Contestants


def blobs(waveforms: Sequence[NDArray[np.float32]]) -> list[bytes]:
    import io

    import soundfile

    found = []
    for waveform in waveforms:
        file = io.BytesIO()
        soundfile.write(file, waveform, RATE, format="WAV", subtype="FLOAT")
        found.append(file.getvalue())
    return found


def ours(models: Path) -> Callable[..., list[list[Word]]]:
    from thanosql.speech.decoding.decoding import Request
    from thanosql.speech.opening.opening import open_base
    from thanosql.speech.recording import Recording as Heard
    from thanosql.speech.transcription import transcribe

    recognizer = open_base(str(models / "hub"), list)

    def hear(audio: Sequence[object], *, words: bool = True) -> list[list[Word]]:
        batches = transcribe(
            recognizer,
            map(Heard, audio),
            batch_size=BATCH,
            precision="fp32",
            request=Request(words=words),
        )
        return [[*each.words] for batch in batches for each in batch]

    return hear


def faster(models: Path, waveforms: Sequence[NDArray[np.float32]]) -> Iterator[Any]:
    import faster_whisper
    import torch

    model = faster_whisper.WhisperModel(
        str(models / "ctranslate2"),
        device="cpu",
        compute_type="float32",
        cpu_threads=torch.get_num_threads(),
    )
    for waveform in waveforms:
        segments, _ = model.transcribe(
            waveform,
            language="en",
            beam_size=1,
            temperature=0.0,
            word_timestamps=True,
            condition_on_previous_text=False,
        )
        yield [
            Spoken(word.word.strip(), word.start, word.end, word.probability)
            for segment in segments
            for word in segment.words
        ]


# Comparison


def plain(word: str) -> str:
    word = re.sub(r"[^a-z0-9']", "", word.lower())
    return DIGITS.get(word, word)


def pairs(
    truth: Sequence[tuple[str, Times]], words: Sequence[Any]
) -> list[tuple[int, int]]:
    """Return which word of the truth is which that was read, in the fewest edits."""

    def cost(one: int, other: int) -> float:
        text, (start, _) = truth[one]
        if plain(text) != plain(words[other].text):
            return 1.0
        return 0.0 if start is None else RIGHT_COST * abs(words[other].start - start)

    costs = np.zeros((len(truth) + 1, len(words) + 1))
    costs[:, 0], costs[0] = np.arange(len(truth) + 1), np.arange(len(words) + 1)
    for i in range(len(truth)):
        for j in range(len(words)):
            either = min(costs[i, j + 1], costs[i + 1, j]) + 1
            costs[i + 1, j + 1] = min(costs[i, j] + cost(i, j), either)
    found = []
    i, j = len(truth), len(words)
    while i and j:
        change = cost(i - 1, j - 1)
        if costs[i, j] == costs[i - 1, j - 1] + change:
            i, j = i - 1, j - 1
            if change < 1:
                found.append((i, j))
        elif costs[i, j] == costs[i - 1, j] + 1:
            i -= 1
        else:
            j -= 1
    return found[::-1]


def exactness(
    recordings: Sequence[Recording], heard: Sequence[Sequence[Any]]
) -> dict[str, Any]:
    """Return how far starts and ends are from the truth."""
    starts, ends, among_right = [], [], []
    right = 0
    for recording, words in zip(recordings, heard, strict=True):
        truth = recording.words
        matched = pairs(truth, words)
        read = {one for one, _ in matched} | {-1, len(truth)}
        right += len(matched)
        for one, other in matched:
            start, end = truth[one][1]
            if start is not None:
                starts.append(words[other].start - start)
                if {one - 1, one + 1} <= read:
                    among_right.append(starts[-1])
            if end is not None:
                ends.append(words[other].end - end)

    def within(errors: Sequence[float], seconds: float) -> float:
        return float(np.mean(np.abs(errors) <= seconds))

    return {
        "words": sum(len(recording.words) for recording in recordings),
        "read_right": right,
        "starts": len(starts),
        **{f"starts_within_{1000 * s:g}_ms": within(starts, s) for s in WITHIN},
        "median_error_ms": 1000 * float(np.median(np.abs(starts))),
        "median_delay_ms": 1000 * float(np.median(starts)),
        **{
            f"starts_within_{1000 * s:g}_ms_both_neighbours_read": within(
                among_right, s
            )
            for s in WITHIN
        },
        **{f"ends_within_{1000 * s:g}_ms": within(ends, s) for s in WITHIN},
    }


def reliability(
    clips: Sequence[common.Clip], heard: Sequence[Sequence[Word]]
) -> dict[str, Any]:
    """Return for each range of confidence how many words there are, and are right."""
    from thanosql.speech.normalization import NORMALIZERS

    normalize = NORMALIZERS["english"]
    found = []
    for clip, words in zip(clips, heard, strict=True):
        spoken = [
            word._replace(text=part)
            for word in (Spoken(w.text, w.start, w.end, w.confidence) for w in words)
            for part in normalize(word.text).split()
        ]
        truth = [(part, (None, None)) for part in normalize(clip.text).split()]
        right = {other for _, other in pairs(truth, spoken)}
        found += [(word.confidence, i in right) for i, word in enumerate(spoken)]
    table = {}
    for low, high in pairwise(BINS):
        inside = [right for confidence, right in found if low <= confidence < high]
        table[f"{low:g} to {min(high, 1):g}"] = {
            "words": len(inside),
            "right": float(np.mean(inside)) if inside else None,
        }
    return table


def measure(options: Any, models: Path) -> None:
    times = 3 if options.full else 1
    draw = random.Random(0)
    sets = {
        "digits": digits(draw, 25 * times, None),
        f"digits in noise {NOISE_DB} dB below": digits(draw, 25 * times, NOISE_DB),
        "connected digits": connected_digits(draw, 15 * times),
        "readings": readings(draw, 40 * times, None),
        f"readings in noise {NOISE_DB} dB below": readings(draw, 40 * times, NOISE_DB),
    }
    hear = ours(models)
    found: dict[str, dict[str, Any]] = {}
    has_faster = (models / "ctranslate2").exists() and find_spec("faster_whisper")
    for name, recordings in sets.items():
        waveforms = [each.waveform for each in recordings]
        found[name] = {"ours": exactness(recordings, hear(blobs(waveforms)))}
        if has_faster:
            theirs = [*faster(models, waveforms)]
            found[name]["faster-whisper"] = exactness(recordings, theirs)
        print(name, found[name], file=sys.stderr)
    clips = common.clips("test", None, models)
    words = hear([clip.path for clip in clips])
    some = [clip.path for clip in common.clips("test", 24, models)]
    took = common.in_turn(
        {
            "words": lambda: hear(some),
            "text only": lambda: hear(some, words=False),
        },
        options.rounds,
    )
    key = f"starts_within_{1000 * WITHIN[0]:g}_ms"
    ratios = [
        common.ratio(
            "seconds with words to without",
            took["words"],
            took["text only"],
            goal=1.2,
            higher_is_better=False,
        )
    ]
    if has_faster:
        ratios += [
            common.ratio(
                f"{name}: starts within 80 ms, to faster-whisper",
                [each["ours"][key]],
                [each["faster-whisper"][key]],
                goal=1.0,
                higher_is_better=True,
            )
            for name, each in found.items()
        ]
    common.report(
        options,
        packages=PACKAGES,
        settings={
            "ours": f"greedy, fp32, batch_size {BATCH}, words",
            "faster-whisper": "beam 1, fp32, one temperature, word_timestamps",
            "truth": f"a clip's first 10 ms within {LOUD_DB} dB of its loudest",
        },
        measurements={
            "words": found,
            "reliability": reliability(clips, words),
            "seconds": took,
        },
        ratios=ratios,
        checks={
            f"{name}: starts within 80 ms": round(each["ours"][key], 3)
            for name, each in found.items()
        },
    )


def main() -> None:
    parser = common.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if not common.RECORDINGS.is_dir():
        parser.error(f"{common.RECORDINGS} is not there")
    with tempfile.TemporaryDirectory() as models:
        script = Path(__file__).with_name("whisper_transcription.py")
        subprocess.run(
            [sys.executable, str(script), "--make", models],
            check=True,
            stdout=sys.stderr,
        )
        measure(options, Path(models))


if __name__ == "__main__":
    main()
