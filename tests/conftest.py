"""Fixtures that every test file may use: connections, real recordings."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from tones import tones

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
        slow = item.get_closest_marker("slow")
        return 0 if slow is None else slow.kwargs.get("seconds", 30)

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
    """Return a directory with a small fine-tuned-looking model of random weights.

    A wav2vec 2.0 with group norm, the kind whose text changes when it is padded.
    """
    directory = tmp_path_factory.mktemp("base")
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4}
    for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ'":
        vocabulary[letter] = len(vocabulary)
    (directory / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(directory / "vocab.json"))
    extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=False)
    transformers.Wav2Vec2Processor(extractor, tokenizer).save_pretrained(directory)
    torch.manual_seed(7)
    transformers.Wav2Vec2ForCTC(
        transformers.Wav2Vec2Config(
            vocab_size=len(vocabulary),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            conv_dim=(32, 32, 32),
            conv_kernel=(10, 8, 4),
            conv_stride=(5, 8, 8),
            feat_extract_norm="group",
            num_conv_pos_embeddings=16,
            num_conv_pos_embedding_groups=2,
            initializer_range=0.5,
            pad_token_id=0,
        )
    ).save_pretrained(directory)
    return directory


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
