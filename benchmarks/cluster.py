"""What workers on a Ray cluster gain, what they cost, and what one database can feed.

    python benchmarks/cluster.py            a quarter of an hour, on two quiet cores
    python benchmarks/cluster.py --small    two minutes, a smaller model; a dry run
    python benchmarks/cluster.py --only predicting

Each part is a process of its own, with Ray nodes in processes of theirs:

reading     rows out of SQLite, as PREDICT reads them, and into Ray's object store
feeding     PREDICT with workers that only sleep, as long as a GPU would take
predicting  one worker beside none, two of a core each beside one; texts compared
building    two workers of a core each beside one, for BUILD; losses compared

The last two are measured in two processes at once as well, without workers, each with
half of the work and nothing to do with the other: more than that two workers cannot
gain here.

The model is a wav2vec2-base of random weights, the clips are 10 s of real recordings,
as FLAC in BLOBs. What a database can feed is told in GPUs that work at speeds which
others have published. Needs Ray.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import common
import compare
import soundfile

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from ray_nodes import Nodes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import apsw

    Found = dict[str, Any]

PACKAGES = ("ray", "torch", "transformers", "apsw", "soundfile")
RATE = 16_000
SECONDS = 10  # of a clip
BATCH = 16  # PREDICT's default
FORMATS = {  # bytes of a row
    "WAV, 16 kHz": 320_000,
    "FLAC": 170_000,
    "MP3, 64 kbit/s": 80_000,
    "a path": 60,
}
SPEEDS = {  # times real time, on the Open ASR leaderboard of May 2026
    "wav2vec2-base-960h": 686,
    "parakeet-ctc-1.1b": 2_729,
    "parakeet-tdt-0.6b-v2": 3_386,
}
MEMORY = 3 * 2**30  # of a node's object store: for a state of a training, 1.1 GB
NETWORK = 1.25e9  # bytes a second: 10 Gbit/s


PREDICT = "PREDICT USING m OPTIONS (batch_size=1{}) AS SELECT id, audio FROM clips"


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    bytes: int  # of all rows of a format
    sleepers: tuple[int, ...]
    layers: int  # of the model
    clips: int  # that are transcribed in a round
    rounds: int
    utterances: int  # that are trained on
    epochs: int


FULL = Size(200_000_000, (1, 4, 16), 12, 16, 3, 16, 2)
SMALL = Size(40_000_000, (1, 4), 1, 4, 1, 8, 1)
TRAINED = 8  # utterances of a batch, shared out among the workers


def main() -> None:
    """Run the parts, and print one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="a dry run")
    parser.add_argument("--only", choices=PARTS, help="this part alone")
    parser.add_argument("--output", type=Path, help="write the JSON here too")
    options = parser.parse_args()
    kind = "small" if options.small else "full"
    found = {
        name: run(name, kind)
        for name in PARTS
        if options.only is None or options.only == name
    }
    document = common.document(
        kind,
        packages=PACKAGES,
        settings={
            "clips": f"{SECONDS} s",
            "workers": "a core and a thread each, nodes of their own on this machine; "
            "fp32; warmed up by a statement before",
            "reading": f"rows of random bytes, batches of {BATCH}; first: the file is "
            "not in memory; again: it is",
            "feeding": "WAV in BLOBs; a worker sleeps as long as a GPU would take",
        },
        measurements=found,
        ratios=ratios(found),
        checks=checks(found),
    )
    text = json.dumps(document, indent=2)
    print(text)
    print(compare.table([document]), file=sys.stderr)
    if options.output is not None:
        options.output.write_text(text + "\n", encoding="utf-8")


