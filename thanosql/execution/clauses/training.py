"""Statements that train a model: BUILD MODEL, FIT MODEL."""

from __future__ import annotations

import dataclasses
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw

from thanosql import errors, speech, statements
from thanosql.catalog import bases
from thanosql.execution.clauses.columns import Pairs
from thanosql.execution.clauses.models import model_record, save_model, stored_files
from thanosql.execution.relation import Column, Relation
from thanosql.execution.source import KeptRows
from thanosql.store import records, runs, training_folders
from thanosql.store.transactions import check_snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from thanosql.execution.execution import Execution
    from thanosql.execution.source import Source
    from thanosql.speech.recognizers.recognizer import Recognizer
    from thanosql.speech.training.checkup import Checkup
    from thanosql.store.models import ModelStore
    from thanosql.store.records import StoredModel

PATIENCE = 60.0
"""Seconds to wait for a lock before hours of training are given up for it."""

EPOCH_COLUMNS: tuple[Column, ...] = (
    ("epoch", "INTEGER"),
    ("steps", "INTEGER"),
    ("train_loss", "REAL"),
    ("validation_loss", "REAL"),
    ("wer", "REAL"),
    ("cer", "REAL"),
    ("learning_rate", "REAL"),
    ("audio_seconds", "REAL"),
    ("seconds", "REAL"),
    ("kept", "INTEGER"),
)
_FINDING_COLUMNS: tuple[Column, ...] = (
    ("finding", "TEXT"),
    ("row", "INTEGER"),
    ("value", None),
)
_WITHOUT_EFFECT_ON_WEIGHTS = {
    "audio_col", "text_col",  # the rows themselves are compared
    "check_only", "device", "feature_cache", "gradient_checkpointing", "overwrite",
    "resume",
}  # fmt: skip


def build(execution: Execution, node: statements.BuildModel) -> Relation:
    """BUILD MODEL: yield one row an epoch."""
    options = execution.options(statements.BuildOptions, node.options)

    def open_model(texts: Callable[[], Iterable[str]]) -> Recognizer:
        # A stored model first: importing one under a base's name makes that name
        # work where no hub can be reached.
        model = execution.store.find(node.base)
        if model is not None:
            return speech.open_stored(stored_files(execution, model))
        return speech.open_base(node.base, texts)

    overwrite = options.overwrite or node.or_replace
    return _TrainingStatement(
        execution,
        node,
        options,
        node.base,
        open_model,
        overwrite,
        lambda: node.if_not_exists and execution.store.find(node.name) is not None,
    ).relation()


def fit(execution: Execution, node: statements.FitModel) -> Relation:
    """FIT MODEL: yield one row an epoch."""
    options = execution.options(statements.FitOptions, node.options)
    parent = execution.store.get(node.model_name)
    # Who names one model twice means to replace it.
    in_place = node.name.casefold() == parent.name.casefold()
    return _TrainingStatement(
        execution,
        node,
        options,
        parent.name,
        lambda _texts: speech.open_stored(
            stored_files(execution, execution.store.get(parent.name))
        ),
        options.overwrite or in_place,
    ).relation()


