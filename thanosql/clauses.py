"""One function a statement: a clause's node in, its relation out.

A function checks what can be known before anything runs (model, options, columns) and
returns columns and what starts a scan. What a statement does to the database is left
with the execution as an effect; what takes long is done by `thanosql.jobs`.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import deque
from contextlib import closing
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thanosql import errors, jobs, statements, store
from thanosql.relation import Column, Relation
from thanosql.source import KeptRows, KeptTexts, Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from thanosql.execution import Execution
    from thanosql.speech.recognizer import Recognizer


def relation(execution: Execution, node: statements.Node) -> Relation | None:
    """Return the rows a clause stands for; None where it yields none."""
    return _RELATIONS[type(node)](execution, node)


def _build(execution: Execution, node: statements.BuildModel) -> Relation:
    options = execution.options(statements.BuildOptions, node.options)
    overwrite = options.overwrite or node.or_replace
    source = execution.source(node.query, for_effect=True)
    pairs, held_out = _Pairs(source, options), None
    if isinstance(options.validation, str):
        query = _validation_query(options.validation)
        held_out = _Pairs(execution.source(query, for_effect=True), options)
    epochs: list[Sequence[Any]] = []

    def open_base(texts: Callable[[], Iterable[str]]) -> Recognizer:
        # A stored model first: importing one under a base's name makes that name
        # work where no hub can be reached.
        model = execution.store.find(node.base)
        if model is not None:
            return jobs.open_stored(execution.store, model)
        return jobs.open_base(node.base, texts)

    def build() -> None:
        if node.if_not_exists and execution.store.find(node.name) is not None:
            return
        execution.store.check_new(node.name, overwrite=overwrite)
        _warn_if_transaction_is_implicit(execution)
        # Read to their end, and kept aside: no lock is held while training.
        rows = KeptRows(pairs, 2)
        validation = None if held_out is None else KeptRows(held_out, 2)
        built = jobs.build(open_base, rows, validation, options, execution.audio_root)
        record = _record(
            built.recognizer, node.name, node.base, node.query.source, options
        )
        _save(execution, built.recognizer, record, overwrite, built.run)
        epochs.extend(built.run.epochs)

    execution.effect(build)
    return Relation(_EPOCH_COLUMNS, lambda: iter(epochs))


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


def _predict(execution: Execution, node: statements.Predict) -> Relation:
    options = execution.options(statements.PredictOptions, node.options)
    model = execution.store.get(node.model_name)
    source = execution.source(node.query)
    audio = _audio_column(source, options.audio_col)
    if source.position(options.result_col) is not None:
        message = (
            f"the query has a column {options.result_col!r} already; "
            "set result_col to another name for the transcripts"
        )
        raise errors.OptionError(message)
    known = KeptTexts()

    def scan() -> Iterator[Sequence[Any]]:
        rows = iter(source)
        # A scan after the first (the inner side of a join) reads the query again but
        # runs the model only from the first row that no earlier scan has come to.
        for number, row in enumerate(rows, start=1):  # noqa: B007 - used behind
            text = known.get(_key(row[audio]))
            if text is None:
                break
            yield (*row, text)
        else:
            return
        pending: deque[Sequence[Any]] = deque()

        def recordings() -> Iterator[Any]:
            for each in chain((row,), rows):
                pending.append(each)
                yield each[audio]

        with closing(
            jobs.transcribe(
                execution.store,
                model,
                recordings(),
                options,
                execution.audio_root,
                first_row=number,
            )
        ) as batches:
            for batch in batches:
                done = [(*pending.popleft(), each.text) for each in batch]
                known.put((_key(each[audio]), each[-1]) for each in done)
                yield from done

    return Relation((*source.columns, (options.result_col, "TEXT")), scan)


def _evaluate(execution: Execution, node: statements.Evaluate) -> Relation:
    options = execution.options(statements.EvaluateOptions, node.options)
    model = execution.store.get(node.model_name)
    pairs = _Pairs(execution.source(node.query), options)
    scores: list[Sequence[Any]] = []

    def scan() -> Iterator[Sequence[Any]]:
        if not scores:
            scores.append(
                jobs.evaluate(
                    execution.store, model, iter(pairs), options, execution.audio_root
                )
            )
        return iter(scores)

    return Relation(_SCORE_COLUMNS, scan)


def _list_models(execution: Execution, _node: statements.ListModels) -> Relation:
    def scan() -> Iterator[Sequence[Any]]:
        for model in execution.store.models():
            yield _summary(model)

    return Relation(_SUMMARY_COLUMNS, scan)


def _describe(execution: Execution, node: statements.DescribeModel) -> Relation:
    model = execution.store.get(node.name)
    facts: list[tuple[str, Any]] = [
        (name, value)
        for (name, _), value in zip(_SUMMARY_COLUMNS, _summary(model), strict=True)
    ]
    facts += [("sha256", model.sha256), ("query", model.query)]
    facts += execution.store.run_facts(model)
    facts += [
        (f"option {name}", value) for name, value in (model.options or {}).items()
    ]
    facts += [(f"version {name}", value) for name, value in model.versions.items()]
    return Relation((("property", "TEXT"), ("value", None)), lambda: iter(facts))


def _drop(execution: Execution, node: statements.DropModel) -> None:
    def drop() -> None:
        if not (node.if_exists and execution.store.find(node.name) is None):
            execution.store.drop(node.name)

    execution.effect(drop)


def _import(execution: Execution, node: statements.ImportModel) -> Relation:
    options = execution.options(statements.ImportOptions, node.options)
    origin = execution.place(node.source)
    stored: list[Sequence[Any]] = []

    def read() -> None:
        execution.store.check_new(node.name, overwrite=options.overwrite)
        _warn_if_transaction_is_implicit(execution)
        recognizer = jobs.import_base(origin)
        record = _record(recognizer, node.name, origin)
        model = _save(execution, recognizer, record, options.overwrite)
        stored.append(_summary(model))

    execution.effect(read)
    return Relation(_SUMMARY_COLUMNS, lambda: iter(stored))


def _export(execution: Execution, node: statements.ExportModel) -> Relation:
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


def _warn_if_transaction_is_implicit(execution: Execution) -> None:
    if execution.transaction_is_implicit:
        errors.warn(
            "the model becomes part of the transaction that an earlier write opened; "
            "commit() to keep it"
        )


def _save(
    execution: Execution,
    recognizer: Recognizer,
    record: store.ModelRecord,
    overwrite: bool,
    run: store.Run | None = None,
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


_RELATIONS: Mapping[type, Callable[[Execution, Any], Relation | None]] = {
    statements.BuildModel: _build,
    statements.Predict: _predict,
    statements.Evaluate: _evaluate,
    statements.ListModels: _list_models,
    statements.DescribeModel: _describe,
    statements.DropModel: _drop,
    statements.ImportModel: _import,
    statements.ExportModel: _export,
}

_EPOCH_COLUMNS: tuple[Column, ...] = (
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
_SUMMARY_COLUMNS: tuple[Column, ...] = (
    ("name", "TEXT"),
    ("base", "TEXT"),
    ("architecture", "TEXT"),
    ("parameters", "INTEGER"),
    ("bytes", "INTEGER"),
    ("wer", "REAL"),
    ("created_at", "TEXT"),
)
_SCORE_COLUMNS: tuple[Column, ...] = (
    ("rows", "INTEGER"),
    ("wer", "REAL"),
    ("cer", "REAL"),
    ("words", "INTEGER"),
    ("substitutions", "INTEGER"),
    ("deletions", "INTEGER"),
    ("insertions", "INTEGER"),
    ("audio_seconds", "REAL"),
    ("seconds", "REAL"),
)


def _summary(model: store.StoredModel) -> Sequence[Any]:
    return tuple(getattr(model, name) for name, _ in _SUMMARY_COLUMNS)


def _audio_column(source: Source, name: str | None) -> int:
    """Return the place of the audio column: `name`, else audio, else audio_path."""
    if name is not None:
        return _column(source, name, "audio_col")
    for usual in ("audio", "audio_path"):
        position = source.position(usual)
        if position is not None:
            return position
    return _column(source, "audio", "audio_col")


def _column(source: Source, name: str, option: str) -> int:
    position = source.position(name)
    if position is None:
        names = [each for each, _ in source.columns]
        hint = errors.nearest(name, names) or f"; it has {', '.join(names)}"
        message = f"the query has no column {name!r} for {option}{hint}"
        raise errors.OptionError(message)
    return position


class _Pairs:
    """The (audio, text) of a query's rows, in the columns that options name."""

    def __init__(
        self,
        source: Source,
        options: statements.BuildOptions | statements.EvaluateOptions,
    ) -> None:
        self._source = source
        self._audio = _audio_column(source, options.audio_col)
        self._text = _column(source, options.text_col, "text_col")

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return ((row[self._audio], row[self._text]) for row in self._source)


def _key(audio: Any) -> bytes:
    """Return what stands for an audio value: equal values have equal transcripts."""
    content = audio if isinstance(audio, bytes) else repr(audio).encode()
    return hashlib.blake2b(content, digest_size=16).digest()
