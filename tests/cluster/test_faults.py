"""Workers, nodes and heads that are killed, in real processes, at seeded moments."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pytest
from ray_nodes import Nodes
from tones import tones

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
    """A driver in a process of its own."""

    def __init__(self, path, nodes):
        self._process = subprocess.Popen(
            [
                *(sys.executable, Path(__file__).with_name("driving.py")),
                *(path, nodes.address),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**nodes.environment, "PYTHONPATH": os.pathsep.join(sys.path)},
            text=True,
        )

    def begin(self, statement):
        self._process.stdin.write(json.dumps(statement) + "\n")
        self._process.stdin.flush()

    def findings(self):
        """Yield what it tells of a statement, up to its end or error."""
        for line in self._process.stdout:
            finding = json.loads(line)
            yield finding
            if "row" not in finding:
                return
        yield {"died": self._process.wait()}

    def finish(self, statement):
        self.begin(statement)
        return rows_and_end(self.findings())

    def close(self):
        """End it, and return with which status it ended."""
        self._process.stdin.close()
        self._process.stdout.close()
        return self._process.wait()


def rows_and_end(findings):
    rows = [tuple(each["row"]) if "row" in each else each for each in findings]
    return rows[:-1], rows[-1]


@contextmanager
def driving(path, nodes):
    driver = Driver(path, nodes)
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


def somebody_at_work(nodes, alive):
    """Return the process ids of workers at work, as soon as there are any."""
    end = time.monotonic() + 60
    while not (found := [pid for node in alive for pid in nodes.workers(node)]):
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
            driver.begin(INSERT if is_written else WORKERS)
            findings = driver.findings()
            begun = []
            if not is_written:
                some = islice(findings, draw.randrange(ROWS // 4))
                begun += [tuple(each["row"]) for each in some]
            time.sleep(draw.uniform(0, 0.2))
            workers = somebody_at_work(nodes, alive)
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
            assert begun + rows == expected, moment


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
        driver.begin(INSERT if is_written else WORKERS)
        findings = driver.findings()
        begun = []
        if not is_written:
            some = islice(findings, draw.randrange(ROWS // 4))
            begun += [tuple(each["row"]) for each in some]
        time.sleep(draw.uniform(0, 0.2))
        somebody_at_work(nodes, [1, 2])
        nodes.kill(0)
        rows, end = rows_and_end(findings)
        assert begun + rows == expected[: len(begun + rows)]
        if by_client:
            assert end.get("error") == "OperationalError", end
            assert "Ray cluster" in end["message"]
            left = driver
        else:
            # Ray ends a process that was connected to the node of its own machine, and
            # lost it, unless that process notices first.
            assert end == {"died": 1} or end.get("error") == "OperationalError", end
            left = Driver(path, nodes)
        assert left.finish("SELECT * FROM texts") == ([(0, "before")], {"end": True})
        assert left.finish("PRAGMA integrity_check")[0] == [("ok",)]
        assert left.finish(ALONE) == (expected, {"end": True})
        assert left.close() == 0
