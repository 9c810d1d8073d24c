"""A model directory in; DataError out, naming the file, where one cannot be a model's.

What is read here was written by anybody. transformers builds whatever a configuration
describes, a layer at a time, and opens any file of the right name; so what would take
all memory, or wait for ever, is refused before it sees the directory.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from thanosql.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

# What transformers and we may open, by the ends of the names.
_READ = (".json", ".txt", ".model", ".safetensors", ".jinja", ".tiktoken")
# Those that say how large things are; the others are lists of tokens.
_DESCRIBING = ("config.json", "preprocessor_config.json", "processor_config.json")

LARGEST_JSON = 64 * 2**20  # bytes; a tokenizer of 250 000 word pieces has 17 million
LARGEST_NUMBER = 2**24  # for a size of any kind
LARGEST_COUNT = 1_000  # layers: each is made by itself; items of a list that tells them
LONGEST_TEXT = 2**16  # characters; templates and tokens are shorter
# Tables of frequencies by bins are computed, not loaded: at most 0.1 GB.
_LARGEST = {
    "n_fft": 2**14,
    "win_length": 2**14,
    "hop_length": 2**14,
    "feature_size": 2**10,
    "num_mel_bins": 2**10,
    "chunk_length": 120,  # seconds that are always computed, of Whisper's kind
}


def check(directory: Path, where: str) -> None:
    """Raise DataError where a file that would be read is none, or is beyond reason.

    `where` names the directory in an error. Links are followed, as the hub's cache is
    made of them.
    """
    for path in sorted(directory.iterdir()):
        if not path.name.endswith(_READ):
            continue
        name = f"{path.name!r} in {where}"
        if not path.is_file():
            message = f"{name} is not a file that can be read"
            raise DataError(message)
        if path.suffix == ".json":
            content = read_json(path, name)
            if path.name in _DESCRIBING:
                _check_numbers(content, name)
            if path.name != "tokenizer.json":  # which may embed whole tables as text
                _check_texts(content, name)


def read_json(path: Path, name: str) -> dict[str, Any]:
    """Return the JSON object in a file; `name` says which in an error."""
    if path.stat().st_size > LARGEST_JSON:
        message = f"{name} has more than {LARGEST_JSON:,} bytes"
        raise DataError(message)
    try:
        return parse_json(path.read_bytes())
    except ValueError as error:
        message = f"{name} is damaged: {error}"
        raise DataError(message) from error


def parse_json(content: bytes | bytearray) -> dict[str, Any]:
    """Return the JSON object that the bytes hold; ValueError where they hold none."""
    try:
        found = json.loads(content, object_pairs_hook=_without_duplicates)
        if b"\\u" in content:  # half of a character, which no file can hold
            json.dumps(found, ensure_ascii=False).encode()
    except RecursionError:
        message = "it is nested too deep"
        raise ValueError(message) from None
    if not isinstance(found, dict):
        message = f"a JSON object is expected, not a {type(found).__name__}"
        raise ValueError(message)
    return found


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Which of the two counts depends on the reader.
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = counts.most_common(1)[0][0]
        message = f"the key {twice!r:.50} is there twice"
        raise ValueError(message)
    return found


def _check_texts(content: Any, name: str) -> None:
    """Raise DataError for a text that no tokenizer could cope with."""
    if isinstance(content, dict):
        for key, value in content.items():
            _check_texts(key, name)
            _check_texts(value, name)
    elif isinstance(content, list):
        for value in content:
            _check_texts(value, name)
    elif isinstance(content, str) and len(content) > LONGEST_TEXT:
        _refuse(name, f"a text of {len(content):,} characters", LONGEST_TEXT)


def _check_numbers(content: Any, name: str, key: str = "") -> None:
    """Raise DataError where a number, or a list of them, is beyond any model's."""
    if isinstance(content, dict):
        for inner, value in content.items():
            _check_numbers(value, name, str(inner))
    elif isinstance(content, list):
        if len(content) > LARGEST_COUNT:
            _refuse(name, f"{len(content)} values of {key}", LARGEST_COUNT)
        for value in content:
            _check_numbers(value, name, key)
    elif isinstance(content, int | float):
        largest = LARGEST_COUNT if "layers" in key else LARGEST_NUMBER
        largest = _LARGEST.get(key, largest)
        if abs(content) > largest:
            _refuse(name, f"{key} = {content!r:.20}", largest)


def _refuse(name: str, what: str, largest: int) -> None:
    message = f"{name} has {what}; {largest:,} is the most that is believed"
    raise DataError(message)
