"""What the benchmarks share: works timed in turn, and one JSON report of them.

A ratio is taken within one round, where the contestants ran one after the other, since
shared machines are noisy; its median over the rounds counts, and its spread is told.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

RECORDINGS = Path(__file__).resolve().parents[2] / "shared" / "speech"


@dataclass(frozen=True, slots=True)
class Ratio:
    """One line of the table: how we stand to a peer, or to a limit."""

    name: str
    median: float
    lowest: float
    highest: float
    goal: float
    higher_is_better: bool


def ratio(
    name: str,
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    goal: float,
    higher_is_better: bool,
) -> Ratio:
    """Return ours to theirs, round by round; both hold a figure a round."""
    each = [a / b for a, b in zip(ours, theirs, strict=True)]
    median = statistics.median(each)
    return Ratio(name, median, min(each), max(each), goal, higher_is_better)


def in_turn(
    works: Mapping[str, Callable[[], object]], rounds: int, times: int = 1
) -> dict[str, list[float]]:
    """Return the seconds each work took in each round, which runs it `times` times."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            began = time.perf_counter()
            for _ in range(times):
                work()
            seconds[name].append((time.perf_counter() - began) / times)
    return seconds


def arguments(description: str | None) -> argparse.Namespace:
    """Return what every script takes: `full` and `output`."""
    return parser(description).parse_args()


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return what reads `full` and `output`, for a script that takes more."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="the larger set")
    parser.add_argument("--output", type=Path, help="write the JSON here too")
    return parser


def report(
    options: argparse.Namespace,
    *,
    packages: Sequence[str],
    settings: Mapping[str, Any],
    measurements: Mapping[str, Any],
    ratios: Sequence[Ratio],
    checks: Mapping[str, Any],
) -> None:
    """Print one JSON object: where and with what, what was measured, what it means.

    settings: those of every contestant, at its best; measurements: figures a
    contestant, with the unit in their name; checks: whether the answers agree.
    """
    text = json.dumps(
        {
            "benchmark": Path(sys.argv[0]).stem,
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "set": "full" if options.full else "small",
            "machine": _machine(),
            "versions": {name: _version(name) for name in ("thanosql-local", *packages)}
            | {"python": platform.python_version()},
            "settings": dict(settings),
            "measurements": dict(measurements),
            "ratios": [asdict(each) for each in ratios],
            "checks": dict(checks),
        },
        indent=2,
    )
    print(text)
    if options.output is not None:
        options.output.write_text(text + "\n", encoding="utf-8")


def _machine() -> dict[str, Any]:
    """Return processor, cores and, where torch is loaded and has one, the GPU."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    torch = sys.modules.get("torch")
    cuda = torch is not None and torch.cuda.is_available()
    return {
        "processor": name,
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch is not None and cuda else None,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
