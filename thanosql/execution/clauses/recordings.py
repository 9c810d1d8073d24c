"""Statements that read or play the recordings of a query."""

from __future__ import annotations

from collections import Counter, deque
from contextlib import closing
from itertools import chain
from typing import TYPE_CHECKING, Any

from thanosql import errors, speech, statements
from thanosql.execution.clauses.columns import Pairs, audio_column
from thanosql.execution.clauses.models import stored_files
from thanosql.execution.relation import Column, Relation
from thanosql.execution.source import KeptTexts, Source
from thanosql.store import history, runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from thanosql.execution.execution import Execution
    from thanosql.store.records import StoredModel

AUDIO = "AUDIO BLOB"
"""The declared type of the column that PRINT AUDIO is to play."""

_SCORE_COLUMNS: tuple[Column, ...] = (
    ("rows", "INTEGER"),
    ("wer", "REAL"),
    ("wer_low", "REAL"),
    ("wer_high", "REAL"),
    ("cer", "REAL"),
    ("words", "INTEGER"),
    ("substitutions", "INTEGER"),
    ("deletions", "INTEGER"),
    ("insertions", "INTEGER"),
    ("audio_seconds", "REAL"),
    ("seconds", "REAL"),
)
_ROW_SCORE_COLUMNS: tuple[Column, ...] = (
    ("wer", "REAL"),
    ("cer", "REAL"),
    ("words", "INTEGER"),
    ("substitutions", "INTEGER"),
    ("deletions", "INTEGER"),
    ("insertions", "INTEGER"),
    ("characters", "INTEGER"),
    ("character_errors", "INTEGER"),
)


def predict(execution: Execution, node: statements.Predict) -> Relation:
    """PREDICT: yield the rows of the query, each with its transcript."""
    options = execution.options(statements.PredictOptions, node.options)
    model = execution.store.get(node.model_name)
    source = execution.source(node.query)
    audio = audio_column(source, options.audio_col)
    error = _error_column(options)
    _check_new_columns(source, options.result_col, *(name for name, _ in error))
    transcribed = _transcribed(execution, model, source, audio, options)

    def scan() -> Iterator[Sequence[Any]]:
        for row, text, reason in transcribed():
            yield (*row, text, reason) if error else (*row, text)

    return Relation((*source.columns, (options.result_col, "TEXT"), *error), scan)


def _error_column(
    options: statements.PredictOptions | statements.EvaluateOptions,
) -> tuple[Column, ...]:
    """Return the column that says what is wrong with a row, if it is asked for."""
    return (("error", "TEXT"),) if options.on_error == "null" else ()


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
    execution: Execution,
    model: StoredModel,
    source: Source,
    audio: int,
    options: statements.PredictOptions | statements.EvaluateOptions,
) -> Callable[[], Iterator[tuple[Sequence[Any], str | None, str | None]]]:
    """Return what starts a scan: each row, its transcript, why there is none."""
    known = KeptTexts()

    def scan() -> Iterator[tuple[Sequence[Any], str | None, str | None]]:
        rows = iter(source)
        # A scan after the first (the inner side of a join) reads the query again but
        # runs the model only from the first row that no earlier scan has come to.
        for number, row in enumerate(rows, start=1):
            heard = known.get(runs.digest(row[audio]))
            if heard is None:
                break
            text, error = heard
            yield row, text, _of_row(number, error)
        else:
            return
        pending: deque[tuple[int, Sequence[Any]]] = deque()
        unheard = enumerate(chain((row,), rows), start=number)

        def recordings() -> Iterator[Any]:
            for each in unheard:
                pending.append(each)
                yield each[1][audio]

        with (
            execution.progress() as progress,
            closing(
                speech.transcribe(
                    stored_files(execution, model),
                    recordings(),
                    options,
                    execution.audio_root,
                    progress,
                    first_row=number,
                )
            ) as batches,
        ):
            for batch in batches:
                done = [(*pending.popleft(), each.text, each.error) for each in batch]
                known.put(
                    (runs.digest(row[audio]), text, error)
                    for _, row, text, error in done
                )
                for number, row, text, error in done:
                    yield row, text, _of_row(number, error)

    return scan


