"""Statements that tell what there is: LIST and DESCRIBE, of models, tables and such."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import apsw

from thanosql import errors, statements
from thanosql.catalog import bases, datasets
from thanosql.catalog.datasets import download
from thanosql.execution import tables
from thanosql.execution.clauses import adapters, language_models
from thanosql.execution.clauses.models import SUMMARY_COLUMNS, summary
from thanosql.execution.relation import Column, Relation
from thanosql.speech.results import VALIDATION_NORMALIZE
from thanosql.store import history, runs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from thanosql.execution.context import Context

Fact = tuple[str, Any]
_FACT_COLUMNS: tuple[Column, ...] = (("property", "TEXT"), ("value", None))
_TABLE_COLUMNS: tuple[Column, ...] = (
    ("column", "TEXT"),
    ("type", "TEXT"),
    ("not_null", "INTEGER"),
    ("primary_key", "INTEGER"),
)


def list_(context: Context, node: statements.List) -> Relation:
    """LIST: yield a row each."""
    if node.kind == "model":
        runs.settle(context.models.tables)
    columns, rows = _LISTS[node.kind]
    return Relation(columns, lambda: rows(context))


def describe(context: Context, node: statements.Describe) -> Relation:
    """DESCRIBE: yield a row a property; of a table, a row a column."""
    if node.kind == "table":
        return _describe_table(context, node.name)
    facts = _DESCRIPTIONS[node.kind](context, node.name)
    return Relation(_FACT_COLUMNS, lambda: iter(facts))


def _row_facts(columns: Sequence[Column], row: Sequence[Any]) -> list[Fact]:
    return [(name, value) for (name, _), value in zip(columns, row, strict=True)]


# Models


def _models(context: Context) -> Iterator[Sequence[Any]]:
    for model in context.models.models():
        yield summary(model)


def _describe_model(context: Context, name: str) -> list[Fact]:
    runs.settle(context.models.tables)
    model = context.models.get(name)
    facts = _row_facts(SUMMARY_COLUMNS, summary(model))
    facts += [("sha256", model.sha256), ("query", model.query)]
    facts += adapters.facts(context, model)
    if language_models.is_language_model(model):
        facts += language_models.facts_of(context, model)
    facts += history.facts(context.models.tables, model.run_id)
    if model.wer is not None:
        facts.append(("normalize", VALIDATION_NORMALIZE))
    facts += [
        (f"option {option}", value) for option, value in (model.options or {}).items()
    ]
    facts += [
        (f"version {package}", value) for package, value in model.versions.items()
    ]
    return facts


# Tables


def _tables(context: Context) -> Iterator[Sequence[Any]]:
    for name, kind in tables.names(context.database):
        # To count the rows of a view is to run it, however long that takes.
        rows = tables.count(context.database, name) if kind == "table" else None
        try:
            columns = tables.columns(context.database, name)
        except apsw.SQLError:  # a view whose table is gone, or that never was right
            yield name, kind, rows, None
        else:
            yield name, kind, rows, ", ".join(column for column, *_ in columns)


def _describe_table(context: Context, name: str) -> Relation:
    columns = tables.columns(context.database, name)
    if not columns:
        names = [each for each, _ in tables.names(context.database)]
        hint = errors.nearest(name, names) or (
            f"; there are {', '.join(names)}" if names else "; the database has none"
        )
        message = f"no table named {name!r}{hint}"
        raise errors.ProgrammingError(message)
    rows = [
        (column, declared or None, not_null, int(key > 0))
        for column, declared, not_null, key in columns
    ]
    return Relation(_TABLE_COLUMNS, lambda: iter(rows))


# Bases and datasets


def _bases(_context: Context) -> Iterator[Sequence[Any]]:
    for name, base in bases.BASES.items():
        yield (
            name,
            base.source.removeprefix("package:"),
            base.language or None,
            base.parameters,
            base.license or None,
            base.data,
            base.bytes,
            base.wer,
        )


def _describe_base(context: Context, name: str) -> list[Fact]:
    for row in _bases(context):
        if row[0].casefold() == name.casefold():
            stored = context.models.find(name)
            return [
                *_row_facts(_BASE_COLUMNS, row),
                *(
                    []
                    if language_models.is_ngram(name)
                    else [("learning_rate", bases.BASES[row[0]].learning_rate)]
                ),
                ("stored_as", stored and stored.name),
            ]
    hint = errors.nearest(name, bases.BASES) or f"; known are {', '.join(bases.BASES)}"
    message = f"no base named {name!r}{hint}"
    raise errors.ModelNotFoundError(message)


def _datasets(_context: Context) -> Iterator[Sequence[Any]]:
    for name, dataset in datasets.DATASETS.items():
        yield (
            name,
            dataset.about,
            dataset.language,
            dataset.hours,
            sum(archive.megabytes for archive in dataset.archives),
            dataset.license,
            dataset.train_table,
            dataset.test_table,
        )


def _describe_dataset(context: Context, name: str) -> list[Fact]:
    known, dataset = datasets.find(name)
    (row,) = (each for each in _datasets(context) if each[0] == known)
    facts = _row_facts(_DATASET_COLUMNS, row)
    if dataset.people_table is not None:
        facts.append(("people_table", dataset.people_table))
    for archive in dataset.archives:
        facts += [
            ("url", f"{archive.home}/{archive.file}"),
            ("digest", archive.digest),
            ("folder", str(download.folder(archive))),
            ("is_here", int(download.folder(archive).is_dir())),
        ]
    return facts


_BASE_COLUMNS: tuple[Column, ...] = (
    ("name", "TEXT"),
    ("source", "TEXT"),
    ("language", "TEXT"),
    ("parameters", "INTEGER"),
    ("license", "TEXT"),
    ("data", "TEXT"),
    ("bytes", "INTEGER"),
    ("wer", "REAL"),
)
_DATASET_COLUMNS: tuple[Column, ...] = (
    ("name", "TEXT"),
    ("about", "TEXT"),
    ("language", "TEXT"),
    ("hours", "REAL"),
    ("megabytes", "INTEGER"),
    ("license", "TEXT"),
    ("train_table", "TEXT"),
    ("test_table", "TEXT"),
)
_LISTS: Mapping[
    statements.Kind,
    tuple[tuple[Column, ...], Callable[[Context], Iterator[Sequence[Any]]]],
] = {
    "model": (SUMMARY_COLUMNS, _models),
    "table": (
        (
            ("name", "TEXT"),
            ("type", "TEXT"),
            ("rows", "INTEGER"),
            ("columns", "TEXT"),
        ),
        _tables,
    ),
    "base": (_BASE_COLUMNS, _bases),
    "dataset": (_DATASET_COLUMNS, _datasets),
}
_DESCRIPTIONS: Mapping[statements.Kind, Callable[[Context, str], list[Fact]]] = {
    "model": _describe_model,
    "base": _describe_base,
    "dataset": _describe_dataset,
}


RELATIONS = {statements.List: list_, statements.Describe: describe}
