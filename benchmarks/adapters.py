"""What an adapter costs and gains beside training all of a model, on a CPU.

    python benchmarks/adapters.py             48 clips, 2 epochs, 8 minutes at most
    python benchmarks/adapters.py --small     a try of a minute; its figures say little
    python benchmarks/adapters.py --full      192 clips

WhisperTinyEn is trained on single spoken digits over a telephone, of which it reads few
as it is, and scored on others of the same six speakers. All of it is trained, or its
decoder alone; then an adapter of rank 8 of all attention, or of the decoder's alone,
each at its default learning rate. Each way has a process of its own; its memory is that
of BUILD, above what imports take. Seconds are those of the epochs, without opening and
storing. Needs the recordings of ../shared/speech.
"""

from __future__ import annotations

import csv
import json
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import common

PACKAGES = ("torch", "transformers")
BASE = "WhisperTinyEn"
WAYS = {
    "whole": "freeze_encoder=FALSE",
    "adapter": "adapter=8",
    "decoder": "freeze_encoder=TRUE",
    "decoder's adapter": "adapter=8, freeze_encoder=TRUE",
}
BATCH, SEED = 8, 0
# (clips to train on, clips to score on, epochs)
TRY, SMALL_SET, FULL_SET = (8, 4, 1), (48, 48, 2), (192, 120, 3)


def main() -> None:
    """Measure, and print one JSON object."""
    parser = common.parser(__doc__)
    parser.add_argument("--small", action="store_true", help="a try of a minute")
    options = parser.parse_args()
    if not (common.RECORDINGS / "digits").is_dir():
        sys.exit(f"the recordings are not here: {common.RECORDINGS}")
    sizes = TRY if options.small else FULL_SET if options.full else SMALL_SET
    with tempfile.TemporaryDirectory(prefix="adapters-") as directory:
        imports = worked("imports", directory, sizes)["peak_mib"]
        found = {"as it is": worked("as it is", directory, sizes)}
        for name in WAYS:
            found[name] = worked(name, directory, sizes)
            found[name]["peak_mib_above_imports"] = found[name]["peak_mib"] - imports
    ratios = [
        common.ratio(
            f"{what}, {ours} to {theirs}",
            [found[ours][key]],
            [found[theirs][key]],
            goal=goal,
            higher_is_better=False,
        )
        for ours, theirs in (("adapter", "whole"), ("decoder's adapter", "decoder"))
        for what, key, goal in (
            ("seconds", "seconds", 1.0),
            ("peak memory", "peak_mib_above_imports", 1.0),
            ("bytes stored", "bytes", 0.02),
        )
    ]
    common.report(
        options,
        packages=PACKAGES,
        settings={
            "all": f"{BASE}, batch {BATCH}, default learning rates and precision",
            "clips to train on, clips to score on, epochs": sizes,
            **WAYS,
        },
        measurements={"imports_peak_mib": imports, **found},
        ratios=ratios,
        checks={f"WER, {name}": each["wer"] for name, each in found.items()},
    )


def worked(name: str, directory: str, sizes: tuple[int, int, int]) -> dict[str, Any]:
    """Return what this script reports of one job, in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--worker", name, directory, *map(str, sizes)],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(name, result, file=sys.stderr, flush=True)
    return result


def work(name: str, directory: Path, sizes: tuple[int, int, int]) -> None:
    """Do what this process was started for; print one line of JSON."""
    import thanosql
    import thanosql.speech.training.train

    result: dict[str, Any] = {}
    if name != "imports":
        train, test, epochs = sizes
        with thanosql.connect(directory / f"{name}.db") as connection:
            for split, count in (("train", train), ("test", test)):
                connection.execute(f"CREATE TABLE {split} (audio, text)")
                connection.executemany(
                    f"INSERT INTO {split} VALUES (?, ?)", digits(split, count)
                )
            connection.commit()
            if name == "as it is":
                connection.execute(f"GET MODEL {BASE} OPTIONS (model_name='m')")
            else:
                seconds, rate = connection.execute(
                    f"SELECT sum(seconds), max(learning_rate) FROM (BUILD MODEL m "
                    f"USING {BASE} OPTIONS ({WAYS[name]}, epochs={epochs}, "
                    f"batch_size={BATCH}, validation=0, seed={SEED}) "
                    "AS SELECT * FROM train)"
                ).fetchone()
                result = {"seconds": seconds, "highest_rate_at_an_end": rate}
                result["peak_mib"] = peak()
            result["parameters"], result["bytes"] = connection.execute(
                "SELECT parameters, bytes FROM (LIST MODELS) WHERE name = 'm'"
            ).fetchone()
            (result["wer"],) = connection.execute(
                "SELECT wer FROM (EVALUATE USING m OPTIONS (normalize='english') "
                "AS SELECT * FROM test)"
            ).fetchone()
    print(json.dumps({"peak_mib": peak(), **result}))


def peak() -> float:
    """Return the most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def digits(split: str, count: int) -> list[tuple[str, str]]:
    """Return clips of a split, drawn from all speakers: path and text."""
    folder = common.RECORDINGS / "digits"
    with (folder / "manifest.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    chosen = random.Random(SEED).sample(rows, count)
    return [(str(folder / row["audio"]), row["text"]) for row in chosen]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        first, second, third = map(int, sys.argv[4:])
        work(sys.argv[2], Path(sys.argv[3]), (first, second, third))
    else:
        main()
