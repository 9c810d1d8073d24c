"""What a GPU makes of PREDICT and BUILD, beside their peers, within ten minutes.

    benchmarks/on_gpu.sh --wheels FOLDER --output gpu.json    on a bare machine
    python benchmarks/on_gpu.py                               where all is installed
    python benchmarks/on_gpu.py --device cpu --small          a dry run, two minutes

Each part is a process of its own with a limit of its own. One that fails or takes too
long says so under `failed`, what it had measured stays, and the others go on; the JSON
is written anew after each. In bf16 and in fp16, a wav2vec2-base of random weights and
WhisperTinyEn read and are trained on the readings that come with the package, or on
LibriSpeech where it is at hand. All answers are held against transformers' in fp32, and
the arithmetic against a large product of bf16 matrices in the same run. Needs
accelerate.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import common
import on_gpu_parts
from on_gpu_parts import MARK, SIZES, Found

if TYPE_CHECKING:
    from common import Ratio

PACKAGES = ("torch", "transformers", "accelerate", "soundfile", "apsw")
WHOLE = 550  # seconds, for all parts together
TOLD = 40  # lines of the log of a part that failed
RESULTS = Path(__file__).with_name("results")


class Limit(NamedTuple):
    """How long a part may take, and what is hoped for."""

    seconds: int
    speed: float | None = None  # ours to the peer's
    share: float | None = None  # of the device's bf16 peak


LIMITS = {
    "matrices": Limit(60),
    "PREDICT, wav2vec2-base": Limit(80, 1.6, 0.3),
    "PREDICT, WhisperTinyEn": Limit(90, 2.0, 0.05),
    "BUILD, wav2vec2-base": Limit(100, 1.35, 0.3),
    "BUILD, WhisperTinyEn": Limit(100, 1.2, 0.1),
    "tests": Limit(120),
}
SETTINGS = {
    "ours": "PREDICT and BUILD with the options precision, device and batch_size",
    "peer of PREDICT": "pipeline, weights in the precision, greedy; the better of its "
    "batch sizes",
    "peer of BUILD": "Trainer with bf16=True or fp16=True, recordings decoded in "
    "memory, by length; Seq2SeqTrainer, log-mels computed, in files, our batches",
    "speeds of BUILD": "wav2vec2-base: of each epoch but the first; WhisperTinyEn: of "
    "all epochs together",
    "arithmetic": f"of transformers' model in fp32 on some {on_gpu_parts.COUNTED} "
    "clips, one by one, by torch's FlopCounterMode; taken to follow audio seconds",
}


def run(name: str, device: str, kind: str, limit: float) -> Found:
    """Return what a part measured, and how long it took, in a process of its own."""
    began = time.perf_counter()
    found: Found = {}
    with tempfile.TemporaryDirectory(prefix="on-gpu-") as directory:
        folder = Path(directory)
        log, lines = folder / "log", folder / "lines"
        inside = folder / "work"
        inside.mkdir()
        with log.open("wb") as errors, lines.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, on_gpu_parts.__file__, name, device, kind, inside],
                env={**os.environ, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"},
                stdout=output,
                stderr=errors,
                start_new_session=True,  # so that what it starts ends with it
            )
            try:
                status = process.wait(limit)
                failed = f"exit status {status}" if status else None
            except subprocess.TimeoutExpired:
                failed = f"took longer than {limit:.0f} s"
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        told = log.read_text(encoding="utf-8", errors="replace")
        print(told, file=sys.stderr)
        for line in lines.read_text(encoding="utf-8").splitlines():
            if line.startswith(MARK):
                found |= json.loads(line.removeprefix(MARK))
    found["seconds"] = time.perf_counter() - began
    if failed:
        lines_told = told.splitlines()[-TOLD:]
        found["failed"] = ": ".join([failed, *lines_told[-1:]])
        found["log"] = lines_told
    return found


def ratios(found: dict[str, Found]) -> list[Ratio]:
    """Return our speeds to the peers', and our arithmetic to the device's peak."""
    peak = found.get("matrices", {}).get("bf16", {}).get("tflop_a_second")
    lines = []
    for name, limit in LIMITS.items():
        for precision in on_gpu_parts.DTYPES:
            measured = found.get(name, {}).get(precision, {})
            if limit.speed is None or limit.share is None or not measured:
                continue
            speeds = measured["audio_seconds_a_second"]
            lines.append(
                common.ratio(
                    f"{name}, {precision}, audio-s/s, to the peer",
                    speeds["ours"],
                    speeds["peer"],
                    goal=limit.speed,
                    higher_is_better=True,
                )
            )
            if peak is None:
                continue
            product = 1e-3 * found[name]["gflop_an_audio_second"]
            lines.append(
                common.ratio(
                    f"{name}, {precision}, TFLOP/s, to the bf16 peak",
                    [product * speed for speed in speeds["ours"]],
                    [max(peak)] * len(speeds["ours"]),
                    goal=limit.share,
                    higher_is_better=True,
                )
            )
    return lines


def checks(found: dict[str, Found]) -> dict[str, Any]:
    """Return the outcome of each part, and its answers."""
    lines: dict[str, Any] = {}
    for name, each in found.items():
        lines[name] = each.get("failed", "done")
        for precision in on_gpu_parts.DTYPES:
            answers = each.get(precision, {}).get("answers", {})
            for whose, figures in answers.items():
                lines[f"{name}, {precision}, {whose}"] = ", ".join(
                    f"{what} {figure:.4f}" for what, figure in figures.items()
                )
    return lines


def main() -> None:
    """Measure, print one JSON object and write it; leave with 1 if a part failed.

    It goes to `results`, unless another path is given, or the set is small.
    """
    began = time.perf_counter()
    parser = common.parser(__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu for a dry run")
    parser.add_argument("--small", action="store_true", help="a try of every line")
    parser.add_argument("--only", choices=LIMITS, action="append", help="this part")
    options = parser.parse_args()

    import torch  # for the device's name

    if options.device != "cpu" and not torch.cuda.is_available():
        parser.error("torch sees no GPU here; use --device cpu --small for a dry run")
    kind = "small" if options.small else "full"
    output = options.output or (None if options.small else RESULTS / "on_gpu.json")
    results: dict[str, Found] = {}
    for name in options.only or LIMITS:
        left = max(0.0, WHOLE - (time.perf_counter() - began))
        limit = min(LIMITS[name].seconds, left)
        results[name] = run(name, options.device, kind, limit)
        report = common.document(
            kind,
            packages=PACKAGES,
            settings={**SETTINGS, "device": options.device, **SIZES[kind]._asdict()},
            measurements=results,
            ratios=ratios(results),
            checks=checks(results),
        )
        text = json.dumps(report, indent=2)
        if output is not None:
            output.write_text(text + "\n", encoding="utf-8")
    print(text)
    print(common.compare.table([report]), file=sys.stderr)
    sys.exit(any("failed" in each for each in results.values()))


if __name__ == "__main__":
    main()
