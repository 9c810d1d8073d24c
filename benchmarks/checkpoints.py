"""What do checkpoints cost a training?

A small model on spoken digits, trained in turn with a folder for checkpoints and with
none; and the state of a model of wav2vec2-base's shape (its weights fresh), copied and
written beside the time of one step of it. With --full more rounds, and a longer step.
"""

from __future__ import annotations

import csv
import tempfile
import time
from pathlib import Path

import common


def main() -> None:
    options = common.arguments(__doc__)
    import torch

    torch.set_num_threads(1)
    small = small_model(rounds=5 if options.full else 3)
    large = large_model(seconds=10 if options.full else 3)
    common.report(
        options,
        packages=("torch", "transformers", "safetensors"),
        settings={
            "small": {"rows": 370, "epochs": 3, "batch_size": 16, "threads": 1},
            "large": {"batch": 2, "threads": 1, "precision": "fp32"},
        },
        measurements={"small": small, "large": large},
        ratios=[
            common.ratio(
                "seconds of a small training, with checkpoints to without",
                small["with_seconds"],
                small["without_seconds"],
                goal=1.05,
                higher_is_better=False,
            )
        ],
        checks={"same losses": small["same_losses"]},
    )


def small_model(rounds: int) -> dict[str, object]:
    from transformers import ParakeetCTCConfig, ParakeetEncoderConfig

    from thanosql import speech
    from thanosql.speech.progress import silent
    from thanosql.statements import BuildOptions

    folder = common.RECORDINGS / "digits"
    with (folder / "manifest.csv").open(encoding="utf-8") as file:
        rows = [
            (str(folder / row["audio"]), row["text"]) for row in csv.DictReader(file)
        ][:370]
    options = BuildOptions(epochs=3, learning_rate=1e-3, validation=0.1)
    encoder = ParakeetEncoderConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        subsampling_factor=4,
        subsampling_conv_channels=16,
        conv_kernel_size=5,
    )
    losses: dict[str, object] = {}

    def training(name: str, *, kept: bool) -> None:
        with (
            tempfile.TemporaryDirectory() as base,
            tempfile.TemporaryDirectory() as aside,
        ):
            ParakeetCTCConfig(encoder_config=encoder.to_dict()).save_pretrained(base)
            material = speech.prepare(
                lambda: speech.open_base(base, lambda: (text for _, text in rows)),
                rows,
                None,
                options,
                None,
                silent,
            )
            began = time.perf_counter()
            epochs = list(
                speech.train(
                    material, options, None, Path(aside) if kept else None, silent
                )
            )
            seconds[name].append(time.perf_counter() - began)
            losses[name] = [epoch.train_loss for epoch in epochs]

    seconds: dict[str, list[float]] = {"with_seconds": [], "without_seconds": []}
    for _ in range(rounds):
        training("without_seconds", kept=False)
        training("with_seconds", kept=True)
    same = losses["with_seconds"] == losses["without_seconds"]
    return {**seconds, "same_losses": same}


def large_model(seconds: int) -> dict[str, object]:
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    from thanosql.speech.training.checkpoint import Checkpoints, State
    from thanosql.speech.training.loop import trained_state

    model = Wav2Vec2ForCTC(Wav2Vec2Config(mask_time_prob=0.0))
    model.freeze_feature_encoder()
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], fused=True
    )
    audio = torch.randn(2, 16_000 * seconds)
    steps = []
    for _ in range(2):
        began = time.perf_counter()
        model(audio, labels=torch.randint(1, 30, (2, 10))).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        steps.append(time.perf_counter() - began)
    began = time.perf_counter()
    tensors = {f"model.{k}": v for k, v in trained_state(model).items()}
    for number, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            tensors[f"optimizer.{number}.{name}"] = value.detach().clone()
    copying = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        processor = time.process_time()
        began = time.perf_counter()
        with Checkpoints(Path(folder)) as checkpoints:
            checkpoints.save(State(tensors, {"best_epoch": 1, "epoch": 1}), {})
        writing = time.perf_counter() - began
        processor = time.process_time() - processor
    return {
        "step_seconds": steps[-1],
        "step_audio_seconds": 2 * seconds,
        "state_mb": sum(t.nbytes for t in tensors.values()) / 1e6,
        "copying_seconds": copying,
        "writing_seconds": writing,
        "writing_processor_seconds": processor,
    }


if __name__ == "__main__":
    main()