@dataclass
class _TrainingStatement:
    """A BUILD MODEL or FIT MODEL: rows and a base in, a stored model out."""

    execution: Execution
    node: statements.BuildModel | statements.FitModel
    options: statements.BuildOptions
    origin: str
    "The base, or the stored model, that it starts from, as it is named."
    open_model: Callable[[Callable[[], Iterable[str]]], Recognizer]
    overwrite: bool
    skip: Callable[[], bool] = lambda: False

    def relation(self) -> Relation:
        """Return one row an epoch, or with `check_only` one a finding."""
        execution, options = self.execution, self.options
        if options.learning_rate is None:
            rate = _learning_rate(execution.store, self.origin)
            self.options = options = dataclasses.replace(options, learning_rate=rate)
        source = execution.source(self.node.query, for_effect=True)
        pairs, held_out = Pairs(source, options), None
        if isinstance(options.validation, str):
            held_out = Pairs(
                _validation_source(execution, options.validation),
                options,
                "the validation query",
            )
        if options.check_only:
            return Relation(_FINDING_COLUMNS, lambda: self._findings(pairs, held_out))
        epochs: list[Sequence[Any]] = []
        execution.effect(lambda: epochs.extend(self._train(pairs, held_out)))
        return Relation(EPOCH_COLUMNS, lambda: iter(epochs))

    def _train(self, pairs: Pairs, held_out: Pairs | None) -> Iterator[Sequence[Any]]:
        """Train and store the model; yield the rows of the epochs."""
        if self.skip():
            return
        execution = self.execution
        runs.settle(execution.store.tables)
        execution.store.check_new(self.node.name, overwrite=self.overwrite)
        execution.warn_if_transaction_is_implicit("the model")
        database = execution.database.filename
        if not Path(database).is_file():  # in memory, under whatever name
            database = ""
        # In a transaction, or by a cursor that is half read.
        is_reading = execution.database.txn_state("main") != apsw.SQLITE_TXN_NONE
        if is_reading:
            check_snapshot(execution.database)  # rather than after hours
        # What another connection writes, the ledger's too, would outdate the reading.
        is_ours_alone = is_reading or execution.database.in_transaction
        parent = execution.store.find(self.origin)
        # Read to their end, and kept aside: no lock is held while training.
        rows = _NotedRows(pairs)
        validation = None if held_out is None else _NotedRows(held_out)
        material = self._prepare(
            rows.kept, None if validation is None else validation.kept
        )
        identity = self._identity(material, rows, validation)
        home = training_folders.home(database)
        with training_folders.opened(
            home, identity, resume=self.options.resume
        ) as training:
            run = self._run(training.id, material, parent, rows, validation or rows)
            # Without a folder there is no lock that says whether it is still alive.
            live = training.folder is not None and not is_ours_alone
            ledger = runs.Ledger(run, Path(database) if live else None)
            # Its checkpoint is whole before what is kept is told and unlocked.
            with _accounted(execution, training, ledger):
                with (
                    execution.progress() as progress,
                    closing(
                        speech.train(
                            material,
                            self.options,
                            execution.audio_root,
                            training.folder,
                            progress,
                        )
                    ) as trained,
                ):
                    epochs = list(_noted(ledger, trained))
                best = max(number for number, *_, is_best in epochs if is_best)
                with _storing(training):
                    save_model(
                        execution,
                        material.recognizer,
                        model_record(
                            material.recognizer,
                            self.node.name,
                            run.base,
                            run.query,
                            self.options,
                        ),
                        overwrite=self.overwrite,
                        write_run=lambda connection: ledger.store(connection, best),
                        patience=PATIENCE,
                    )
            training.discard()
        yield from ((*epoch[:-1], int(epoch[0] == best)) for epoch in epochs)

    def _prepare(
        self, rows: KeptRows, held_out: KeptRows | None, checkup: Checkup | None = None
    ) -> speech.Material:
        with self.execution.progress() as progress:
            return speech.prepare(
                self.open_model,
                rows,
                held_out,
                self.options,
                self.execution.audio_root,
                progress,
                checkup,
            )

    def _identity(
        self, material: speech.Material, rows: _NotedRows, validation: _NotedRows | None
    ) -> training_folders.Identity:
        base_digest, recordings = material.digests()
        return training_folders.Identity(
            model=self.node.name,
            base=self.origin,
            base_digest=base_digest,
            options={
                name: value
                for name, value in statements.as_dict(self.options).items()
                if name not in _WITHOUT_EFFECT_ON_WEIGHTS
            },
            rows=rows.identity(),
            validation_rows=[] if validation is None else validation.identity(),
            recordings=recordings,
        )

    def _run(
        self,
        training_id: str,
        material: speech.Material,
        parent: StoredModel | None,
        rows: _NotedRows,
        validation: _NotedRows,
    ) -> records.TrainingRun:
        # What was trained in several steps is still a model of its first base.
        of_parent = parent is not None and isinstance(self.node, statements.FitModel)
        return records.TrainingRun(
            training=training_id,
            model_name=self.node.name,
            base=parent.base if parent is not None and of_parent else self.origin,
            query=self.node.query.source,
            options=statements.as_dict(self.options),
            device=material.device,
            utterances=len(material.learned),
            validation_utterances=len(material.held_out),
            audio_seconds=material.seconds,
            dropped=material.dropped,
            rows=[
                *rows.digests(material.learned, validation=False),
                *validation.digests(material.held_out, validation=True),
            ],
            parent=None
            if parent is None
            else records.Parent(parent.name, parent.sha256, parent.run_id),
        )

    def _findings(
        self, pairs: Pairs, held_out: Pairs | None
    ) -> Iterator[Sequence[Any]]:
        """Yield what a training of these rows would meet, nothing of which it does."""
        rows = KeptRows(pairs, 2)
        root = self.execution.audio_root
        checkup = speech.checkup(root)
        material = self._prepare(
            rows, None if held_out is None else KeptRows(held_out, 2), checkup
        )
        yield "rows", None, len(rows)
        yield "rows to train on", None, len(material.learned)
        yield "rows to validate on", None, len(material.held_out)
        yield "bad rows", None, len(material.bad) + len(material.bad_held_out)
        yield "hours of audio", None, material.seconds / 3600
        if material.learned:
            seconds = speech.estimated_seconds(material, self.options, root)
            yield "estimated seconds of training", None, seconds
        for rate, count in checkup.rate_counts().most_common():
            yield f"rows of {rate} Hz", None, count
        for character, count in sorted(
            material.dropped.items(), key=lambda item: -item[1]
        ):
            yield f"left out of the texts: {character!r}", None, count
        for bad in material.bad:
            yield "bad", bad.row, bad.reason
        for bad in material.bad_held_out:
            yield "bad, of the validation query", bad.row, bad.reason
        for row in sorted(checkup.silent):
            yield "silent", row, None
        for row, earlier in checkup.duplicates():
            yield "same recording", row, f"as row {earlier}"


