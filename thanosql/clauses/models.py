"""Statements that make, replace, move or forget a stored model."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thanosql import errors, jobs, runs, statements, store
from thanosql.bases import BASES
from thanosql.clauses.columns import Pairs
from thanosql.relation import Column, Relation
from thanosql.source import KeptRows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from thanosql.execution import Execution
    from thanosql.speech.recognizer import Recognizer

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
SUMMARY_COLUMNS: tuple[Column, ...] = (
    ("name", "TEXT"),
    ("base", "TEXT"),
    ("architecture", "TEXT"),
    ("parameters", "INTEGER"),
    ("bytes", "INTEGER"),
    ("wer", "REAL"),
    ("created_at", "TEXT"),
)


def summary(model: store.StoredModel) -> Sequence[Any]:
    """Return a model as the row that LIST MODELS has for it."""
    return tuple(getattr(model, name) for name, _ in SUMMARY_COLUMNS)


def build(execution: Execution, node: statements.BuildModel) -> Relation:
    """BUILD MODEL: yield one row an epoch."""
    options = execution.options(statements.BuildOptions, node.options)

    def open_model(texts: Callable[[], Iterable[str]]) -> Recognizer:
        # A stored model first: importing one under a base's name makes that name
        # work where no hub can be reached.
        model = execution.store.find(node.base)
        if model is not None:
            return jobs.open_stored(execution.store, model)
        return jobs.open_base(node.base, texts)

    overwrite = options.overwrite or node.or_replace
    return _train(
        execution,
        node,
        options,
        node.base,
        open_model,
        overwrite=overwrite,
        skip=lambda: node.if_not_exists and execution.store.find(node.name) is not None,
    )


def fit(execution: Execution, node: statements.FitModel) -> Relation:
    """FIT MODEL: yield one row an epoch."""
    options = execution.options(statements.FitOptions, node.options)
    if execution.store.find(node.model_name) is None and _is_base(node.model_name):
        message = (
            f"{node.model_name!r} is a base, and FIT MODEL trains a stored model "
            f"further; BUILD MODEL {node.name} USING {node.model_name} starts from it"
        )
        raise errors.ModelNotFoundError(message)
    parent = execution.store.get(node.model_name)
    # Who names one model twice means to replace it.
    in_place = node.name.casefold() == parent.name.casefold()
    return _train(
        execution,
        node,
        options,
        parent.name,
        lambda _texts: jobs.open_stored(
            execution.store, execution.store.get(parent.name)
        ),
        overwrite=options.overwrite or in_place,
    )


def _is_base(name: str) -> bool:
    return name.casefold() in {each.casefold() for each in BASES}


def _train(
    execution: Execution,
    node: statements.BuildModel | statements.FitModel,
    options: statements.BuildOptions,
    origin: str,
    open_model: Callable[[Callable[[], Iterable[str]]], Recognizer],
    *,
    overwrite: bool,
    skip: Callable[[], bool] = lambda: False,
) -> Relation:
    source = execution.source(node.query, for_effect=True)
    pairs, held_out = Pairs(source, options), None
    if isinstance(options.validation, str):
        query = _validation_query(options.validation)
        held_out = Pairs(execution.source(query, for_effect=True), options)
    epochs: list[Sequence[Any]] = []

    def train() -> None:
        if skip():
            return
        execution.store.check_new(node.name, overwrite=overwrite)
        execution.warn_if_transaction_is_implicit("the model")
        stored = execution.store.find(origin)
        # Read to their end, and kept aside: no lock is held while training.
        rows = _NotedRows(pairs)
        validation = None if held_out is None else _NotedRows(held_out)
        built = jobs.build(
            open_model,
            rows.kept,
            None if validation is None else validation.kept,
            options,
            execution.audio_root,
        )
        base, parent = origin, None
        if stored is not None:
            parent = runs.Parent(stored.name, stored.sha256, stored.run_id)
            if isinstance(node, statements.FitModel):
                # What was trained in several steps is still a model of its first base.
                base = stored.base
        run = replace(
            built.run,
            rows=[
                *rows.digests(built.learned, validation=False),
                *(validation or rows).digests(built.held_out, validation=True),
            ],
            parent=parent,
        )
        record = _record(built.recognizer, node.name, base, node.query.source, options)
        _save(execution, built.recognizer, record, overwrite, run)
        epochs.extend(run.epochs)

    execution.effect(train)
    return Relation(EPOCH_COLUMNS, lambda: iter(epochs))


class _NotedRows:
    """The rows of a training on disk, and in memory a digest of each."""

    def __init__(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        self._digests: list[tuple[bytes, bytes]] = []
        self.kept = KeptRows(self._noting(pairs), 2)

    def digests(
        self, numbers: Iterable[int], *, validation: bool
    ) -> Iterator[Sequence[Any]]:
        """Yield what the run keeps of the rows with these numbers, from 1."""
        for number in numbers:
            audio, text = self._digests[number - 1]
            yield audio, number, text, int(validation)

    def _noting(self, pairs: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
        for audio, text in pairs:
            self._digests.append((runs.digest(audio), runs.digest(text)))
            yield audio, text


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


def drop(execution: Execution, node: statements.DropModel) -> None:
    """DROP MODEL: yield nothing."""

    def forget() -> None:
        if not (node.if_exists and execution.store.find(node.name) is None):
            execution.store.drop(node.name)

    execution.effect(forget)


def import_(execution: Execution, node: statements.ImportModel) -> Relation:
    """IMPORT MODEL: yield the model's row of LIST MODELS."""
    options = execution.options(statements.ImportOptions, node.options)
    origin = execution.place(node.source)
    return _store(execution, node.name, origin, overwrite=options.overwrite)


