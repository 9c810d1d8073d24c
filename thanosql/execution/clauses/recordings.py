"""Statements that read or play the recordings of a query."""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import asdict
from itertools import chain, tee
from typing import TYPE_CHECKING, Any

from thanosql import errors, speech, statements
from thanosql.execution.clauses import language_models
from thanosql.execution.relation import Column, Relation, columns_of, row_of
from thanosql.execution.source import Pairs, Source, TranscriptCache
from thanosql.speech.results import RowScores, Scores, Transcription
from thanosql.store import history

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from thanosql.execution.context import Context
    from thanosql.store.records import StoredModel

    Row = Sequence[Any]
    Transcribed = Iterator[tuple[Row, Transcription]]

AUDIO = "AUDIO BLOB"
"""The declared type of the column with the recordings in what PRINT AUDIO yields."""

_ROW_SCORE_COLUMNS = columns_of(RowScores)


def predict(context: Context, node: statements.Predict) -> Relation:
    """PREDICT: yield the rows of the query, each with its transcript."""
    options = context.options(statements.PredictOptions, node.options)
    model = context.models.get(node.model_name)
    language_models.check_transcribes(model, "PREDICT")
    source = context.source(node.query)
    audio = source.audio_position(options.audio_col)
    added = (
        *((("details", "TEXT"),) if options.details else ()),
        *_error_column(options),
    )
    _check_new_columns(source, options.result_col, *(name for name, _ in added))
    transcribed = _transcribed(context, model, source, audio, options)

    warned = False

    def scan() -> Iterator[Row]:
        nonlocal warned
        for number, (row, found) in enumerate(transcribed(), start=1):
            if found.details.repeats_itself and not warned:
                warned = True
                errors.warn(
                    f"row {number}: its text repeats itself, though it was drawn "
                    "anew; a larger model may do better. Only the first such row is "
                    "named; with details=True, repeats_itself tells of each"
                )
            values = {"details": _details(found), "error": _error(number, found)}
            yield (*row, found.text, *(values[name] for name, _ in added))

    return Relation((*source.columns, (options.result_col, "TEXT"), *added), scan)


def _error_column(
    options: statements.PredictOptions | statements.EvaluateOptions,
) -> tuple[Column, ...]:
    """Return the column that says what is wrong with a row, if it is asked for."""
    return (("error", "TEXT"),) if options.on_error == "null" else ()


def _error(number: int, found: Transcription) -> str | None:
    """Return why a row is bad, with its number.

    `found.error` does not have the number: rows with one recording share `found`.
    """
    return None if found.error is None else f"row {number}: {found.error}"


def _details(found: Transcription) -> str | None:
    """Return how a recording was heard, as a JSON object; None if it is bad."""
    if found.text is None:
        return None
    values = {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in asdict(found.details).items()
    }
    return json.dumps(values, ensure_ascii=False)


def _check_new_columns(source: Source, result_col: str, *others: str) -> None:
    if source.position(result_col) is not None:
        message = (
            f"the query has a column {result_col!r} already; "
            "set result_col to another name for the transcripts"
        )
        raise errors.OptionError(message)
    taken = [name for name in others if source.position(name) is not None]
    if taken or result_col.casefold() in others:
        message = (
            f"a column {taken[0] if taken else result_col!r} is one of those that are "
            "added; rename it in the query, or set another result_col"
        )
        raise errors.OptionError(message)


def _transcribed(
    context: Context,
    model: StoredModel,
    source: Source,
    audio: int,
    options: statements.PredictOptions | statements.EvaluateOptions,
) -> Callable[[], Transcribed]:
    """Return a function that starts a scan over the rows and their transcriptions.

    A scan after the first (the inner side of a join) reads the query again, but runs
    the model only from the first row that no earlier scan has come to.
    """
    cache = TranscriptCache()

    def scan() -> Transcribed:
        rows = iter(source)
        for number, row in enumerate(rows, start=1):
            found = cache.get(row[audio])
            if found is not None:
                yield row, found
            else:  # `run_model` takes all rows that are left
                yield from run_model(number, chain((row,), rows))

    def run_model(first_row: int, rows: Iterable[Row]) -> Transcribed:
        # Up to two batches of recordings are read before their texts come out.
        ahead, rows = tee(rows)
        recordings = (speech.Recording(row[audio]) for row in ahead)
        with context.progress() as progress:
            recognizer = speech.loaded(context.stored_files(model), options.device)
            with closing(
                speech.transcribe(
                    recognizer,
                    recordings,
                    options,
                    context.audio_root,
                    progress,
                    first_row,
                )
            ) as batches:
                for batch in batches:
                    done = [(next(rows), found) for found in batch]
                    for row, found in done:
                        cache.put(row[audio], found)
                    yield from done

    return scan


