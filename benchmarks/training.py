"""How fast BUILD trains on real recordings on a CPU, beside transformers' Trainer.

    python benchmarks/training.py                12 clips, three minutes
    python benchmarks/training.py --full         96 clips, a quarter of an hour

A wav2vec2-base (94 million parameters, group norm; random weights: speed does not
depend on them) is trained for three epochs with its convolutional encoder frozen, as
transformers' own example for CTC does it: no dropout, SpecAugment of 0.05. Trainer
groups by length and finds its recordings decoded in memory; BUILD reads the files.
Each training has a process of its own. Seconds are those of the epochs, without
opening and storing. The losses compared are of the two results, in evaluation mode,
over clips of all lengths. Both learn by the same rule and rate; their batches differ.
"""

from __future__ import annotations

import csv
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import common
import transcription

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGES = ("torch", "transformers", "accelerate", "soundfile")
LETTERS = "ETAONIHSRDLUMWCFGYPBVK'XJQZ"
EPOCHS = 3
RATE = 1e-5
WARMUP = 0.1
SMALL_SET, BATCH = 12, 4  # clips
FULL_SET, FULL_BATCH = 96, 8
THREADS = 2


def main() -> None:
    """Measure, and print one JSON object."""
    options = common.arguments(__doc__)
    count, batch = (FULL_SET, FULL_BATCH) if options.full else (SMALL_SET, BATCH)
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="training-") as temporary:
        base = Path(temporary, "base")
        subprocess.run([sys.executable, __file__, "--worker", "base", base], check=True)
        for name in ("thanosql", "Trainer"):
            found[name] = run(name, base, count, batch)
            print(name, found[name], file=sys.stderr, flush=True)
    # An epoch of each a round; the first of ours fills the cache of features.
    speeds = {
        name: [each["audio_seconds"] / seconds for seconds in each["epochs"]]
        for name, each in found.items()
    }
    whole = {
        name: EPOCHS * each["audio_seconds"] / each["seconds"]
        for name, each in found.items()
    }
    losses = {name: each["loss"] for name, each in found.items()}
    common.report(
        options,
        packages=PACKAGES,
        settings={
            "all": f"fp32, {THREADS} threads, batch {batch}, {EPOCHS} epochs, AdamW "
            f"fused, {RATE:g} with our schedule, convolutional encoder frozen",
            "Trainer": "train_sampling_strategy=group_by_length, recordings decoded",
            "clips": count,
            "audio_seconds": found["Trainer"]["audio_seconds"],
        },
        measurements={
            "audio_seconds_a_second": whole,
            "audio_seconds_a_second, by epoch": speeds,
            "peak_gb": {name: each["peak_gb"] for name, each in found.items()},
            "loss_before": found["Trainer"]["loss_before"],
            "loss_after": losses,
        },
        ratios=[
            common.ratio(
                "audio-s/s to Trainer",
                [whole["thanosql"]],
                [whole["Trainer"]],
                goal=1.35,
                higher_is_better=True,
            )
        ],
        checks={"loss to Trainer's": losses["thanosql"] / losses["Trainer"]},
    )


