"""How fast BUILD trains Whisper on a CPU, beside transformers' Seq2SeqTrainer.

    python benchmarks/whisper_training.py                24 clips, four minutes
    python benchmarks/whisper_training.py --full         96 clips

WhisperTinyEn is trained on real recordings, once with its encoder frozen and once
without. Both sides take the same batches in the same order, the same targets, optimizer
and schedule, so the loss of each step must be the same but for rounding. Seq2SeqTrainer
finds its log-mels computed, in files; BUILD reads the recordings. Each training has a
process of its own. Seconds are those of the epochs, without opening and storing. Needs
accelerate.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import common

if TYPE_CHECKING:
    from common import Clip

PACKAGES = ("torch", "transformers", "accelerate", "soundfile")
SMALL_SET, FULL_SET = 24, 96  # clips, a multiple of BATCH
BATCH = 8
EPOCHS = {"frozen": 3, "whole": 2}  # the first epoch fills the cache of frames
RATE, WARMUP, DECAY = 1e-5, 0.1, 0.01
SEED = 0
TRAINERS = ("thanosql", "Seq2SeqTrainer")


def main() -> None:
    """Measure, and print one JSON object."""
    parser = common.parser(__doc__)
    parser.add_argument("--clips", type=int, default=SMALL_SET)
    options = parser.parse_args()
    count = FULL_SET if options.full else options.clips
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="training-") as temporary:
        imports = worked("imports", "", temporary, 0)["peak_mib"]
        worked("prepare", "", temporary, count)
        for what in EPOCHS:
            for name in TRAINERS:
                found[f"{name}, {what}"] = worked(name, what, temporary, count)
    ratios = []
    for what, speed_goal in (("frozen", 2.0), ("whole", 1.2)):
        ours, theirs = (found[f"{name}, {what}"] for name in TRAINERS)
        ratios.append(
            common.ratio(
                f"audio-s/s to Seq2SeqTrainer, {what} encoder",
                [theirs["seconds"]],
                [ours["seconds"]],
                goal=speed_goal,
                higher_is_better=True,
            )
        )
        for name, less in (("", 0), (" above what imports take", imports)):
            ratios.append(
                common.ratio(
                    f"peak memory{name}, {what} encoder",
                    [ours["peak_mib"] - less],
                    [theirs["peak_mib"] - less],
                    goal=0.5 if what == "frozen" else 1.0,
                    higher_is_better=False,
                )
            )
    checks = {}
    for what in EPOCHS:
        ours, theirs = (found[f"{name}, {what}"]["losses"] for name in TRAINERS)
        pairs = list(zip(ours, theirs, strict=True))
        each = ", ".join(f"{a:.4f} {b:.4f}" for a, b in pairs)
        checks[f"losses of each step, ours and theirs, {what} encoder"] = each
        checks[f"largest relative difference, {what} encoder"] = max(
            abs(a / b - 1) for a, b in pairs
        )
    common.report(
        options,
        packages=PACKAGES,
        settings={
            "all": f"WhisperTinyEn, fp32, batch {BATCH}, {EPOCHS} epochs, AdamW fused, "
            f"{RATE:g} with our schedule, the same batches",
            "clips": count,
        },
        measurements={"imports_peak_mib": imports, **found},
        ratios=ratios,
        checks=checks,
    )


def worked(name: str, what: str, directory: str, count: int) -> dict[str, Any]:
    """Return what this script reports of one job, in a process of its own."""
    result = common.worked(__file__, name, what, directory, str(count))
    print(name, what, result, file=sys.stderr, flush=True)
    return result


def work(name: str, what: str, directory: Path, count: int) -> None:
    """Do what this process was started for; print one line of JSON."""
    result: dict[str, Any] = {}
    if name == "imports":
        import transformers

        import thanosql.speech.training.train  # noqa: F401

        assert transformers.Seq2SeqTrainer
        assert transformers.WhisperForConditionalGeneration
    else:
        clips = common.clips("train", count, directory)
        if name == "prepare":
            prepare(directory, clips)
        elif name == "thanosql":
            result = with_thanosql(directory, clips, what)
        else:
            result = with_trainer(directory, clips, what)
    print(json.dumps({**result, "peak_mib": common.peak_mib()}))


def prepare(directory: Path, clips: list[Clip]) -> None:
    """Write the model and the log-mels of the clips for Seq2SeqTrainer."""
    import numpy as np
    import soundfile
    import transformers

    import thanosql

    with thanosql.connect(":memory:") as connection:
        connection.execute("GET MODEL WhisperTinyEn OPTIONS (model_name='m')")
        connection.execute("EXPORT MODEL m TO ?", (str(directory / "base"),))
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(directory / "base")
    for number, clip in enumerate(clips):
        samples, rate = soundfile.read(clip.path, dtype="float32")
        inputs = extractor(samples, sampling_rate=rate, return_tensors="np")
        np.save(directory / f"{number}.npy", inputs["input_features"][0])


def with_thanosql(
    directory: Path,
    clips: list[Clip],
    what: str,
    batch: int = BATCH,
    epochs: int | None = None,
    precision: str = "fp32",
    device: str = "cpu",
) -> dict[str, Any]:
    """Return the seconds of all epochs and the loss of each step of BUILD."""
    import thanosql
    from thanosql.execution import context

    losses: list[float] = []

    class Noting(context.Progress):
        def __call__(
            self, stage: str, done: float, total: float | None = None, **facts: Any
        ) -> None:
            if stage == "train":
                losses.append(facts["loss"])

    with (
        mock.patch.object(context, "Progress", Noting),
        thanosql.connect(directory / f"{what}-{precision}.db") as connection,
    ):
        connection.execute("CREATE TABLE clips (audio, text)")
        connection.executemany(
            "INSERT INTO clips VALUES (?, ?)",
            [(str(clip.path), clip.text) for clip in clips],
        )
        connection.commit()
        (seconds,) = connection.execute(
            "SELECT sum(seconds) FROM (BUILD MODEL m USING WhisperTinyEn OPTIONS ("
            f"epochs={epochs or EPOCHS[what]}, batch_size={batch}, "
            f"learning_rate={RATE}, warmup={WARMUP}, weight_decay={DECAY}, "
            f"validation=0, precision='{precision}', device='{device}', seed={SEED}, "
            f"freeze_encoder={what == 'frozen'}) "
            "AS SELECT * FROM clips)"
        ).fetchone()
    return {"seconds": seconds, "losses": losses}


def with_trainer(
    directory: Path,
    clips: list[Clip],
    what: str,
    batch: int = BATCH,
    epochs: int | None = None,
    precision: str = "fp32",
    device: str = "cpu",
) -> dict[str, Any]:
    """Return the same of transformers' Seq2SeqTrainer."""
    import numpy as np
    import torch
    import transformers

    from thanosql.speech.recognizers.precision import wait_for
    from thanosql.speech.training.batches import length_buckets
    from thanosql.speech.training.optimization import adamw, rate_factor

    base = directory / "base"
    tokenizer = transformers.WhisperTokenizer.from_pretrained(base)
    model = transformers.WhisperForConditionalGeneration.from_pretrained(base)
    if what == "frozen":
        model.freeze_encoder()
    model.to(device)  # before its optimizer is made
    # The prefix that the model is used with, which is not scored.
    prefix = tokenizer("", add_special_tokens=True)["input_ids"][:-1]
    end = tokenizer.eos_token_id
    seconds = [clip.seconds for clip in clips]
    # Of all epochs, so that one pass over this is the whole training.
    order = [
        number
        for epoch in range(1, (epochs or EPOCHS[what]) + 1)
        for bucket in length_buckets(seconds, batch, SEED, epoch)
        for number in bucket
    ]

    class Rows(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return len(order)

        def __getitem__(self, place: int) -> dict[str, Any]:
            number = order[place]
            text = f" {clips[number].text}"  # as in what Whisper was trained on
            return {
                "input_features": np.load(directory / f"{number}.npy"),
                "text": tokenizer(text, add_special_tokens=False)["input_ids"],
            }

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        def padded(ids: list[list[int]], value: int) -> Any:
            return torch.nn.utils.rnn.pad_sequence(
                [torch.tensor(each) for each in ids],
                batch_first=True,
                padding_value=value,
            )

        texts = [row["text"] for row in rows]
        unscored = [-100] * (len(prefix) - 1)
        return {
            "input_features": torch.from_numpy(
                np.stack([row["input_features"] for row in rows])
            ),
            "decoder_input_ids": padded([[*prefix, *text] for text in texts], end),
            "labels": padded([[*unscored, *text, end] for text in texts], -100),
        }

    losses: list[torch.Tensor] = []

    class Noting(transformers.Seq2SeqTrainer):  # type: ignore[misc]
        def compute_loss(self, *arguments: Any, **options: Any) -> Any:
            loss = super().compute_loss(*arguments, **options)
            losses.append(loss.detach())  # no .item(): it would wait for a GPU
            return loss

    optimizer = adamw(model, DECAY)
    for group in optimizer.param_groups:
        group["lr"] = RATE
    steps = len(order) // batch
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate_factor((step + 1) / (steps + 1), WARMUP)
    )
    times: list[float] = []

    class Clock(transformers.TrainerCallback):  # type: ignore[misc]
        def on_epoch_begin(self, *_: Any, **__: Any) -> None:
            times.append(time.perf_counter())

        def on_epoch_end(self, *_: Any, **__: Any) -> None:
            wait_for(model.device)
            times.append(time.perf_counter())

    Noting(
        model=model,
        args=transformers.Seq2SeqTrainingArguments(
            output_dir=str(directory / "out"),
            per_device_train_batch_size=batch,
            num_train_epochs=1,
            train_sampling_strategy="sequential",
            remove_unused_columns=False,
            use_cpu=device == "cpu",
            bf16=precision == "bf16",
            fp16=precision == "fp16",
            seed=SEED,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=Rows(),
        data_collator=collate,
        optimizers=(optimizer, scheduler),
        callbacks=[Clock()],
    ).train()
    began, ended = times
    return {"seconds": ended - began, "losses": [each.item() for each in losses]}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(sys.argv[2], sys.argv[3], Path(sys.argv[4]), int(sys.argv[5]))
    else:
        main()
