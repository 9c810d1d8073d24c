"""Stored models: a Hugging Face directory in, rows of the database out, and back.

    thanosql_models   one row a model: its name, base, query, options, sizes, digest
    thanosql_files    the files of the directory, in chunks

These and the tables of `thanosql.runs`, the trainings that models came from, are made
with the first model. Plain SQL may read them all.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thanosql import errors, runs
from thanosql.transactions import guarded, transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import apsw


CHUNK = 16 * 2**20
"""Bytes of a file in one row: SQLite caps a value at 10^9 bytes."""

PATIENCE = 60.0
"""Seconds to wait for a lock before hours of training are given up for it."""

_FILE_NAME = re.compile(r"\w[\w.+-]*\.(json|txt|model|safetensors|jinja)", re.ASCII)
"""No folders: nothing that leads out of a directory, is hidden in it, or is code."""

_SCHEMA = f"""
{runs.SCHEMA}
CREATE TABLE IF NOT EXISTS thanosql_models (
  id INTEGER PRIMARY KEY,
  name TEXT NOT NULL UNIQUE COLLATE NOCASE,
  base TEXT NOT NULL,
  architecture TEXT NOT NULL,
  parameters INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  sha256 TEXT NOT NULL,
  query TEXT,
  options TEXT,                   -- JSON
  versions TEXT NOT NULL,         -- JSON: packages that made it
  run_id INTEGER REFERENCES thanosql_runs (id),
  created_at TEXT NOT NULL        -- UTC
);
CREATE TABLE IF NOT EXISTS thanosql_files (
  model_id INTEGER NOT NULL REFERENCES thanosql_models (id),
  path TEXT NOT NULL,
  chunk INTEGER NOT NULL,
  data BLOB NOT NULL,
  UNIQUE (model_id, path, chunk)
);
"""


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """What is to be known of a model beside its files."""

    name: str
    base: str
    architecture: str
    parameters: int
    versions: Mapping[str, str]
    query: str | None = None
    options: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class StoredModel(ModelRecord):
    """A model as the database holds it."""

    id: int = 0
    bytes: int = 0
    sha256: str = ""
    run_id: int | None = None
    created_at: str = ""
    wer: float | None = None
    "Word error rate on the validation rows, of the epoch that was kept."


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A row of `thanosql_files`: a stretch of a file."""

    rowid: int
    start: int  # in the file
    size: int


