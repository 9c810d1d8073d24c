"""What minutes of a new speaker's recordings are worth, beside Seq2SeqTrainer.

    python benchmarks/finetuning.py                    half an hour on two cores
    python benchmarks/finetuning.py --only frozen      one way, added to the results
    python benchmarks/finetuning.py --small            a try of every line, a minute
    python benchmarks/finetuning.py --table            the results, for the docs

WhisperTinyEn is trained on 1, 5 and 15 minutes of one speaker, in each of WAYS, with
the defaults of BUILD otherwise, and scored on three other minutes. Its peer is
transformers' Seq2SeqTrainer by the recipe that is documented for Whisper, on the same
rows, for as many steps. There are two speakers: one of LibriSpeech, who has no 15
minutes, and a child on a telephone, spoken by hibari-tts (needs onnxruntime), whom
WhisperTinyEn misreads more often. Seconds are those from the recordings to a stored
model, without imports. Each training has a process of its own. Needs accelerate.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import common
import finetuning_speakers as speakers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from common import Clip

PACKAGES = ("torch", "transformers", "accelerate", "soundfile", "hibari-tts")
RESULTS = Path(__file__).with_name("results") / "finetuning.json"
AS_IT_COMES = "as it comes"
WAYS: Mapping[str, str | None] = {
    AS_IT_COMES: None,  # no training
    "full": "freeze_encoder=FALSE",
    "short": "freeze_encoder=FALSE, window='short', learning_rate=1e-5",
    "frozen": "freeze_encoder=TRUE",
    "adapter": "adapter=TRUE",
    "ctc": "objective='ctc'",
}
"Each with the options by which BUILD trains so."
PEERED = {"full": "full", "short": "full", "frozen": "frozen"}  # by the peer's recipe
OURS, PEER = "thanosql", "Seq2SeqTrainer"
BATCH = 4  # of 16 rows a minute would be one step
RATE, WARMUP = 1e-5, 0.1  # of the peer: 500 of the recipe's 5000 steps are a tenth
SCORES = ("wer", "wer_low", "wer_high", "cer", "words", "audio_seconds")


class Size(NamedTuple):
    """How much is measured."""

    speakers: tuple[str, ...]
    epochs: dict[float, int]  # by minutes
    ctc: int  # times as many for a head that knows nothing yet
    tested: float  # minutes


SIZES = {
    "full": Size(tuple(speakers.SPEAKERS), {1: 8, 5: 4, 15: 2}, 3, 3),
    "small": Size(("reader",), {0.2: 1}, 1, 0.2),
}


def main() -> None:
    """Measure, print one JSON object, and add it to what is in its file."""
    parser = common.parser(__doc__)
    parser.add_argument("--small", action="store_true", help="a try of every line")
    parser.add_argument("--only", metavar="WAY,WAY", help=", ".join(WAYS))
    parser.add_argument("--table", action="store_true", help="measure nothing")
    options = parser.parse_args()
    kind = "small" if options.small else "full"
    output = options.output or (None if options.small else RESULTS)
    if options.table:
        found = json.loads((output or RESULTS).read_text(encoding="utf-8"))
        print(table(found["measurements"]))
        return
    ways = options.only.split(",") if options.only else list(WAYS)
    if unknown := set(ways) - WAYS.keys():
        parser.error(f"--only knows {', '.join(WAYS)}, and not {', '.join(unknown)}")
    report = document(kind, {})
    if output is not None and output.exists():
        report = merged(json.loads(output.read_text(encoding="utf-8")), report)
    with tempfile.TemporaryDirectory(prefix="finetuning-") as directory:
        made = worked("prepare", "", "", kind, directory)
        for speaker, minutes, way, whose in cells(kind, ways, made["minutes"]):
            cell = name(speaker, minutes, way, whose)
            found = worked(whose, way, f"{speaker} {minutes}", kind, directory)
            report = document(kind, {**report["measurements"], cell: found})
            text = json.dumps(report, indent=2)
            if output is not None:  # after each, for what comes next may fail
                output.write_text(text + "\n", encoding="utf-8")
    print(text)
    print(common.compare.table([report]), file=sys.stderr)
    print(table(report["measurements"]), file=sys.stderr)


def cells(
    kind: str, ways: Sequence[str], have: Mapping[str, float]
) -> list[tuple[str, float, str, str]]:
    """Return what is measured: speaker, minutes, way, and whose training it is.

    have: the minutes that there are of each speaker, beside those that test.
    """
    found = []
    for speaker in SIZES[kind].speakers:
        if AS_IT_COMES in ways:
            found.append((speaker, 0.0, AS_IT_COMES, OURS))
        for minutes in SIZES[kind].epochs:
            if minutes > have[speaker] + 0.1:  # a clip less is told as so many
                continue
            for way in ways:
                if way != AS_IT_COMES:
                    found.append((speaker, minutes, way, OURS))
                if PEERED.get(way) == way:
                    found.append((speaker, minutes, way, PEER))
    return found


def name(speaker: str, minutes: float, way: str, whose: str) -> str:
    """Return what a cell is called in the report."""
    return f"{speaker}, {minutes:g} min, {way}, {whose}"


# The report


def document(kind: str, found: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Return the report of the cells that were measured."""
    return common.document(
        kind,
        packages=PACKAGES,
        settings={
            "both": f"WhisperTinyEn, fp32, batch {BATCH}, the same rows and steps",
            OURS: {way: given for way, given in WAYS.items() if given},
            PEER: f"rate {RATE:g}, linear, {WARMUP:g} of it warm-up, random order, "
            "log-mels computed once, before",
            "epochs by minutes": {f"{m:g}": e for m, e in SIZES[kind].epochs.items()},
            "epochs of ctc": f"{SIZES[kind].ctc} times as many",
            "tested": f"{SIZES[kind].tested:g} min, greedy, normalize='english'",
            "speakers": {s: speakers.SPEAKERS[s] for s in SIZES[kind].speakers},
        },
        measurements=found,
        ratios=ratios(found),
        checks={
            "recordings trained on and steps": {
                cell: f"{each['rows']} and {each['steps']}"
                for cell, each in found.items()
                if "steps" in each
            }
        },
    )


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return an earlier report, to which cells are added; of the same settings only.

    There may be ways to train that it does not know.
    """
    for what in ("set", "machine", "versions", "settings"):
        there, here = (json.loads(json.dumps(each[what])) for each in (old, new))
        if what == "settings":
            there[OURS] = {**here[OURS], **there[OURS]}
        if what == "machine":  # which GPU there is shows once torch is loaded only
            there, here = ({**each, "gpu": None} for each in (there, here))
        if there != here:
            message = (
                f"the earlier results have another {what}: {there}, now {here}; "
                "measure all anew, into another --output"
            )
            raise SystemExit(message)
    return old


def ratios(found: Mapping[str, Mapping[str, float]]) -> list[common.Ratio]:
    """Return how each cell of ours stands to the peer's; fewer errors and less time."""
    lines = []
    for cell, ours in found.items():
        speaker, minutes, way, whose = cell.split(", ")
        theirs = found.get(", ".join([speaker, minutes, PEERED.get(way, ""), PEER]))
        if whose != OURS or theirs is None:
            continue
        said = ", ".join([speaker, minutes, way])
        for what, unit in (
            ("WER", "wer"),
            ("seconds", "seconds"),
            ("peak", "peak_mib"),
        ):
            lines.append(
                common.ratio(
                    f"{said}: {what}, to {PEER}",
                    [ours[unit]],
                    [theirs[unit]],
                    goal=1.0,
                    higher_is_better=False,
                )
            )
    return lines


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """Return errors and seconds in Markdown: a row for so many minutes of a speaker.

    A training that was not measured is no column, or a dash.
    """
    places = dict.fromkeys(tuple(cell.split(", ")[:2]) for cell in found)
    columns = dict.fromkeys(
        tuple(cell.split(", ")[2:]) for cell in found if AS_IT_COMES not in cell
    )
    heads = [way if whose == OURS else f"{way}, {whose}" for way, whose in columns]
    lines = [" | ".join(["| speaker", "minutes", AS_IT_COMES, *heads]) + " |"]
    lines.append("|---" * (3 + len(heads)) + "|")
    for speaker, said in places:
        if said == "0 min":
            continue
        before = found.get(name(speaker, 0, AS_IT_COMES, OURS))
        trained = [found.get(", ".join([speaker, said, *each])) for each in columns]
        figures = [_figures(cell) for cell in (before, *trained)]
        minutes = said.removesuffix(" min")
        lines.append(" | ".join([f"| {speaker}", minutes, *figures]) + " |")
    return "\n".join(lines)