def _learning_rate(models: ModelStore, origin: str) -> float:
    """Return the default of the base that a model, or a base, goes back to."""
    name, seen = origin, set[str]()
    while name.casefold() not in seen:
        base = bases.find(name)
        if base is not None:
            return base.learning_rate
        seen.add(name.casefold())
        stored = models.find(name)
        name = name if stored is None else stored.base
    return bases.LEARNING_RATE


def _noted(
    ledger: runs.Ledger, epochs: Iterable[Sequence[Any]]
) -> Iterator[Sequence[Any]]:
    for epoch in epochs:
        ledger.add(dict(zip(runs.EPOCH_COLUMNS, epoch, strict=False)))
        yield epoch


@contextmanager
def _accounted(
    execution: Execution, training: training_folders.Training, ledger: runs.Ledger
) -> Iterator[None]:
    """Write down why a training ends without a model, and tell how to go on with it."""
    try:
        yield
    except BaseException as error:
        stopped = execution.interrupted() or isinstance(error, KeyboardInterrupt)
        status = records.Status.INTERRUPTED if stopped else records.Status.FAILED
        reason = str(error) or type(error).__name__
        training.note_outcome(status, reason)
        is_accounted = ledger.end(status, reason)
        if isinstance(error, errors.TrainingError):
            # It would come to the same end again.
            training.discard(all_but_outcome=not is_accounted)
        elif training.folder is not None:
            epochs = speech.checkpointed_epochs(training.folder)
            if epochs and "resume=True" not in reason:
                error.add_note(
                    f"the training is kept as it was after epoch {epochs}: run the "
                    "statement again with resume=True to go on from there"
                )
        raise


@contextmanager
def _storing(training: training_folders.Training) -> Iterator[None]:
    """Raise what stands against storing a trained model, with the way to store it."""
    try:
        yield
    except (OSError, apsw.Error, errors.Error) as error:
        kept = (
            "; the trained model is kept aside: run the statement again with "
            "resume=True, which stores it without training again"
            if training.folder is not None
            and speech.checkpointed_epochs(training.folder)
            else ""
        )
        explained: errors.Error
        if isinstance(error, apsw.Error):
            explained = errors.from_apsw(error)
        elif isinstance(error, errors.Error):
            explained = error
        else:  # a full disk under the temporary folder
            explained = errors.OperationalError(str(error))
        explained.args = (f"the model cannot be stored: {explained}{kept}",)
        raise explained from error


class _NotedRows:
    """The rows of a training on disk, and in memory a digest of each."""

    def __init__(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        self._digests: list[tuple[bytes, bytes]] = []
        self.kept = KeptRows(self._noting(pairs), 2)

    def identity(self) -> list[str]:
        """Return a short digest of each row."""
        return [runs.digest(audio + text).hex()[:16] for audio, text in self._digests]

    def digests(
        self, utterances: Iterable[Any], *, validation: bool
    ) -> Iterator[records.TrainingRow]:
        """Yield what the run keeps of the rows that these utterances are."""
        for utterance in utterances:
            audio, text = self._digests[utterance.row - 1]
            yield records.TrainingRow(audio, utterance.row, text, validation)

    def _noting(self, pairs: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
        for audio, text in pairs:
            self._digests.append((runs.digest(audio), runs.digest(text)))
            yield audio, text


def _validation_source(execution: Execution, text: str) -> Source:
    """Return the validation rows, by a query that is all of a statement of its own."""
    try:
        return execution.source(_validation_query(text), for_effect=True)
    except (errors.OperationalError, errors.StatementSyntaxError) as error:
        error.args = (f"in the validation query: {error}",)
        raise


def _validation_query(text: str) -> statements.Query:
    """Return a query for the validation rows; in parentheses, for one is all it is."""
    query = statements.parse(f"SELECT * FROM ({text.rstrip().rstrip(';')}\n)")
    if query.statement_parameters:
        message = (
            "the query in the option validation cannot use parameters of its own; "
            "bind the whole text of it instead: validation=?"
        )
        raise errors.OptionError(message)
    return query
