"""How exact, how fast and in how much memory ALIGN finds the words of known texts.

    python benchmarks/alignment.py          recordings of 6 and 30 minutes
    python benchmarks/alignment.py --full   and of an hour

TinyEn aligns recordings that are joined of clips of LibriSpeech, with pauses, so that
it is known which word is in which clip. Their words should be where they are when each
clip is aligned alone. The longest recording is aligned with a spoilt text, too: of a
tenth of its clips the text is taken out, and as much text that nobody reads is put in
elsewhere.

How exact a time is, spoken digits tell, joined with pauses as words.py joins them. They
are aligned with their text, and with what WhisperTinyEn reads.

Each long recording is heard in processes of its own, by ALIGN and by PREDICT.
"""

from __future__ import annotations

import csv
import json
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import soundfile
import words
from common import RECORDINGS, Ratio, parser, report

if TYPE_CHECKING:
    from collections.abc import Sequence

RATE = 16_000
BATCH = 4
NEAR = words.TOLERANCE  # seconds


class Joined(NamedTuple):
    """A recording, and the clips that it is joined of."""

    path: str
    clips: list[tuple[str, str, float]]
    "Path, text and the second at which it begins."


def main() -> None:
    """Measure, and print one JSON object."""
    options = parser(__doc__).parse_args()
    lengths = [6, 30, 60] if options.full else [6, 30]
    measurements: dict[str, Any] = {}
    ratios: list[Ratio] = []
    with tempfile.TemporaryDirectory() as directory:
        longest: list[dict[str, Any]] = []
        for minutes in lengths:
            joined = of_clips(minutes, Path(directory))
            Path(directory, "joined.json").write_text(json.dumps(joined))
            costs = {what: measured(what, directory) for what in ("align", "predict")}
            figures = {
                what: {k: v for k, v in cost.items() if k != "words"}
                for what, cost in costs.items()
            }
            longest.append(figures["align"])
            measurements[f"{minutes} minutes"] = {
                **figures,
                "places": places(costs["align"]["words"], directory),
            }
            figure = figures["align"]["seconds"] / figures["predict"]["seconds"]
            ratios.append(
                one(f"{minutes} minutes: time of ALIGN to PREDICT", figure, 1.2)
            )
        spoilt = measured("spoilt", directory)["words"]
        measurements[f"{lengths[-1]} minutes, text spoilt"] = places(
            spoilt, directory, spoilt=True
        )
        growth = lengths[-1] / lengths[0]
        first, last = longest[0], longest[-1]
        ratios += [
            one(
                f"ALIGN: time a minute, {lengths[-1]} to {lengths[0]} minutes",
                last["seconds"] / first["seconds"] / growth,
                1.1,
            ),
            one(
                f"ALIGN: memory, {lengths[-1]} to {lengths[1]} minutes",
                last["peak_mb"] / longest[1]["peak_mb"],
                1.1,
            ),
        ]
        measurements["digits"] = digits()
    worst = measurements[f"{lengths[-1]} minutes"]["places"]
    report(
        options,
        packages=["torch", "transformers", "numpy"],
        settings={"batch_size": BATCH, "model": "TinyEn"},
        measurements=measurements,
        ratios=ratios,
        checks={
            "98 % of the words of the longest are where they are alone": worst["near"]
            >= 0.98
        },
    )


def one(name: str, figure: float, goal: float) -> Ratio:
    """Return a ratio that is taken once."""
    return Ratio(name, figure, figure, figure, goal, False)


def of_clips(minutes: int, directory: Path) -> Joined:
    """Write a recording of so many minutes: clips in a random order, with pauses."""
    rows = [
        (str(RECORDINGS / folder / row["audio"]), row["text"])
        for folder in ("librispeech", "librispeech_mp3")
        for row in csv.DictReader((RECORDINGS / folder / "manifest.csv").open())
    ]
    random.Random(0).shuffle(rows)
    rng = np.random.default_rng(0)
    path = directory / f"{minutes}.flac"
    joined = Joined(str(path), [])
    samples = 0
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        for clip, text in rows:
            if samples > minutes * 60 * RATE:
                break
            waveform, _ = soundfile.read(clip, dtype="float32")
            pause = rng.normal(0, 3e-4, int(rng.uniform(0.3, 1.0) * RATE))
            file.write(pause)
            file.write(waveform)
            samples += len(pause)
            joined.clips.append((clip, text, samples / RATE))
            samples += len(waveform)
    return joined


