"""A column of texts in; the files of their language model and its perplexity out."""

from __future__ import annotations

import hashlib
import math
import mmap
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from thanosql.errors import TrainingError
from thanosql.speech.ngram import files
from thanosql.speech.ngram.counting import Corpus, Scratch, count
from thanosql.speech.ngram.files import Facts
from thanosql.speech.ngram.kneser_ney import estimate
from thanosql.speech.ngram.model import NGramModel, open_model
from thanosql.speech.progress import Progress, silent
from thanosql.speech.rows import LISTED, BadRow, bad_rows_error, unusable_text
from thanosql.speech.words import words_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_SHOWN_EVERY = 1000  # rows between two calls of progress


def build(
    texts: Iterable[object],
    directory: Path,
    *,
    order: int,
    prune: Sequence[int],
    validation: float,
    text_col: str,
    progress: Progress = silent,
) -> tuple[Facts, int]:
    """Write a language model of all texts; return facts, and how many had no word.

    texts: read once. prune: as `pruned_up_to` of `estimate`. validation: the share of
    the texts that the perplexity is measured on, by a model of the others; equal texts
    are on one side. What is stored is counted from all of them.

    Raises TrainingError if values are no texts, or none has a word.
    """
    # Windows cannot delete files that are still mapped.
    with tempfile.TemporaryDirectory(
        prefix="thanosql-", ignore_cleanup_errors=True
    ) as folder:
        scratch = Scratch(Path(folder))
        corpus = Corpus(scratch)
        held_out = scratch.path()
        wordless = _read(texts, corpus, held_out, validation, text_col, progress)

        def store(target: Path, facts: tuple[float | None, ...]) -> Facts:
            vocabulary = corpus.vocabulary
            counted = count(corpus.tokens(), len(vocabulary), order, scratch, progress)
            levels = estimate(counted, prune, scratch, progress)
            sizes = tuple(len(level.words) for level in levels)
            found = Facts(sizes, False, corpus.sentences, corpus.running_words, *facts)
            files.write(target, vocabulary, levels, found)
            return found

        measured: tuple[float | None, float | None] = None, None
        if corpus.sentences and held_out.stat().st_size:
            others = scratch.path()
            others.mkdir()
            store(others, measured)
            with ExitStack() as stack:
                model = _opened(others, stack)
                measured = _perplexity(model, _lines(held_out), progress)
        for words in _lines(held_out):
            corpus.add(words)
        if not corpus.sentences:
            message = (
                f"none of the texts in column {text_col} has a word, so there is "
                "nothing to count; check that text_col names the texts"
            )
            raise TrainingError(message)
        return store(directory, measured), wordless


def _read(
    texts: Iterable[object],
    corpus: Corpus,
    held_out: Path,
    share: float,
    text_col: str,
    progress: Progress,
) -> int:
    """Add the texts to the corpus, but those held out to a file; count the wordless."""
    bad: list[BadRow] = []
    bad_count = wordless = row = 0
    with held_out.open("w", encoding="utf-8") as file:
        for row, text in enumerate(texts, start=1):
            if not row % _SHOWN_EVERY:
                progress("read", row, None)
            if not isinstance(text, str):
                bad_count += 1
                if len(bad) < LISTED:
                    bad.append(BadRow(row, unusable_text(text)))
            elif not (words := words_of(text)):
                wordless += 1
            elif _is_drawn(line := " ".join(words), share):
                file.write(f"{line}\n")
            else:
                corpus.add(words)
    if bad:
        raise bad_rows_error(bad, row, text_col, bad_count=bad_count)
    if not row:
        message = "the query has no rows, so there is no text to count"
        raise TrainingError(message)
    return wordless


def _is_drawn(text: str, share: float) -> bool:
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < share * 2**64


def _lines(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            yield line.split()


def _opened(folder: Path, stack: ExitStack) -> NGramModel:
    """Return the model of a folder, whose arrays stay in its files."""
    content: dict[str, memoryview] = {}
    for path in folder.iterdir():
        file = stack.enter_context(path.open("rb"))
        content[path.name] = memoryview(
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        )
    return open_model(content)


def _perplexity(
    model: NGramModel, texts: Iterable[Sequence[str]], progress: Progress
) -> tuple[float, float]:
    """Return the perplexity of texts with their ends, and the share of unknowns."""
    known = model.words
    total, words, ends, unknown = 0.0, 0, 0, 0
    for text in texts:
        total += model.log_probability(text)
        words += len(text)
        unknown += sum(word not in known for word in text)
        ends += 1
        if not ends % _SHOWN_EVERY:
            progress("validate", ends, None)
    return math.exp(-total / (words + ends)), unknown / words