def run(name: str, base: Path, count: int, batch: int) -> dict[str, Any]:
    """Return what one training reports, in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--worker", name, base, str(count), str(batch)],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def chosen(count: int) -> list[tuple[Path, str, float]]:
    """Return path, text and seconds of clips that spread over all lengths."""
    folder = common.RECORDINGS / "librispeech"
    with (folder / "manifest.csv").open(encoding="utf-8") as file:
        rows = sorted(
            (float(row["seconds"]), row["audio"], row["text"])
            for row in csv.DictReader(file)
            if row["split"] == "train"
        )
    places = [round(i * (len(rows) - 1) / (count - 1)) for i in range(count)]
    return [
        (folder / audio, text.upper(), seconds)
        for seconds, audio, text in (rows[place] for place in places)
    ]


def make_base(directory: Path, layers: int = 12) -> None:
    """Write a wav2vec2-base of random weights, with a vocabulary."""
    import torch
    import transformers

    directory.mkdir()
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *LETTERS]
    vocabulary = directory / "vocab.json"
    vocabulary.write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(vocabulary))
    extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=False)
    transformers.Wav2Vec2Processor(extractor, tokenizer).save_pretrained(directory)
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        vocab_size=len(tokens),
        num_hidden_layers=layers,
        pad_token_id=0,
        hidden_dropout=0.0,
        activation_dropout=0.0,
        attention_dropout=0.0,
        feat_proj_dropout=0.0,
        final_dropout=0.0,
        layerdrop=0.0,
        mask_time_prob=0.05,
        ctc_loss_reduction="mean",
    )
    model = transformers.Wav2Vec2ForCTC(config)
    # BUILD refuses a model that ends with one text for all that it hears.
    transcription.follow_the_sounds(model)
    model.save_pretrained(directory)


def with_thanosql(
    base: Path,
    clips: Sequence[tuple[Path, str, float]],
    batch: int,
    epochs: int = EPOCHS,
    precision: str = "fp32",
    device: str = "cpu",
    rate: float = RATE,
) -> tuple[list[float], Path]:
    """Return the seconds of each epoch, and where the trained model is."""
    import thanosql

    out = Path(tempfile.mkdtemp(dir=base.parent))
    with thanosql.connect(":memory:") as connection:
        connection.execute("CREATE TABLE clips (audio, text)")
        connection.executemany(
            "INSERT INTO clips VALUES (?, ?)", [(str(p), text) for p, text, _ in clips]
        )
        connection.commit()
        rows = connection.execute(
            f"BUILD MODEL m USING '{base}' OPTIONS (epochs=?, batch_size=?, "
            "learning_rate=?, warmup=?, validation=0, precision=?, device=?) "
            "AS SELECT * FROM clips",
            (epochs, batch, rate, WARMUP, precision, device),
        )
        names = [column[0] for column in rows.description]
        seconds = [dict(zip(names, row, strict=True))["seconds"] for row in rows]
        connection.execute(f"EXPORT MODEL m TO '{out}'")
    return seconds, out


def with_trainer(
    base: Path,
    clips: Sequence[tuple[Path, str, float]],
    batch: int,
    epochs: int = EPOCHS,
    precision: str = "fp32",
    device: str = "cpu",
    rate: float = RATE,
) -> tuple[list[float], Path]:
    """Return the same of transformers' Trainer, used as its example for CTC does."""
    import soundfile
    import torch
    import transformers

    from thanosql.speech.recognizers.precision import wait_for
    from thanosql.speech.training.optimization import rate_factor

    processor = transformers.Wav2Vec2Processor.from_pretrained(base)
    model = transformers.Wav2Vec2ForCTC.from_pretrained(base)
    model.freeze_feature_encoder()
    model.to(device)  # before its optimizer is made
    dataset = [
        {
            "input_values": processor(
                soundfile.read(path, dtype="float32")[0], sampling_rate=16_000
            ).input_values[0],
            "labels": processor.tokenizer(text).input_ids,
        }
        for path, text, _ in clips
    ]

    def collate(features: list[dict[str, Any]]) -> dict[str, Any]:
        inputs = [{"input_values": f["input_values"]} for f in features]
        padded = processor.feature_extractor.pad(inputs, return_tensors="pt")
        labels = [torch.tensor(f["labels"]) for f in features]
        padded["labels"] = torch.nn.utils.rnn.pad_sequence(
            labels, batch_first=True, padding_value=-100
        )
        return dict(padded)

    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=rate,
        weight_decay=0.01,
        fused=True,
    )
    steps = epochs * -(-len(clips) // batch)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate_factor((step + 1) / (steps + 1), WARMUP)
    )
    ends: list[float] = []

    class Clock(transformers.TrainerCallback):  # type: ignore[misc]
        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            if not ends:
                ends.append(time.perf_counter())

        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            wait_for(model.device)
            ends.append(time.perf_counter())

    out = Path(tempfile.mkdtemp(dir=base.parent))
    transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(
            output_dir=str(out),
            per_device_train_batch_size=batch,
            num_train_epochs=epochs,
            train_sampling_strategy="group_by_length",
            remove_unused_columns=False,
            use_cpu=device == "cpu",
            bf16=precision == "bf16",
            fp16=precision == "fp16",
            seed=0,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=dataset,
        # Tells Trainer by what to group: the length of what this makes.
        processing_class=processor.feature_extractor,
        data_collator=collate,
        optimizers=(optimizer, scheduler),
        callbacks=[Clock()],
    ).train()
    model.save_pretrained(out)
    return [b - a for a, b in itertools.pairwise(ends)], out


def mean_loss(
    directory: Path, base: Path, clips: Sequence[tuple[Path, str, float]]
) -> Any:
    """Return transformers' own loss of a model, the mean over the clips, one by one."""
    import soundfile
    import torch
    import transformers

    processor = transformers.Wav2Vec2Processor.from_pretrained(base)
    model = transformers.Wav2Vec2ForCTC.from_pretrained(directory).eval()
    losses = []
    with torch.inference_mode():
        for path, text, _ in clips:
            samples, _rate = soundfile.read(path, dtype="float32")
            values = processor(samples, sampling_rate=16_000, return_tensors="pt")
            labels = torch.tensor([processor.tokenizer(text).input_ids])
            losses.append(float(model(values.input_values, labels=labels).loss))
    return sum(losses) / len(losses)


def work(name: str, base: Path, count: str = "0", batch: str = "0") -> None:
    """Do what this process was started for; print one line of JSON."""
    import torch

    torch.set_num_threads(THREADS)
    if name == "base":
        make_base(base)
        return
    clips = chosen(int(count))
    if name == "Trainer":
        seconds, out = with_trainer(base, clips, int(batch))
    else:
        seconds, out = with_thanosql(base, clips, int(batch))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    judged = clips[:: max(1, len(clips) // 6)]
    result = {
        "epochs": seconds,
        "seconds": sum(seconds),
        "audio_seconds": sum(each for _, _, each in clips),
        "peak_gb": peak,
        "loss": mean_loss(out, base, judged),
    }
    if name == "Trainer":
        result["loss_before"] = mean_loss(base, base, judged)
    print(json.dumps(result))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])
    else:
        main()
