"""Fixtures that every test file may use: connections, real recordings."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import thanosql

SPEECH = Path(__file__).parents[2] / "shared" / "speech"


@pytest.fixture
def connection():
    with thanosql.connect(":memory:") as connection:
        yield connection
    connection.close()


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
