"""Texts in, out every n-gram of up to some length and how often each is there.

All that grows with the texts or with the n-grams lies in files of a scratch folder, and
is worked on a block at a time; in memory are the words alone.

An n-gram is numbered by its place among those of its length, which are sorted by the
number of the (n-1)-gram it begins with, its parent, and by its last word: the numbers
of a trie's nodes, without those of shorter n-grams.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from thanosql.speech.ngram.files import BLOCK, END, SPECIAL, START, blocks

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from thanosql.speech.progress import Progress

_WORD_BITS = 32  # of a key; the other half is the parent


class Scratch:
    """A folder for arrays that are too long for memory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = 0

    def path(self) -> Path:
        """Return the path of a new file."""
        self._files += 1
        return self._folder / str(self._files)

    def array(self, dtype: Any, length: int) -> NDArray[Any]:
        """Return an array of zeros in a file."""
        if not length:  # a file of no bytes cannot be mapped
            return np.zeros(0, dtype)
        made: NDArray[Any] = np.memmap(self.path(), dtype, "w+", shape=(length,))
        return made

    def written(self, dtype: Any, parts: Iterable[NDArray[Any]]) -> NDArray[Any]:
        """Return the parts, one after another, as one array in a file."""
        path = self.path()
        with path.open("wb") as file:
            for part in parts:
                file.write(part.astype(dtype).tobytes())
        size = path.stat().st_size
        return np.memmap(path, dtype, "r+") if size else np.zeros(0, dtype)


class Corpus:
    """Texts as numbers of words, in a file: <s>, the words and </s> of each."""

    def __init__(self, scratch: Scratch) -> None:
        self._path = scratch.path()
        self._numbers = {word: i for i, word in enumerate(SPECIAL)}
        self._buffer = array("i")
        self.sentences = 0
        self.running_words = 0

    @property
    def vocabulary(self) -> list[str]:
        """The words by number."""
        return list(self._numbers)

    def add(self, words: Sequence[str]) -> None:
        """Add the words of a text."""
        numbers = self._numbers
        self._buffer.append(START)
        self._buffer.extend([numbers.setdefault(w, len(numbers)) for w in words])
        self._buffer.append(END)
        self.sentences += 1
        self.running_words += len(words)
        if len(self._buffer) >= BLOCK:
            self._flush()

    def tokens(self) -> NDArray[Any]:
        """Return all numbers so far: (words + 2 * texts,) int32, in a file."""
        self._flush()
        return np.memmap(self._path, "i4", "r")

    def _flush(self) -> None:
        with self._path.open("ab") as file:
            self._buffer.tofile(file)
        del self._buffer[:]


@dataclass(frozen=True, slots=True)
class Counts:
    """The n-grams of one length; arrays are (n-grams,)."""

    keys: NDArray[Any]
    "int64, ascending: the parent in the upper half, the last word in the lower."
    counts: NDArray[Any]
    "int64: how often each is there."
    suffixes: NDArray[Any]
    "int32: the number of the (n-1)-gram it ends in."
    from_start: slice
    "Those that begin with <s>."

    def __len__(self) -> int:
        return len(self.keys)

    def parents(self, where: slice) -> NDArray[Any]:
        """Return the parents of some; 0 of single words."""
        found: NDArray[Any] = self.keys[where] >> _WORD_BITS
        return found

    def words(self, where: slice) -> NDArray[Any]:
        """Return the last words of some."""
        found: NDArray[Any] = self.keys[where] & (2**_WORD_BITS - 1)
        return found


