"""Statements that read or play the recordings of a query."""

from __future__ import annotations

import time
from contextlib import closing
from itertools import chain, tee
from typing import TYPE_CHECKING, Any

from thanosql import errors, speech, statements
from thanosql.execution.clauses import columns, language_models
from thanosql.execution.relation import Relation, columns_of, row_of
from thanosql.execution.source import Pairs, Source, TranscriptCache
from thanosql.speech.results import RowScores, Scores, Transcription
from thanosql.store import history

if TYPE_CHECKING:
    from collections.abc import (
        Callable,
        Generator,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )

    from thanosql.execution.context import Context
    from thanosql.execution.progress import Progress
    from thanosql.store.records import StoredModel

    Row = Sequence[Any]
    Transcribed = Iterator[tuple[Row, Sequence[Transcription]]]

AUDIO = "AUDIO BLOB"
"""The declared type of the column with the recordings in what PRINT AUDIO yields."""

_ROW_SCORE_COLUMNS = columns_of(RowScores)


def predict(context: Context, node: statements.Predict) -> Relation:
    """PREDICT: yield the rows of the query with what is heard, or a row a word."""
    options = context.options(statements.PredictOptions, node.options)
    if options.per_word and (options.words or options.alternatives):
        message = (
            "words and alternatives are columns of a row a recording, per_word a row a "
            "word; choose one"
        )
        raise errors.OptionError(message)
    model = context.models.get(node.model_name)
    language_models.check_transcribes(model, "PREDICT")
    source = context.source(node.query)
    audio = source.audio_position(options.audio_col)
    added = columns.predicted(options)
    columns.check_new(source, added, options.result_col)
    transcribed = _transcribed(context, model, source, audio, options)
    warnings = _OnceWarnings()

    def scan() -> Iterator[Row]:
        for number, (row, found) in enumerate(transcribed(), start=1):
            warnings.note(number, found)
            for values in (
                columns.by_word(number, found)
                if options.per_word
                else columns.by_recording(number, found, options.result_col)
            ):
                yield (*row, *(values[name] for name, _ in added))

    return Relation((*source.columns, *added), scan)


class _OnceWarnings:
    """Warnings that each name only the first row of a statement that has the fault."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def note(self, number: int, found: Iterable[Transcription]) -> None:
        """Warn of what was found in a row."""
        for each in found:
            if each.details.repeats_itself:
                self._warn(
                    f"row {number}: ",
                    "its text repeats itself, though it was drawn anew; a larger model "
                    "may do better. Only the first such row is named; in PREDICT's "
                    "details=True, repeats_itself tells of each",
                )
            if each.mixes_speech:
                self._warn(
                    f"row {number}: ",
                    "its channels hold different speech, which is heard mixed; "
                    "channel=1 hears one by itself, PREDICT's channel='each' all. Only "
                    "the first such row is named",
                )

    def _warn(self, row: str, what: str) -> None:
        if what not in self._given:
            self._given.add(what)
            errors.warn(row + what)


def _transcribed(
    context: Context,
    model: StoredModel,
    source: Source,
    audio: int,
    options: statements.PredictOptions | statements.EvaluateOptions,
) -> Callable[[], Transcribed]:
    """Return a function that starts a scan over the rows and their transcriptions.

    A row has one, but where each channel is heard: then one a channel, in order.

    A scan after the first (the inner side of a join) reads the query again, but runs
    the model only from the first row that no earlier scan has come to.
    """
    statements.check_workers(options)
    cache = TranscriptCache()
    language_model = language_models.named(context, options)
    names = None
    if options.hotwords_col is not None:
        names = source.position_for("hotwords_col", options.hotwords_col)

    def recording(row: Row) -> speech.Recording:
        hotwords = None if names is None else row[names]
        return speech.Recording(row[audio], options.channel, hotwords)

    def scan() -> Transcribed:
        rows = iter(source)
        for number, row in enumerate(rows, start=1):
            found = cache.get(recording(row))
            if found is not None:
                yield row, found
            else:  # `run_model` takes all rows that are left
                yield from run_model(number, chain((row,), rows))

    def run_model(first_row: int, rows: Iterable[Row]) -> Transcribed:
        # Up to two batches of recordings are read before their texts come out.
        ahead, rows = tee(rows)
        recordings = map(recording, ahead)
        with (
            context.progress() as progress,
            closing(
                _heard(
                    context,
                    model,
                    language_model,
                    recordings,
                    options,
                    progress,
                    first_row,
                )
            ) as batches,
        ):
            channels: list[Transcription] = []
            for batch in batches:
                done = []
                for found in batch:
                    channels.append(found)
                    if found.is_last:
                        done.append((next(rows), channels))
                        channels = []
                for row, each in done:
                    cache.put(recording(row), each)
                yield from done

    return scan


def _heard(
    context: Context,
    model: StoredModel,
    language_model: StoredModel | None,
    recordings: Iterable[speech.Recording],
    options: statements.PredictOptions | statements.EvaluateOptions,
    progress: Progress,
    first_row: int,
) -> Generator[list[Transcription], None, None]:
    """Return the recordings' transcriptions, made here or by workers on a cluster."""
    files = context.stored_files(model)
    texts = None if language_model is None else context.stored_files(language_model)
    root = context.audio_root
    if options.workers is not None:
        from thanosql import cluster  # only here

        session = context.cluster()
        return cluster.transcribe(
            session, files, recordings, options, root, progress, first_row, texts
        )
    return speech.transcribe(
        speech.loaded(files, options.device),
        recordings,
        options,
        root,
        progress,
        first_row,
        None if texts is None else speech.open_language_model(texts),
    )


