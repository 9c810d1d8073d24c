"""How well TinyEn reads, as it ships and trained further: error rates, no speed.

    python benchmarks/tiny_en.py speech.db           eight minutes on two cores
    python benchmarks/tiny_en.py speech.db --full    each speaker in turn, half an hour

`speech.db` is what recipes/make_speech.py made: the rows with `held_out` are
spoken by voices that TinyEn never heard. Real recordings are those of ../shared/speech:
of `librispeech` and `librispeech_mp3` the test rows of speakers that are not in train;
`digits`, which is no part of what TinyEn learned from. For the table of minutes against
errors a new kind of speech is made by hibari-tts, if it is installed: a child's pitch
and vocal tract, beyond what it was trained on.
"""

from __future__ import annotations

import csv
import hashlib
import io
import sys
import time
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import common

import thanosql
from thanosql.catalog.bases import BASES

if TYPE_CHECKING:
    from collections.abc import Iterable

DIGITS = 5  # epochs
FEWER = {1: 15, 3: 8}  # minutes of the digits, all speakers mixed -> epochs
FURTHER = {1: 10, 5: 10, 15: 10}  # minutes of a new kind of speech -> epochs
TESTED = 3  # minutes of it
CHILD = {"pitch": 1.7, "tract": 1.25}
COLUMNS = ("rows", "wer", "wer_low", "wer_high", "cer", "words", "audio_seconds")


def main() -> None:
    """Measure, and print one JSON object."""
    parser = common.parser(__doc__)
    parser.add_argument("speech", type=Path, help="database of make_speech.py")
    options = parser.parse_args()
    with closing(thanosql.connect(":memory:")) as connection:
        connection.execute("GET MODEL TinyEn")
        connection.execute("ATTACH ? AS made", (str(options.speech),))
        connection.execute(
            "CREATE TABLE real (folder, audio, text, seconds, speaker, split)"
        )
        connection.executemany(
            "INSERT INTO real VALUES (?, ?, ?, ?, ?, ?)", _manifests()
        )
        connection.commit()
        found: dict[str, Any] = {
            "as it ships: unseen LibriSpeech speakers": evaluated(
                connection, "TinyEn", UNSEEN
            ),
            "as it ships: unheard synthetic voices": evaluated(
                connection,
                "TinyEn",
                "SELECT audio, text FROM made.speech WHERE held_out",
            ),
            "as it ships: digits": evaluated(connection, "TinyEn", _digits("test")),
            "digits": built(connection, DIGITS, _digits("train"), _digits("test")),
        }
        for minutes, epochs in FEWER.items():
            found[f"digits, {_said(minutes)}"] = built(
                connection, epochs, _few_digits(minutes), _digits("test")
            )
        speakers = ("george", "jackson", "lucas", "nicolas", "yweweler")
        for speaker in speakers if options.full else speakers[-2:-1]:
            found[f"digits without {speaker}, tested on {speaker}"] = built(
                connection,
                DIGITS,
                _digits("train", f"speaker <> '{speaker}'"),
                _digits("test", f"speaker = '{speaker}'"),
            )
        if find_spec("hibari"):
            _make_child(connection)
            found |= further(connection, "child", "child", FURTHER)
        if options.full:
            few = {
                minutes: epochs for minutes, epochs in FURTHER.items() if minutes < 15
            }
            for speaker in ("1988", "2803"):
                source = f"real WHERE split = 'test' AND speaker = '{speaker}'"
                found |= further(connection, f"speaker {speaker}", source, few)
    common.report(
        options,
        packages=("torch", "transformers", "hibari-tts"),
        settings={
            "digits: epochs": DIGITS,
            "digits: epochs by minutes": FEWER,
            "further: epochs by minutes": FURTHER,
        },
        measurements=found,
        ratios=[],
        checks={"sha256 of the weights": _digest()},
    )


UNSEEN = """
SELECT audio, text FROM real
WHERE folder LIKE 'librispeech%' AND split = 'test'
  AND speaker NOT IN (SELECT speaker FROM real
                      WHERE folder LIKE 'librispeech%' AND split = 'train')
"""


def evaluated(connection: Any, model: str, query: str) -> dict[str, float]:
    """Return what EVALUATE says of a model and rows, greedy, in fp32."""
    row = connection.execute(
        f"SELECT {', '.join(COLUMNS)} FROM (EVALUATE USING {model} "
        f"OPTIONS (precision='fp32') AS {query})"
    ).fetchone()
    return dict(zip(COLUMNS, row, strict=True))


