"""The files of a stored n-gram model: levels of n-grams in, three files out, and back.

The n-grams are a trie. A node is an n-gram, and its children are the n-grams that go on
from it by one word. Nodes are numbered breadth first, each level by parent and word:
node 0 is the empty n-gram, then come the words by their numbers, then all 2-grams, and
so on. So the children of a node are neighbours, and sorted by their last word.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from thanosql.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Buffer = bytes | bytearray | memoryview

UNKNOWN, START, END = 0, 1, 2
"The numbers of <unk>, <s> and </s>."
SPECIAL = ("<unk>", "<s>", "</s>")
"Of every vocabulary, the first three."

NGRAMS = "ngrams.safetensors"
VOCABULARY = "vocabulary.txt"
FACTS = "language_model.json"

BLOCK = 2**18
"Items of a long array that are worked on at once."

_DTYPES = {"I32": np.dtype("<i4"), "F32": np.dtype("<f4")}


@dataclass(frozen=True, slots=True)
class Level:
    """The n-grams of one length, sorted by parent and word. Logarithms are to base 10.

    Arrays are (n-grams,); they may lie in files.
    """

    parents: NDArray[Any]
    "The node of the n-gram without its last word."
    words: NDArray[Any]
    "The last word."
    log_probs: NDArray[Any]
    "The probability of the last word after the others."
    backoffs: NDArray[Any]
    "What a word costs that does not follow the n-gram; empty for the longest n-grams."
    suffixes: NDArray[Any]
    """The node of the longest n-gram there is that this one ends in.

    Empty for the longest n-grams.
    """


@dataclass(frozen=True, slots=True)
class Trie:
    """All n-grams of a model. Contexts are those that are not of its order."""

    words: NDArray[Any]
    "(nodes,) int32, as in `Level`; so are the next three."
    log_probs: NDArray[Any]
    "(nodes,) float32."
    backoffs: NDArray[Any]
    "(contexts,) float32."
    suffixes: NDArray[Any]
    "(contexts,) int32."
    children: NDArray[Any]
    "(contexts + 1,) int32: the first child of each; then, where the last one's end."


@dataclass(frozen=True, slots=True)
class Facts:
    """What is to be known of a model at a glance."""

    ngrams: tuple[int, ...]
    "How many there are of each length."
    spelled_as_found: bool
    "Whether the words may not be as `words_of` writes them."
    sentences: int | None = None
    "Texts that were counted; None for an imported model, as are the next three."
    running_words: int | None = None
    perplexity: float | None = None
    "Of texts that were held out; None if none were."
    unknown: float | None = None
    "Share of their words that were in no other text."

    @property
    def order(self) -> int:
        """The number of words of the longest n-grams."""
        return len(self.ngrams)


def write(
    directory: Path, vocabulary: Sequence[str], levels: Sequence[Level], facts: Facts
) -> None:
    """Write a model's files. levels: those of 1 word, of 2 words, and so on.

    Arrays are read a block at a time.
    """
    (directory / VOCABULARY).write_bytes("\n".join(vocabulary).encode())
    shown = {name: getattr(facts, name) for name in Facts.__slots__}
    (directory / FACTS).write_text(json.dumps(shown), encoding="utf-8")
    root = Level(*(np.zeros(1, dtype) for dtype in (*["<i4"] * 2, *["<f4"] * 2, "<i4")))
    nodes = (root, *levels)
    bases = np.cumsum([0, *map(len, (level.words for level in nodes))])
    parts: dict[str, list[Any]] = {
        name: [getattr(level, name) for level in nodes]
        for name in ("words", "log_probs", "backoffs", "suffixes")
    }
    sizes = {name: sum(map(len, arrays)) for name, arrays in parts.items()}
    sizes["children"] = sizes["backoffs"] + 1
    header: dict[str, Any] = {}
    end = 0
    for name, size in sizes.items():
        start, end = end, end + 4 * size
        kind = "F32" if name in ("log_probs", "backoffs") else "I32"
        header[name] = {"dtype": kind, "shape": [size], "data_offsets": [start, end]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with (directory / NGRAMS).open("xb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for name, arrays in parts.items():
            dtype = _DTYPES[header[name]["dtype"]]
            for array in arrays:
                for block in blocks(len(array)):
                    file.write(array[block].astype(dtype).tobytes())
        for (base, end), below in zip(pairwise(bases), levels, strict=False):
            for block in blocks(end - base):
                wanted = np.arange(block.start, block.stop) + base
                found = np.searchsorted(below.parents, wanted) + end
                file.write(found.astype("<i4").tobytes())
        file.write(bases[-1].astype("<i4").tobytes())


def read(files: Mapping[str, Buffer]) -> tuple[list[str], Trie, Facts]:
    """Return what `write` wrote; DataError if it is damaged.

    files: name -> content. The arrays of the trie share its memory.
    """
    try:
        facts = read_facts(files)
        vocabulary = bytes(files[VOCABULARY]).decode().split("\n")
        trie = Trie(**_arrays(memoryview(files[NGRAMS])))
        _check(vocabulary, trie, facts)
    except (ValueError, KeyError, TypeError) as error:
        message = f"the files of the language model are damaged: {error}"
        raise DataError(message) from error
    return vocabulary, trie, facts


def read_facts(files: Mapping[str, Buffer]) -> Facts:
    """Return the facts of a model; ValueError, KeyError or TypeError if damaged."""
    found = json.loads(bytes(files[FACTS]))
    return Facts(**(found | {"ngrams": tuple(map(int, found["ngrams"]))}))


def blocks(count: int) -> Iterator[slice]:
    """Return the places of an array of that many items, a block at a time."""
    for start in range(0, count, BLOCK):
        yield slice(start, min(start + BLOCK, count))


def _arrays(content: memoryview) -> dict[str, NDArray[Any]]:
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(bytes(content[8:start]))
    found = {}
    for name, entry in header.items():
        first, last = entry["data_offsets"]
        dtype, count = _DTYPES[entry["dtype"]], math.prod(entry["shape"])
        if not 0 <= first <= last == first + 4 * count <= len(content) - start:
            message = f"{name} is to lie at bytes {first} to {last}"
            raise ValueError(message)
        found[name] = np.frombuffer(content, dtype, count, start + first)
    return found


def _check(vocabulary: Sequence[str], trie: Trie, facts: Facts) -> None:
    """Raise ValueError if a search could leave the arrays, or would never end."""
    nodes, contexts = len(trie.words), len(trie.backoffs)
    places = np.arange(contexts)
    levels = [1, *facts.ngrams]
    sound = (
        tuple(vocabulary[:3]) == SPECIAL
        and len(vocabulary) == facts.ngrams[0]
        and nodes == len(trie.log_probs) == sum(levels)
        and contexts == len(trie.suffixes) == sum(levels[:-1])
        and len(trie.children) == contexts + 1
        and trie.children[0] == 1
        and trie.children[-1] == nodes
        and bool((trie.children[:-1] > places).all())
        and bool((np.diff(trie.children) >= 0).all())
        # Backing off always comes to the root, which knows every word.
        and bool(((trie.suffixes >= 0) & (trie.suffixes < np.maximum(places, 1))).all())
        and bool((trie.words[1 : levels[1] + 1] == np.arange(levels[1])).all())
        and bool(np.isfinite(trie.log_probs).all())
        and bool(np.isfinite(trie.backoffs).all())
    )
    if not sound:
        message = "the n-grams are no trie"
        raise ValueError(message)
