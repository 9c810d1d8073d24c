"""Workers, nodes and heads that are killed, in real processes, at seeded moments."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from queue import SimpleQueue

import pytest
import torch
from ray_nodes import PATIENCE, Nodes
from tones import spoken, tones
from toys import parakeet

import thanosql

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the nodes need 127.0.0.2"
)
pytest.importorskip("ray", reason="the extra [ray] is not installed")

ROWS = 360
PREDICT = (
    "SELECT id, predicted FROM (PREDICT USING m OPTIONS (batch_size=2{}) "
    "AS SELECT id, audio FROM calls ORDER BY id)"
)
ALONE = PREDICT.format("")
WORKERS = PREDICT.format(", workers=2, worker_cpus=1")
INSERT = f"INSERT INTO texts {WORKERS}"


class Driver:
    """A driver in a process of its own; without nodes, it has a Ray of its own."""

    def __init__(self, path, nodes=None, log=None):
        environment = os.environ if nodes is None else nodes.environment
        self._process = subprocess.Popen(
            [
                *(sys.executable, Path(__file__).with_name("driving.py")),
                *(path, *([] if nodes is None else [nodes.address])),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
            text=True,
            start_new_session=True,
        )
        self.last = None  # that it has told
        self._told = SimpleQueue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self):
        with self._process.stdout as told:
            for line in told:
                self.last = json.loads(line)
                self._told.put(self.last)
        self.last = {"died": self._process.wait()}
        self._told.put(self.last)

    def begin(self, statement):
        self.last = None
        self._process.stdin.write(json.dumps(statement) + "\n")
        self._process.stdin.flush()

    def has_ended(self):
        """Return whether it has told the end of the statement, or an error."""
        return self.last is not None and "row" not in self.last

    def findings(self):
        """Yield what it tells of a statement, up to its end or error."""
        while "row" in (finding := self._told.get()):
            yield finding
        yield finding

    def finish(self, statement):
        self.begin(statement)
        return rows_and_end(self.findings())

    def press_ctrl_c(self):
        """Send what a terminal sends to all processes of its foreground."""
        os.killpg(self._process.pid, signal.SIGINT)

    def close(self):
        """End it, and return with which status it ended."""
        self._process.stdin.close()
        self._listener.join()
        return self._process.wait()


def rows_and_end(findings):
    rows = [tuple(each["row"]) if "row" in each else each for each in findings]
    return rows[:-1], rows[-1]


def begun(driver, is_written, draw):
    """Begin a statement; return its first rows, if it gives any, and what follows."""
    driver.begin(INSERT if is_written else WORKERS)
    findings = driver.findings()
    first = [] if is_written else list(islice(findings, draw.randrange(ROWS // 4)))
    assert all("row" in each for each in first), first[-1]
    time.sleep(draw.uniform(0, 0.2))
    return [tuple(each["row"]) for each in first], findings


@contextmanager
def driving(path, nodes=None, log=None):
    driver = Driver(path, nodes, log)
    try:
        yield driver
    finally:
        driver.close()


@pytest.fixture(scope="module")
def archive(base, tmp_path_factory):
    """Return a database with a model, recordings of uneven length, and their rows."""
    path = tmp_path_factory.mktemp("archive") / "archive.db"
    draw = random.Random(0)
    with thanosql.connect(path) as connection:
        connection.execute("IMPORT MODEL m FROM ?", (str(base),))
        connection.execute("CREATE TABLE calls (id INTEGER PRIMARY KEY, audio BLOB)")
        connection.execute("CREATE TABLE texts (id INTEGER, predicted TEXT)")
        for i in range(ROWS):
            text = "abcdefgh "[: draw.randint(1, 9)] * (20 if i % 10 == 3 else 1)
            connection.execute(
                "INSERT INTO calls (audio) VALUES (?)", (tones(text, seed=i),)
            )
        connection.commit()
        rows = connection.execute(ALONE).fetchall()
    connection.close()
    assert len({text for _, text in rows}) > 10
    return path, rows


@pytest.fixture
def path(archive, tmp_path):
    return shutil.copy(archive[0], tmp_path / "calls.db")


def somebody_at_work(nodes, alive, driver):
    """Return the process ids of workers at work, as soon as there are any."""
    end = time.monotonic() + PATIENCE
    while not (found := [pid for node in alive for pid in nodes.workers(node)]):
        assert not driver.has_ended(), driver.last
        assert time.monotonic() < end, "no worker is at work"
        time.sleep(0.001)
    return found


@pytest.mark.thorough(seconds=70)
def test_rows_are_the_same_whichever_workers_and_nodes_are_killed(archive, path):
    _, expected = archive
    draw = random.Random(11)
    with Nodes(1, 1) as nodes, driving(path, nodes) as driver:
        alive = [1, 2]
        for moment in range(16):
            is_written = moment % 4 == 3
            first, findings = begun(driver, is_written, draw)
            workers = somebody_at_work(nodes, alive, driver)
            if moment % 3 == 2:
                node = draw.choice(alive)
                nodes.kill(node)
                alive = [each for each in alive if each != node] + [nodes.add(1)]
            else:
                os.kill(draw.choice(workers), signal.SIGKILL)
            rows, end = rows_and_end(findings)
            assert end == {"end": True}, moment
            if is_written:
                rows, _ = driver.finish("SELECT * FROM texts ORDER BY id")
                driver.finish("DELETE FROM texts")
            assert first + rows == expected, moment
            nodes.wait_until_joined(alive[-1])  # or there is no room for two


@pytest.mark.thorough(seconds=20)
@pytest.mark.parametrize("by_client", [True, False])
@pytest.mark.parametrize("moment", range(2))
def test_a_lost_head_ends_the_statement_and_leaves_the_database(
    archive, path, moment, by_client
):
    if by_client:
        pytest.importorskip("grpc", reason="addresses with ray:// need ray[client]")
    _, expected = archive
    draw = random.Random(moment)
    is_written = moment % 2 == 1
    with Nodes(1, 1, by_client=by_client) as nodes, driving(path, nodes) as driver:
        driver.finish("INSERT INTO texts VALUES (0, 'before')")
        first, findings = begun(driver, is_written, draw)
        somebody_at_work(nodes, [1, 2], driver)
        nodes.kill(0)
        rows, end = rows_and_end(findings)
        assert first + rows == expected[: len(first + rows)]
        if by_client:
            assert end.get("error") == "OperationalError", end
            assert "Ray cluster" in end["message"]
            left = driver
            if moment == 0:
                nodes.close()
                with Nodes(1, 1, by_client=True, after=nodes):
                    assert driver.finish(WORKERS) == (expected, {"end": True})
        else:
            # Ray ends a process that was connected to the node of its own machine, and
            # lost it, unless that process notices first.
            assert end == {"died": 1} or end.get("error") == "OperationalError", end
            left = Driver(path, nodes)
        assert left.finish("SELECT * FROM texts") == ([(0, "before")], {"end": True})
        assert left.finish("PRAGMA integrity_check")[0] == [("ok",)]
        assert left.finish(ALONE) == (expected, {"end": True})
        assert left.close() == 0


# Trainings

BUILD = (
    "BUILD MODEL m USING '{}' OPTIONS (epochs=60, batch_size=8, learning_rate=0.003, "
    "validation=0.2{}) AS SELECT * FROM s"
)
TOGETHER = ", workers=2, worker_cpus=1"
RESULTS = (0, 1, 2, 3, 4, 5, 6, 7, 9)  # columns of an epoch, all but its seconds


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """Return a base, a database with rows, and the epochs of one process alone."""
    folder = tmp_path_factory.mktemp("training")
    torch.manual_seed(1)
    parakeet(folder / "base")
    path = folder / "training.db"
    with thanosql.connect(path) as connection:
        connection.execute("CREATE TABLE s (audio BLOB, text TEXT)")
        connection.executemany("INSERT INTO s VALUES (?, ?)", spoken(40, letters="abc"))
        connection.commit()
        shutil.copy(path, folder / "rows.db")
        epochs = connection.execute(BUILD.format(folder / "base", "")).fetchall()
    connection.close()
    return folder / "base", folder / "rows.db", epochs


@pytest.fixture
def to_train(training, tmp_path):
    """Return a function that makes the statement, its database, and the epochs."""
    base, rows, epochs = training
    path = shutil.copy(rows, tmp_path / "calls.db")
    return lambda more: BUILD.format(base, more), path, epochs


def same(epochs, expected):
    assert len(epochs) == len(expected)
    for found, wanted in zip(epochs, expected, strict=True):
        assert [found[i] for i in RESULTS] == pytest.approx(
            [wanted[i] for i in RESULTS], abs=1e-4
        )


def checkpoints(path):
    return [*Path(f"{path}-thanosql").glob("*/checkpoint.safetensors")]


def until_checkpointed(path, driver):
    end = time.monotonic() + PATIENCE
    while not checkpoints(path):
        assert not driver.has_ended(), driver.last
        assert time.monotonic() < end, "no epoch has ended"
        time.sleep(0.01)


@pytest.mark.thorough(seconds=40)
@pytest.mark.parametrize("is_replaced", [True, False])
def test_a_training_goes_on_when_a_node_is_killed(to_train, tmp_path, is_replaced):
    build, path, expected = to_train
    log = tmp_path / "log"
    with Nodes(1, 1) as nodes, log.open("w") as said, driving(path, nodes, said) as own:
        own.begin(build(TOGETHER))
        until_checkpointed(path, own)
        nodes.kill(random.Random(is_replaced).choice([1, 2]))
        if is_replaced:
            nodes.add(1)
        assert checkpoints(path), "it had ended before"
        epochs, end = rows_and_end(own.findings())
    assert end == {"end": True}
    same(epochs, expected)
    assert "goes on from its last checkpoint, with" in log.read_text()


@pytest.mark.thorough(seconds=30)
@pytest.mark.parametrize("by_client", [True, False])
def test_a_lost_head_leaves_a_training_to_resume_and_no_model(to_train, by_client):
    if by_client:
        pytest.importorskip("grpc", reason="addresses with ray:// need ray[client]")
    build, path, expected = to_train
    with Nodes(1, 1, by_client=by_client) as nodes, driving(path, nodes) as driver:
        driver.begin(build(TOGETHER))
        until_checkpointed(path, driver)
        nodes.kill(0)
        epochs, end = rows_and_end(driver.findings())
        assert epochs == []
        if by_client:
            assert end.get("error") == "OperationalError", end
            assert "Ray cluster" in end["message"]
        else:  # as above
            assert end == {"died": 1} or end.get("error") == "OperationalError", end
    with driving(path) as left:
        assert left.finish("LIST MODELS") == ([], {"end": True})
        assert left.finish("PRAGMA integrity_check")[0] == [("ok",)]
        assert checkpoints(path)
        epochs, end = left.finish(build(", resume=TRUE"))
        assert end == {"end": True}
        same(epochs, expected)


@pytest.mark.thorough(seconds=30)
def test_ctrl_c_in_a_training_of_workers_leaves_it_to_resume(to_train):
    build, path, expected = to_train
    with driving(path) as driver:
        driver.begin(build(TOGETHER))
        until_checkpointed(path, driver)
        driver.press_ctrl_c()
        epochs, end = rows_and_end(driver.findings())
        assert (epochs, end.get("error")) == ([], "KeyboardInterrupt")
        (folder,) = {each.parent for each in checkpoints(path)}
        assert driver.finish("LIST MODELS") == ([], {"end": True})
        epochs, end = driver.finish(build(", resume=TRUE, workers=1, worker_cpus=1"))
        assert end == {"end": True}
        same(epochs, expected)
        assert not folder.exists()
        rows, _ = driver.finish("SELECT status FROM thanosql_runs")
        assert rows == [("stored",)]
        assert driver.close() == 0
