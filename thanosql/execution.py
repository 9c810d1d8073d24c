"""One run of a statement that holds speech clauses; the only door to `speech`.

Every clause becomes a relation, registered as a virtual table for this run alone,
and SQLite runs the statement that is left when each clause is replaced by
``SELECT * FROM`` its table. So a clause nests wherever a query may stand, rows
stream, and LIMIT stops the work.

What a clause does to the database (BUILD, IMPORT, EXPORT, DROP) happens once, after
SQLite has accepted the whole statement and before its first step; not at all under
EXPLAIN.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
import warnings
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw

from thanosql import errors, statements, store
from thanosql.progress import Progress
from thanosql.relation import Column, Relation, register, unregister
from thanosql.source import KeptRows, KeptTexts, Source
from thanosql.statements import options as statement_options

if TYPE_CHECKING:
    from thanosql.connection import Connection
    from thanosql.cursor import Parameters
    from thanosql.speech.bases import Recognizer


class Execution:
    """The relations of one statement, from their registration to their end.

    ``sql`` and ``bindings`` are what SQLite is to run; ``sql`` is empty where nothing
    is left for it.
    """

    def __init__(
        self, connection: Connection, query: statements.Query, parameters: Parameters
    ) -> None:
        self.database = connection.apsw
        self.connection = connection
        self.store = store.ModelStore(connection.apsw)
        self.parameters = parameters
        self._query = query
        self._names: list[str] = []
        self._sources: list[Source] = []
        self._effects: list[Callable[[], None]] = []
        statements.check_parameters(query, parameters)
        try:
            self.sql, self.bindings = self._ready(query)
        except BaseException:
            self.close()
            raise

    def before_first_step(self, *, writes: bool) -> None:
        """Do what the clauses do, and read what SQLite cannot know to be read.

        SQLite does not see that a virtual table reads other tables, so a statement
        that writes would feed on its own rows: its queries are read first.
        """
        for effect in self._effects:
            effect()
        if writes:
            for source in self._sources:
                source.keep()

    def close(self) -> None:
        """Drop the virtual tables; a connection that is closed has dropped them."""
        while self._names:
            name = self._names.pop()
            try:
                unregister(self.database, name)
            except apsw.ConnectionClosedError:
                self._names.clear()

    def explained(self, error: apsw.Error) -> errors.Error:
        """Return SQLite's error as PEP 249's, pointing into the statement as written."""
        explained = errors.from_apsw(error)
        offset = getattr(error, "error_offset", -1)
        if offset >= 0:
            place = self._query.locate(offset)
            text = errors.point(str(explained), self._query.sql, place)
            explained.args = (text,)
        return explained

    # What the functions below need

    def source(self, query: statements.Query) -> Source:
        """Return the rows of a clause's query, its own clauses made ready."""
        sql, bindings = self._ready(query)
        try:
            source = Source(self.database, sql, bindings)
        except apsw.SQLError as error:
            raise self._explained_in(query, error) from error
        self._sources.append(source)
        return source

    def effect(self, do: Callable[[], None]) -> None:
        """Have `do` called once, when the statement is accepted and about to run."""
        self._effects.append(do)

    def value_of(self, parameter: statements.Parameter) -> Any:
        """Return what is bound to a parameter that stands in a clause."""
        return parameter.value(self.parameters)

    def _ready(self, query: statements.Query) -> tuple[str, Any]:
        """Register the relations of a query's clauses; return what is left to run."""
        names = []
        for clause in query.clauses:
            relation = _RELATIONS[type(clause.node)](self, clause.node)
            if relation is None:
                return "", ()
            kind = type(clause.node).__name__.lower()
            name = f"thanosql_{kind}_{next(self.connection.serial)}"
            register(self.database, name, relation)
            self._names.append(name)
            names.append(name)
        return query.text(names), query.bindings(self.parameters)


# One function a statement: a node in, a relation out. What it checks on the way is
# what can be known before anything runs.


def _build(execution: Execution, node: statements.BuildModel) -> Relation:
    options = execution.options(node)
    assert isinstance(options, statements.BuildOptions)
    source = execution.source(node.query)
    columns = _audio_column(source, options.audio_col), _text_column(source, options)
    held_out = None
    if isinstance(options.validation, str):
        held_out = execution.source(statements.parse(options.validation))
        held_out_columns = (
            _audio_column(held_out, options.audio_col),
            _text_column(held_out, options),
        )
    epochs: list[Sequence[Any]] = []

    def build() -> None:
        if node.if_not_exists and execution.store.find(node.name) is not None:
            return
        overwrite = options.overwrite or node.or_replace
        execution.store.check_new(node.name, overwrite=overwrite)
        _warn_if_transaction_is_implicit(execution)
        rows = _pairs(source, *columns)
        validation = None if held_out is None else _pairs(held_out, *held_out_columns)
        run = _train(execution, node, options, rows, validation, overwrite=overwrite)
        epochs.extend(run.epochs)

    execution.effect(build)
    return Relation(_EPOCH_COLUMNS, lambda: iter(epochs))


