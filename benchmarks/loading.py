"""What loading and storing a model of 94 million parameters costs.

    python benchmarks/loading.py          3 rounds, two minutes
    python benchmarks/loading.py --full   7 rounds

Loading a stored wav2vec2-base for its first PREDICT, beside `from_pretrained` of the
same directory; storing it (IMPORT's second half), beside `save_pretrained`. Each in a
fresh process with torch and transformers imported, one after the other in each round.
All files have been read once: nobody waits for a disk. Every weight is looked at in
the end, since `from_pretrained` maps a file that is read only then. Fresh weights:
values change nothing. Wall time and the process's own (CPU) time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import arguments, ratio, report


def main() -> None:
    """Measure all four in turn, and print one JSON object."""
    options = arguments(__doc__)
    rounds = 7 if options.full else 3
    measured: dict[str, list[dict[str, Any]]] = {name: [] for name in _CASES}
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run([sys.executable, __file__, "prepare", directory], check=True)
        for _ in range(rounds + 1):
            for name, results in measured.items():
                done = subprocess.run(
                    [sys.executable, __file__, name, directory],
                    check=True,
                    capture_output=True,
                    text=True,
                )
                results.append(json.loads(done.stdout))
    for results in measured.values():
        del results[0]  # it read the files for the others
    figures = {
        name: {key: [each[key] for each in results] for key in ("seconds", "cpu")}
        for name, results in measured.items()
    }
    report(
        options,
        packages=["torch", "transformers", "safetensors", "apsw"],
        settings={"threads": 1, "model": "wav2vec2-base, float32"},
        measurements=figures,
        ratios=[
            ratio(
                f"loading to from_pretrained, {key}",
                figures["load"][key],
                figures["from_pretrained"][key],
                goal=1.3,
                higher_is_better=False,
            )
            for key in ("seconds", "cpu")
        ],
        checks={
            "the same weights": len(
                {
                    each["sum"]
                    for name in ("load", "from_pretrained")
                    for each in measured[name]
                }
            )
            == 1
        },
    )


def prepare(directory: str) -> None:
    """Write the model, as a directory and into a database."""
    import torch
    from transformers import Wav2Vec2Config

    import thanosql
    from thanosql.speech.bases import open_base

    torch.manual_seed(0)
    Wav2Vec2Config().save_pretrained(Path(directory, "config"))
    alphabet = "abcdefghijklmnopqrstuvwxyz'"
    recognizer = open_base(str(Path(directory, "config")), lambda: [alphabet])
    recognizer.save(Path(directory, "model"))
    connection = thanosql.connect(str(Path(directory, "models.db")))
    connection.execute("IMPORT MODEL m FROM ?", (str(Path(directory, "model")),))
    connection.close()


def load(directory: str) -> dict[str, Any]:
    import apsw
    from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2ForCTC  # noqa: F401

    from thanosql import jobs, store
    from thanosql.speech import bases  # noqa: F401 - imports are not measured

    def work() -> Any:
        connection = apsw.Connection(str(Path(directory, "models.db")))
        models = store.ModelStore(connection)
        return jobs.open_stored(models, models.get("m")).model

    return _timed(work)


def from_pretrained(directory: str) -> dict[str, Any]:
    from transformers import Wav2Vec2ForCTC

    return _timed(lambda: Wav2Vec2ForCTC.from_pretrained(Path(directory, "model")))


def store(directory: str) -> dict[str, Any]:
    import apsw

    from thanosql import store

    record = store.ModelRecord("m", "", "", 0, {})
    with tempfile.TemporaryDirectory(dir=directory) as aside:
        models = store.ModelStore(apsw.Connection(str(Path(aside, "models.db"))))
        return _timed(lambda: models.save(record, Path(directory, "model")))


def save_pretrained(directory: str) -> dict[str, Any]:
    from transformers import Wav2Vec2ForCTC

    model = Wav2Vec2ForCTC.from_pretrained(Path(directory, "model"))
    with tempfile.TemporaryDirectory(dir=directory) as aside:
        return _timed(lambda: model.save_pretrained(aside))


def _timed(work: Any) -> dict[str, Any]:
    import torch
    import transformers

    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    began, cpu_began = time.perf_counter(), time.process_time()
    result = work()
    checksum = 0.0
    if isinstance(result, torch.nn.Module):
        checksum = sum(float(each.detach().sum()) for each in result.parameters())
    return {
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - cpu_began,
        "sum": checksum,
    }


_CASES = {
    each.__name__: each for each in (load, from_pretrained, store, save_pretrained)
}

if __name__ == "__main__":
    if sys.argv[1:2] == ["prepare"]:
        prepare(sys.argv[2])
    elif sys.argv[1:] and sys.argv[1] in _CASES:
        print(json.dumps(_CASES[sys.argv[1]](sys.argv[2])))
    else:
        main()
