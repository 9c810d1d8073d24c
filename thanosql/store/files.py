"""The files of a stored model: a directory in, rows of `thanosql_files` out, and back.

A file is stored in stretches of `CHUNK` bytes. Whoever wrote the database may have
written anything there: what is read is checked before it is handed out.
"""

from __future__ import annotations

import hashlib
import mmap
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thanosql import errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import apsw

    from thanosql.store.records import StoredModel

CHUNK = 16 * 2**20
"""Bytes of a file in one row: SQLite caps a value at 10^9 bytes."""

WEIGHTS = ".safetensors"
"""How the names of the large files end."""

_FILE_NAME = re.compile(r"\w[\w.+-]*\.(json|txt|model|safetensors|jinja)", re.ASCII)
"""Plain names only: none leads out of a directory, is hidden there, or is code."""


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A row of `thanosql_files`: a stretch of a file."""

    rowid: int
    start: int  # in the file
    size: int


def listed(directory: Path) -> list[Path]:
    """Return the files of a model's directory, in the order of their digest."""
    paths = sorted(directory.iterdir())
    for path in paths:
        if not _FILE_NAME.fullmatch(path.name) or not path.is_file():
            message = f"{path.name!r} is not a file that a stored model can have"
            raise errors.NotSupportedError(message)
    return paths


def digest(paths: Iterable[Path]) -> str:
    """Return the SHA-256 over every file's name, size and content."""
    found = hashlib.sha256()
    for path in paths:
        found.update(_head(path.name, path.stat().st_size))
        for data in _stretches(path):
            found.update(data)
    return found.hexdigest()


def write(connection: apsw.Connection, model_id: int, paths: Iterable[Path]) -> None:
    """Store the files as those of a model, in the caller's transaction.

    Files that an earlier model left under that id (its row was deleted by plain SQL)
    are deleted.
    """
    connection.execute(
        "DELETE FROM main.thanosql_files WHERE model_id = ?", (model_id,)
    )
    connection.executemany(
        "INSERT INTO main.thanosql_files VALUES (?, ?, ?, ?)",
        (
            (model_id, path.name, number, data)
            for path in paths
            for number, data in enumerate(_stretches(path))
        ),
    )


def read_settings(
    connection: apsw.Connection, model: StoredModel
) -> dict[str, memoryview]:
    """Return the small files of a model, all but its weights: name to content.

    They are not checked: the digest is of all files together, and `read` checks it.
    """
    stored = _chunks(connection, model)
    files = {name: _room(c) for name, c in stored.items() if not name.endswith(WEIGHTS)}
    for name, content in files.items():
        for chunk in stored[name]:
            _read_chunk(connection, chunk, content)
    return files


def read(connection: apsw.Connection, model: StoredModel) -> dict[str, memoryview]:
    """Return the files of a model: name to content.

    Raises DatabaseError where they are not what was stored, by their digest.
    """
    from concurrent.futures import ThreadPoolExecutor  # slow to import

    found = hashlib.sha256()
    stored = _chunks(connection, model)
    files = {name: _room(chunks) for name, chunks in stored.items()}
    # Digesting takes about as long as reading, and lets go of Python's lock.
    with ThreadPoolExecutor(1) as beside:
        for name, chunks in stored.items():
            content = files[name]
            beside.submit(found.update, _head(name, len(content)))
            for chunk in chunks:
                _read_chunk(connection, chunk, content)
                end = chunk.start + chunk.size
                beside.submit(found.update, content[chunk.start : end])
    if found.hexdigest() != model.sha256:
        raise _damaged(model, "their digest is not that of what was stored")
    return files


def export(files: Mapping[str, bytes | memoryview], target: Path) -> None:
    """Write a model's files, as `read` returns them, into a directory."""
    target.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        place = target / name
        # A new file each time: what is there may be a link to elsewhere, or a pipe.
        place.unlink(missing_ok=True)
        with place.open("xb") as file:
            file.write(content)


def _chunks(connection: apsw.Connection, model: StoredModel) -> dict[str, list[_Chunk]]:
    """Return the chunks of a model's files by name, in their order."""
    pages = connection.execute("PRAGMA main.page_count").get
    room = pages * connection.execute("PRAGMA main.page_size").get
    files: dict[str, list[_Chunk]] = {}
    for rowid, name, number, kind, size in connection.execute(
        """
        SELECT rowid, path, chunk, typeof(data), length(data)
        FROM main.thanosql_files
        WHERE model_id = ?
        ORDER BY path, chunk
        """,
        (model.id,),
    ):
        if not isinstance(name, str) or _FILE_NAME.fullmatch(name) is None:
            raise _damaged(model, f"{name!r:.100} is no name of a model's file")
        chunks = files.setdefault(name, [])
        room -= size or 0
        # room < 0: longer than the database file, so it is computed, not stored.
        if kind != "blob" or number != len(chunks) or room < 0:
            raise _damaged(model, f"chunk {number!r:.30} of {name!r} is not whole")
        start = chunks[-1].start + chunks[-1].size if chunks else 0
        chunks.append(_Chunk(rowid, start, size))
    if len({name.casefold() for name in files}) < len(files):
        raise _damaged(model, "two have one name but for case")
    return files


def _room(chunks: Sequence[_Chunk]) -> memoryview:
    """Return memory for a file's content.

    The system clears a page of it when that is first written to. A bytearray is cleared
    as a whole before, which for a large model takes half as long as reading it.
    """
    size = sum(chunk.size for chunk in chunks)
    return memoryview(mmap.mmap(-1, size) if size else bytearray())


def _read_chunk(connection: apsw.Connection, chunk: _Chunk, file: memoryview) -> None:
    with connection.blob_open(
        "main", "thanosql_files", "data", chunk.rowid, False
    ) as blob:
        blob.read_into(file, chunk.start, chunk.size)


def _damaged(model: StoredModel, reason: str) -> errors.DatabaseError:
    message = (
        f"the files of model {model.name!r} in the database are damaged: {reason}; "
        "restore a backup, or build or import it again"
    )
    return errors.DatabaseError(message)


def _stretches(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while data := file.read(CHUNK):
            yield data


def _head(name: str, size: int) -> bytes:
    """Return what a model's digest has before a file's content."""
    return f"{name}\0{size}\0".encode()