def _predict(execution: Execution, node: statements.Predict) -> Relation:
    options = execution.options(node)
    assert isinstance(options, statements.PredictOptions)
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
        for row in rows:
            text = known.get(_key(row[audio]))
            if text is None:
                break
            yield (*row, text)
        else:
            return
        recognizer = _loaded(execution, model)
        pending: deque[Sequence[Any]] = deque()

        def recordings() -> Iterator[Any]:
            for each in chain((row,), rows):
                pending.append(each)
                yield each[audio]

        with closing(
            _transcribe(execution, recognizer, recordings(), options)
        ) as batches:
            for batch in batches:
                done = [pending.popleft() for _ in batch]
                known.put(
                    (_key(each[audio]), text)
                    for each, text in zip(done, batch, strict=True)
                )
                for each, text in zip(done, batch, strict=True):
                    yield (*each, text)

    return Relation((*source.columns, (options.result_col, "TEXT")), scan)


def _evaluate(execution: Execution, node: statements.Evaluate) -> Relation:
    options = execution.options(node)
    assert isinstance(options, statements.EvaluateOptions)
    model = execution.store.get(node.model_name)
    source = execution.source(node.query)
    audio = _audio_column(source, options.audio_col)
    text = _text_column(source, options)
    scores: list[Sequence[Any]] = []

    def scan() -> Iterator[Sequence[Any]]:
        if not scores:
            scores.append(_score(execution, model, source, audio, text, options))
        return iter(scores)

    return Relation(_SCORE_COLUMNS, scan)


def _list_models(execution: Execution, _node: statements.ListModels) -> Relation:
    def scan() -> Iterator[Sequence[Any]]:
        for model in execution.store.models():
            yield _summary(model)

    return Relation(_SUMMARY_COLUMNS, scan)


def _describe(execution: Execution, node: statements.DescribeModel) -> Relation:
    model = execution.store.get(node.name)
    epochs = execution.store.epochs(model)
    facts: list[tuple[str, Any]] = [
        (name, value)
        for (name, _), value in zip(_SUMMARY_COLUMNS, _summary(model), strict=True)
    ]
    facts += [("sha256", model.sha256), ("query", model.query)]
    facts += [(f"option {name}", value) for name, value in (model.options or {}).items()]
    facts += [(f"version {name}", value) for name, value in model.versions.items()]
    for (name, _), *values in zip(_EPOCH_COLUMNS, *epochs, strict=True):
        facts += [
            (f"epoch {epoch[0]} {name}", value)
            for epoch, value in zip(epochs, values, strict=True)
            if name != "epoch"
        ]
    return Relation(
        (("property", "TEXT"), ("value", None)), lambda: iter(facts)
    )


def _drop(execution: Execution, node: statements.DropModel) -> None:
    def drop() -> None:
        if not (node.if_exists and execution.store.find(node.name) is None):
            execution.store.drop(node.name)

    execution.effect(drop)


def _import(execution: Execution, node: statements.ImportModel) -> Relation:
    options = execution.options(node)
    assert isinstance(options, statements.ImportOptions)
    stored: list[Sequence[Any]] = []

    def read() -> None:
        from thanosql.speech import bases

        execution.store.check_new(node.name, overwrite=options.overwrite)
        _warn_if_transaction_is_implicit(execution)
        origin = execution.text(node.source)
        recognizer = bases.open_base(origin, _no_texts(origin))
        with tempfile.TemporaryDirectory() as directory:
            recognizer.save(Path(directory))
            model = execution.store.save(
                _record(recognizer, node.name, origin),
                Path(directory),
                overwrite=options.overwrite,
            )
        stored.append(_summary(model))

    execution.effect(read)
    return Relation(_SUMMARY_COLUMNS, lambda: iter(stored))


def _export(execution: Execution, node: statements.ExportModel) -> Relation:
    options = execution.options(node)
    assert isinstance(options, statements.ExportOptions)
    model = execution.store.get(node.name)
    target = Path(execution.text(node.target)).expanduser()
    written: list[Sequence[Any]] = []

    def write() -> None:
        if target.exists() and not target.is_dir():
            message = f"cannot export to {str(target)!r}: it is a file; name a directory"
            raise errors.ProgrammingError(message)
        if target.is_dir() and any(target.iterdir()) and not options.overwrite:
            message = (
                f"the directory {str(target)!r} is not empty; "
                "set overwrite=True to write into it, or name another"
            )
            raise errors.ProgrammingError(message)
        files = execution.store.read(model)
        store.export(files, target)
        written.append((model.name, str(target), len(files), model.bytes))

    execution.effect(write)
    columns = (
        ("name", "TEXT"),
        ("directory", "TEXT"),
        ("files", "INTEGER"),
        ("bytes", "INTEGER"),
    )
    return Relation(columns, lambda: iter(written))


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


def _text_column(
    source: Source, options: statements.BuildOptions | statements.EvaluateOptions
) -> int:
    return _column(source, options.text_col, "text_col")


def _column(source: Source, name: str, option: str) -> int:
    position = source.position(name)
    if position is None:
        names = [each for each, _ in source.columns]
        hint = errors.nearest(name, names) or f"; it has {', '.join(names)}"
        message = f"the query has no column {name!r} for {option}{hint}"
        raise errors.OptionError(message)
    return position


def _pairs(source: Source, audio: int, text: int) -> KeptRows:
    """Return the (audio, text) of every row, on disk: no lock is held while training."""
    return KeptRows(((row[audio], row[text]) for row in source), 2)


def _key(audio: Any) -> bytes:
    """Return what stands for an audio value: equal values have equal transcripts."""
    content = audio if isinstance(audio, bytes) else repr(audio).encode()
    return hashlib.blake2b(content, digest_size=16).digest()