class ModelStore:
    """The models in one database, on the connection's own transaction."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def models(self) -> list[StoredModel]:
        """Return every model, by name."""
        return [_model(row) for row in self._rows()]

    def find(self, name: str) -> StoredModel | None:
        """Return the model of that name, in any case, or None."""
        folded = name.casefold()
        # A damaged row of another model is none of its business.
        return next((_model(r) for r in self._rows() if _folded(r) == folded), None)

    def get(self, name: str) -> StoredModel:
        """Return the model of that name or raise `ModelNotFoundError`."""
        model = self.find(name)
        if model is None:
            names = [row[0] for row in self._rows() if isinstance(row[0], str)]
            hint = errors.nearest(name, names)
            if not hint:
                hint = (
                    f"; stored are {', '.join(map(repr, names[:10]))}"
                    if names
                    else "; none is stored yet: BUILD MODEL or IMPORT MODEL makes one"
                )
            message = f"no model named {name!r}{hint}"
            raise errors.ModelNotFoundError(message)
        return model

    def check_new(self, name: str, *, overwrite: bool) -> None:
        """Raise if a model of that name cannot be stored: it exists, or nothing can."""
        if self._connection.readonly("main"):
            message = (
                f"model {name!r} cannot be stored: the database is read-only; "
                "open it with permission to write, or work in another file"
            )
            raise errors.OperationalError(message)
        if not overwrite and self.find(name) is not None:
            message = (
                f"a model named {name!r} exists already; "
                "set overwrite=True to replace it, or DROP MODEL first"
            )
            raise errors.ModelExistsError(message)

    def save(
        self,
        record: ModelRecord,
        directory: Path,
        *,
        write_run: Callable[[apsw.Connection], int] | None = None,
        overwrite: bool = False,
    ) -> StoredModel:
        """Store the files of `directory` as a model, in one short transaction.

        Within an open transaction it becomes part of that one. Until it ends, and if
        it fails, an earlier model of the name stays as it is. write_run: writes in the
        same transaction the run that the model came from, and returns its id.
        """
        paths = sorted(directory.iterdir())
        for path in paths:
            if not _FILE_NAME.fullmatch(path.name) or not path.is_file():
                message = f"{path.name!r} is not a file that a stored model can have"
                raise errors.NotSupportedError(message)
        digest = _digest(paths)
        size = sum(path.stat().st_size for path in paths)
        with transaction(self._connection, PATIENCE), guarded(self._connection):
            self._connection.execute(_SCHEMA)
            self.check_new(record.name, overwrite=overwrite)
            self._delete(record.name)
            run_id = None if write_run is None else write_run(self._connection)
            self._connection.execute(
                """
                INSERT INTO main.thanosql_models
                  (name, base, architecture, parameters, bytes, sha256, query, options,
                   versions, run_id, created_at)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, strftime('%FT%TZ', 'now'))
                """,
                (
                    record.name,
                    record.base,
                    record.architecture,
                    record.parameters,
                    size,
                    digest,
                    record.query,
                    None if record.options is None else json.dumps(record.options),
                    json.dumps(record.versions),
                    run_id,
                ),
            )
            model_id = self._connection.last_insert_rowid()
            self._connection.executemany(
                "INSERT INTO main.thanosql_files VALUES (?, ?, ?, ?)",
                (
                    (model_id, path.name, number, data)
                    for path in paths
                    for number, data in enumerate(_chunks(path))
                ),
            )
        return self.get(record.name)

    def drop(self, name: str) -> None:
        """Forget the model of that name; its runs stay, as history."""
        with transaction(self._connection), guarded(self._connection):
            self._delete(self.get(name).name)

    def read(
        self,
        model: StoredModel,
        begun: Callable[[Mapping[str, memoryview]], object] = lambda _files: None,
    ) -> dict[str, memoryview]:
        """Return the files of a model: name to content.

        begun: called with the files as soon as each has its length and its first
        `CHUNK` bytes, so that work on these can begin; the rest is still to come.
        Raises DatabaseError where they are not what was stored, by their digest.
        """
        from concurrent.futures import ThreadPoolExecutor  # slow to import

        # SQLite may give the id of a dropped model to another.
        if self.find(model.name) != model:
            message = (
                f"model {model.name!r} was dropped or replaced since the statement "
                "began; run it again"
            )
            raise errors.OperationalError(message)
        digest = hashlib.sha256()
        # Digesting takes about as long as reading, and lets go of Python's lock.
        with guarded(self._connection), ThreadPoolExecutor(1) as beside:
            stored = self._chunks(model)
            files = {n: _room(sum(c.size for c in stored[n])) for n in stored}
            for name, chunks in stored.items():
                self._read_chunk(chunks[0], files[name])
            begun(files)
            for name, chunks in stored.items():
                content = files[name]
                beside.submit(digest.update, _head(name, len(content)))
                for chunk in chunks:
                    if chunk.start:
                        self._read_chunk(chunk, files[name])
                    end = chunk.start + chunk.size
                    beside.submit(digest.update, content[chunk.start : end])
        if digest.hexdigest() != model.sha256:
            raise _damaged(model, "their digest is not that of what was stored")
        return files

    def _read_chunk(self, chunk: _Chunk, content: memoryview) -> None:
        with self._connection.blob_open(
            "main", "thanosql_files", "data", chunk.rowid, False
        ) as blob:
            blob.read_into(content, chunk.start, chunk.size)

    def _chunks(self, model: StoredModel) -> dict[str, list[_Chunk]]:
        """Return the chunks of a model's files by name, in their order."""
        pages = self._connection.execute("PRAGMA main.page_count").get
        room = pages * self._connection.execute("PRAGMA main.page_size").get
        files: dict[str, list[_Chunk]] = {}
        for rowid, name, number, kind, size in self._connection.execute(
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
            # More than the file holds: a column that is computed, not stored.
            if kind != "blob" or number != len(chunks) or room < 0:
                raise _damaged(model, f"chunk {number!r:.30} of {name!r} is not whole")
            start = chunks[-1].start + chunks[-1].size if chunks else 0
            chunks.append(_Chunk(rowid, start, size))
        if len({name.casefold() for name in files}) < len(files):
            raise _damaged(model, "two have one name but for case")
        return files

    def _rows(self) -> Sequence[Sequence[Any]]:
        """Return what the database says of every model, by name, unchecked."""
        with guarded(self._connection):
            if not self._connection.execute(
                "SELECT count(*) FROM main.sqlite_schema WHERE name = 'thanosql_models'"
            ).get:
                return []
            return self._connection.execute(
                """
                SELECT name, base, architecture, parameters, versions, query, options,
                       id, bytes, sha256, run_id, created_at,
                       (SELECT wer FROM main.thanosql_epochs AS e
                        WHERE e.run_id = m.run_id AND kept)
                FROM main.thanosql_models AS m
                ORDER BY name
                """
            ).fetchall()

    def _delete(self, name: str) -> None:
        model = self.find(name)
        if model is not None:
            self._connection.execute(
                "DELETE FROM main.thanosql_files WHERE model_id = ?", (model.id,)
            )
            self._connection.execute(
                "DELETE FROM main.thanosql_models WHERE id = ?", (model.id,)
            )


def export(files: Mapping[str, bytes | memoryview], target: Path) -> None:
    """Write a model's files, as `ModelStore.read` returns them, into a directory."""
    target.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        place = target / name
        # Never through a link that is there, nor into a pipe: a new file each.
        place.unlink(missing_ok=True)
        with place.open("xb") as file:
            file.write(content)


def _model(row: Sequence[Any]) -> StoredModel:
    """Return a row of `ModelStore._rows` as a model; DatabaseError if it is none."""
    name, base, architecture, parameters, versions, query, options, *rest = row
    try:
        model = StoredModel(
            name,
            base,
            architecture,
            parameters,
            _scalars(versions),
            query,
            None if options is None else _scalars(options),
            *rest,
        )
        for column, value, kind in (
            ("name", name, str),
            ("base", base, str),
            ("architecture", architecture, str),
            ("parameters", parameters, int),
            ("query", query, str | None),
            ("bytes", model.bytes, int),
            ("sha256", model.sha256, str),
            ("run_id", model.run_id, int | None),
            ("created_at", model.created_at, str),
            ("wer", model.wer, float | None),
        ):
            if not isinstance(value, kind):
                message = f"{column} is {value!r:.50}"
                raise ValueError(message)
    except (ValueError, RecursionError) as error:
        message = (
            f"the row of model {name!r:.100} in thanosql_models is damaged: {error}; "
            f"DELETE FROM thanosql_models WHERE id = {rest[0]!r:.30} removes it"
        )
        raise errors.DatabaseError(message) from error
    return model


def _folded(row: Sequence[Any]) -> str | None:
    return row[0].casefold() if isinstance(row[0], str) else None


def _scalars(content: Any) -> dict[str, Any]:
    """Return the JSON object in a column, of values that a column can hold."""
    if not isinstance(content, str):
        message = f"text with a JSON object is expected, not {content!r:.50}"
        raise ValueError(message)
    found = json.loads(content)
    json.dumps(found, ensure_ascii=False).encode()  # half a character is none
    if not isinstance(found, dict) or not all(map(_is_scalar, found.values())):
        message = f"a JSON object of plain values is expected, not {content!r:.50}"
        raise ValueError(message)
    return found


def _is_scalar(value: Any) -> bool:
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return value is None or isinstance(value, str | float)


def _damaged(model: StoredModel, reason: str) -> errors.DatabaseError:
    message = (
        f"the files of model {model.name!r} in the database are damaged: {reason}; "
        "restore a backup, or build or import it again"
    )
    return errors.DatabaseError(message)


def _room(size: int) -> memoryview:
    """Return memory for a file's content, of pages that come with the writing to them.

    A bytearray would be cleared first: of a large model, that is half of reading it.
    """
    return memoryview(mmap.mmap(-1, size) if size else bytearray())


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while data := file.read(CHUNK):
            yield data


def _digest(paths: Iterable[Path]) -> str:
    """Return the SHA-256 over every file's name, size and content."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(_head(path.name, path.stat().st_size))
        for data in _chunks(path):
            digest.update(data)
    return digest.hexdigest()


def _head(name: str, size: int) -> bytes:
    """Return what stands before a file's content in a model's digest."""
    return f"{name}\0{size}\0".encode()
