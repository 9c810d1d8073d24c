"""How PREDICT's cost with Whisper grows: over more clips, and over a longer recording.

    python benchmarks/whisper_scaling.py          50 and 200 clips, 6 and 60 minutes
    python benchmarks/whisper_scaling.py --full   50 and 1 000 clips too

WhisperTinyEn reads real test clips, the same fifty over and over so that each case has
the same lengths, and the same fifty joined to one recording. Every case runs in a
process of its own, which tells its seconds and its highest memory. The texts are
compared too: a recording joined of clips must read as they do.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import common
import scaling
import soundfile

FEWEST = 50  # clips
BATCH = 8
PAUSE = 0.5  # seconds of silence after each clip of a joined recording
RATE = 16_000


def main() -> None:
    """Measure each case, and print one JSON object."""
    options = common.arguments(__doc__)
    cases = {
        "predict_clips": [FEWEST, 1_000 if options.full else 200],
        "predict_minutes": [6, 60],
    }
    measurements: dict[str, Any] = {}
    ratios: list[common.Ratio] = []
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run([sys.executable, __file__, "prepare", directory], check=True)
        for name, sizes in cases.items():
            found = [scaling.case(name, size, directory, __file__) for size in sizes]
            measurements[name] = found
            ratios += scaling.compared(name, found)
    hour, clips = (measurements[name][-1]["wer"] for name in reversed(cases))
    common.report(
        options,
        packages=["torch", "transformers", "apsw", "soundfile"],
        settings={"batch_size": BATCH, "model": "WhisperTinyEn, fp32"},
        measurements=measurements,
        ratios=ratios,
        checks={
            "word error rate of the clips": clips,
            "of the hour joined of them": hour,
        },
    )


def prepare(directory: Path) -> None:
    """Store the model: to do so takes more memory than to use it."""
    import thanosql

    with thanosql.connect(directory / "models.db") as connection:
        connection.execute("GET MODEL WhisperTinyEn OPTIONS (model_name='m')")


def connected(directory: Path, rows: list[str]) -> Any:
    """Return a connection with the model and a table of recordings."""
    import thanosql

    connection = thanosql.connect(directory / "models.db")
    connection.execute("CREATE TEMPORARY TABLE clips (audio)")
    connection.executemany("INSERT INTO clips VALUES (?)", [(row,) for row in rows])
    connection.commit()
    return connection


def predict_clips(directory: Path, count: int) -> dict[str, Any]:
    """Read so many clips."""
    clips = list(islice(cycle(common.clips("test", FEWEST, directory)), count))
    connection = connected(directory, [str(clip.path) for clip in clips])
    return judged(connection, [clip.text for clip in clips], clips[0].path)


def predict_minutes(directory: Path, minutes: int) -> dict[str, Any]:
    """Read one recording of so many minutes."""
    clips = common.clips("test", FEWEST, directory)
    path, seconds, texts = directory / f"{minutes}.wav", 0.0, []
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16") as joined:
        for clip in cycle(clips):
            if seconds > 60 * minutes:
                break
            samples, _ = soundfile.read(clip.path, dtype="float32")
            joined.write(samples)
            joined.write([0.0] * round(PAUSE * RATE))
            seconds += clip.seconds + PAUSE
            texts.append(clip.text)
    connection = connected(directory, [str(path)])
    return judged(connection, [" ".join(texts)], clips[0].path)


def judged(connection: Any, references: list[str], first: Path) -> dict[str, Any]:
    """Return what PREDICT took, the highest memory, and the word error rate.

    first: a clip to begin with, so that the model is open.
    """
    from thanosql.speech.metrics import word_errors
    from thanosql.speech.normalization import NORMALIZERS

    def predict(query: str) -> list[str]:
        options = f"batch_size={BATCH}, precision='fp32'"
        rows = connection.execute(f"PREDICT USING m OPTIONS ({options}) AS {query}")
        return [row[-1] for row in rows]

    predict(f"SELECT '{first}' AS audio")  # opens the model
    began, cpu_began = time.perf_counter(), time.process_time()
    texts = predict("SELECT audio FROM clips")
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    normalize = NORMALIZERS["basic"]
    errors = word_errors(
        [normalize(text) for text in references], [normalize(text) for text in texts]
    )
    return {
        "texts": len(texts),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_mb": peak,
        "wer": errors.rate,
    }


_CASES = {each.__name__: each for each in (predict_clips, predict_minutes)}

if __name__ == "__main__":
    if sys.argv[1:2] == ["prepare"]:
        prepare(Path(sys.argv[2]))
    elif sys.argv[1:] and sys.argv[1] in _CASES:
        print(json.dumps(_CASES[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))))
    else:
        main()
