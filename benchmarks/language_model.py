"""What beam search, a language model and hotwords gain, and what they cost.

    python benchmarks/language_model.py              ten minutes on two cores

TinyEn reads three sets: the commands that come with the package, with a language model
of the texts of `commands_train`; and, from ../shared/speech, the test rows of `digits`,
with one of its train texts, and of `librispeech`, with one of the train texts of
`librispeech` and all texts of `librispeech_mp3`, which are other sentences. Every
option but the model's name is at its default.

Hotwords are tried in two ways. Where the words are few (commands, digits) all of them
are hotwords, without a language model. Of LibriSpeech fifty words that the language
model does not know are hotwords of every clip: how many of them are read where they are
said, and how often one is read where it is not.

How fast: the search through the frames of 20 clips beside a forward pass of a
wav2vec2-base over the same clips, one at a time, and beside ctc-beam-decoder 0.2.0 on
the same log-probabilities, where that is installed.
"""

from __future__ import annotations

import csv
import tempfile
from collections import Counter
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import common

import thanosql

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = 50
TIMED = 20  # clips
SETS = {
    "commands": ("commands_test", "commands_train"),
    "digits": ("digits_test", "digits_texts"),
    "librispeech": ("librispeech_test", "librispeech_texts"),
}


def main() -> None:
    """Measure, and print one JSON object."""
    options = common.arguments(__doc__)
    with closing(thanosql.connect(":memory:")) as connection:
        connection.execute("GET DATASET sample")
        connection.execute("GET MODEL TinyEn")
        _fill(connection)
        found: dict[str, Any] = {}
        for name, (recordings, texts) in SETS.items():
            connection.execute(
                f"BUILD MODEL {name} USING NGram OPTIONS (validation=0) "
                f"AS SELECT text FROM {texts}"
            )
            found[name] = _rates(connection, name, recordings, texts)
        found["hotwords of librispeech"] = _names(connection)
        ratios, speed = _speed(connection)
    common.report(
        options,
        packages=("torch", "transformers", "ctc-beam-decoder"),
        settings={"hotwords of librispeech": NAMES, "clips timed": TIMED},
        measurements=found | {"ms for a second of audio": speed},
        ratios=[
            *ratios,
            *(
                common.ratio(
                    f"WER of {name}: language model / best path",
                    [found[name]["language model"]],
                    [found[name]["best path"]],
                    goal=goal,
                    higher_is_better=False,
                )
                for name, goal in (
                    ("commands", 0.3),
                    ("digits", 1.0),
                    ("librispeech", 0.9),
                )
            ),
        ],
        checks={
            "commands WER at most 0.12": found["commands"]["language model"] <= 0.12
        },
    )


def _fill(connection: Any) -> None:
    """Make the tables of recordings and texts that do not come with the package."""
    for name in ("digits", "librispeech"):
        connection.execute(f"CREATE TABLE {name}_test (audio, text)")
        connection.execute(f"CREATE TABLE {name}_texts (text)")
    for folder in ("digits", "librispeech", "librispeech_mp3"):
        root, name = common.RECORDINGS / folder, folder.removesuffix("_mp3")
        with (root / "manifest.csv").open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["split"] == "test" and folder == name:
                    connection.execute(
                        f"INSERT INTO {name}_test VALUES (?, ?)",
                        (str(root / row["audio"]), row["text"]),
                    )
                else:
                    connection.execute(
                        f"INSERT INTO {name}_texts VALUES (?)", (row["text"],)
                    )
    connection.commit()


def _rates(
    connection: Any, model: str, recordings: str, texts: str
) -> dict[str, float]:
    """Return the WER of a set, by how it is decoded."""

    def wer(options: str, *columns: str) -> Any:
        return connection.execute(
            f"SELECT {', '.join(columns or ('wer',))} FROM (EVALUATE USING TinyEn "
            f"OPTIONS (precision='fp32', {options}) AS SELECT audio, text "
            f"FROM {recordings})"
        ).fetchone()

    with_model, best_path = wer(f"language_model='{model}'", "wer", "wer_without")
    found = {
        "best path": best_path,
        "beam search": wer("beam_size=32")[0],
        "language model": with_model,
    }
    if model != "librispeech":
        words = {word for text in _texts(connection, texts) for word in text.split()}
        (found["hotwords"],) = wer(f"hotwords='{', '.join(sorted(words))}'")
    return found