def built(
    connection: Any, epochs: int, train: str, test: str, options: str = ""
) -> dict[str, float]:
    """Return what comes of some epochs on TinyEn: errors, and seconds it took."""
    began = time.perf_counter()
    connection.execute(
        f"BUILD MODEL trained USING TinyEn OPTIONS (epochs={epochs}, overwrite=TRUE"
        f"{options}) AS {train}"
    )
    seconds = time.perf_counter() - began
    found = evaluated(connection, "trained", test) | {"seconds_of_build": seconds}
    print(found, file=sys.stderr, flush=True)
    return found


def further(
    connection: Any, name: str, source: str, epochs: dict[int, int]
) -> dict[str, Any]:
    """Return the errors on three minutes of some rows, by minutes trained on others."""
    rows = connection.execute(f"SELECT audio, text, seconds FROM {source}").fetchall()
    connection.execute("CREATE TEMP TABLE kind (audio, text, before)")
    before = 0.0
    for audio, text, seconds in rows:
        connection.execute("INSERT INTO kind VALUES (?, ?, ?)", (audio, text, before))
        before += seconds
    connection.commit()
    last = before - 60 * TESTED
    test = f"SELECT audio, text FROM kind WHERE before >= {last}"
    found = {f"{name}, 0 minutes": evaluated(connection, "TinyEn", test)}
    for minutes, count in epochs.items():
        train = f"SELECT audio, text FROM kind WHERE before < {min(60 * minutes, last)}"
        options = ", batch_size=4, validation=0"
        found[f"{name}, {_said(minutes)}"] = built(
            connection, count, train, test, options
        )
    connection.execute("DROP TABLE kind")
    return found


def _said(minutes: int) -> str:
    return f"{minutes} minute{'s' if minutes > 1 else ''}"


def _digest() -> str:
    folder = BASES["TinyEn"].directory
    assert folder is not None
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def _digits(split: str, also: str = "TRUE") -> str:
    return (
        "SELECT audio, text FROM real "
        f"WHERE folder = 'digits' AND split = '{split}' AND {also}"
    )


def _few_digits(minutes: int) -> str:
    """Return a query for so many minutes of the training rows, in a mixed order."""
    mixed = "sum(seconds) OVER (ORDER BY rowid * 7919 % 10007)"
    return f"""
    SELECT audio, text FROM (SELECT *, {mixed} AS until FROM real
                             WHERE folder = 'digits' AND split = 'train')
    WHERE until <= {60 * minutes}"""


def _manifests() -> Iterable[tuple[str, str, str, float, str, str]]:
    for folder in ("librispeech", "librispeech_mp3", "digits"):
        root = common.RECORDINGS / folder
        with (root / "manifest.csv").open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                path, seconds = str(root / row["audio"]), float(row["seconds"])
                yield folder, path, row["text"], seconds, row["speaker"], row["split"]


def _make_child(connection: Any) -> None:
    """Fill the table `child`: sentences that TinyEn never learned from, so spoken."""
    import numpy as np
    import soundfile
    from recipes.voices import SAMPLE_RATE, hibari, trimmed

    connection.execute("CREATE TABLE child (audio BLOB, text TEXT, seconds REAL)")
    wanted = 60 * (max(FURTHER) + TESTED)
    made = 0.0
    texts = [text for (text,) in connection.execute(f"SELECT text FROM ({UNSEEN})")]
    texts += [
        text
        for (text,) in connection.execute(
            "SELECT text FROM made.speech WHERE held_out ORDER BY number"
        )
    ]
    for number, text in enumerate(texts):
        source = np.random.default_rng(number)
        speed = source.uniform(0.85, 1.15)
        waveform = trimmed(hibari(text, source, speed=speed, **CHILD), 0.1)
        audio = io.BytesIO()
        soundfile.write(audio, waveform, SAMPLE_RATE, format="FLAC")
        seconds = len(waveform) / SAMPLE_RATE
        row = (audio.getvalue(), text, seconds)
        connection.execute("INSERT INTO child VALUES (?, ?, ?)", row)
        made += seconds
        if made > wanted:
            break
    connection.commit()


if __name__ == "__main__":
    main()
