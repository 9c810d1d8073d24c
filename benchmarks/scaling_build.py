"""What BUILD costs as rows grow: seconds and memory for 100, 1 000 and 10 000.

    python benchmarks/scaling_build.py           100 and 1 000 rows, a minute
    python benchmarks/scaling_build.py --full    10 000 rows too, five minutes

Spoken digits, repeated, in a tiny Parakeet of random weights; one epoch and one look
at the validation rows, the features kept within 4 MB, far less than 1 000 rows need.
Each count in a process of its own, on one thread.
"""

from __future__ import annotations

import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common

BUDGET = "4MB"


def main() -> None:
    """Measure, and print one JSON object."""
    options = common.arguments(__doc__)
    counts = (100, 1_000, 10_000) if options.full else (100, 1_000)
    found: dict[int, dict[str, Any]] = {}
    for count in counts:
        done = subprocess.run(
            [sys.executable, __file__, "--worker", str(count)],
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
        found[count] = json.loads(done.stdout.splitlines()[-1])
    few, many = counts[0], counts[-1]
    common.report(
        options,
        packages=("torch", "transformers"),
        settings={"batch_size": 16, "epochs": 1, "feature_cache": BUDGET},
        measurements={str(count): each for count, each in found.items()},
        ratios=[
            common.ratio(
                f"seconds a row, {many} rows to {counts[-2]}",
                [found[many]["seconds"] / many],
                [found[counts[-2]]["seconds"] / counts[-2]],
                goal=1.1,
                higher_is_better=False,
            ),
            common.ratio(
                f"peak memory, {many} rows to {few}",
                [found[many]["peak_mb"]],
                [found[few]["peak_mb"]],
                goal=1.1,
                higher_is_better=False,
            ),
        ],
        checks={"rows trained on": {c: each["rows"] for c, each in found.items()}},
    )


def work(count: int) -> None:
    """Build from so many rows; print one line of JSON."""
    import torch
    from transformers import ParakeetCTCConfig, ParakeetEncoderConfig

    import thanosql

    torch.set_num_threads(1)
    folder = common.RECORDINGS / "digits"
    with (folder / "manifest.csv").open(encoding="utf-8") as file:
        clips = [
            (str(folder / row["audio"]), row["text"]) for row in csv.DictReader(file)
        ][:400]
    encoder = ParakeetEncoderConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        subsampling_factor=4,
        subsampling_conv_channels=8,
        conv_kernel_size=5,
    )
    with (
        tempfile.TemporaryDirectory(prefix="scaling-") as base,
        thanosql.connect(":memory:") as connection,
    ):
        ParakeetCTCConfig(encoder_config=encoder.to_dict()).save_pretrained(base)
        connection.execute("CREATE TABLE clips (audio, text)")
        connection.executemany(
            "INSERT INTO clips VALUES (?, ?)",
            [clips[i % len(clips)] for i in range(count)],
        )
        connection.commit()
        began = time.perf_counter()
        connection.execute(
            f"BUILD MODEL m USING '{Path(base)}' OPTIONS (epochs=1, batch_size=16, "
            "learning_rate=1e-6, validation=0.1, feature_cache=?) "
            "AS SELECT * FROM clips",
            (BUDGET,),
        )
        seconds = time.perf_counter() - began
        (trained,) = connection.execute(
            "SELECT utterances + validation_utterances FROM thanosql_runs"
        ).fetchone()
    print(
        json.dumps(
            {
                "seconds": seconds,
                "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
                "rows": trained,
            }
        )
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(int(sys.argv[2]))
    else:
        main()
