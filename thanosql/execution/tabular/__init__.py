"""A file of rows, or a DataFrame, in; its columns and a scan of its rows out.

Files are read as they are needed, never whole. Where a format has no types (csv, tsv)
or types its values one by one (jsonl, xlsx) the file is read twice: first for what
fits all values of a column, then for the rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from thanosql import errors
from thanosql.execution.tabular.frames import open_frame, parquet_rows, xlsx_rows
from thanosql.execution.tabular.text import csv_rows, jsonl_rows, tsv_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from thanosql.execution.relation import Relation

__all__ = ["SUFFIXES", "open_file", "open_frame"]

SUFFIXES: Mapping[str, str] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".xlsx": "xlsx",
}
"""What a file is, by what its name ends in."""


def open_file(path: Path, kind: str | None, encoding: str) -> Relation:
    """Return the rows of a file, of the kind that its name tells if `kind` is None.

    Raises DataError for a file that is not what it should be, with the line of the
    first fault; here or while the rows are read.
    """
    kind = kind or SUFFIXES.get(path.suffix.lower())
    if kind is None or kind not in _READERS:
        known = ", ".join(dict.fromkeys(SUFFIXES))
        message = (
            f"the file {path.name!r} is of an unknown type; known are {known}, and "
            "folders of audio; set format='csv' (or another) where it is one of these"
        )
        raise errors.NotSupportedError(message)
    try:
        "".encode(encoding)  # not for base64 and the like, which codecs has, too
    except LookupError:
        message = f"option encoding: there is no text encoding {encoding!r}"
        raise errors.OptionError(message) from None
    return _READERS[kind](path, "utf-8-sig" if encoding == "utf-8" else encoding)


_READERS: Mapping[str, Callable[[Path, str], Relation]] = {
    "csv": csv_rows,
    "tsv": tsv_rows,
    "jsonl": jsonl_rows,
    "parquet": parquet_rows,
    "xlsx": xlsx_rows,
}
