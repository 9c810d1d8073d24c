"""How exact the times of words are, and how far their confidence can be trusted.

    python benchmarks/words.py           four minutes of one core

Where a word begins is known only where a recording was made of single words. So spoken
digits (../shared/speech/digits) are trimmed to what is louder than 35 dB below their
loudest, and joined, eight a recording, with pauses of 0.3 to 1 s: a model is trained on
those of the train split and reads those of the test split. Times count of words that
are read right. Confidence is that of TinyEn as it ships, on `librispeech` test.
"""

from __future__ import annotations

import csv
import io
import json
from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import common
import jiwer
import numpy as np
import soundfile

import thanosql
from thanosql.speech.sound.audio import SAMPLE_RATE, load

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

EPOCHS = 4
DIGITS = 8  # in a recording
BELOW = 35  # dB below its loudest that a digit's sound begins and ends
PAUSES = 0.3, 1.0  # seconds
NOISE = 0.0005  # standard deviation in every recording; digits reach 0.3
NOISY = 0.003
TOLERANCE = 0.08  # seconds
BINS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
LEVEL = 80  # samples of a step of a digit's level


class Joined(NamedTuple):
    """A recording, and what is said in it when."""

    audio: bytes
    words: list[tuple[str, float, float]]


def main() -> None:
    """Measure, and print one JSON object."""
    options = common.arguments(__doc__)
    with closing(thanosql.connect(":memory:")) as connection:
        connection.execute("GET MODEL TinyEn")
        connection.execute("CREATE TABLE joined (audio BLOB, text TEXT)")
        for seed in range(2):
            connection.executemany(
                "INSERT INTO joined VALUES (?, ?)",
                [(each.audio, said(each.words)) for each in joined("train", seed)],
            )
        connection.commit()
        connection.execute(
            f"BUILD MODEL digits USING TinyEn OPTIONS (epochs={EPOCHS}, batch_size=8) "
            "AS SELECT audio, text FROM joined"
        )
        tests = [*joined("test", 100), *joined("test", 101)]
        noisy = [*joined("test", 100, noise=NOISY), *joined("test", 101, noise=NOISY)]
        closed = [
            *joined("test", 100, pauses=(0, 0)),
            *joined("test", 101, pauses=(0, 0)),
        ]
        long = [*joined("test", 102, count=240)]
        found = {
            "times: digits": times(connection, "digits", tests),
            "times: digits, by TinyEn as it ships": times(connection, "TinyEn", tests),
            "times: digits in noise": times(connection, "digits", noisy),
            "times: digits without pauses": times(connection, "digits", closed),
            "times: digits, two minutes in windows of 10 s": times(
                connection, "digits", long, "chunk_seconds=10"
            ),
            "confidence: digits": confidence(
                connection, "digits", [(e.audio, said(e.words)) for e in tests]
            ),
            "confidence: librispeech": confidence(connection, "TinyEn", clips()),
        }
    librispeech = {each["from"]: each for each in found["confidence: librispeech"]}
    common.report(
        options,
        packages=("torch", "transformers"),
        settings={
            "epochs": EPOCHS,
            "tolerance_seconds": TOLERANCE,
            "noise": NOISE,
            "in noise": NOISY,
        },
        measurements=found,
        ratios=[],
        checks={
            "starts within 80 ms, digits": found["times: digits"]["starts_within"],
            "wrong words of confidence 0.9 and more": librispeech[0.9]["wrong"],
            "wrong words of confidence below 0.5": below_half(librispeech.values()),
        },
    )


def times(
    connection: Any, model: str, recordings: Sequence[Joined], options: str = ""
) -> dict[str, float]:
    """Return how far words that are read right begin and end from where they do."""
    starts, ends, words = [], [], 0
    rows = ((each.audio, said(each.words)) for each in recordings)
    for recording, (found, _) in zip(
        recordings, heard(connection, model, rows, options), strict=True
    ):
        words += len(recording.words)
        spoken = [word for word, _, _ in recording.words]
        for i, j in read_right(spoken, [each["word"] for each in found]):
            _, begin, end = recording.words[i]
            starts.append(found[j]["start"] - begin)
            ends.append(found[j]["end"] - end)
    return {
        "words": words,
        "right": len(starts),
        "starts_within": share_within(starts),
        "starts_median_seconds": round(float(np.median(starts)), 4),
        "starts_95_percent_within_seconds": percentile(starts),
        "ends_within": share_within(ends),
        "ends_median_seconds": round(float(np.median(ends)), 4),
        "ends_95_percent_within_seconds": percentile(ends),
    }


