"""Break trainings off at many moments, in real processes: moments in, findings out.

One process imports torch and forks a child for each training; a line of JSON a moment
tells what was found after it.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import torch

torch.set_num_threads(1)  # before a fork there must be no pool of threads

import thanosql  # noqa: E402
from thanosql.execution import source  # noqa: E402
from thanosql.execution.progress import Progress  # noqa: E402
from thanosql.speech import transcription  # noqa: E402, F401
from thanosql.speech.opening import opening  # noqa: E402, F401
from thanosql.speech.training import checkpoint, train  # noqa: E402, F401
from thanosql.store import models as store  # noqa: E402

STAGES = ("reading", "examine", "train", "validate", "checkpoint", "storing")
BUILD = (
    "BUILD MODEL m USING '{base}' OPTIONS (overwrite=TRUE, resume={resume}, epochs=4, "
    "batch_size=3, learning_rate=0.003, validation=0.3) AS SELECT * FROM calls"
)


def wrapped(function, stage, mark):
    def inner(*arguments, **named):
        mark(stage)
        return function(*arguments, **named)

    return inner


def mark_stages(shared):
    """Have every beginning of a stage counted in shared memory."""

    def mark(stage):
        if stage in STAGES:
            place = STAGES.index(stage)
            shared[place] = min(255, shared[place] + 1)

    source.KeptRows.__init__ = wrapped(source.KeptRows.__init__, "reading", mark)
    store.ModelStore.save = wrapped(store.ModelStore.save, "storing", mark)
    write = checkpoint._write
    checkpoint._write = wrapped(write, "checkpoint", mark)
    show = Progress.__call__

    def showing(self, stage, *numbers, **facts):
        mark(stage)
        show(self, stage, *numbers, **facts)

    Progress.__call__ = showing


def build(path, base, resume):
    connection = thanosql.connect(path)
    try:
        connection.execute(BUILD.format(base=base, resume=resume)).fetchall()
    finally:
        connection.close()


def found(path):
    """Return what another process sees in the database."""
    connection = thanosql.connect(path)
    connection.execute("LIST MODELS").fetchall()  # which finds out who was killed
    result = {
        "integrity": connection.execute("PRAGMA integrity_check").fetchone()[0],
        "model": connection.execute(
            "SELECT sha256 FROM thanosql_models WHERE name = 'm'"
        ).fetchone()[0],
        "texts": connection.execute(
            "SELECT id, predicted FROM (PREDICT USING m AS SELECT * FROM calls)"
        ).fetchall(),
        "statuses": [
            status
            for (status,) in (
                connection.execute("SELECT status FROM thanosql_runs ORDER BY id")
                if connection.execute(
                    "SELECT 1 FROM sqlite_schema WHERE name = 'thanosql_runs'"
                ).fetchone()
                else ()
            )
        ],
        "orphans": sum(
            connection.execute(query).fetchone()[0]
            for query in (
                "SELECT count(*) FROM thanosql_files WHERE model_id NOT IN "
                "(SELECT id FROM thanosql_models)",
                "SELECT count(*) FROM thanosql_epochs WHERE run_id NOT IN "
                "(SELECT id FROM thanosql_runs)",
                "SELECT count(*) FROM thanosql_rows WHERE run_id NOT IN "
                "(SELECT id FROM thanosql_runs)",
                "SELECT count(*) FROM thanosql_models WHERE id NOT IN "
                "(SELECT model_id FROM thanosql_files)",
            )
        ),
        "folders": len(list(Path(f"{path}-thanosql").glob("*/identity.json"))),
    }
    connection.close()
    return result


def forked(work):
    """Run `work` in a child; return its process id and where its answer comes from."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    try:
        os.close(reading)
        answer = work()
        os.write(writing, json.dumps(answer).encode())
    except BaseException:
        os.write(writing, json.dumps(traceback.format_exc()).encode())
    finally:
        os._exit(0)


def answer(work):
    child, reading = forked(work)
    with os.fdopen(reading, "rb") as file:
        content = file.read()
    os.waitpid(child, 0)
    return json.loads(content)


def break_off(path, base, stage, occurrence, delay, number):
    """Send a signal `delay` seconds after a stage has begun so many times."""
    shared = mmap.mmap(-1, len(STAGES))

    def work():
        mark_stages(shared)
        build(path, base, resume=True)

    child, reading = forked(work)
    place = STAGES.index(stage)
    while shared[place] < occurrence and os.waitpid(child, os.WNOHANG)[0] == 0:
        time.sleep(0.0005)
    time.sleep(delay)
    try:
        os.kill(child, number)
        os.waitpid(child, 0)
    except (ProcessLookupError, ChildProcessError):
        pass  # it was done before
    with os.fdopen(reading, "rb") as file:
        content = file.read()
    return json.loads(content) if content else None


def tell(finding):
    sys.stdout.write(json.dumps(finding) + "\n")
    sys.stdout.flush()


def main(template, base, moments, seed):
    draw = random.Random(seed)
    folder = Path(template).parent
    path = folder / "expected.db"
    shutil.copy(template, path)
    # Here, so that what is imported on the way is there in every child.
    warm = folder / "warm.db"
    shutil.copy(template, warm)
    build(warm, base, resume=False)
    found(warm)
    before = answer(lambda: found(path))
    answer(lambda: build(path, base, resume=False))
    tell({"before": before, "expected": answer(lambda: found(path))})
    for moment in range(moments):
        path = folder / f"moment{moment}.db"
        shutil.copy(template, path)
        stage = STAGES[moment % len(STAGES)]
        occurrence = {"train": 8, "validate": 4, "checkpoint": 4}.get(stage, 1)
        number = signal.SIGINT if moment % 5 == 4 else signal.SIGKILL
        said = break_off(
            path,
            base,
            stage,
            draw.randint(1, occurrence),
            draw.uniform(0, 0.03),
            number,
        )
        broken = answer(lambda path=path: found(path))
        finished = answer(lambda path=path: build(path, base, resume=True))
        resumed = answer(lambda path=path: found(path))
        tell(
            {
                "stage": stage,
                "signal": number.name,
                "said": said,
                "broken": broken,
                "finished": finished,
                "resumed": resumed,
            }
        )
        path.unlink()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
