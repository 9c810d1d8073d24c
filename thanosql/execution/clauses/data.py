"""Statements that fill tables: from a file, a folder, a DataFrame, a known dataset."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thanosql import errors, speech, statements
from thanosql.catalog import cache, datasets, sample
from thanosql.catalog.datasets import download
from thanosql.execution import tables, tabular
from thanosql.execution.relation import Column, Relation
from thanosql.execution.source import KeptRows
from thanosql.statements import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from thanosql.execution.context import Context

_FOLDER_COLUMNS: tuple[Column, ...] = (
    ("audio", "TEXT"),
    ("name", "TEXT"),
    ("seconds", "REAL"),
    ("sample_rate", "INTEGER"),
    ("channels", "INTEGER"),
    ("format", "TEXT"),
)
_UTTERANCE_COLUMNS: tuple[Column, ...] = (
    ("audio", "TEXT"),
    ("text", "TEXT"),
    ("speaker", "TEXT"),
    ("seconds", "REAL"),
)


def copy(context: Context, node: statements.Copy) -> Relation:
    """COPY: yield one row, the table and how many rows were copied."""
    options = context.options(statements.CopyOptions, node.options)
    copied: list[Sequence[Any]] = []

    def write() -> None:
        # `tables.write` checks it too, but only after a large file has been read.
        tables.check(context.database, node.table, options.if_exists)
        context.warn_if_transaction_is_implicit("the table")
        try:
            rows = _rows(context, node.source, options)
            count = tables.write(
                context.database,
                node.table,
                rows,
                options.if_exists,
                context.check_interrupted,
            )
        except (OSError, ValueError, RuntimeError) as error:
            # Not there, no permission; a NUL in the name; ~ of an unknown user; a
            # damaged file, for which some libraries raise an OSError without errno.
            message = f"cannot read what is to be copied: {error}"
            if isinstance(error, OSError) and error.filename is not None:
                message = f"cannot read {error.filename!r}: {error.strerror}"
            raise errors.OperationalError(message) from error
        copied.append((node.table, count))

    context.effect(write)
    return Relation((("name", "TEXT"), ("rows", "INTEGER")), lambda: iter(copied))


def _rows(
    context: Context,
    source: str | statements.Parameter,
    options: statements.CopyOptions,
) -> Relation:
    value = source if isinstance(source, str) else context.value(source)
    if not isinstance(value, str | os.PathLike):
        return tabular.open_frame(value)
    path = Path(value).expanduser()
    if path.is_dir():
        if options.format not in (None, "audio"):
            message = f"{str(path)!r} is a folder, and no {options.format} file"
            raise errors.ProgrammingError(message)
        return _folder(path, context)
    if options.format == "audio":
        message = f"{str(path)!r} is no folder; COPY takes a folder of audio"
        raise errors.ProgrammingError(message)
    if path.exists() and not path.is_file():
        message = f"{str(path)!r} is neither a file nor a folder"  # a pipe, a device
        raise errors.ProgrammingError(message)
    return tabular.open_file(path, options.format, options.encoding)


def _folder(folder: Path, context: Context) -> Relation:
    """Return a row for each audio file below a folder.

    The paths are such that PREDICT finds them: relative to the working directory, as
    the folder was, or to `audio_root`, which the folder must then lie in.
    """
    below = _below(context.audio_root, folder)

    def rows() -> Iterator[Sequence[Any]]:
        with context.progress() as progress:
            for path, found in speech.inspect_folder(folder, progress):
                yield (
                    below(path),
                    path.name,
                    found.seconds,
                    found.sample_rate,
                    found.channels,
                    found.format,
                )

    return _read_now(_FOLDER_COLUMNS, rows())


def _below(root: Path | None, folder: Path) -> Callable[[Path], str]:
    """Return a function that gives a file of `folder` its path, from `root` if set."""
    if root is None:
        return str
    top, inside = root.resolve(), folder.resolve()
    if not inside.is_relative_to(top):
        message = (
            f"the folder {str(folder)!r} lies outside of audio_root ({str(root)!r}), "
            "where no path of a row may lead; move it there, or connect without one"
        )
        raise errors.ProgrammingError(message)
    return lambda path: str(inside.relative_to(top) / path.relative_to(folder))


def _read_now(columns: tuple[Column, ...], rows: Iterator[Sequence[Any]]) -> Relation:
    """Return the rows, read now: no lock is held while many files are opened."""
    kept = KeptRows(rows, len(columns))
    return Relation(columns, lambda: iter(kept))


def get(context: Context, node: statements.GetDataset) -> Relation:
    """GET DATASET: yield one row, the tables and how many rows they have."""
    options = context.options(statements.GetDatasetOptions, node.options)
    name, dataset = datasets.find(node.name)
    database, root = context.database, context.audio_root
    got: list[Sequence[Any]] = []

    def write() -> None:
        pair = {"train": dataset.train_table, "test": dataset.test_table}
        _check_new(context, dataset.tables, overwrite=options.overwrite)
        context.warn_if_transaction_is_implicit("the dataset")
        below = str if not dataset.archives else _below(root, cache.folder())
        utterances = {
            part: _utterances(dataset, folder, part, below)
            for part, folder in _fetch(context, dataset, options.mirror).items()
        }
        with context.writing():
            if not dataset.archives:
                for table in dataset.tables:
                    database.execute(f"DROP TABLE IF EXISTS main.{quoted(table)}")
                sample.copy_into(database, name)
            for part, rows in utterances.items():
                check = context.check_interrupted
                tables.write(database, pair[part], rows, "replace", check)
            counts = [tables.count(database, table) for table in pair.values()]
        got.append((name, pair["train"], counts[0], pair["test"], counts[1]))

    context.effect(write)
    columns = (
        ("name", "TEXT"),
        ("train_table", "TEXT"),
        ("train_rows", "INTEGER"),
        ("test_table", "TEXT"),
        ("test_rows", "INTEGER"),
    )
    return Relation(columns, lambda: iter(got))


def _fetch(
    context: Context, dataset: datasets.Dataset, mirror: str | None
) -> dict[str, Path]:
    """Return the folders that hold the train and the test recordings."""
    archives = {"train": dataset.train, "test": dataset.test}
    with context.progress() as progress:
        return {
            part: download.fetch(archive, mirror, progress)
            for part, archive in archives.items()
            if archive is not None
        }


def _check_new(context: Context, names: Sequence[str], *, overwrite: bool) -> None:
    for name in names:
        kind = tables.find(context.database, name)
        if kind == "view" or (kind is not None and not overwrite):
            message = (
                f"a {kind} named {name!r} exists already; "
                f"{'DROP VIEW first' if kind == 'view' else 'set overwrite=True'}"
            )
            raise errors.ProgrammingError(message)


def _utterances(
    dataset: datasets.Dataset, folder: Path, part: str, below: Callable[[Path], str]
) -> Relation:
    def rows() -> Iterator[Sequence[Any]]:
        for each in dataset.read(folder, part):
            found = speech.inspect(each.audio)
            yield below(each.audio), each.text, each.speaker, found.seconds

    return _read_now(_UTTERANCE_COLUMNS, rows())


RELATIONS = {statements.GetDataset: get, statements.Copy: copy}
