"""Statements that make, replace, move or forget a stored model."""

from __future__ import annotations

import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thanosql import errors, speech, statements
from thanosql.execution.clauses import adapters, language_models
from thanosql.execution.relation import Column, Relation, row_of
from thanosql.store.files import export as export_files
from thanosql.store.records import ModelRecord, StoredModel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import apsw

    from thanosql.execution.context import Context
    from thanosql.speech.opening.adapters import AdapterFiles
    from thanosql.speech.recognizers.recognizer import Recognizer
    from thanosql.store.records import AdapterBase

SUMMARY_COLUMNS: tuple[Column, ...] = (
    ("name", "TEXT"),
    ("base", "TEXT"),
    ("architecture", "TEXT"),
    ("parameters", "INTEGER"),
    ("bytes", "INTEGER"),
    ("wer", "REAL"),
    ("created_at", "TEXT"),
)


def summary(model: StoredModel) -> Sequence[Any]:
    """Return a model as the row that LIST MODELS has for it."""
    return row_of(model, SUMMARY_COLUMNS)


def drop(context: Context, node: statements.DropModel) -> None:
    """DROP MODEL: yield nothing."""

    def drop() -> None:
        with context.writing():
            context.models.drop(node.name, if_exists=node.if_exists)

    context.effect(drop)


def import_(context: Context, node: statements.ImportModel) -> Relation:
    """IMPORT MODEL: yield the model's row of LIST MODELS."""
    options = context.options(statements.ImportOptions, node.options)
    origin = context.place(node.source)
    return _store(context, node.name, origin, overwrite=options.overwrite)


def get(context: Context, node: statements.GetModel) -> Relation:
    """GET MODEL: yield the model's row of LIST MODELS."""
    options = context.options(statements.GetModelOptions, node.options)
    name = options.model_name or node.base
    return _store(context, name, node.base, overwrite=options.overwrite)


def _store(context: Context, name: str, origin: str, *, overwrite: bool) -> Relation:
    """Store a base, or a model of a directory or ARPA file, without training it."""
    if language_models.is_ngram(origin):
        message = (
            f"{origin!r} is nothing to store by itself: BUILD MODEL ... USING {origin} "
            "counts a language model of a text column"
        )
        raise errors.NotSupportedError(message)
    stored: list[Sequence[Any]] = []
    context.effect(
        lambda: stored.append(
            summary(store(context, name, origin, overwrite=overwrite))
        )
    )
    return Relation(SUMMARY_COLUMNS, lambda: iter(stored))


def store(context: Context, name: str, origin: str, *, overwrite: bool) -> StoredModel:
    """Store a base, or a model of a directory or ARPA file, now."""
    context.models.check_new(name, overwrite=overwrite)
    context.warn_if_transaction_is_implicit("the model")
    arpa = language_models.arpa_file(origin)
    if arpa is not None:
        return language_models.import_arpa(context, name, arpa, overwrite=overwrite)
    adapter = speech.import_adapter(origin)
    if adapter is not None:
        return _import_adapter(context, name, origin, adapter, overwrite=overwrite)
    recognizer = speech.import_base(origin)
    record = model_record(recognizer, name, origin)
    return save_model(context, recognizer, record, overwrite=overwrite)


def _import_adapter(
    context: Context, name: str, origin: str, adapter: AdapterFiles, *, overwrite: bool
) -> StoredModel:
    """Store an adapter in PEFT's format, whose base is stored or in the package."""
    of = adapters.of_adapter(context, adapter, origin)
    base = context.base_files(origin, of)
    architecture = speech.check_adapter(adapter, base, origin)
    record = ModelRecord(
        name,
        of.name,
        adapters.ARCHITECTURE.format(architecture),
        adapter.parameters,
        _versions(),
    )
    return save_adapter(context, adapter, record, of, overwrite=overwrite)


def export(context: Context, node: statements.ExportModel) -> Relation:
    """EXPORT MODEL: yield one row, with the directory and what lies in it."""
    options = context.options(statements.ExportOptions, node.options)
    model = context.models.get(node.name)
    if options.adapter and model.adapter_base is None:
        message = (
            f"option adapter: {model.name!r} is no adapter, but a whole model; leave "
            "it out"
        )
        raise errors.OptionError(message)
    place = context.place(node.target)
    written: list[Sequence[Any]] = []

    def write() -> None:
        if language_models.is_language_model(model):
            written.append(
                language_models.export_arpa(
                    context, model, place, overwrite=options.overwrite
                )
            )
            return
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
            files: dict[str, bytes | memoryview] = dict(
                context.models.read(model)
                if options.adapter
                else adapters.whole_files(context, model)
            )
            files |= speech.modelling_files(files)
            context.check_interrupted()
            export_files(files, target)
        except (OSError, ValueError, RuntimeError) as error:
            # No permission, a full disk; a NUL in the name; ~ of an unknown user.
            reason = (isinstance(error, OSError) and error.strerror) or error
            message = f"cannot export to {place!r:.200}: {reason}"
            raise errors.OperationalError(message) from error
        size = sum(len(content) for content in files.values())
        written.append((model.name, str(target), len(files), size))

    context.effect(write)
    columns = (
        ("name", "TEXT"),
        ("directory", "TEXT"),
        ("files", "INTEGER"),
        ("bytes", "INTEGER"),
    )
    return Relation(columns, lambda: iter(written))


def save_model(
    context: Context,
    recognizer: Recognizer,
    record: ModelRecord,
    *,
    overwrite: bool,
    write_run: Callable[[apsw.Connection], int] | None = None,
    patience: float = 0.0,
) -> StoredModel:
    """Store a recognizer; write_run, patience: as `ModelStore.save` takes them."""
    with tempfile.TemporaryDirectory(prefix="thanosql-") as directory:
        recognizer.save(Path(directory))
        return context.models.save(
            record,
            Path(directory),
            write_run=write_run,
            overwrite=overwrite,
            patience=patience,
            check=context.check_interrupted,
        )


def save_adapter(
    context: Context,
    adapter: Recognizer | AdapterFiles,
    record: ModelRecord,
    of: AdapterBase,
    *,
    overwrite: bool,
    write_run: Callable[[apsw.Connection], int] | None = None,
    patience: float = 0.0,
) -> StoredModel:
    """Store an adapter, if its base is still there; the rest as `save_model`."""
    with tempfile.TemporaryDirectory(prefix="thanosql-") as directory:
        speech.save_adapter(adapter, Path(directory), of.name, of.sha256)
        with context.models.tables.writing(patience):
            context.base_files(record.name, of)
            return context.models.save(
                record,
                Path(directory),
                write_run=write_run,
                overwrite=overwrite,
                check=context.check_interrupted,
            )


def model_record(
    recognizer: Recognizer,
    name: str,
    base: str,
    query: str | None = None,
    options: statements.Options | None = None,
) -> ModelRecord:
    """Return what is stored of a model beside its files."""
    architecture = type(recognizer.model).__name__
    parameters: int = recognizer.model.num_parameters()
    if recognizer.adapter is not None:
        architecture = adapters.ARCHITECTURE.format(architecture)
        parameters = recognizer.adapter.parameters
    return ModelRecord(
        name,
        base,
        architecture,
        parameters,
        _versions(),
        query=query,
        options=None if options is None else statements.as_dict(options),
    )


def _versions() -> dict[str, str]:
    """Return the packages that a model is made with."""
    return {
        package: version(package)
        for package in ("thanosql-local", "torch", "transformers")
    }


RELATIONS = {
    statements.DropModel: drop,
    statements.ImportModel: import_,
    statements.ExportModel: export,
    statements.GetModel: get,
}