def _figures(cell: Mapping[str, float] | None) -> str:
    if cell is None:
        return "-"
    told = f"{cell['wer']:.3f}"
    return f"{told}, {cell['seconds']:.0f} s" if "seconds" in cell else told


# In a process of its own


def worked(whose: str, *arguments: str) -> dict[str, Any]:
    """Return what this script reports of one job, in a process of its own."""
    result = common.worked(__file__, whose, *arguments)
    print(whose, *arguments[:-1], result, file=sys.stderr, flush=True)
    return result


def work(whose: str, way: str, which: str, kind: str, directory: Path) -> None:
    """Do what this process was started for; print one line of JSON."""
    size = SIZES[kind]
    if whose == "prepare":
        prepare(size, directory)
        return
    speaker, minutes = which.split()
    train, test = speakers.read(directory, speaker, float(minutes))
    epochs = size.epochs.get(float(minutes), 0) * (size.ctc if way == "ctc" else 1)
    found: dict[str, float] = {}
    import thanosql

    with closing(thanosql.connect(directory / f"{time.time_ns()}.db")) as connection:
        for table_name, clips in (("train", train), ("test", test)):
            connection.execute(f"CREATE TABLE {table_name} (audio, text)")
            connection.executemany(
                f"INSERT INTO {table_name} VALUES (?, ?)",
                [(str(clip.path), clip.text) for clip in clips],
            )
        connection.commit()
        if whose == PEER:
            model = directory / f"{time.time_ns()}"
            found = with_trainer(directory / "base", model, train, way, epochs)
        elif way != AS_IT_COMES:
            found = with_build(connection, way, epochs)
        peak = common.peak_mib()  # before it is scored
        if whose == PEER:
            connection.execute("IMPORT MODEL m FROM ?", (str(model),))
        elif way == AS_IT_COMES:
            connection.execute("GET MODEL WhisperTinyEn OPTIONS (model_name='m')")
        else:
            found["rows"] = len(train)
        if way != AS_IT_COMES:
            found["peak_mib"] = peak
            (stored,) = connection.execute(
                "SELECT bytes FROM (LIST MODELS) WHERE name = 'm'"
            ).fetchone()
            found["stored_mib"] = stored / 2**20
        scores = connection.execute(
            f"SELECT {', '.join(SCORES)} FROM (EVALUATE USING m OPTIONS ("
            "precision='fp32', device='cpu', normalize='english') "
            "AS SELECT * FROM test)"
        ).fetchone()
    print(json.dumps({**dict(zip(SCORES, scores, strict=True)), **found}))