def get(execution: Execution, node: statements.GetModel) -> Relation:
    """GET MODEL: yield the model's row of LIST MODELS."""
    options = execution.options(statements.GetModelOptions, node.options)
    name = options.model_name or node.base
    return _store(execution, name, node.base, overwrite=options.overwrite)


def _store(
    execution: Execution, name: str, origin: str, *, overwrite: bool
) -> Relation:
    """Return the relation that stores a base or a directory as it is."""
    stored: list[Sequence[Any]] = []

    def read() -> None:
        execution.store.check_new(name, overwrite=overwrite)
        execution.warn_if_transaction_is_implicit("the model")
        recognizer = jobs.import_base(origin)
        record = _record(recognizer, name, origin)
        stored.append(summary(_save(execution, recognizer, record, overwrite)))

    execution.effect(read)
    return Relation(SUMMARY_COLUMNS, lambda: iter(stored))


def export(execution: Execution, node: statements.ExportModel) -> Relation:
    """EXPORT MODEL: yield one row, with the directory and what lies in it."""
    options = execution.options(statements.ExportOptions, node.options)
    model = execution.store.get(node.name)
    place = execution.place(node.target)
    written: list[Sequence[Any]] = []

    def write() -> None:
        try:
            target = Path(place).expanduser()
            if target.exists() and not target.is_dir():
                message = f"cannot export to {place!r}: it is a file; name a directory"
                raise errors.ProgrammingError(message)
            if target.is_dir() and any(target.iterdir()) and not options.overwrite:
                message = (
                    f"the directory {place!r} is not empty; "
                    "set overwrite=True to write into it, or name another"
                )
                raise errors.ProgrammingError(message)
            files = execution.store.read(model)
            store.export(files, target)
        except (OSError, ValueError, RuntimeError) as error:
            # No permission, a full disk; a NUL in the name; ~ of an unknown user.
            reason = error.strerror if isinstance(error, OSError) else error
            message = f"cannot export to {place!r:.200}: {reason}"
            raise errors.OperationalError(message) from error
        written.append((model.name, str(target), len(files), model.bytes))

    execution.effect(write)
    columns = (
        ("name", "TEXT"),
        ("directory", "TEXT"),
        ("files", "INTEGER"),
        ("bytes", "INTEGER"),
    )
    return Relation(columns, lambda: iter(written))


def _save(
    execution: Execution,
    recognizer: Recognizer,
    record: store.ModelRecord,
    overwrite: bool,
    run: runs.Run | None = None,
) -> store.StoredModel:
    with tempfile.TemporaryDirectory(prefix="thanosql-") as directory:
        recognizer.save(Path(directory))
        return execution.store.save(
            record, Path(directory), run=run, overwrite=overwrite
        )


def _record(
    recognizer: Recognizer,
    name: str,
    base: str,
    query: str | None = None,
    options: statements.Options | None = None,
) -> store.ModelRecord:
    return store.ModelRecord(
        name,
        base,
        architecture=type(recognizer.model).__name__,
        parameters=recognizer.model.num_parameters(),
        versions={
            package: version(package)
            for package in ("thanosql-local", "torch", "transformers")
        },
        query=query,
        options=None if options is None else statements.as_dict(options),
    )
