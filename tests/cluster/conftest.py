"""One Ray for all tests of a run, with two cores, and a database to transcribe."""

from __future__ import annotations

import os

import pytest
from ray_nodes import descendants, title
from tones import tones

import thanosql

WORDS = ["abc", "bad cab", "face", "a", "head bed", "fade", "gabe", "deaf ace"]


@pytest.fixture(scope="session")
def ray():
    ray = pytest.importorskip("ray", reason="the extra [ray] is not installed")
    ray.init(
        "local",
        num_cpus=2,
        num_gpus=0,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield ray
    ray.shutdown()


@pytest.fixture(scope="session")
def archive(ray, base, tmp_path_factory):
    """Return a connection with model m and table calls, of 24 rows; not to be changed.

    It is the same for all tests, so that its workers need not start again.
    """
    connection = thanosql.connect(":memory:")
    connection.execute("CREATE TABLE calls (id INTEGER PRIMARY KEY, audio, text TEXT)")
    connection.executemany(
        "INSERT INTO calls (audio, text) VALUES (?, ?)",
        [(tones(text, seed=i), text) for i, text in enumerate(WORDS * 3)],
    )
    connection.commit()
    connection.execute("IMPORT MODEL m FROM ?", (str(base),))
    yield connection
    connection.close()


@pytest.fixture
def worker_pids(ray):
    """Return a function that returns the processes of the workers that are there."""

    def pids(kind: str = "ray::Worker") -> list[int]:
        return [pid for pid in descendants(os.getpid()) if title(pid).startswith(kind)]

    return pids
