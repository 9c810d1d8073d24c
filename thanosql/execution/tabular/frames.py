"""Frames in, a Relation out: Parquet, Excel, pandas, and all that stream Arrow."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from thanosql import errors
from thanosql.execution.relation import Relation
from thanosql.execution.tabular.cells import (
    Numbered,
    column_names,
    fail,
    sql_row,
    typed,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

_AT_ONCE = 256  # rows of a batch; not more, as a row may hold a recording


def open_frame(frame: Any) -> Relation:
    """Return the rows of a DataFrame: pandas', or any that can stream itself as Arrow.

    An index is left out. Raises ProgrammingError for what is no DataFrame.
    """
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(frame, pandas.DataFrame):
        return _pandas(frame)
    if hasattr(frame, "__arrow_c_stream__"):
        pyarrow = _library("pyarrow", "an Arrow stream")
        try:
            schema = pyarrow.RecordBatchReader.from_stream(frame).schema
        except pyarrow.ArrowInvalid as error:  # of one column, as a Series has
            raise _no_frame(frame) from error
        return _arrow(
            schema, lambda: pyarrow.RecordBatchReader.from_stream(frame), "the rows"
        )
    raise _no_frame(frame)


def _no_frame(value: object) -> errors.ProgrammingError:
    return errors.ProgrammingError(
        "COPY takes the path of a file or a folder, or a DataFrame, not "
        f"{type(value).__name__}; pandas.DataFrame makes one of most"
    )


def xlsx_rows(path: Path, _encoding: str) -> Relation:
    """Return the rows of a workbook's first sheet."""
    openpyxl = _library("openpyxl", "xlsx")

    def sheet(*, results: bool) -> Iterator[Sequence[Any]]:
        with path.open("rb") as file:
            book = _readable(
                path, lambda: openpyxl.load_workbook(file, True, data_only=results)
            )
            try:
                first = book.worksheets[0]
                first.reset_dimensions()  # other programs often write wrong ones
                yield from first.iter_rows(values_only=True)
            finally:
                book.close()

    def cells() -> Iterator[Numbered]:
        both = zip(sheet(results=True), sheet(results=False), strict=True)
        for number, (row, written) in enumerate(both, 1):
            for value, formula in zip(row, written, strict=True):
                if value is None and formula is not None:
                    reason = (
                        f"the formula {formula!s:.40} has no result; open the file in "
                        "a spreadsheet program and save it"
                    )
                    fail(path, number, reason)
            values = list(row)
            while values and values[-1] is None:
                del values[-1]
            if values:
                yield number, values

    header = next(cells(), None)
    if header is None:
        message = f"the first sheet of {path.name!r} is empty"
        raise errors.DataError(message)
    names = column_names(header[1], path, header[0])

    def rows() -> Iterator[Numbered]:
        numbered = cells()
        next(numbered)
        for line, values in numbered:
            if len(values) > len(names):
                fail(path, line, f"there is a value right of column {len(names)}")
            yield line, [*values] + [None] * (len(names) - len(values))

    return typed(names, rows, path)


def parquet_rows(path: Path, _encoding: str) -> Relation:
    """Return the rows of a Parquet file."""
    parquet = _library("pyarrow.parquet", "parquet")
    schema = _readable(path, lambda: parquet.read_schema(path))

    def batches() -> Iterator[Any]:
        with parquet.ParquetFile(path) as file:
            yield from file.iter_batches(_AT_ONCE)

    return _arrow(schema, batches, repr(path.name))


def _readable(path: Path, read: Callable[[], Any]) -> Any:
    """Return what `read` does; DataError if the file is not what its name says."""
    try:
        return read()
    except OSError:
        raise
    except Exception as error:  # each library raises its own, and other libraries'
        message = f"the file {path.name!r} cannot be read: {error}"
        raise errors.DataError(message) from error


def _library(name: str, what: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        message = (
            f"reading {what} needs {name.partition('.')[0]}: "
            "pip install 'thanosql-local[files]'"
        )
        raise errors.NotSupportedError(message) from error


def _arrow(schema: Any, batches: Callable[[], Iterable[Any]], what: str) -> Relation:
    names = column_names(schema.names, what, None)

    def rows() -> Iterator[Sequence[Any]]:
        number = 0
        for batch in batches():
            for values in zip(*(c.to_pylist() for c in batch.columns), strict=True):
                number += 1
                yield sql_row(names, values, what, number)

    types = [_arrow_type(str(each)) for each in schema.types]
    return Relation(tuple(zip(names, types, strict=True)), rows)


def _arrow_type(name: str) -> str | None:
    for type_, pattern in (
        ("INTEGER", r"u?int\d+|bool"),
        ("REAL", r"(half)?float|double|float16|decimal.*|duration.*"),
        (
            "TEXT",
            r"(large_)?string.*|dictionary.*|timestamp.*|date.*|time.*|(large_)?list.*",
        ),
        ("BLOB", r"(large_|fixed_size_)?binary.*"),
    ):
        if re.fullmatch(pattern, name):
            return type_
    return None


def _pandas(frame: Any) -> Relation:
    names = column_names(map(str, frame.columns), "the DataFrame", None)

    def rows() -> Iterator[Numbered]:
        for start in range(0, len(frame), _AT_ONCE):
            part = frame.iloc[start : start + _AT_ONCE]
            columns = [part.iloc[:, i] for i in range(len(names))]
            lists = [
                [
                    None if is_null else value
                    for value, is_null in zip(c.tolist(), c.isna(), strict=True)
                ]
                for c in columns
            ]
            yield from enumerate(zip(*lists, strict=True), start + 1)

    return typed(names, rows, "the DataFrame")