def _of_row(number: int, error: str | None) -> str | None:
    """Return why a row is bad with its number, which is not kept with the audio."""
    return None if error is None else f"row {number}: {error}"


def evaluate(execution: Execution, node: statements.Evaluate) -> Relation:
    """EVALUATE: yield one row of scores, or with `per_row` one an utterance."""
    options = execution.options(statements.EvaluateOptions, node.options)
    model = execution.store.get(node.model_name)
    source = execution.source(node.query)
    pairs = Pairs(source, options)
    heard = _Heard(execution, model)
    if options.per_row:
        return _evaluate_rows(execution, model, source, pairs, options, heard)
    scores: list[Sequence[Any]] = []

    def scan() -> Iterator[Sequence[Any]]:
        if not scores:
            rows = ((heard.noted(audio), text) for audio, text in pairs)
            dropped: Counter[str] = Counter()
            with execution.progress() as progress:
                scores.append(
                    speech.evaluate(
                        stored_files(execution, model),
                        rows,
                        options,
                        execution.audio_root,
                        progress,
                        dropped,
                    )
                )
            heard.warn(dropped)
        return iter(scores)

    left_out = (("left_out", "INTEGER"),) if _error_column(options) else ()
    return Relation((*_SCORE_COLUMNS, *left_out), scan)


def _evaluate_rows(
    execution: Execution,
    model: StoredModel,
    source: Source,
    pairs: Pairs,
    options: statements.EvaluateOptions,
    heard: _Heard,
) -> Relation:
    added = (*_ROW_SCORE_COLUMNS, *_error_column(options))
    _check_new_columns(source, options.result_col, *(name for name, _ in added))
    transcribed = _transcribed(execution, model, source, pairs.audio, options)

    def scan() -> Iterator[Sequence[Any]]:
        dropped: Counter[str] = Counter()
        score = speech.scorer(stored_files(execution, model), options, dropped)
        for number, (row, text, error) in enumerate(transcribed(), start=1):
            heard.noted(row[pairs.audio])
            scores: Sequence[Any] = (None,) * len(_ROW_SCORE_COLUMNS)
            if text is not None:
                try:
                    scores = score(number, row[pairs.text], text)
                except errors.DataError as bad:
                    if options.on_error == "raise":
                        raise
                    error = str(bad)
            yield (*row, text, *scores, *((error,) if _error_column(options) else ()))
        heard.warn(dropped)

    columns = (*source.columns, (options.result_col, "TEXT"), *added)
    return Relation(columns, scan)


class _Heard:
    """Counts the recordings that are scored and were trained on.

    At the end it warns of them, and of what of the references is not scored.
    """

    def __init__(self, execution: Execution, model: StoredModel) -> None:
        self._was_trained_on = history.trained_on(execution.store.tables, model.run_id)
        self._rows = self._trained = 0
        self._warned = False

    def noted(self, audio: Any) -> Any:
        """Return the audio value, counted."""
        if not self._warned:
            self._rows += 1
            self._trained += self._was_trained_on(audio)
        return audio

    def warn(self, dropped: Mapping[str, int]) -> None:
        """Warn, once a statement, if there were any."""
        if self._warned:
            return
        self._warned = True
        if self._trained:
            errors.warn(
                f"{self._trained} of the {self._rows} recordings scored were trained "
                "on, so the error rates say little about new ones; score others"
            )
        speech.warn_of_dropped(dropped)


def print_audio(execution: Execution, node: statements.PrintAudio) -> Relation:
    """PRINT AUDIO: yield the rows; the declared type says which column to play."""
    options = execution.options(statements.PrintAudioOptions, node.options)
    source = execution.source(node.query)
    audio = audio_column(source, options.audio_col)
    columns = list(source.columns)
    columns[audio] = (columns[audio][0], AUDIO)
    return Relation(tuple(columns), lambda: iter(source))
