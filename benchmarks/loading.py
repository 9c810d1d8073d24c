"""What loading and storing a model of 94 million parameters costs.

    python benchmarks/loading.py          3 rounds, two minutes
    python benchmarks/loading.py --full   7 rounds

Loading a stored wav2vec2-base for its first PREDICT, beside `from_pretrained` of the
same directory, each also up to the text of its first recording, of two seconds, since
`from_pretrained` maps a file, of which nothing is read before it is computed with;
storing it (IMPORT's second half), beside `save_pretrained`. Each in a fresh process
with torch and transformers imported, one after the other in each round. All files have
been read once: nobody waits for a disk. Fresh weights: values change nothing. Wall time
and the process's own (CPU) time, of all its threads.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import arguments, ratio, report

if TYPE_CHECKING:
    from collections.abc import Callable

_LOADING = ("load", "from_pretrained")


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
    figures: dict[str, dict[str, list[float]]] = {
        name: {
            key: [each[key] for each in results]
            for key in results[0]
            if key not in ("text", "sum")
        }
        for name, results in measured.items()
    }
    ours, theirs = (figures[name] for name in _LOADING)
    goal: dict[str, Any] = {"goal": 1.3, "higher_is_better": False}
    report(
        options,
        packages=["torch", "transformers", "safetensors", "apsw"],
        settings={"model": "wav2vec2-base, float32", "threads": "torch's default"},
        measurements=figures,
        ratios=[
            ratio(f"{what} to from_pretrained, {key}", ours[key], theirs[key], **goal)
            for what, prefix in (("loading", ""), ("up to the first text", "first_"))
            for key in (f"{prefix}seconds", f"{prefix}cpu")
        ],
        checks={
            f"the same {what}": len(
                {str(each[key]) for name in _LOADING for each in measured[name]}
            )
            == 1
            for what, key in (("weights", "sum"), ("text", "text"))
        },
    )


def prepare(directory: str) -> None:
    """Write the model, as a directory and into a database, and a recording."""
    import numpy as np
    import soundfile
    import torch
    from transformers import Wav2Vec2Config

    import thanosql
    from thanosql.speech.opening.opening import open_base

    torch.manual_seed(0)
    Wav2Vec2Config().save_pretrained(Path(directory, "config"))
    alphabet = "abcdefghijklmnopqrstuvwxyz'"
    recognizer = open_base(str(Path(directory, "config")), lambda: [alphabet])
    recognizer.save(Path(directory, "model"))
    connection = thanosql.connect(str(Path(directory, "models.db")))
    connection.execute("IMPORT MODEL m FROM ?", (str(Path(directory, "model")),))
    connection.close()
    noise = np.random.default_rng(0).normal(0, 0.1, 32_000)
    soundfile.write(Path(directory, "noise.wav"), noise, 16_000)


def load(directory: str) -> dict[str, Any]:
    import apsw

    from thanosql import speech
    from thanosql.speech import transcription
    from thanosql.speech.opening import opening  # noqa: F401 - not measured
    from thanosql.speech.recording import Recording
    from thanosql.store import models as store

    def work() -> Any:
        connection = apsw.Connection(str(Path(directory, "models.db")))
        models = store.ModelStore(connection)
        model = models.get("m")
        return speech.open_stored(
            speech.StoredFiles(
                model.sha256,
                lambda: models.read_settings(model),
                lambda: models.read(model),
            )
        )

    def first_text(recognizer: Any) -> str:
        clips = [Recording(str(Path(directory, "noise.wav")))]
        ((found,),) = transcription.transcribe(recognizer, clips, batch_size=1)
        return found.text or ""

    return _timed(work, first_text, lambda recognizer: recognizer.model)


def from_pretrained(directory: str) -> dict[str, Any]:
    import soundfile
    import torch
    import transformers

    def work() -> Any:
        return transformers.Wav2Vec2ForCTC.from_pretrained(Path(directory, "model"))

    def first_text(model: Any) -> str:
        processor = transformers.Wav2Vec2Processor.from_pretrained(
            Path(directory, "model")
        )
        samples, rate = soundfile.read(Path(directory, "noise.wav"), dtype="float32")
        inputs = processor(samples, sampling_rate=rate, return_tensors="pt")
        with torch.inference_mode():
            best = model(inputs.input_values).logits.argmax(-1)
        return str(processor.batch_decode(best)[0])

    return _timed(work, first_text, lambda model: model)


def store(directory: str) -> dict[str, Any]:
    import apsw

    from thanosql.store import models as store
    from thanosql.store.records import ModelRecord

    record = ModelRecord("m", "", "", 0, {})
    with tempfile.TemporaryDirectory(dir=directory) as aside:
        models = store.ModelStore(apsw.Connection(str(Path(aside, "models.db"))))
        return _timed(lambda: models.save(record, Path(directory, "model")))


def save_pretrained(directory: str) -> dict[str, Any]:
    from transformers import Wav2Vec2ForCTC

    model = Wav2Vec2ForCTC.from_pretrained(Path(directory, "model"))
    with tempfile.TemporaryDirectory(dir=directory) as aside:
        return _timed(lambda: model.save_pretrained(aside))


def _timed(
    work: Callable[[], Any],
    first_text: Callable[[Any], str] | None = None,
    model: Callable[[Any], Any] | None = None,
) -> dict[str, Any]:
    """Time `work`, then on to the first text, and sum up the model's weights."""
    import transformers
    from transformers import (  # noqa: F401 - imports are not measured
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
        Wav2Vec2Processor,
    )

    transformers.utils.logging.disable_progress_bar()
    began, cpu_began = time.perf_counter(), time.process_time()
    result = work()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    measured: dict[str, Any] = {"seconds": seconds, "cpu": cpu}
    if first_text is not None and model is not None:
        text = first_text(result)
        measured["first_seconds"] = time.perf_counter() - began
        measured["first_cpu"] = time.process_time() - cpu_began
        measured["text"] = text
        parameters = model(result).parameters()
        measured["sum"] = sum(float(each.detach().sum()) for each in parameters)
    return measured


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