def count(
    tokens: NDArray[Any], words: int, order: int, scratch: Scratch, progress: Progress
) -> list[Counts]:
    """Return the n-grams of 1 word, of 2 and so on, up to `order` or the longest text.

    tokens: as of Corpus. words: how many there are. None of the n-grams goes beyond a
    text.
    """
    levels = [_single_words(tokens, words)]
    # The number of the n-gram that ends at each token; -1 where there is none.
    ending: NDArray[Any] = tokens
    for length in range(2, order + 1):
        keys, counts = _distinct(
            (keys for _, _, keys in _keys(tokens, ending, length, progress)), scratch
        )
        if not len(keys):
            break
        if length < order:
            here = scratch.array("i4", len(tokens))
            for block, is_there, found in _keys(tokens, ending, length, progress):
                distinct, places = np.unique(found, return_inverse=True)
                part = np.full(block.stop - block.start, -1, "i4")
                part[is_there] = np.searchsorted(keys, distinct)[places]
                here[block] = part
            ending = here
        levels.append(_level(keys, counts, levels[-1], length, scratch))
    return levels


def _single_words(tokens: NDArray[Any], words: int) -> Counts:
    counts = np.zeros(words, "i8")
    for block in blocks(len(tokens)):
        counts += np.bincount(tokens[block], minlength=words)
    counts[START] = 0  # it is never said
    numbers = np.arange(words)
    start = slice(START, START + 1)
    return Counts(numbers, counts, np.zeros(words, "i4"), start)


def _level(
    keys: NDArray[Any],
    counts: NDArray[Any],
    shorter: Counts,
    length: int,
    scratch: Scratch,
) -> Counts:
    suffixes = scratch.array("i4", len(keys))
    for block in blocks(len(keys)):
        words = keys[block] & (2**_WORD_BITS - 1)
        if length > 2:
            before = shorter.suffixes[keys[block] >> _WORD_BITS].astype("i8")
            words = np.searchsorted(shorter.keys, before << _WORD_BITS | words)
        suffixes[block] = words
    bounds = np.array([shorter.from_start.start, shorter.from_start.stop])
    first, last = np.searchsorted(keys, bounds << _WORD_BITS)
    return Counts(keys, counts, suffixes, slice(int(first), int(last)))


def _keys(
    tokens: NDArray[Any], ending: NDArray[Any], length: int, progress: Progress
) -> Iterator[tuple[slice, NDArray[Any], NDArray[Any]]]:
    """Yield, of each block of tokens, where n-grams end, and their keys.

    ending: (tokens,), the (n-1)-gram that ends at each.
    """
    for block in blocks(len(tokens)):
        before = np.empty(block.stop - block.start, "i8")
        before[1:] = ending[block][:-1]
        before[0] = ending[block.start - 1] if block.start else -1
        words = tokens[block].astype("i8")
        is_there = (before >= 0) & (words != START)
        yield block, is_there, before[is_there] << _WORD_BITS | words[is_there]
        progress(f"count {length}-grams", block.stop, len(tokens))


def _distinct(
    parts: Iterable[NDArray[Any]], scratch: Scratch
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the distinct keys of all parts, ascending, and how often each is there.

    Each part is sorted and written by itself. Then ranges of keys, so narrow that all
    parts' keys in one fit into a block, are merged one after another.
    """
    runs = []
    for part in parts:
        keys, counts = np.unique(part, return_counts=True)
        runs.append((scratch.written("i8", [keys]), scratch.written("i8", [counts])))
    if len(runs) == 1:
        return runs[0]
    total = sum(len(keys) for keys, _ in runs)
    every = max(1, BLOCK // (16 * len(runs)))
    samples = np.sort(np.concatenate([keys[::every] for keys, _ in runs]))
    bounds = np.unique(samples[:: max(1, BLOCK // every)])
    keys, counts = scratch.array("i8", total), scratch.array("i8", total)
    end = 0
    for low, high in zip(bounds, [*bounds[1:], None], strict=True):
        found_keys, found_counts = [], []
        for run_keys, run_counts in runs:
            first = np.searchsorted(run_keys, low)
            last = len(run_keys) if high is None else np.searchsorted(run_keys, high)
            found_keys.append(run_keys[first:last])
            found_counts.append(run_counts[first:last])
        merged, places = np.unique(np.concatenate(found_keys), return_inverse=True)
        start, end = end, end + len(merged)
        keys[start:end] = merged
        summed = np.bincount(places, np.concatenate(found_counts))
        counts[start:end] = summed.astype("i8")
    return keys[:end], counts[:end]