def confidence(
    connection: Any, model: str, rows: Iterable[tuple[Any, str]]
) -> list[dict[str, float]]:
    """Return how many words of each range of confidence are wrong."""
    rows = list(rows)
    sure, right = [], []
    found = heard(connection, model, rows, "")
    for (_, text), (words, _) in zip(rows, found, strict=True):
        pairs = read_right(text.split(), [each["word"] for each in words])
        good = {j for _, j in pairs}
        sure += [each["confidence"] for each in words]
        right += [j in good for j in range(len(words))]
    ranges = []
    for low, high in pairwise(BINS):
        of_range = [
            (s, r)
            for s, r in zip(sure, right, strict=True)
            if low <= s and (s < high or high == 1)
        ]
        if of_range:
            ranges.append(
                {
                    "from": low,
                    "to": high,
                    "words": len(of_range),
                    "mean_confidence": round(
                        float(np.mean([s for s, _ in of_range])), 3
                    ),
                    "wrong": round(float(np.mean([not r for _, r in of_range])), 3),
                }
            )
    return ranges


def below_half(ranges: Iterable[dict[str, float]]) -> float:
    """Return the share of words below a confidence of 0.5 that are wrong."""
    low = [each for each in ranges if each["to"] <= 0.5]
    words = sum(each["words"] for each in low)
    return round(sum(each["words"] * each["wrong"] for each in low) / words, 3)


def heard(
    connection: Any, model: str, rows: Iterable[tuple[Any, str]], options: str
) -> Iterator[tuple[list[dict[str, Any]], float]]:
    """Yield the words that PREDICT hears in each recording, and its confidence."""
    connection.execute("CREATE TEMP TABLE heard (number INTEGER PRIMARY KEY, audio)")
    connection.executemany(
        "INSERT INTO heard (audio) VALUES (?)", [(audio,) for audio, _ in rows]
    )
    connection.commit()
    extra = f", {options}" if options else ""
    found = connection.execute(
        f"SELECT words, confidence FROM (PREDICT USING {model} "
        f"OPTIONS (words=TRUE{extra}) AS SELECT audio FROM heard ORDER BY number)"
    ).fetchall()
    connection.execute("DROP TABLE heard")
    for words, sure in found:
        yield json.loads(words), sure


def read_right(spoken: list[str], found: list[str]) -> Iterator[tuple[int, int]]:
    """Yield the places of each word that is read right, among those said and read."""
    if not found:
        return
    (chunks,) = jiwer.process_words(" ".join(spoken), " ".join(found)).alignments
    for chunk in chunks:
        if chunk.type == "equal":
            yield from zip(
                range(chunk.ref_start_idx, chunk.ref_end_idx),
                range(chunk.hyp_start_idx, chunk.hyp_end_idx),
                strict=True,
            )


def share_within(off: Sequence[float]) -> float:
    """Return the share of times that are close enough."""
    return round(float(np.mean(np.abs(off) <= TOLERANCE)), 4)


def percentile(off: Sequence[float]) -> float:
    """Return the seconds within which 95 of 100 times are."""
    return round(float(np.percentile(np.abs(off), 95)), 4)


def said(words: Iterable[tuple[str, float, float]]) -> str:
    """Return what is said in a recording."""
    return " ".join(word for word, _, _ in words)


def joined(
    split: str,
    seed: int,
    count: int = DIGITS,
    pauses: tuple[float, float] = PAUSES,
    noise: float = NOISE,
) -> Iterator[Joined]:
    """Yield recordings of `count` digits each, all of a split in a mixed order."""
    rng = np.random.default_rng(seed)
    digits = [*_digits(split)]
    order = rng.permutation(len(digits))
    for begin in range(0, len(digits) - count + 1, count):
        parts, words, at = [], [], 0
        for number in order[begin : begin + count]:
            text, waveform = digits[number]
            silence = np.zeros(round(rng.uniform(*pauses) * SAMPLE_RATE), np.float32)
            at += len(silence)
            end = at + len(waveform)
            words.append((text, at / SAMPLE_RATE, end / SAMPLE_RATE))
            parts += [silence, waveform]
            at = end
        samples = np.concatenate([*parts, np.zeros(SAMPLE_RATE // 2, np.float32)])
        samples += rng.normal(0, noise, len(samples)).astype(np.float32)
        file = io.BytesIO()
        soundfile.write(file, samples, SAMPLE_RATE, format="FLAC")
        yield Joined(file.getvalue(), words)


def _digits(split: str) -> Iterator[tuple[str, NDArray[np.float32]]]:
    folder = common.RECORDINGS / "digits"
    with (folder / "manifest.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["split"] == split:
                waveform = trimmed(load(str(folder / row["audio"]), None))
                yield row["text"], waveform * (0.3 / np.abs(waveform).max())


def trimmed(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a word without the quiet before and after it."""
    frames = np.lib.stride_tricks.sliding_window_view(waveform, 2 * LEVEL)[::LEVEL]
    levels = 10 * np.log10(frames.var(axis=1) + 1e-10)
    loud = np.flatnonzero(levels > levels.max() - BELOW)
    return waveform[loud[0] * LEVEL : (loud[-1] + 2) * LEVEL]


def clips() -> list[tuple[str, str]]:
    """Return path and text of the test clips."""
    found = common.clips("test", None, common.RECORDINGS)
    return [(str(each.path), each.text) for each in found]


if __name__ == "__main__":
    main()