def prepare(size: Size, directory: Path) -> None:
    """Write the base and the clips; print how many minutes there are of whom."""
    import thanosql

    with closing(thanosql.connect(":memory:")) as connection:
        connection.execute("GET MODEL WhisperTinyEn OPTIONS (model_name='m')")
        connection.execute("EXPORT MODEL m TO ?", (str(directory / "base"),))
    have = {
        speaker: speakers.write(directory, speaker, max(size.epochs), size.tested)
        for speaker in size.speakers
    }
    print(json.dumps({"minutes": have}))


def with_build(connection: Any, way: str, epochs: int) -> dict[str, float]:
    """Train the model `m` on the table `train` by BUILD; return seconds and steps."""
    import thanosql.speech.training.train  # noqa: F401  # what each process pays once

    began = time.perf_counter()
    rows = connection.execute(
        f"BUILD MODEL m USING WhisperTinyEn OPTIONS ({WAYS[way]}, epochs={epochs}, "
        f"batch_size={BATCH}, validation=0, precision='fp32', device='cpu') "
        "AS SELECT * FROM train"
    )
    names = [column[0] for column in rows.description]
    told = [dict(zip(names, row, strict=True)) for row in rows]
    return {
        "seconds": time.perf_counter() - began,
        "seconds_of_epochs": sum(epoch["seconds"] for epoch in told),
        "steps": told[-1]["steps"],
    }


def with_trainer(
    base: Path, model_path: Path, clips: list[Clip], way: str, epochs: int
) -> dict[str, float]:
    """Train a model by Seq2SeqTrainer into a directory; return seconds and steps.

    As transformers' examples and its authors' course train Whisper: log-mels computed
    once, labels with the prefix that the tokenizer puts before them, the first token
    of which the model puts there by itself. Their fp16 is for a GPU, and their
    gradient checkpointing, which costs time, for its memory.
    """
    import shutil

    import soundfile
    import transformers

    assert transformers.Seq2SeqTrainer  # imported where they are first named
    assert transformers.WhisperForConditionalGeneration
    shutil.copytree(base, model_path)  # its tokenizer and configurations
    began = time.perf_counter()
    transformers.set_seed(0)
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(base)
    tokenizer = transformers.WhisperTokenizer.from_pretrained(base)
    model = transformers.WhisperForConditionalGeneration.from_pretrained(base)
    if way == "frozen":
        model.freeze_encoder()
    rows = []
    for clip in clips:
        samples, rate = soundfile.read(clip.path, dtype="float32")
        mels = extractor(samples, sampling_rate=rate).input_features[0]
        rows.append({"input_features": mels, "labels": tokenizer(clip.text).input_ids})

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch = extractor.pad(
            [{"input_features": row["input_features"]} for row in rows],
            return_tensors="pt",
        )
        labels = tokenizer.pad(
            [{"input_ids": row["labels"]} for row in rows], return_tensors="pt"
        )
        targets = labels.input_ids.masked_fill(labels.attention_mask.ne(1), -100)
        if bool((targets[:, 0] == model.config.decoder_start_token_id).all()):
            targets = targets[:, 1:]
        return {"input_features": batch["input_features"], "labels": targets}

    steps = epochs * -(-len(rows) // BATCH)
    trainer = transformers.Seq2SeqTrainer(
        model=model,
        args=transformers.Seq2SeqTrainingArguments(
            output_dir=str(base.parent / "out"),
            per_device_train_batch_size=BATCH,
            learning_rate=RATE,
            warmup_steps=round(WARMUP * steps),
            max_steps=steps,
            remove_unused_columns=False,
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=rows,
        data_collator=collate,
    )
    inside = time.perf_counter()
    outcome = trainer.train()
    trained = time.perf_counter()
    assert outcome.global_step == steps
    model.save_pretrained(model_path)
    ended = time.perf_counter()
    return {
        "seconds": ended - began,
        "seconds_of_epochs": trained - inside,
        "steps": steps,
        "rows": len(rows),
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(*sys.argv[2:6], Path(sys.argv[6]))
    else:
        main()
