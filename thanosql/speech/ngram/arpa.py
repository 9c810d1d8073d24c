"""The ARPA format of n-gram models: a text file in, the files of a model out, and back.

A file tells how many n-grams of each length it has. Then comes a section for each
length, with a line for each n-gram: the logarithm to base 10 of its probability, its
words, and but for the longest ones the logarithm of its backoff (SRILM's manual,
ngram-format(5)).
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from array import array
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import numpy as np

from thanosql.errors import DataError
from thanosql.speech.ngram import files
from thanosql.speech.ngram.files import (
    BLOCK,
    END,
    SPECIAL,
    START,
    UNKNOWN,
    Facts,
    Level,
    blocks,
)
from thanosql.speech.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from thanosql.speech.ngram.files import Buffer

_NO_UNKNOWN = -100.0  # the logarithm where a file has no <unk>, as KenLM has it
_SIZE = re.compile(rb"ngram\s+(\d{1,9})\s*=\s*(\d{1,9})\s*")
_LONGEST_LINE = 2**16
_SHOWN_EVERY = 10_000  # lines between two calls of progress
_WORD_BITS = 32


def read(path: Path, directory: Path, progress: Progress = silent) -> Facts:
    """Write the files of the model that an ARPA file has; return its facts.

    path: may end in .gz. In memory are the words, and some 40 bytes for each n-gram.
    Raises DataError, with the number of the line, if the file is damaged.
    """
    compressed = path.suffix.lower() == ".gz"
    with gzip.open(path) if compressed else path.open("rb") as file:
        reader = _Reader(file, path.name, progress)  # type: ignore[arg-type]
        try:
            vocabulary, levels = reader.model()
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            message = f"{path.name} is damaged: {error}"
            raise DataError(message) from error
    facts = Facts(tuple(len(level.words) for level in levels), spelled_as_found=True)
    files.write(directory, vocabulary, levels, facts)
    return facts


def write(stored: Mapping[str, Buffer], file: BinaryIO) -> None:
    """Write a stored model as an ARPA file. Every digit that counts is written.

    Raises DataError if its files are damaged.
    """
    vocabulary, trie, facts = files.read(stored)
    lines = ["\\data\\", *(f"ngram {n}={c}" for n, c in enumerate(facts.ngrams, 1)), ""]
    file.write("\n".join([*lines, ""]).encode())
    end = 1
    for length, count in enumerate(facts.ngrams, start=1):
        file.write(f"\\{length}-grams:\n".encode())
        start, end = end, end + count
        for block in blocks(count):
            nodes = np.arange(block.start, block.stop) + start
            texts = _texts(nodes, length, trie, vocabulary)
            log_probs = trie.log_probs[nodes].tolist()
            if length == facts.order:
                lines = [
                    f"{log_prob:.9g}\t{text}\n"
                    for log_prob, text in zip(log_probs, texts, strict=True)
                ]
            else:
                backoffs = trie.backoffs[nodes].tolist()
                lines = [
                    f"{log_prob:.9g}\t{text}\t{backoff:.9g}\n"
                    for log_prob, text, backoff in zip(
                        log_probs, texts, backoffs, strict=True
                    )
                ]
            file.write("".join(lines).encode())
        file.write(b"\n")
    file.write(b"\\end\\\n")


def _texts(
    nodes: NDArray[Any], length: int, trie: files.Trie, vocabulary: Sequence[str]
) -> Iterable[str]:
    """Return the words of each node, with spaces between them."""
    words = []
    for _ in range(length):
        words.append(trie.words[nodes].tolist())
        nodes = np.searchsorted(trie.children, nodes, "right") - 1  # their parents
    return (
        " ".join([vocabulary[word] for word in ngram])
        for ngram in zip(*reversed(words), strict=True)
    )


class _Reader:
    """Reads an ARPA file line by line, and knows at which it is."""

    def __init__(self, file: BinaryIO, name: str, progress: Progress) -> None:
        self._file, self._name, self._progress = file, name, progress
        self._number = 0
        self._line = b""  # the one that is to be read next; b"" at the end
        self._words = {word.encode(): i for i, word in enumerate(SPECIAL)}
        # Of all nodes but the root, in their order: parent in the upper half, last word
        # in the lower; the node of the longest n-gram that it ends in.
        self._keys = np.zeros(0, "i8")
        self._suffixes = np.zeros(1, "i4")

    def model(self) -> tuple[list[str], list[Level]]:
        """Return the words and the n-grams of the file."""
        sizes = self._sizes()
        levels = []
        for length, size in enumerate(sizes, start=1):
            if self._line.strip() != b"\\%d-grams:" % length:
                self._fail(f"\\{length}-grams: is expected, not {self._shown()}")
            self._next()
            read = self._single_words if length == 1 else self._longer
            levels.append(read(length, size, length == len(sizes)))
        if self._line.strip() != b"\\end\\":
            self._fail(f"\\end\\ is expected, not {self._shown()}")
        return [word.decode() for word in self._words], levels

    def _next(self) -> None:
        """Go on to the next line that is not blank."""
        self._line = b"\n"
        while self._line.isspace():
            self._line = self._file.readline(_LONGEST_LINE)
            self._number += 1

    def _fail(self, reason: str, line: int | None = None) -> NoReturn:
        message = f"{self._name}, line {line or self._number}: {reason}"
        raise DataError(message)

    def _shown(self) -> str:
        line = self._line.strip().decode(errors="replace")
        return f"{line:.40}" if self._line else "the file's end"

    def _sizes(self) -> list[int]:
        """Read the number of n-grams of each length."""
        while self._line.strip() != b"\\data\\":  # what comes before is for people
            self._next()
            if not self._line:
                self._fail("the file ends and had no \\data\\: it is no ARPA file")
        self._next()
        sizes: list[int] = []
        while found := _SIZE.fullmatch(self._line):
            if int(found[1]) != len(sizes) + 1:
                self._fail(f"the number of {len(sizes) + 1}-grams is expected")
            sizes.append(int(found[2]))
            self._next()
        if not sizes:
            self._fail(f"ngram 1=... is expected, not {self._shown()}")
        if sum(sizes) >= 2**31:
            self._fail(f"{sum(sizes):,} n-grams are more than a model can have")
        return sizes

    def _fields(
        self, length: int, is_longest: bool
    ) -> tuple[float, list[bytes], float]:
        """Return the line's probability, words and backoff, as logarithms."""
        fields = self._line.split()
        try:
            values = [float(fields[0]), *map(float, fields[length + 1 :])]
        except ValueError:
            values = []
        if len(fields) < length + 1 or not 1 <= len(values) <= 2 - is_longest:
            self._fail(
                f"a probability and {length} words are expected"
                + ("" if is_longest else ", and a backoff where there is one")
                + f", not {self._shown()}"
            )
        if not values[0] <= 0 or not all(map(math.isfinite, values)):
            self._fail(
                f"{self._shown()}: logarithms are finite, and a probability's is 0 or "
                "less"
            )
        backoff = values[1] if len(values) == 2 else 0.0
        return values[0], fields[1 : length + 1], backoff

    def _is_in_section(self, length: int, read: int, size: int) -> bool:
        """Whether the line is one of the section's; its number of lines is checked."""
        if not read % _SHOWN_EVERY:
            self._progress(f"read {length}-grams", read, size)
        is_last = not self._line or self._line.startswith(b"\\")
        if is_last != (read == size):
            found = f"only {read:,}" if is_last else "more"
            self._fail(f"{size:,} {length}-grams are announced, and {found} are there")
        return not is_last

    def _single_words(self, length: int, size: int, is_longest: bool) -> Level:
        found = {UNKNOWN: (_NO_UNKNOWN, 0.0)}
        read = 0
        while self._is_in_section(length, read, size):
            log_prob, (word,), backoff = self._fields(length, is_longest)
            try:
                word.decode()
            except UnicodeDecodeError:
                self._fail(f"{self._shown()}: the word is not UTF-8")
            if word == b"<UNK>":
                word = b"<unk>"
            number = self._words.setdefault(word, len(self._words))
            if number in found and (number != UNKNOWN or found[number][0] > -100):
                self._fail(f"{self._shown()}: the word is there twice")
            found[number] = log_prob, backoff
            read += 1
            self._next()
        for special in (START, END):
            if special not in found:
                self._fail(f"the 1-grams lack {SPECIAL[special]}")
        values = np.array([found[i] for i in range(len(found))], "f4")
        count = len(found)
        self._keys, self._suffixes = np.arange(count), np.zeros(count + 1, "i4")
        numbers = np.arange(count, dtype="i4")
        zeros = np.zeros(count, "i4")
        backoffs = values[:0, 1] if is_longest else values[:, 1]
        return Level(zeros, numbers, values[:, 0], backoffs, zeros[: len(backoffs)])

    def _longer(self, length: int, size: int, is_longest: bool) -> Level:
        log_probs, backoffs = array("f"), array("f")
        numbers, lines = array("i"), array("q")
        keys: list[NDArray[Any]] = []
        read = 0
        while self._is_in_section(length, read, size):
            log_prob, words, backoff = self._fields(length, is_longest)
            try:
                numbers.extend([self._words[word] for word in words])
            except KeyError:
                self._fail(f"{self._shown()}: not all its words are among the 1-grams")
            lines.append(self._number)
            log_probs.append(log_prob)
            if not is_longest:
                backoffs.append(backoff)
            read += 1
            self._next()
            if len(lines) == BLOCK:
                keys.append(self._found_keys(numbers, lines, length))
                del numbers[:], lines[:]
        keys.append(self._found_keys(numbers, lines, length))
        joined = np.concatenate(keys)
        order = np.argsort(joined)
        joined = joined[order]
        if twice := np.flatnonzero(joined[1:] == joined[:-1]).tolist():
            first = int(order[twice[0]]) + 1
            self._fail(f"the {length}-gram number {first} of the file is there twice")
        suffixes = np.zeros(0, "i4") if is_longest else self._found_suffixes(joined)
        self._keys = np.concatenate([self._keys, joined])
        self._suffixes = np.concatenate([self._suffixes, suffixes])
        return Level(
            (joined >> _WORD_BITS).astype("i4"),
            (joined & (2**_WORD_BITS - 1)).astype("i4"),
            np.array(log_probs)[order],
            np.array(backoffs)[order] if not is_longest else np.zeros(0, "f4"),
            suffixes,
        )

    def _found_keys(
        self, numbers: array[int], lines: array[int], length: int
    ) -> NDArray[Any]:
        """Return the keys of n-grams: the node of what each begins with, its last word.

        numbers: the words of all; lines: where each is in the file.
        """
        words = np.array(numbers, "i8").reshape(-1, length)
        nodes = 1 + words[:, 0]
        for place in range(1, length - 1):
            nodes, is_there = self._children(nodes, words[:, place])
            if not is_there.all():
                line = lines[int(np.argmin(is_there))]
                self._fail(
                    f"the {length}-gram goes on from {place + 1} words that are no "
                    f"{place + 1}-gram of the file",
                    line,
                )
        keys: NDArray[Any] = nodes << _WORD_BITS | words[:, -1]
        return keys

    def _found_suffixes(self, keys: NDArray[Any]) -> NDArray[Any]:
        suffixes = self._suffixes[keys >> _WORD_BITS].astype("i8")
        words = keys & (2**_WORD_BITS - 1)
        left = np.arange(len(keys))
        while len(left):
            found, is_there = self._children(suffixes[left], words[left])
            suffixes[left[is_there]] = found[is_there]
            left = left[~is_there]
            # The root, which this comes to at last, goes on by every word.
            suffixes[left] = self._suffixes[suffixes[left]]
        found_all: NDArray[Any] = suffixes.astype("i4")
        return found_all

    def _children(
        self, nodes: NDArray[Any], words: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the nodes that go on from nodes by words, and whether they exist."""
        wanted = nodes << _WORD_BITS | words
        places = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        is_there: NDArray[Any] = self._keys[places] == wanted
        return places + 1, is_there
