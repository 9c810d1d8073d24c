"""The parts of `on_gpu.py`: each yields what it has measured as soon as it has.

Texts are held against those of transformers' pipeline in fp32, losses against the
Trainer's.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import common
import training
import transcription
import whisper_training
import whisper_transcription

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from common import Clip

ROOT = Path(__file__).resolve().parents[1]
DTYPES = {"bf16": "bfloat16", "fp16": "float16"}
COUNTED = 16  # clips whose arithmetic is counted, and taken for that of all
RATE = 1e-6  # so low that weights drawn at random do not fall silent, and are refused
LETTERS = frozenset(training.LETTERS + " ")
MARK = "found: "  # before a line of JSON, among what libraries print

Found = dict[str, Any]


class Size(NamedTuple):
    """How much is measured."""

    matrix: int  # rows and columns
    read: int  # clips
    repeated: int  # times that they stand in the table, for CTC
    batch: int  # clips, in PREDICT and in BUILD
    rounds: int
    taught: int  # clips, a multiple of the batch
    epochs: int
    precisions: tuple[str, ...]  # of DTYPES
    longest: float  # seconds of a clip


SIZES = {
    "full": Size(8192, 96, 6, 32, 3, 96, 8, ("bf16", "fp16"), math.inf),
    # fp16 is no other line, and some two hundred times slower on a CPU.
    "small": Size(512, 2, 1, 2, 1, 2, 2, ("bf16",), 3.0),
}


@dataclass(frozen=True)
class Setting:
    """What a part is told."""

    device: str
    size: Size
    directory: Path
    """Its own, and empty."""


def matrices(setting: Setting) -> Iterator[Found]:
    """Measure what the device makes of a product of large matrices of random numbers.

    TFLOP/s, the mean of ten products, each of five times.
    """
    import torch

    from thanosql.speech.recognizers.precision import wait_for

    device, rows = torch.device(setting.device), setting.size.matrix
    for name in setting.size.precisions:
        dtype = getattr(torch, DTYPES[name])
        a, b = (torch.randn(rows, rows, device=device).to(dtype) for _ in range(2))
        result = a @ b  # and warm
        rates = []
        for _ in range(5):
            wait_for(device)
            began = time.perf_counter()
            for _ in range(10):
                torch.mm(a, b, out=result)
            wait_for(device)
            rates.append(10 * 2e-12 * rows**3 / (time.perf_counter() - began))
        yield {name: {"tflop_a_second": rates}}


def predict_ctc(setting: Setting) -> Iterator[Found]:
    """Read with a wav2vec2-base."""
    size = setting.size
    clips = some_clips(setting, size.read)
    transcription.make_model(setting.directory)

    def peer(batch: int, dtype: str = "float32") -> Callable[[list[Path]], list[str]]:
        return transcription.pipeline(setting.directory, batch, setting.device, dtype)

    # One clip at a time, so that no padding is heard: it has no attention mask.
    yield from reading(setting, clips, size.repeated, peer, (1, size.batch))


def predict_whisper(setting: Setting) -> Iterator[Found]:
    """Read with WhisperTinyEn."""
    size = setting.size
    clips = some_clips(setting, size.read)
    whisper_transcription.make_models(setting.directory)

    def peer(batch: int, dtype: str = "float32") -> Callable[[list[Path]], list[str]]:
        return whisper_transcription.pipeline(
            setting.directory, batch, setting.device, dtype, num_beams=1
        )

    yield from reading(setting, clips, 1, peer, (size.batch,))


def reading(
    setting: Setting,
    clips: Sequence[Clip],
    repeated: int,
    peer: Callable[..., Callable[[list[Path]], list[str]]],
    batches: tuple[int, ...],
) -> Iterator[Found]:
    """Yield figures of PREDICT beside the pipeline, of each precision.

    peer: makes a pipeline for a batch size and a dtype; the best batch size counts.
    """
    from thanosql.speech.metrics import character_errors, word_errors
    from thanosql.speech.normalization import NORMALIZERS

    normalize = NORMALIZERS["basic"]
    paths = [clip.path for clip in clips]
    references = [normalize(clip.text) for clip in clips]
    alone = peer(1)
    flop = flop_an_audio_second(clips, lambda _, clip: alone([clip.path]))
    exact = peer(batches[0])(paths)
    total = repeated * sum(clip.seconds for clip in clips)
    yield {
        "clips": len(clips) * repeated,
        "audio_seconds": total,
        "gflop_an_audio_second": 1e-9 * flop,
    }

    def judged(texts: Sequence[str]) -> dict[str, float]:
        return {
            "texts as in fp32": sum(
                a.split() == b.split() for a, b in zip(texts, exact, strict=True)
            )
            / len(exact),
            "character errors to fp32": character_errors(exact, texts).rate,
            "word error rate": word_errors(
                references, [normalize(text) for text in texts]
            ).rate,
        }

    for precision in setting.size.precisions:
        options = (
            f"precision='{precision}', device='{setting.device}', "
            f"batch_size={setting.size.batch}"
        )
        contestants = {
            "ours": common.predicting(setting.directory, options),
            **{
                f"pipeline, batch {batch}": peer(batch, DTYPES[precision])
                for batch in batches
            },
        }
        texts = {name: each(paths) for name, each in contestants.items()}  # and warm
        works = {
            name: lambda each=each: each(paths * repeated)
            for name, each in contestants.items()
        }
        took = common.in_turn(works, setting.size.rounds)
        speeds = {
            name: [total / each for each in seconds] for name, seconds in took.items()
        }
        yield {
            precision: {
                "audio_seconds_a_second": {
                    "ours": speeds.pop("ours"),
                    "peer": max(speeds.values(), key=statistics.median),
                },
                "answers": {name: judged(found) for name, found in texts.items()},
            }
        }


def build_ctc(setting: Setting) -> Iterator[Found]:
    """Train a wav2vec2-base, its convolutions frozen, beside Trainer."""
    import soundfile
    import torch
    import transformers

    size, base = setting.size, setting.directory / "base"
    training.make_base(base)
    clips = [
        clip._replace(text="".join(c for c in clip.text.upper() if c in LETTERS))
        for clip in some_clips(setting, size.taught)
    ]
    processor = transformers.Wav2Vec2Processor.from_pretrained(base)
    model = transformers.Wav2Vec2ForCTC.from_pretrained(base).to(setting.device)
    model.freeze_feature_encoder()

    def step(_: int, clip: Clip) -> None:
        samples, rate = soundfile.read(clip.path, dtype="float32")
        values = processor(samples, sampling_rate=rate, return_tensors="pt")
        labels = torch.tensor([processor.tokenizer(clip.text).input_ids])
        model(
            values.input_values.to(setting.device), labels=labels.to(setting.device)
        ).loss.backward()

    flop = flop_an_audio_second(clips, step)
    total = sum(clip.seconds for clip in clips)
    judged = clips[:: max(1, len(clips) // 6)]
    yield {
        "clips": len(clips),
        "audio_seconds": total,
        "gflop_an_audio_second": 1e-9 * flop,
        "loss_before": training.mean_loss(base, base, judged),
    }
    for precision in setting.size.precisions:
        speeds, losses = {}, {}
        for name, train in (
            ("ours", training.with_thanosql),
            ("peer", training.with_trainer),
        ):
            seconds, out = train(
                base, clips, size.batch, size.epochs, precision, setting.device, RATE
            )
            # The first epoch fills our cache of features, and warms both.
            speeds[name] = [total / each for each in seconds[1:]]
            losses[name] = training.mean_loss(out, base, judged)
        yield {
            precision: {
                "audio_seconds_a_second": speeds,
                "answers": {"loss after": losses},
            }
        }


def build_whisper(setting: Setting) -> Iterator[Found]:
    """Train WhisperTinyEn, its encoder too, beside Seq2SeqTrainer on the same steps."""
    import numpy as np
    import torch
    import transformers

    size, directory = setting.size, setting.directory
    clips = some_clips(setting, size.taught)
    whisper_training.prepare(directory, clips)
    tokenizer = transformers.WhisperTokenizer.from_pretrained(directory / "base")
    model = transformers.WhisperForConditionalGeneration.from_pretrained(
        directory / "base"
    ).to(setting.device)

    def step(number: int, clip: Clip) -> None:
        mel = torch.from_numpy(np.load(directory / f"{number}.npy"))[None]
        labels = torch.tensor([tokenizer(clip.text)["input_ids"]])
        model(
            input_features=mel.to(setting.device), labels=labels.to(setting.device)
        ).loss.backward()

    flop = flop_an_audio_second(clips, step)
    total = sum(clip.seconds for clip in clips)
    yield {
        "clips": len(clips),
        "audio_seconds": total,
        "gflop_an_audio_second": 1e-9 * flop,
    }
    for precision in setting.size.precisions:
        speeds, losses = {}, {}
        for name, train in (
            ("ours", whisper_training.with_thanosql),
            ("peer", whisper_training.with_trainer),
        ):
            found = train(
                directory,
                clips,
                "whole",
                size.batch,
                size.epochs,
                precision,
                setting.device,
            )
            speeds[name] = [size.epochs * total / found["seconds"]]
            losses[name] = found["losses"]
        pairs = zip(losses["ours"], losses["peer"], strict=True)
        yield {
            precision: {
                "audio_seconds_a_second": speeds,
                "losses": losses,
                "answers": {
                    "a step's loss": {
                        "largest relative difference": max(
                            abs(a / b - 1) for a, b in pairs
                        )
                    }
                },
            }
        }


def tests(setting: Setting) -> Iterator[Found]:
    """Run the tests that are marked `gpu`; of their files only, for what they import.

    Raises RuntimeError if one fails, or, where there is a GPU, if one is skipped.
    """
    marked = [
        str(path)
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if "@pytest.mark.gpu" in path.read_text(encoding="utf-8")
    ]
    outcome = setting.directory / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu"]
    # Warnings of other versions than those that are developed with are no failures.
    command += ["-p", "no:cacheprovider", "-W", "default", f"--junitxml={outcome}"]
    ended = subprocess.run(
        [*command, *marked], cwd=ROOT, stdout=sys.stderr, check=False
    )
    if not outcome.exists():
        message = f"pytest, with exit status {ended.returncode}, ran no test"
        raise RuntimeError(message)
    names: dict[str, list[str]] = {"passed": [], "broken": [], "skipped": []}
    for case in ET.parse(outcome).iter("testcase"):
        kinds = {child.tag for child in case}
        kind = "broken" if kinds & {"failure", "error"} else "passed"
        kind = "skipped" if "skipped" in kinds else kind
        names[kind].append(f"{case.get('classname')}::{case.get('name')}")
    yield {"outcomes": names}
    bad = names["broken"] + (names["skipped"] if setting.device != "cpu" else [])
    if bad or not any(names.values()):
        message = f"did not pass: {', '.join(bad) or 'none was found'}"
        raise RuntimeError(message)


def some_clips(setting: Setting, count: int) -> list[Clip]:
    """Return that many clips of any length, or all that there are."""
    found = common.clips("train", None, setting.directory)
    return [clip for clip in found if clip.seconds < setting.size.longest][:count]


def sampled(clips: Sequence[Clip]) -> list[tuple[int, Clip]]:
    """Return those whose arithmetic is counted, with their places."""
    return [*enumerate(clips)][:: max(1, len(clips) // COUNTED)]


def flop_an_audio_second(
    clips: Sequence[Clip], work: Callable[[int, Clip], Any]
) -> float:
    """Return the FLOP of the products of the work, which takes a clip and its place.

    That of sampled clips, one by one, so that all of them are of use.
    """
    from torch.utils.flop_counter import FlopCounterMode

    chosen = sampled(clips)
    with FlopCounterMode(display=False) as counter:
        for number, clip in chosen:
            work(number, clip)
    return float(counter.get_total_flops()) / sum(clip.seconds for _, clip in chosen)


PARTS = {
    "matrices": matrices,
    "PREDICT, wav2vec2-base": predict_ctc,
    "PREDICT, WhisperTinyEn": predict_whisper,
    "BUILD, wav2vec2-base": build_ctc,
    "BUILD, WhisperTinyEn": build_whisper,
    "tests": tests,
}


def main() -> None:
    """Do a part: its name, the device, the size, and an empty folder for it."""
    name, device, kind, directory = sys.argv[1:]
    for found in PARTS[name](Setting(device, SIZES[kind], Path(directory))):
        print(f"\n{MARK}{json.dumps(found)}", flush=True)


if __name__ == "__main__":
    main()