def _names(connection: Any) -> dict[str, dict[str, float]]:
    """Return how often hotwords are read where they are said, and elsewhere."""
    known = {w for t in _texts(connection, "librispeech_texts") for w in t.split()}
    said = [t.split() for t in _texts(connection, "librispeech_test")]
    unknown = sorted({w for t in said for w in t if len(w) >= 5} - known)
    names = unknown[:: len(unknown) // NAMES][:NAMES]
    found = {}
    hotwords = (", ".join(names),)
    for label, options, parameters in (
        ("language model", "language_model='librispeech'", ()),
        ("hotwords", "hotwords=?", hotwords),
        ("both", "language_model='librispeech', hotwords=?", hotwords),
    ):
        rows = connection.execute(
            f"SELECT text, predicted FROM (PREDICT USING TinyEn OPTIONS ({options}, "
            "precision='fp32') AS SELECT audio, text FROM librispeech_test)",
            parameters,
        ).fetchall()
        counts = [(Counter(t.split()), Counter(p.split())) for t, p in rows]
        found[label] = {
            "said": sum(text[n] for text, _ in counts for n in names),
            "read": sum(min(text[n], p[n]) for text, p in counts for n in names),
            "inserted": sum(
                max(0, p[n] - text[n]) for text, p in counts for n in names
            ),
        }
    return found


def _speed(connection: Any) -> tuple[list[common.Ratio], dict[str, list[float]]]:
    """Return how long searches take beside a forward pass and beside a peer."""
    import torch
    import transformers

    from thanosql import speech
    from thanosql.speech.decoding.decoding import Request, decode
    from thanosql.speech.sound.audio import load
    from thanosql.store.models import ModelStore

    torch.manual_seed(0)
    base = transformers.Wav2Vec2ForCTC(transformers.Wav2Vec2Config()).eval()
    store = ModelStore(connection.apsw)

    def files(name: str) -> Any:
        stored = store.get(name)
        return speech.StoredFiles(
            stored.sha256,
            lambda: store.read_settings(stored),
            lambda: store.read(stored),
        )

    recognizer = speech.open_stored(files("TinyEn"))
    model = speech.open_language_model(files("librispeech"))
    with tempfile.TemporaryDirectory() as folder:
        waveforms = [
            load(clip.path, None) for clip in common.clips("test", TIMED, Path(folder))
        ]
    seconds = sum(map(len, waveforms)) / 16_000
    with torch.inference_mode():
        logits = [recognizer.logits([recognizer.features(w)]) for w in waveforms]

    def forward() -> None:
        with torch.inference_mode():
            for waveform in waveforms:
                base(torch.from_numpy(waveform)[None])

    def search(request: Request) -> Callable[[], object]:
        decoding = recognizer.decoding(request)

        def work() -> object:
            return [decode(decoding, decoding.scores(*each)) for each in logits]

        work()  # what it keeps for later recordings is there
        return lambda: work()

    works: dict[str, Callable[[], object]] = {
        "wav2vec2-base, forward": forward,
        "beam search": search(Request(beam_size=32)),
        "with a 3-gram": search(Request(beam_size=32, language_model=model)),
    }
    if find_spec("ctc_beam_decoder"):
        works["ctc-beam-decoder"] = _peer(recognizer, logits)
    rounds = {
        name: [1000 * each / seconds for each in times]
        for name, times in common.in_turn(works, 3).items()
    }
    ratios = [
        common.ratio(
            "search with a 3-gram / wav2vec2-base, forward",
            rounds["with a 3-gram"],
            rounds["wav2vec2-base, forward"],
            goal=1.0,
            higher_is_better=False,
        )
    ]
    return ratios, rounds


def _peer(recognizer: Any, logits: Any) -> Callable[[], object]:
    from ctc_beam_decoder import build_ctcdecoder

    letters = {"|": " ", "[PAD]": "", "[UNK]": "⁇"}
    vocabulary = recognizer.tokenizer.get_vocab()
    labels = [letters.get(t, t) for t in sorted(vocabulary, key=vocabulary.__getitem__)]
    decoder = build_ctcdecoder(labels)
    rows = [each[0].log_softmax(-1).numpy() for each, _ in logits]
    return lambda: [decoder.decode(row, beam_width=32) for row in rows]


def _texts(connection: Any, table: str) -> list[str]:
    return [text for (text,) in connection.execute(f"SELECT text FROM {table}")]


if __name__ == "__main__":
    main()