def evaluate(context: Context, node: statements.Evaluate) -> Relation:
    """EVALUATE: yield one row of scores, or with `per_row` one an utterance."""
    options = context.options(statements.EvaluateOptions, node.options)
    model = context.models.get(node.model_name)
    language_models.check_transcribes(model, "EVALUATE")
    source = context.source(node.query)
    pairs = Pairs(source, options)
    lenient = options.on_error == "null"
    transcribed = _transcribed(context, model, source, pairs.audio, options)
    warnings, mixed = _Warnings(context, model), _OnceWarnings()

    def scored(
        scorer: speech.Scorer,
    ) -> Iterator[tuple[Row, str | None, RowScores | None, str | None]]:
        """Yield each row, its transcript, its scores, and why there are none."""
        for number, (row, (found,)) in enumerate(transcribed(), start=1):
            warnings.note(row[pairs.audio])
            mixed.note(number, (found,))
            scores, error = None, columns.error(number, found)
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
        # With workers, a GPU may be on their machines only; the scorer needs none.
        device = options.device if options.workers is None else "cpu"
        recognizer = speech.loaded(context.stored_files(model), device)
        return speech.Scorer(recognizer, options)

    if options.per_row:
        error = columns.error_column(options)
        added = ((options.result_col, "TEXT"), *_ROW_SCORE_COLUMNS, *error)
        columns.check_new(source, added, options.result_col)

        def each_row() -> Iterator[Row]:
            for row, text, scores, reason in scored(scorer()):
                values = row_of(scores, _ROW_SCORE_COLUMNS)
                yield (*row, text, *values, *((reason,) if error else ()))

        return Relation((*source.columns, *added), each_row)

    helped = options.language_model or options.hotwords or options.hotwords_col
    shown = columns_of(
        Scores,
        without=(
            *(() if helped else ("wer_without",)),
            *(() if lenient else ("left_out",)),
        ),
    )
    totals: list[Row] = []  # one, once the first scan has made it

    def all_rows() -> Iterator[Row]:
        if not totals:
            began = time.monotonic()
            total = scorer()
            left_out = sum(scores is None for _, _, scores, _ in scored(total))
            seconds = time.monotonic() - began
            scores = total.scores(seconds=seconds, left_out=left_out)
            totals.append(row_of(scores, shown))
        return iter(totals)

    return Relation(shown, all_rows)


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
    shown = list(source.columns)
    shown[audio] = (shown[audio][0], AUDIO)
    return Relation(tuple(shown), lambda: iter(source))


RELATIONS = {
    statements.Predict: predict,
    statements.Evaluate: evaluate,
    statements.PrintAudio: print_audio,
}