def run(name: str, kind: str) -> Found:
    """Return what a part has found, in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--part", name, kind],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    found: Found = json.loads(done.stdout.splitlines()[-1])
    return found


def ratios(found: Found) -> list[common.Ratio]:
    """Return what workers gain and cost."""
    lines = []
    if "predicting" in found:
        seconds = found["predicting"]["seconds"]
        one, two, none = (seconds[name] for name in ("one", "two", "none"))
        lines += [
            ratio("PREDICT, time of one worker to none", one, none, 1.05, higher=False),
            ratio("PREDICT, two workers to one", one, two, 1.8, higher=True),
            ratio("PREDICT, two apart to one", none, seconds["apart"], 2, higher=True),
        ]
    if "building" in found:
        seconds = found["building"]["seconds"]
        one, two = seconds["one"], seconds["two"]
        none, apart = seconds["none"], seconds["apart"]
        lines += [
            ratio("BUILD, two workers to one", one, two, 1.6, higher=True),
            ratio("BUILD, two apart to one", none, apart, 2, higher=True),
        ]
    return lines


def ratio(
    name: str, ours: list[float], theirs: list[float], goal: float, *, higher: bool
) -> common.Ratio:
    """Return a ratio of seconds."""
    return common.ratio(name, ours, theirs, goal=goal, higher_is_better=higher)


def checks(found: Found) -> Found:
    """Return whether the answers agree."""
    lines: Found = {}
    if "predicting" in found:
        lines["PREDICT: texts are the same"] = found["predicting"]["same_texts"]
    if "building" in found:
        lines["BUILD: largest difference of a loss"] = found["building"]["difference"]
    return lines


# The parts: a folder to work in and a size in, figures out


def reading(directory: Path, size: Size) -> Found:
    """Measure rows out of SQLite, and into Ray's object store."""
    found: Found = {}
    with Nodes() as nodes:
        os.environ.update(nodes.environment)
        import ray  # not before: it reads the environment

        ray.init(nodes.address, log_to_driver=False, logging_level="ERROR")
        for name, length in FORMATS.items():
            count = min(10_000, size.bytes // length)
            path = directory / f"{length}.db"
            database = filled(path, length, count)
            put = [rows_a_second(database, count, ray.put) for _ in range(3)]
            again = [rows_a_second(database, count, len) for _ in range(3)]
            forget(path)
            first = rows_a_second(database, count, len)
            database.close()
            path.unlink()
            found[name] = {
                "bytes": length,
                "rows": count,
                "rows_a_second, first": first,
                "rows_a_second, again": statistics.median(again),
                "rows_a_second, again, into the object store": statistics.median(put),
            }
        ray.shutdown()
    return found


def filled(path: Path, length: int, count: int) -> apsw.Connection:
    """Return a database with a table of so many BLOBs, or texts for paths."""
    import apsw

    database = apsw.Connection(str(path))
    values = itertools.repeat(
        ("randomblob(?)" if length > 1_000 else "hex(randomblob(? / 2))", length), count
    )
    database.execute("BEGIN; CREATE TABLE clips (id INTEGER PRIMARY KEY, audio)")
    for call, argument in values:
        database.execute(f"INSERT INTO clips (audio) VALUES ({call})", (argument,))
    database.execute("COMMIT")
    return database


def forget(path: Path) -> None:
    """Have the system forget what it holds of a file in memory."""
    with path.open("rb") as file:
        os.fsync(file)
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def rows_a_second(
    database: apsw.Connection, count: int, use: Callable[[list[Any]], object]
) -> float:
    """Read all rows as PREDICT does and have each batch used."""
    from thanosql.execution.source import Source
    from thanosql.speech import Recording

    began = time.perf_counter()
    rows = iter(Source(database, "SELECT id, audio FROM clips", None))
    while batch := [Recording(audio) for _, audio in itertools.islice(rows, BATCH)]:
        use(batch)
    return count / (time.perf_counter() - began)


def feeding(directory: Path, size: Size) -> Found:
    """Measure PREDICT whose workers sleep; one with nothing to wait for tells most."""
    import thanosql
    from thanosql.cluster import crew

    length = FORMATS["WAV, 16 kHz"]
    count = size.bytes // length
    path = directory / "clips.db"
    filled(path, length, count).close()
    make_model(directory, 1, path)
    found: Found = {}
    most = size.sleepers[-1]
    with Nodes(most) as nodes:
        os.environ.update(nodes.environment)
        for name, speed in {**SPEEDS, "no wait": None}.items():
            crew.Worker = sleeping(0 if speed is None else SECONDS / speed)
            for workers in size.sleepers if speed else (most,):
                predict = (
                    "SELECT count(predicted) FROM (PREDICT USING m OPTIONS "
                    f"(workers={workers}, worker_cpus=1) AS SELECT * FROM clips)"
                )
                with closing(
                    thanosql.connect(path, ray_address=nodes.address)
                ) as connection:
                    connection.execute(predict).fetchone()  # all workers are up then
                    began = time.perf_counter()
                    (heard,) = connection.execute(predict).fetchone()
                    seconds = time.perf_counter() - began
                assert heard == count
                gained = count * SECONDS / seconds
                found[f"{name}, {workers} workers"] = {
                    "rows_a_second": count / seconds,
                    "share of what they can": speed and gained / (workers * speed),
                }
    return found


def sleeping(seconds: float) -> type:
    """Return a class of workers that sleep so long for each recording."""

    class Worker:
        def begin(self, _expected: str) -> str:
            import ray

            return str(ray.get_runtime_context().get_node_id())

        def open(self, *_: Any) -> None:
            pass

        def rest(self, _seconds: float) -> None:
            pass

        def transcribe(self, recordings: list[Any], *_: Any) -> Any:
            from thanosql.cluster.worker import Heard
            from thanosql.speech.results import Transcription

            time.sleep(seconds * len(recordings))
            return Heard([[Transcription(text="")] for _ in recordings], [])

    return Worker


def predicting(directory: Path, size: Size) -> Found:
    """Measure none, one and two workers in turn."""
    import torch

    import thanosql

    torch.set_num_threads(1)
    path = directory / "clips.db"
    make_model(directory, size.layers, path)
    texts: dict[str, list[str]] = {}
    with Nodes(1, 1, 1, memory=MEMORY) as nodes, ExitStack() as stack:
        os.environ.update(nodes.environment)
        works = {}
        for name, workers in (
            ("none", ""),
            ("one", ", workers=1, worker_cpus=1"),
            ("two", ", workers=2, worker_cpus=1"),
        ):
            # Each of its own, which keeps its workers for the next round.
            connection = thanosql.connect(path, ray_address=nodes.address)
            stack.enter_context(closing(connection))
            if name == "none":
                make_clips(connection, size.clips)

            def work(
                name: str = name, workers: str = workers, connection: Any = connection
            ) -> None:
                rows = connection.execute(f"{PREDICT.format(workers)} ORDER BY id")
                texts[name] = [text for *_, text in rows]

            work()  # loads the model, starts the workers
            works[name] = work
        seconds = common.in_turn(works, size.rounds)
    seconds["apart"] = apart(path, PREDICT, size.rounds)
    first, *others = texts.values()
    return {
        "seconds": seconds,
        "audio_seconds": SECONDS * size.clips,
        "same_texts": all(each == first for each in others),
        "different_texts": len(set(first)),
    }


def building(directory: Path, size: Size) -> Found:
    """Measure a training by one and by two workers; seconds are those of the epochs."""
    import torch

    import thanosql

    torch.set_num_threads(1)
    path = directory / "clips.db"
    make_model(directory, size.layers, path)
    seconds: dict[str, list[float]] = {}
    losses: dict[str, list[float]] = {}
    with Nodes(1, 1, memory=MEMORY) as nodes:
        os.environ.update(nodes.environment)
        connection = thanosql.connect(path, ray_address=nodes.address)
        make_clips(connection, size.utterances)
        for name, workers in (
            ("none", ""),
            ("one", ", workers=1, worker_cpus=1"),
            ("two", ", workers=2, worker_cpus=1"),
        ):
            epochs = trained(connection, workers, TRAINED, size.epochs, "TRUE")
            seconds[name] = [sum(each["seconds"] for each in epochs)]
            losses[name] = [each["train_loss"] for each in epochs]
        connection.close()
    seconds["apart"] = apart(path, "BUILD", size.epochs)
    pairs = zip(losses["none"], losses["two"], strict=True)
    return {
        "seconds": seconds,
        "audio_seconds": SECONDS * size.utterances * size.epochs,
        "losses": losses,
        "difference": max(abs(a - b) for a, b in pairs),
    }


def trained(
    connection: Any, workers: str, batch: int, epochs: int, which: str
) -> list[dict[str, Any]]:
    """Train on the clips that a condition chooses; return the epochs."""
    rows = connection.execute(
        f"BUILD MODEL n USING m OPTIONS (batch_size=?, epochs=?{workers}, "
        "validation=0, overwrite=TRUE) "
        f"AS SELECT audio, text FROM clips WHERE {which}",
        (batch, epochs),
    )
    names = [column[0] for column in rows.description]
    return [dict(zip(names, row, strict=True)) for row in rows]


def apart(path: Path, statement: str, rounds: int) -> list[float]:
    """Return the seconds of two processes that start at once, the means of each round.

    Each does half of the work, and has a database of its own.
    """
    processes = []
    for number in range(2):
        copy = path.with_name(f"apart{number}.db")
        shutil.copy(path, copy)
        arguments = (statement, str(copy), str(number), str(rounds))
        processes.append(
            subprocess.Popen(
                [sys.executable, __file__, "--worker", *arguments],
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    answers = [process.communicate()[0] for process in processes]
    assert not any(process.returncode for process in processes)
    each = [json.loads(answer.splitlines()[-1]) for answer in answers]
    return [statistics.mean(pair) for pair in zip(*each, strict=True)]


def work_apart(statement: str, path: str, number: str, rounds: str) -> None:
    """Do half of the work in this process; print the seconds of each round."""
    import torch

    import thanosql

    torch.set_num_threads(1)
    mine = f"id % 2 = {number}"
    with closing(thanosql.connect(path)) as connection:
        if statement == "BUILD":
            epochs = trained(connection, "", TRAINED // 2, int(rounds), mine)
            seconds = [sum(each["seconds"] for each in epochs)]
        else:

            def work() -> None:
                query = f"{statement.format('')} WHERE {mine}"
                connection.execute(query).fetchall()

            work()  # loads the model
            seconds = common.in_turn({"": work}, int(rounds))[""]
    print(json.dumps(seconds))


def make_model(directory: Path, layers: int, path: Path) -> None:
    """Store a wav2vec2-base of random weights as `m`."""
    import training

    import thanosql

    training.make_base(directory / "base", layers)
    with thanosql.connect(path) as connection:
        connection.execute("IMPORT MODEL m FROM ?", (str(directory / "base"),))
    connection.close()


def make_clips(connection: Any, count: int) -> None:
    """Store clips of real recordings, and texts that fit their length."""
    connection.execute("CREATE TABLE clips (id INTEGER PRIMARY KEY, audio, text)")
    connection.executemany(
        "INSERT INTO clips (audio, text) VALUES (?, ?)",
        zip(sliced(count), itertools.repeat("THE QUICK BROWN FOX"), strict=False),
    )
    connection.commit()


def sliced(count: int) -> Iterator[bytes]:
    """Yield test recordings, joined and cut into clips, as FLAC."""
    import numpy as np

    with tempfile.TemporaryDirectory() as directory:
        samples = np.zeros(0)
        clips = common.clips("test", None, Path(directory))
        for clip in itertools.cycle(clips):
            while len(samples) >= SECONDS * RATE:
                file = io.BytesIO()
                soundfile.write(file, samples[: SECONDS * RATE], RATE, format="FLAC")
                yield file.getvalue()
                samples = samples[SECONDS * RATE :]
                count -= 1
                if not count:
                    return
            more, rate = soundfile.read(clip.path)
            assert rate == RATE, clip.path
            samples = np.concatenate([samples, more])


PARTS = {each.__name__: each for each in (reading, feeding, predicting, building)}

if __name__ == "__main__":
    if sys.argv[1:2] == ["--part"]:
        with tempfile.TemporaryDirectory() as name:
            part = PARTS[sys.argv[2]]
            measured = part(Path(name), FULL if sys.argv[3] == "full" else SMALL)
        print(json.dumps(measured))
    elif sys.argv[1:2] == ["--worker"]:
        work_apart(*sys.argv[2:])
    else:
        main()