def evaluate(context: Context, node: statements.Evaluate) -> Relation:
    """EVALUATE: yield one row of scores, or with `per_row` one an utterance."""
    options = context.options(statements.EvaluateOptions, node.options)
    model = context.models.get(node.model_name)
    language_models.check_transcribes(model, "EVALUATE")
    source = context.source(node.query)
    pairs = Pairs(source, options)
    lenient = options.on_error == "null"
    transcribed = _transcribed(context, model, source, pairs.audio, options)
    warnings = _Warnings(context, model)

    def scored(
        scorer: speech.Scorer,
    ) -> Iterator[tuple[Row, str | None, RowScores | None, str | None]]:
        """Yield each row, its transcript, its scores, and why there are none."""
        for number, (row, found) in enumerate(transcribed(), start=1):
            warnings.note(row[pairs.audio])
            scores, error = None, _error(number, found)
            if found.text is not None:
                try:
                    scores = scorer.score(number, row[pairs.text], found)
                except errors.DataError as bad:
                    if not lenient:
                        raise
                    error = str(bad)
            yield row, found.text, scores, error
        warnings.give(scorer.dropped)

    def scorer() -> speech.Scorer:
        context.check_interrupted()
        recognizer = speech.loaded(context.stored_files(model), options.device)
        return speech.Scorer(recognizer, options)

    if options.per_row:
        error = _error_column(options)
        added = (*_ROW_SCORE_COLUMNS, *error)
        _check_new_columns(source, options.result_col, *(name for name, _ in added))

        def each_row() -> Iterator[Row]:
            for row, text, scores, reason in scored(scorer()):
                values = row_of(scores, _ROW_SCORE_COLUMNS)
                yield (*row, text, *values, *((reason,) if error else ()))

        columns = (*source.columns, (options.result_col, "TEXT"), *added)
        return Relation(columns, each_row)

    columns = columns_of(Scores, without="" if lenient else "left_out")
    totals: list[Row] = []  # one, once the first scan has made it

    def all_rows() -> Iterator[Row]:
        if not totals:
            began = time.monotonic()
            total = scorer()
            left_out = sum(scores is None for _, _, scores, _ in scored(total))
            seconds = time.monotonic() - began
            scores = total.scores(seconds=seconds, left_out=left_out)
            totals.append(row_of(scores, columns))
        return iter(totals)

    return Relation(columns, all_rows)


class _Warnings:
    """The warnings of an EVALUATE, given at the end of its first scan.

    They say how many of the recordings the model was trained on, and which characters
    of the references it cannot spell.
    """

    def __init__(self, context: Context, model: StoredModel) -> None:
        self._was_trained_on = history.trained_on(context.models.tables, model.run_id)
        self._rows = self._trained_on = 0
        self._given = False

    def note(self, audio: Any) -> None:
        """Count a recording that is scored."""
        if not self._given:
            self._rows += 1
            self._trained_on += self._was_trained_on(audio)

    def give(self, dropped: Mapping[str, int]) -> None:
        """Warn, once a statement; dropped: how often a character was not scored."""
        if self._given:
            return
        self._given = True
        if self._trained_on:
            errors.warn(
                f"{self._trained_on} of the {self._rows} recordings scored were "
                "trained on, so the error rates say little about new ones; score others"
            )
        speech.warn_of_dropped(dropped)


def print_audio(context: Context, node: statements.PrintAudio) -> Relation:
    """PRINT AUDIO: yield the rows; the declared type says which column to play."""
    options = context.options(statements.PrintAudioOptions, node.options)
    source = context.source(node.query)
    audio = source.audio_position(options.audio_col)
    columns = list(source.columns)
    columns[audio] = (columns[audio][0], AUDIO)
    return Relation(tuple(columns), lambda: iter(source))


RELATIONS = {
    statements.Predict: predict,
    statements.Evaluate: evaluate,
    statements.PrintAudio: print_audio,
}
