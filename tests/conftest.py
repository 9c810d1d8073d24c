"""Fixtures that every test file may use: connections, real recordings."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest
import torch
from tones import tones
from toys import fine_tuned

import thanosql
from thanosql.driver import adapters
from thanosql.frontends import pytest_plugin

pytest_plugins = ["pytester"]

# The models here are so small that a second thread only gets in the way, and on a
# busy machine waits for its turn at every step.
torch.set_num_threads(1)

SPEECH = Path(__file__).parents[2] / "shared" / "speech"


def pytest_configure(config):
    # Where the package is installed, its entry point has done it.
    if not config.pluginmanager.has_plugin("thanosql"):
        config.pluginmanager.register(pytest_plugin, "thanosql")


def pytest_collection_modifyitems(items):
    # The longest first, so that workers side by side end at about the same time.
    def seconds(item):
        thorough = item.get_closest_marker("thorough")
        return 0 if thorough is None else thorough.kwargs["seconds"]

    items.sort(key=seconds, reverse=True)


@pytest.fixture(autouse=True)
def _adapters_of_the_test_alone():
    """Forget what a test registers, which is for the whole process."""
    kept = [(each, dict(each)) for each in (adapters._adapters, adapters._converters)]
    yield
    for registry, before in kept:
        registry.clear()
        registry.update(before)
    adapters._chosen.cache_clear()


@pytest.fixture
def connection(thanosql_memory):
    return thanosql_memory


@pytest.fixture
def cursor(connection):
    cursor = connection.cursor()
    yield cursor
    cursor.close()


@pytest.fixture(scope="session")
def speech():
    """Return a function that reads a manifest: (path, text, split) for each clip."""
    if not SPEECH.exists():
        pytest.skip(f"the recordings are not here: {SPEECH}")

    def clips(folder: str, split: str | None = None) -> list[tuple[str, str]]:
        with (SPEECH / folder / "manifest.csv").open(encoding="utf-8") as file:
            return [
                (str(SPEECH / folder / row["audio"]), row["text"])
                for row in csv.DictReader(file)
                if split is None or row["split"] == split
            ]

    return clips


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """Return a directory with a small fine-tuned-looking model of random weights."""
    return fine_tuned(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def _calls(tmp_path_factory, base):
    path = tmp_path_factory.mktemp("database") / "calls.db"
    connection = thanosql.connect(path)
    connection.execute("CREATE TABLE calls (id INTEGER PRIMARY KEY, audio, text TEXT)")
    words = ["abc", "bad cab", "face", "a", "head bed", "fade", "gabe", "deaf ace"]
    connection.executemany(
        "INSERT INTO calls (audio, text) VALUES (?, ?)",
        [(tones(text, seed=i), text) for i, text in enumerate(words)],
    )
    connection.commit()
    connection.execute("IMPORT MODEL m FROM ?", (str(base),))
    connection.close()
    return path


@pytest.fixture
def calls(_calls, tmp_path):
    """Return a connection to a file of its own: table calls (8 rows), model m."""
    path = tmp_path / "calls.db"
    shutil.copy(_calls, path)
    connection = thanosql.connect(path)
    yield connection
    connection.close()
