"""How cost grows with work: PREDICT over more rows, and over longer recordings.

    python benchmarks/scaling.py          100 to 1 000 rows, 6 and 60 minutes
    python benchmarks/scaling.py --full   100 to 10 000 rows

Every case runs in a process of its own, which tells its seconds and its highest memory.
The model is small and random; the recordings are distinct, so that nothing is saved by
knowing one already. Time a row (or a minute) is compared with that of the smallest
case, and so is memory.
"""

from __future__ import annotations

import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from common import Ratio, arguments, report

RATE = 16_000
SECONDS = 2.0  # of each short clip
BATCH = 16


def main() -> None:
    """Measure each statement at each size, and print one JSON object."""
    options = arguments(__doc__)
    counts = [100, 1_000, 10_000] if options.full else [100, 1_000]
    measurements: dict[str, Any] = {}
    ratios: list[Ratio] = []
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run([sys.executable, __file__, "prepare", directory], check=True)
        for name, sizes in (
            ("predict_blobs", counts),
            ("predict_paths", counts),
            ("predict_minutes", [6, 60]),
        ):
            cases = [case(name, size, directory) for size in sizes]
            measurements[name] = cases
            ratios += compared(name, cases)
    report(
        options,
        packages=["torch", "transformers", "apsw", "soundfile"],
        settings={
            "batch_size": BATCH,
            "seconds of a clip": SECONDS,
            "model": "wav2vec 2.0 of 32 x 2, random",
        },
        measurements=measurements,
        ratios=ratios,
        checks={
            "every row has a text": all(
                each["texts"] == each["rows"]
                for cases in measurements.values()
                for each in cases
            )
        },
    )


def case(
    name: str, size: int, directory: str, script: str = __file__
) -> dict[str, Any]:
    """Return what a statement took in a process of its own, which runs `script`."""
    done = subprocess.run(
        [sys.executable, script, name, directory, str(size)],
        check=True,
        capture_output=True,
        text=True,
    )
    measured: dict[str, Any] = json.loads(done.stdout)
    return {"size": size, **measured}


def compared(name: str, cases: list[dict[str, Any]]) -> list[Ratio]:
    """Return each larger case's time a unit and memory to the smallest case's."""
    first, *larger = cases
    ratios = []
    for each in larger:
        growth = each["size"] / first["size"]
        for what, figure in (
            ("time a unit", each["cpu_seconds"] / first["cpu_seconds"] / growth),
            ("memory", each["peak_mb"] / first["peak_mb"]),
        ):
            title = f"{name}: {what}, {each['size']} to {first['size']}"
            ratios.append(Ratio(title, figure, figure, figure, 1.1, False))
    return ratios


def prepare(directory: str) -> None:
    """Write a small model of random weights."""
    import torch
    from transformers import Wav2Vec2Config

    from thanosql.speech.opening.opening import open_base

    torch.manual_seed(0)
    Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=(16, 16, 32),
        conv_kernel=(10, 8, 8),
        conv_stride=(5, 8, 8),
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
    ).save_pretrained(directory)
    open_base(directory, lambda: ["abcdefgh"]).save(Path(directory, "model"))


def connected(directory: str) -> Any:
    import thanosql

    connection = thanosql.connect(":memory:")
    connection.execute("IMPORT MODEL m FROM ?", (str(Path(directory, "model")),))
    return connection


def clips(count: int) -> Any:
    """Yield encoded recordings, each of its own noise."""
    for i in range(count):
        noise = np.random.default_rng(i).normal(0, 0.1, int(SECONDS * RATE))
        file = io.BytesIO()
        soundfile.write(file, noise, RATE, format="WAV")
        yield file.getvalue()


def predict_blobs(directory: str, count: int) -> dict[str, Any]:
    connection = connected(directory)
    # On disk, as rows are: what SQLite keeps in memory of them is its cache.
    connection.execute("ATTACH '' AS aside")
    connection.execute("CREATE TABLE aside.clips (audio)")
    connection.executemany(
        "INSERT INTO aside.clips VALUES (?)", ((clip,) for clip in clips(count))
    )
    connection.commit()
    return predicted(connection, "SELECT audio FROM aside.clips")


def predict_paths(directory: str, count: int) -> dict[str, Any]:
    folder = Path(directory, f"clips-{count}")
    folder.mkdir()
    for i, clip in enumerate(clips(count)):
        (folder / f"{i:05}.wav").write_bytes(clip)
    connection = connected(directory)
    connection.execute("CREATE TABLE clips (audio)")
    connection.executemany(
        "INSERT INTO clips VALUES (?)", ((str(path),) for path in folder.iterdir())
    )
    connection.commit()
    return predicted(connection, "SELECT audio FROM clips")


def predict_minutes(directory: str, minutes: int) -> dict[str, Any]:
    path = Path(directory, f"{minutes}.flac")
    with soundfile.SoundFile(path, "w", 44_100, 1) as file:
        for i in range(minutes):
            file.write(np.random.default_rng(i).normal(0, 0.1, 60 * 44_100))
    connection = connected(directory)
    connection.execute("CREATE TABLE clips (audio)")
    connection.execute("INSERT INTO clips VALUES (?)", (str(path),))
    connection.commit()
    return predicted(connection, "SELECT audio FROM clips", batch_size=4)


def predicted(connection: Any, query: str, batch_size: int = BATCH) -> dict[str, Any]:
    """Return what PREDICT took: seconds, the process's highest memory, texts."""
    rows = connection.execute(f"SELECT count(*) FROM ({query})").fetchone()[0]
    began, cpu_began = time.perf_counter(), time.process_time()
    cursor = connection.execute(
        f"PREDICT USING m OPTIONS (batch_size={batch_size}) AS {query}"
    )
    texts = sum(1 for row in cursor if row[-1] is not None)
    return {
        "rows": rows,
        "texts": texts,
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - cpu_began,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


_CASES = {
    each.__name__: each for each in (predict_blobs, predict_paths, predict_minutes)
}

if __name__ == "__main__":
    if sys.argv[1:2] == ["prepare"]:
        prepare(sys.argv[2])
    elif sys.argv[1:] and sys.argv[1] in _CASES:
        print(json.dumps(_CASES[sys.argv[1]](sys.argv[2], int(sys.argv[3]))))
    else:
        main()
