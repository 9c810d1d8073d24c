"""pytest fixtures for code that uses thanosql: databases, utterances, a trained model.

    def test_calls_are_transcribed(thanosql_trained):
        rows = my_code.transcribe(thanosql_trained, model="tiny")

pytest imports this file in every run of everybody who has thanosql installed, so even
the driver is imported by the fixtures only, and torch by the first that needs a model.
"""

from __future__ import annotations

import json
import random
import shutil
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from thanosql.driver.connection import Connection

_UTTERANCES = 60
_SHAPE = {
    "model_type": "parakeet_ctc",
    "architectures": ["ParakeetForCTC"],
    "encoder_config": {
        "hidden_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 96,
        "conv_kernel_size": 5,
        "subsampling_factor": 4,
        "subsampling_conv_channels": 16,
        "num_mel_bins": 80,
        "scale_input": False,
        "dropout": 0.0,
        "activation_dropout": 0.0,
        "attention_dropout": 0.0,
        "layerdrop": 0.0,
    },
}
_BUILD = """
BUILD MODEL tiny USING TinyEn
OPTIONS (epochs=6, batch_size=4, validation=0, device='cpu')
AS SELECT audio, text FROM spoken
"""


@pytest.fixture
def thanosql_memory() -> Iterator[Connection]:
    """Yield a connection to an empty database in memory, closed after the test."""
    from thanosql.driver.connection import connect

    with closing(connect(":memory:")) as connection:
        yield connection


@pytest.fixture
def thanosql_path(tmp_path: Path) -> Path:
    """Return where this test's database file is, once something made it."""
    return tmp_path / "thanosql.db"


@pytest.fixture
def thanosql_file(thanosql_path: Path) -> Iterator[Connection]:
    """Yield a connection to an empty file, `thanosql_path`, closed after the test."""
    from thanosql.driver.connection import connect

    with closing(connect(thanosql_path)) as connection:
        yield connection


@pytest.fixture(scope="session")
def thanosql_speak() -> Callable[..., bytes]:
    """Return a function `speak(text, *, seed=0)` that makes a WAV file of a text.

    It joins recordings of single words, in one of two synthetic voices;
    `thanosql.sample.words.vocabulary()` lists the words that there are.
    """
    from thanosql.catalog.sample.words import say

    return say


@pytest.fixture(scope="session")
def thanosql_base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a directory to BUILD from: a config of 56,000 weights, and no weights."""
    directory = tmp_path_factory.mktemp("thanosql-base")
    (directory / "config.json").write_text(json.dumps(_SHAPE), encoding="utf-8")
    return str(directory)


@pytest.fixture(scope="session")
def _thanosql_trained_once(
    tmp_path_factory: pytest.TempPathFactory, thanosql_speak: Callable[..., bytes]
) -> Path:
    from thanosql.catalog.sample.words import vocabulary
    from thanosql.driver.connection import connect

    path = tmp_path_factory.mktemp("thanosql-trained") / "trained.db"
    choose, words = random.Random(0), vocabulary()
    texts = [
        " ".join(choose.choices(words, k=choose.randint(1, 3)))
        for _ in range(_UTTERANCES)
    ]
    with closing(connect(path)) as connection:
        connection.execute("CREATE TABLE spoken (audio BLOB, text TEXT)")
        connection.executemany(
            "INSERT INTO spoken VALUES (?, ?)",
            [
                (thanosql_speak(text, seed=number), text)
                for number, text in enumerate(texts)
            ],
        )
        connection.commit()
        connection.execute(_BUILD).fetchall()
    return path


@pytest.fixture
def thanosql_trained(
    _thanosql_trained_once: Path, thanosql_path: Path
) -> Iterator[Connection]:
    """Yield a connection to a file with a trained model, closed after the test.

    Model ``tiny`` reads what `thanosql_speak` says: the base TinyEn, trained further
    once a session, in seconds, on table ``spoken (audio, text)``. The file is
    `thanosql_path`, a copy that the test may do anything to.
    """
    from thanosql.driver.connection import connect

    shutil.copy(_thanosql_trained_once, thanosql_path)
    with closing(connect(thanosql_path)) as connection:
        yield connection