def measured(what: str, directory: str) -> dict[str, Any]:
    """Return what a process of its own took, which hears the joined recording."""
    done = subprocess.run(
        [sys.executable, __file__, what, directory],
        check=True,
        capture_output=True,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def connected() -> Any:
    import thanosql

    connection = thanosql.connect(":memory:")
    connection.execute("GET MODEL TinyEn")
    return connection


def hear(what: str, directory: str) -> dict[str, Any]:
    """Align or transcribe the joined recording; return the words and the costs."""
    joined = Joined(*json.loads(Path(directory, "joined.json").read_text()))
    connection = connected()
    short = "PREDICT USING TinyEn AS SELECT ? AS audio"
    connection.execute(short, (joined.clips[0][0],)).fetchall()  # opened, and warm
    texts = [text for _, text, _ in joined.clips]
    if what == "spoilt":
        first, number, place = spoiling(len(texts))
        unread = [f"{text} indeed" for text in texts[:number]][::-1]
        texts = [
            *texts[:first],
            *texts[first + number : place],
            *unread,
            *texts[place:],
        ]
    verb = "PREDICT" if what == "predict" else "ALIGN"
    began = time.process_time()
    rows = connection.execute(
        f"{verb} USING TinyEn OPTIONS (batch_size={BATCH}) "
        "AS SELECT ? AS audio, ? AS text",
        (joined.path, " ".join(texts)),
    ).fetchall()
    return {
        "words": [] if verb == "PREDICT" else [row[2:] for row in rows],
        "characters": sum(map(len, texts)),
        "seconds": time.process_time() - began,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def spoiling(clips: int) -> tuple[int, int, int]:
    """Return the first clip whose text is taken out, how many, and where as many go."""
    return clips // 4, clips // 10, clips // 2


def places(
    aligned: list[Any], directory: str, *, spoilt: bool = False
) -> dict[str, Any]:
    """Return how the words lie to where they are with each clip aligned alone."""
    joined = Joined(*json.loads(Path(directory, "joined.json").read_text()))
    connection = connected()
    connection.execute("CREATE TABLE clips (number, audio, text)")
    connection.executemany(
        "INSERT INTO clips VALUES (?, ?, ?)",
        [(i, clip, text) for i, (clip, text, _) in enumerate(joined.clips)],
    )
    alone = connection.execute(
        "SELECT number, word, start FROM (ALIGN USING TinyEn AS SELECT * FROM clips)"
    ).fetchall()
    found: dict[str, Any] = {}
    if spoilt:
        first, number, place = spoiling(len(joined.clips))
        alone = [row for row in alone if not first <= row[0] < first + number]
        before = sum(row[0] < place for row in alone)
        unread = len(aligned) - len(alone)
        marked = sum(row[1] is None for row in aligned[before : before + unread])
        found = {"unread": unread, "marked unread": marked / unread}
        aligned = [*aligned[:before], *aligned[before + unread :]]
    begins = [begin for _, _, begin in joined.clips]
    errors = np.array(
        [
            abs(word[1] - (begins[number] + start))
            for word, (number, _, start) in zip(aligned, alone, strict=True)
            if word[1] is not None and start is not None
        ]
    )
    firsts: dict[int, float] = {}
    for word, (number, _, _) in zip(aligned, alone, strict=True):
        if word[1] is not None:
            firsts.setdefault(number, word[1] - begins[number])
    return {
        **found,
        "words": len(aligned),
        "said": sum(word[1] is not None for word in aligned) / len(aligned),
        "said alone": sum(row[2] is not None for row in alone) / len(alone),
        "near": float((errors <= NEAR).mean()),
        "within half a second": float((errors <= 0.5).mean()),
        "farthest_seconds": float(errors.max()),
        "clips whose first word is in their first second": sum(
            -NEAR <= each <= 1 for each in firsts.values()
        )
        / len(firsts),
    }


def digits() -> dict[str, Any]:
    """Return how many digits begin within 80 ms of where they do, by whose text.

    The recordings are those of words.py. WhisperTinyEn's figures are written as words,
    since TinyEn spells no figures.
    """
    recordings = [*words.joined("test", seed=0)]
    connection = connected()
    connection.execute("GET MODEL WhisperTinyEn")
    connection.create_function("in_words", 1, in_words, deterministic=True)
    connection.execute("CREATE TABLE digits (number, audio, text)")
    connection.executemany(
        "INSERT INTO digits VALUES (?, ?, ?)",
        [(i, each.audio, words.said(each.words)) for i, each in enumerate(recordings)],
    )
    connection.commit()
    given = connection.execute(
        "SELECT number, word, start FROM (ALIGN USING TinyEn AS SELECT * FROM digits)"
    ).fetchall()
    connection.execute(
        "CREATE TABLE heard AS SELECT number, audio, in_words(predicted) AS text FROM "
        "(PREDICT USING WhisperTinyEn AS SELECT number, audio FROM digits)"
    )
    heard = connection.execute(
        "SELECT number, word, start FROM (ALIGN USING TinyEn OPTIONS (on_error='null') "
        "AS SELECT * FROM heard)"
    ).fetchall()
    return {
        "text": exactness(given, recordings),
        "WhisperTinyEn's text": exactness(heard, recordings),
    }


def exactness(
    rows: list[Any], recordings: Sequence[words.Joined]
) -> dict[str, float | int]:
    """Return how the starts of the words that are right lie to the digits' own."""
    off, unsaid = [], 0
    for number, recording in enumerate(recordings):
        found = [(word, start) for n, word, start in rows if n == number and word]
        spoken = [word for word, _, _ in recording.words]
        for i, j in words.read_right(spoken, [word for word, _ in found]):
            if found[j][1] is None:
                unsaid += 1
            else:
                off.append(found[j][1] - recording.words[i][1])
    return {
        "words": sum(len(each.words) for each in recordings),
        "right": len(off) + unsaid,
        "marked unsaid": unsaid,
        "starts_within": words.share_within(off),
        "starts_median_seconds": round(float(np.median(off)), 4),
        "starts_95_percent_within_seconds": words.percentile(off),
    }


def in_words(text: str) -> str:
    """Return a text without marks, each figure a word."""
    names = "zero one two three four five six seven eight nine".split()  # noqa: SIM905
    figures = re.sub("[0-9]", lambda found: f" {names[int(found[0])]} ", text)
    return " ".join(re.sub("[^a-z']", " ", figures.lower()).split())


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1] in ("align", "predict", "spoilt"):
        print(json.dumps(hear(sys.argv[1], sys.argv[2])))
    else:
        main()
