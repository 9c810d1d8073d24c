"""Check a model directory: its files in; a DataError that names a bad file out.

Anybody may have written these files. transformers builds whatever a config describes
and opens any file of the right name. So files that would take all memory, or make it
wait for ever, are refused before transformers sees the directory.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from thanosql.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

# How the names end of the files that transformers or we may open.
_READ = (".json", ".txt", ".model", ".safetensors", ".jinja", ".tiktoken")
# JSON files that describe sizes; the others are lists of tokens.
_DESCRIBING = (
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
)

LARGEST_JSON = 64 * 2**20  # bytes; a tokenizer of 250 000 word pieces has 17 million
LARGEST_NUMBER = 2**24  # any number in a config
LARGEST_COUNT = 1_000  # layers, each of which takes time to build; items of a list
LONGEST_TEXT = 2**16  # characters; templates and tokens are shorter
# Filterbanks (frequencies by bins) are computed from these: at most 0.1 GB.
_LARGEST = {
    "n_fft": 2**14,
    "win_length": 2**14,
    "hop_length": 2**14,
    "feature_size": 2**10,
    "num_mel_bins": 2**10,
    "chunk_length": 120,  # seconds that are always computed, of Whisper's kind
    "num_beams": 100,
}


def check(directory: Path, where: str) -> None:
    """Raise DataError if a file that would be read is no file, or is unreasonable.

    where: the directory's name for errors. Links are followed, since the hub's cache is
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
    """Return the JSON object in a file. name: the file's name for errors."""
    if path.stat().st_size > LARGEST_JSON:
        message = f"{name} has more than {LARGEST_JSON:,} bytes"
        raise DataError(message)
    try:
        return parse_json(path.read_bytes())
    except ValueError as error:
        message = f"{name} is damaged: {error}"
        raise DataError(message) from error


def parse_json(content: bytes | bytearray) -> dict[str, Any]:
    """Return the JSON object in the bytes; raise ValueError if there is none."""
    try:
        found = json.loads(content, object_pairs_hook=_without_duplicates)
        if b"\\u" in content:  # refuse half of a surrogate pair: no file can hold it
            json.dumps(found, ensure_ascii=False).encode()
    except RecursionError:
        message = "it is nested too deep"
        raise ValueError(message) from None
    if not isinstance(found, dict):
        message = f"a JSON object is expected, not a {type(found).__name__}"
        raise ValueError(message)
    return found


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # A key that is there twice is refused: readers differ in which value they take.
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = counts.most_common(1)[0][0]
        message = f"the key {twice!r:.50} is there twice"
        raise ValueError(message)
    return found


def _check_texts(content: Any, name: str) -> None:
    """Raise DataError for a text that is too long for a tokenizer."""
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
    """Raise DataError for a number, or a list, larger than in any model."""
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
