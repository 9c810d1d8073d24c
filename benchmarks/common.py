"""What the benchmarks share: works timed in turn, and one JSON report of them.

A ratio is taken within one round, where the contestants ran one after the other, since
shared machines are noisy; its median over the rounds counts, and its spread is told.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import compare

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


class Contestant:
    """A process of a script that works whenever it is told to, for its peak memory.

    The script answers each line of its standard input by a line of JSON (`answers`).
    """

    def __init__(self, script: str, *arguments: str | Path) -> None:
        """Start it, with these arguments behind `--worker`, and have it work once."""
        self._process = subprocess.Popen(
            [sys.executable, script, "--worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.answer: Any = self.run()  # opened, and warm

    def run(self) -> object:
        """Have it work once and return its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            message = f"{self._process.args} has died"
            raise RuntimeError(message)
        self.answer = json.loads(line)
        return self.answer

    def end(self) -> int:
        """Return the bytes it had in memory at its peak."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        self._process.communicate()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return 1024 * int(peak.split()[1])


def answers(work: Callable[[int], object]) -> None:
    """Be a contestant: for each line of standard input do the work of that turn."""
    for turn, _ in enumerate(sys.stdin):
        print(json.dumps(work(turn)), flush=True)


def worked(script: str, *arguments: str | Path) -> dict[str, Any]:
    """Return the line of JSON that a script prints last, in a process of its own.

    It is started with these arguments behind `--worker`.
    """
    done = subprocess.run(
        [sys.executable, script, "--worker", *arguments],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def peak_mib() -> float:
    """Return the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Clip(NamedTuple):
    """A recording, what is said in it, and its seconds."""

    path: Path
    text: str
    seconds: float


def clips(split: str, count: int | None, directory: Path) -> list[Clip]:
    """Return clips of the `train` or `test` split, which spread over all lengths.

    Those of LibriSpeech; where they are not at hand, the readings that come with the
    package, written to files below `directory`. count: None for all. Lengths are mixed.
    """
    folder = RECORDINGS / "librispeech"
    if folder.is_dir():
        with (folder / "manifest.csv").open(encoding="utf-8") as file:
            found = [
                Clip(folder / row["audio"], row["text"], float(row["seconds"]))
                for row in csv.DictReader(file)
                if row["split"] == split
            ]
    else:
        found = _readings(split, directory)
    if count is None or count >= len(found):
        return found
    by_length = sorted(found, key=lambda clip: clip.seconds)
    step = (len(found) - 1) / max(1, count - 1)
    chosen = {by_length[round(i * step)] for i in range(count)}
    return [clip for clip in found if clip in chosen]


def _readings(split: str, directory: Path) -> list[Clip]:
    import soundfile

    import thanosql

    with thanosql.connect(":memory:") as connection:
        connection.execute("GET DATASET readings")
        rows = connection.execute(f"SELECT audio, text FROM readings_{split}")
        found = []
        for number, (audio, text) in enumerate(rows):
            path = directory / f"{split}-{number}"
            path.write_bytes(audio)
            found.append(Clip(path, text, soundfile.info(path).duration))
    return found


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

    Its ratios and checks are a table on standard error, too.

    settings: those of every contestant, at its best; measurements: figures a
    contestant, with the unit in their name; checks: whether the answers agree.
    """
    found = document(
        "full" if options.full else "small",
        packages=packages,
        settings=settings,
        measurements=measurements,
        ratios=ratios,
        checks=checks,
    )
    text = json.dumps(found, indent=2)
    print(text)
    print(compare.table([found]), file=sys.stderr)
    if options.output is not None:
        options.output.write_text(text + "\n", encoding="utf-8")


def document(
    kind: str,
    *,
    packages: Sequence[str],
    settings: Mapping[str, Any],
    measurements: Mapping[str, Any],
    ratios: Sequence[Ratio],
    checks: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what `report` prints; kind: the set that was measured."""
    return {
        "benchmark": Path(sys.argv[0]).stem,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "set": kind,
        "machine": _machine(),
        "versions": {name: _version(name) for name in ("thanosql-local", *packages)}
        | {"python": platform.python_version()},
        "settings": dict(settings),
        "measurements": dict(measurements),
        "ratios": [asdict(each) for each in ratios],
        "checks": dict(checks),
    }


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


def predicting(models: Path, options: str) -> Callable[[list[Path]], list[str]]:
    """Return a function that transcribes clips by PREDICT with the model `m`.

    models: the folder of models.db. options: of PREDICT, as written in the statement.
    """
    import thanosql

    connection = thanosql.connect(models / "models.db")
    connection.execute("CREATE TEMPORARY TABLE clips (audio)")
    connection.commit()

    def transcribe(clips: list[Path]) -> list[str]:
        connection.execute("DELETE FROM clips")
        connection.executemany(
            "INSERT INTO clips VALUES (?)", [(str(clip),) for clip in clips]
        )
        connection.commit()
        rows = connection.execute(
            f"PREDICT USING m OPTIONS ({options}) AS SELECT audio FROM clips"
        )
        return [text for _, text in rows]

    return transcribe
