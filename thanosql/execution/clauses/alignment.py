"""ALIGN: recordings with known texts in, when each word was said out."""

from __future__ import annotations

from contextlib import closing
from itertools import chain, tee
from typing import TYPE_CHECKING, Any

from thanosql import speech, statements
from thanosql.execution.clauses import columns, language_models
from thanosql.execution.relation import Relation
from thanosql.execution.source import AlignmentCache, Pairs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from thanosql.execution.context import Context
    from thanosql.execution.relation import Column
    from thanosql.speech.results import Alignment

    Row = Sequence[Any]
    Aligned = Iterator[tuple[Row, Alignment]]

_ROW: tuple[Column, ...] = (
    ("words", "TEXT"),
    ("confidence", "REAL"),
    ("worst_word", "TEXT"),
    ("worst_confidence", "REAL"),
    ("agreement", "REAL"),
    ("matches", "INTEGER"),
)


def align(context: Context, node: statements.Align) -> Relation:
    """ALIGN: yield a row a word of the texts, or with `per_row` a row a text."""
    options = context.options(statements.AlignOptions, node.options)
    model = context.models.get(node.model_name)
    language_models.check_transcribes(model, "ALIGN")
    source = context.source(node.query)
    pairs = Pairs(source, options)
    error = columns.error_column(options)
    added = (*(_ROW if options.per_row else columns.WORDS), *error)
    columns.check_new(source, added)
    cache = AlignmentCache()

    def aligned() -> Aligned:
        rows = iter(source)
        for number, row in enumerate(rows, start=1):
            found = cache.get(row[pairs.audio], row[pairs.text])
            if found is not None:
                yield row, found
            else:  # `run_model` takes all rows that are left
                yield from run_model(number, chain((row,), rows))

    def run_model(first_row: int, rows: Iterable[Row]) -> Aligned:
        # Up to two batches of recordings are read before their words come out.
        ahead, rows = tee(rows)
        with context.progress() as progress:
            recognizer = speech.loaded(context.stored_files(model), options.device)
            with closing(
                speech.align(
                    recognizer,
                    ((row[pairs.audio], row[pairs.text]) for row in ahead),
                    options,
                    context.audio_root,
                    progress,
                    first_row,
                )
            ) as batches:
                for batch in batches:
                    done = [(next(rows), found) for found in batch]
                    for row, found in done:
                        cache.put(row[pairs.audio], row[pairs.text], found)
                    yield from done

    def scan() -> Iterator[Row]:
        for number, (row, found) in enumerate(aligned(), start=1):
            told = (columns.error(number, found),) if error else ()
            for values in _of_row(found) if options.per_row else _of_words(found):
                yield (*row, *values, *told)

    return Relation((*source.columns, *added), scan)


def _of_words(found: Alignment) -> Iterator[Row]:
    """Yield the values of each word; of a bad row, those of none, once."""
    if found.error is not None:
        yield (None,) * len(columns.WORDS)
    for word in found.words:
        yield tuple(columns.word(word).values())


def _of_row(found: Alignment) -> Iterator[Row]:
    if found.error is not None:
        yield (None,) * len(_ROW)
        return
    worst = min(
        (word for word in found.words if word.confidence is not None),
        key=lambda word: word.confidence or 0.0,
    )
    yield (
        columns.words(found.words),
        columns.rounded(found.confidence),
        worst.text,
        columns.rounded(worst.confidence),
        columns.rounded(found.agreement),
        found.matches,
    )


RELATIONS: Mapping[type, Any] = {statements.Align: align}
