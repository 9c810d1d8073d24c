"""Statements that train a model: BUILD MODEL, FIT MODEL."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw

from thanosql import errors, speech, statements
from thanosql.catalog import bases
from thanosql.execution.clauses import adapters, language_models
from thanosql.execution.clauses.models import (
    model_record,
    save_adapter,
    save_model,
    store,
)
from thanosql.execution.relation import Column, Relation, columns_of, row_of
from thanosql.execution.source import KeptPairs, Pairs
from thanosql.speech.results import EpochResult
from thanosql.store import records, runs, training_folders
from thanosql.store.transactions import PATIENCE, check_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from thanosql.execution.context import Context
    from thanosql.execution.source import Source
    from thanosql.speech.recognizers.recognizer import Recognizer
    from thanosql.speech.training.checkup import Checkup
    from thanosql.store.models import ModelStore
    from thanosql.store.records import StoredModel

_LEDGER_COLUMNS = columns_of(EpochResult, without="best")
EPOCH_COLUMNS: tuple[Column, ...] = (*_LEDGER_COLUMNS, ("kept", "INTEGER"))
_FINDING_COLUMNS: tuple[Column, ...] = (
    ("finding", "TEXT"),
    ("row", "INTEGER"),
    ("value", None),
)


def build(context: Context, node: statements.BuildModel) -> Relation:
    """BUILD MODEL: yield one row an epoch; of a language model, one row."""
    if language_models.is_ngram(node.base):
        return language_models.build(context, node)
    language_models.check_options(
        node, statements.BuildOptions, statements.NGramOptions
    )
    start = context.models.find(node.base)
    if start is not None:
        language_models.check_transcribes(start, "BUILD MODEL")
    options = context.options(statements.BuildOptions, node.options)
    return _relation(
        context,
        _Training(
            node.name,
            node.base,
            node.query,
            options,
            overwrite=options.overwrite or node.or_replace,
            if_not_exists=node.if_not_exists,
        ),
    )


def fit(context: Context, node: statements.FitModel) -> Relation:
    """FIT MODEL: yield one row an epoch."""
    options = context.options(statements.FitOptions, node.options)
    parent = context.models.get(node.model_name)
    language_models.check_transcribes(parent, "FIT MODEL")
    # FIT MODEL m USING m asks to replace m.
    in_place = node.name.casefold() == parent.name.casefold()
    return _relation(
        context,
        _Training(
            node.name,
            parent.name,
            node.query,
            options,
            overwrite=options.overwrite or in_place,
            is_fit=True,
        ),
    )


@dataclass(frozen=True, slots=True)
class _Training:
    """What a BUILD MODEL or a FIT MODEL asks for."""

    name: str
    origin: str
    "The name, as written, of the base or stored model to start from."
    query: statements.Query
    options: statements.BuildOptions
    overwrite: bool
    if_not_exists: bool = False
    "Whether to do nothing if a model of the name exists."
    is_fit: bool = False
    "FIT: the origin must be a stored model, and the new model has the same base."

    def start(self, models: ModelStore) -> StoredModel | None:
        """Return the stored model to start from; None where it is a base.

        A stored model comes first: importing one under a base's name makes that name
        work where no hub can be reached.
        """
        return models.get(self.origin) if self.is_fit else models.find(self.origin)


def _relation(context: Context, wanted: _Training) -> Relation:
    """Return one row an epoch, or with `check_only` one a finding."""
    statements.check_workers(wanted.options)
    start = wanted.start(context.models)
    options = adapters.as_trained(start, wanted.options, is_fit=wanted.is_fit)
    if options.adapter:
        adapters.check_name(start, wanted.origin, wanted.name)
        if options.learning_rate is None:
            rate = adapters.LEARNING_RATE
            options = dataclasses.replace(options, learning_rate=rate)
    wanted = dataclasses.replace(wanted, options=options)
    pairs = Pairs(context.source(wanted.query, for_effect=True), options)
    held_out: Pairs | None = None
    if isinstance(options.validation, str):
        held_out = Pairs(_validation_source(context, options.validation), options)
    if options.check_only:
        return Relation(
            _FINDING_COLUMNS, lambda: _findings(context, wanted, pairs, held_out)
        )
    rows: list[Sequence[Any]] = []
    context.effect(lambda: rows.extend(_train(context, wanted, pairs, held_out)))
    return Relation(EPOCH_COLUMNS, lambda: iter(rows))


def _train(
    context: Context, wanted: _Training, pairs: Pairs, held_out: Pairs | None
) -> list[Sequence[Any]]:
    """Train and store the model; return the rows of the epochs."""
    models, options = context.models, wanted.options
    if wanted.if_not_exists and models.find(wanted.name) is not None:
        return []
    runs.settle(models.tables)
    models.check_new(wanted.name, overwrite=wanted.overwrite)
    context.warn_if_transaction_is_implicit("the model")
    path = Path(context.database.filename)
    file = path if path.is_file() else None  # in memory, which may have a name too
    # By a transaction that has begun to read, or a cursor that is half read.
    is_reading = context.database.txn_state("main") != apsw.SQLITE_TXN_NONE
    if is_reading:
        check_snapshot(context.database)  # now, not after hours of training
    # After a write of another connection, and the ledger has one, a connection that is
    # reading could not write any more.
    may_write_meanwhile = not (is_reading or context.database.in_transaction)
    start = wanted.start(models)
    # Read to their end and kept in a file: no lock is held while training.
    rows = KeptPairs(pairs)
    validation = None if held_out is None else KeptPairs(held_out)
    of: records.AdapterBase | None = None
    if options.adapter:
        of = adapters.base_of(start, wanted.origin)
        if of is None:
            start = store(context, wanted.origin, wanted.origin, overwrite=False)
            of = adapters.base_of(start, wanted.origin)
    material = _prepared(context, wanted, start, rows, validation)
    rate = _learning_rate(models, wanted.origin)
    options = speech.chosen(material, options, rate)
    wanted = dataclasses.replace(wanted, options=options)
    identity = _identity(wanted, material, rows, validation)
    home = training_folders.home(file)
    with training_folders.opened(home, identity, resume=options.resume) as training:
        run = _run(wanted, training.id, material, start, rows, validation or rows, of)
        # Without a folder, no lock says whether the training is still alive.
        is_live = training.folder is not None and may_write_meanwhile
        ledger = runs.Ledger(run, file if is_live else None)
        # In this order an error finishes the checkpoint (`_epochs`), then names it
        # (`_accounted`), and unlocks its folder last (`opened`).
        with _accounted(context, training, ledger):
            epochs = _epochs(context, material, options, training.folder, ledger)
            best = max(epoch.epoch for epoch in epochs if epoch.best)
            with _storing(training):
                recognizer = material.recognizer
                save = save_model if of is None else partial(save_adapter, of=of)
                save(
                    context,
                    recognizer,
                    model_record(recognizer, wanted.name, run.base, run.query, options),
                    overwrite=wanted.overwrite,
                    write_run=lambda connection: ledger.store(connection, best),
                    patience=PATIENCE,
                )
        training.discard()
    return [
        (*row_of(epoch, _LEDGER_COLUMNS), int(epoch.epoch == best)) for epoch in epochs
    ]


def _prepared(
    context: Context,
    wanted: _Training,
    start: StoredModel | None,
    rows: KeptPairs,
    held_out: KeptPairs | None,
    checkup: Checkup | None = None,
) -> speech.Material:
    """Open the base or stored model to start from, and examine all rows."""

    def open_start() -> Recognizer:
        ctc = wanted.options.objective == "ctc" and not wanted.is_fit
        if start is None:
            recognizer = speech.open_base(wanted.origin, rows.texts, ctc=ctc)
        elif ctc:
            files = adapters.whole_files(context, start)
            recognizer = speech.open_encoder(files, rows.texts)
        else:
            recognizer = speech.open_stored(
                context.stored_files(start), to_adapt=bool(wanted.options.adapter)
            )
        context.check_interrupted()
        return recognizer

    options, device = wanted.options, ""
    if options.workers is not None:
        from thanosql import cluster  # only here

        device = cluster.training_device(context.cluster(), options)
        # Here, nothing is trained: a GPU may be on the workers' machines only.
        options = dataclasses.replace(options, device="cpu")
    with context.progress() as progress:
        material = speech.prepare(
            open_start,
            rows,
            held_out,
            options,
            context.audio_root,
            progress,
            checkup,
        )
    return dataclasses.replace(material, device=device or material.device)


def _identity(
    wanted: _Training,
    material: speech.Material,
    rows: KeptPairs,
    validation: KeptPairs | None,
) -> training_folders.Identity:
    base_digest, recordings = material.digests()
    return training_folders.Identity(
        model=wanted.name,
        base=wanted.origin,
        base_digest=base_digest,
        options=statements.shaping_weights(wanted.options),
        rows=rows.row_digests,
        validation_rows=training_folders.no_rows
        if validation is None
        else validation.row_digests,
        recordings=recordings,
    )


def _run(
    wanted: _Training,
    training_id: str,
    material: speech.Material,
    start: StoredModel | None,
    rows: KeptPairs,
    validation: KeptPairs,
    of: records.AdapterBase | None,
) -> records.TrainingRun:
    def used_rows() -> Iterator[records.TrainingRow]:
        for utterances, kept, is_validation in (
            (material.learned, rows, False),
            (material.held_out, validation, True),
        ):
            for utterance in utterances:
                audio, text = kept.digests_of(utterance.row)
                yield records.TrainingRow(audio, utterance.row, text, is_validation)

    # FIT keeps the base: however often a model is trained further, it is of its first.
    base = start.base if start is not None and wanted.is_fit else wanted.origin
    if of is not None:
        base = of.name
    return records.TrainingRun(
        training=training_id,
        model_name=wanted.name,
        base=base,
        query=wanted.query.source,
        options=statements.as_dict(wanted.options),
        device=material.device,
        utterances=len(material.learned),
        validation_utterances=len(material.held_out),
        audio_seconds=material.seconds,
        dropped=material.dropped,
        rows=used_rows,
        parent=None
        if start is None
        else records.Parent(start.name, start.sha256, start.run_id),
    )


def _epochs(
    context: Context,
    material: speech.Material,
    options: statements.BuildOptions,
    folder: Path | None,
    ledger: runs.Ledger,
) -> list[EpochResult]:
    """Train to the end, and add each epoch to the ledger."""
    epochs: list[EpochResult] = []
    root = context.audio_root
    with context.progress() as progress, ExitStack() as closes:
        if options.workers is None:
            trained = speech.train(material, options, root, folder, progress)
        else:
            from thanosql import cluster  # only here

            session = context.cluster()
            trained = cluster.train(session, material, options, root, folder, progress)
        closes.enter_context(closing(trained))
        for epoch in trained:
            ledger.add(dataclasses.asdict(epoch))
            epochs.append(epoch)
    return epochs


def _findings(
    context: Context, wanted: _Training, pairs: Pairs, held_out: Pairs | None
) -> Iterator[Sequence[Any]]:
    """Yield what is to be known of the rows before a training.

    Nothing is stored; but to estimate the time, three steps are trained and discarded.
    """
    rows = KeptPairs(pairs)
    root = context.audio_root
    checkup = speech.checkup(root)
    material = _prepared(
        context,
        wanted,
        wanted.start(context.models),
        rows,
        None if held_out is None else KeptPairs(held_out),
        checkup,
    )
    yield "rows", None, len(rows)
    yield "rows to train on", None, len(material.learned)
    yield "rows to validate on", None, len(material.held_out)
    yield "bad rows", None, len(material.bad) + len(material.bad_held_out)
    yield "hours of audio", None, material.seconds / 3600
    if material.learned:
        parameters, trained = speech.parameter_counts(material, wanted.options)
        yield "parameters", None, parameters
        yield "parameters to train", None, trained
        seconds = None  # what this machine takes says nothing of the workers'
        if wanted.options.workers is None:
            seconds = speech.estimated_seconds(material, wanted.options, root)
        yield "estimated seconds of training", None, seconds
    for rate, count in checkup.rate_counts().most_common():
        yield f"rows of {rate} Hz", None, count
    for character, count in sorted(material.dropped.items(), key=lambda item: -item[1]):
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
    """Return the default of the base that `origin` is, or was first trained from."""
    name, seen = origin, set[str]()
    while name.casefold() not in seen:
        base = bases.find(name)
        if base is not None:
            return base.learning_rate
        seen.add(name.casefold())
        stored = models.find(name)
        name = name if stored is None else stored.base
    return bases.LEARNING_RATE


@contextmanager
def _accounted(
    context: Context, training: training_folders.Training, ledger: runs.Ledger
) -> Iterator[None]:
    """Record why a training ends without a model; add to the error how to resume it."""
    try:
        yield
    except BaseException as error:
        stopped = context.interrupted() or isinstance(error, KeyboardInterrupt)
        status = records.Status.INTERRUPTED if stopped else records.Status.FAILED
        reason = str(error) or type(error).__name__
        training.note_outcome(status, reason)
        is_accounted = ledger.end(status, reason)
        if isinstance(error, errors.TrainingError):
            # Resumed, it would fail in the same way.
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
    """Add to an error of storing a trained model how the model can still be stored."""
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


def _validation_source(context: Context, text: str) -> Source:
    """Return the validation rows; their query is parsed as a statement of its own."""
    try:
        query = _validation_query(text)
        return context.source(query, for_effect=True, called="the validation query")
    except (errors.OperationalError, errors.StatementSyntaxError) as error:
        error.args = (f"in the validation query: {error}",)
        raise


def _validation_query(text: str) -> statements.Query:
    """Return the query for the validation rows, in parentheses: it must be just one."""
    query = statements.parse(f"SELECT * FROM ({text.rstrip().rstrip(';')}\n)")
    if query.statement_parameters:
        message = (
            "the query in the option validation cannot use parameters of its own; "
            "bind the whole text of it instead: validation=?"
        )
        raise errors.OptionError(message)
    return query


RELATIONS = {statements.BuildModel: build, statements.FitModel: fit}
