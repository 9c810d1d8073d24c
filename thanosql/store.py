"""Stored models: a Hugging Face directory in, rows of the database out, and back.

    thanosql_models   one row a model: its name, base, query, options, sizes, digest
    thanosql_files    the files of the directory, in chunks
    thanosql_runs     one row a training
    thanosql_epochs   one row an epoch of a training

The tables are made with the first model. Plain SQL may read them all.
"""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import apsw

from thanosql import errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


CHUNK = 16 * 2**20
"""Bytes of a file in one row: SQLite caps a value at 10^9 bytes."""

PATIENCE = 60.0
"""Seconds to wait for a lock before hours of training are given up for it."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS thanosql_runs (
  id INTEGER PRIMARY KEY,
  model_name TEXT NOT NULL,
  base TEXT NOT NULL,
  query TEXT NOT NULL,
  options TEXT NOT NULL,          -- JSON
  device TEXT NOT NULL,
  utterances INTEGER NOT NULL,    -- trained on
  validation_utterances INTEGER NOT NULL,
  audio_seconds REAL NOT NULL,    -- of both
  dropped TEXT NOT NULL,          -- JSON: what the vocabulary cannot spell, counted
  started_at TEXT NOT NULL,       -- UTC
  seconds REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS thanosql_epochs (
  run_id INTEGER NOT NULL REFERENCES thanosql_runs (id),
  epoch INTEGER NOT NULL,
  steps INTEGER NOT NULL,
  train_loss REAL,
  validation_loss REAL,
  wer REAL,
  cer REAL,
  learning_rate REAL,
  audio_seconds REAL,
  seconds REAL,
  kept INTEGER NOT NULL,          -- 1 for the epoch whose weights are the model's
  PRIMARY KEY (run_id, epoch)
);
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
class Run:
    """A finished training, as `thanosql_runs` and `thanosql_epochs` keep it."""

    device: str
    utterances: int
    validation_utterances: int
    audio_seconds: float
    dropped: Mapping[str, int]
    started_at: str
    seconds: float
    epochs: Sequence[Sequence[Any]]
    "The columns of `thanosql_epochs` after `run_id`."


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


class ModelStore:
    """The models in one database, on the connection's own transaction."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def models(self) -> Iterator[StoredModel]:
        """Yield every model, by name."""
        if not self._exists():
            return
        for row in self._connection.execute(
            """
            SELECT name, base, architecture, parameters, versions, query, options,
                   id, bytes, sha256, run_id, created_at,
                   (SELECT wer FROM main.thanosql_epochs AS e
                    WHERE e.run_id = m.run_id AND kept)
            FROM main.thanosql_models AS m
            ORDER BY name
            """
        ):
            name, base, architecture, parameters, versions, query, options, *rest = row
            yield StoredModel(
                name,
                base,
                architecture,
                parameters,
                json.loads(versions),
                query,
                None if options is None else json.loads(options),
                *rest,
            )

    def find(self, name: str) -> StoredModel | None:
        """Return the model of that name, in any case, or None."""
        folded = name.casefold()
        return next((m for m in self.models() if m.name.casefold() == folded), None)

    def get(self, name: str) -> StoredModel:
        """Return the model of that name or raise `ModelNotFoundError`."""
        model = self.find(name)
        if model is None:
            names = [each.name for each in self.models()]
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
        run: Run | None = None,
        overwrite: bool = False,
    ) -> StoredModel:
        """Store the files of `directory` as a model, in one short transaction.

        Within an open transaction it becomes part of that one. Until it ends, and if
        it fails, an earlier model of the name stays as it is.
        """
        paths = sorted(path for path in directory.rglob("*") if path.is_file())
        digest = _digest(directory, paths)
        size = sum(path.stat().st_size for path in paths)
        with self._transaction(patience=PATIENCE):
            self._connection.execute(_SCHEMA)
            self.check_new(record.name, overwrite=overwrite)
            self._delete(record.name)
            run_id = None if run is None else self._save_run(record, run)
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
                    (model_id, path.relative_to(directory).as_posix(), number, data)
                    for path in paths
                    for number, data in enumerate(_chunks(path))
                ),
            )
        return self.get(record.name)

    def drop(self, name: str) -> None:
        """Forget the model of that name; its runs stay, as history."""
        with self._transaction():
            self._delete(self.get(name).name)

    def read(self, model: StoredModel) -> dict[str, bytearray]:
        """Return the files of a model: relative path to content."""
        # SQLite may give the id of a dropped model to another.
        if self.find(model.name) != model:
            message = (
                f"model {model.name!r} was dropped or replaced since the statement "
                "began; run it again"
            )
            raise errors.OperationalError(message)
        sizes: dict[str, int] = dict(
            self._connection.execute(
                """
                SELECT path, sum(length(data)) FROM main.thanosql_files
                WHERE model_id = ? GROUP BY path ORDER BY path
                """,
                (model.id,),
            )
        )
        files = {path: bytearray(size) for path, size in sizes.items()}
        for path, content in files.items():
            place = 0
            for rowid, length in self._connection.execute(
                """
                SELECT rowid, length(data) FROM main.thanosql_files
                WHERE model_id = ? AND path = ? ORDER BY chunk
                """,
                (model.id, path),
            ):
                with self._connection.blob_open(
                    "main", "thanosql_files", "data", rowid, False
                ) as blob:
                    blob.read_into(content, place, length)
                place += length
        return files

    def run_facts(self, model: StoredModel) -> list[tuple[str, Any]]:
        """Return the training a model came from as (name, value); none if imported."""
        if model.run_id is None:
            return []
        cursor = self._connection.execute(
            """
            SELECT r.id AS run_id, r.device, r.utterances, r.validation_utterances,
                   r.audio_seconds, r.dropped, r.started_at,
                   r.seconds AS training_seconds, e.epoch AS kept_epoch, e.steps,
                   e.train_loss, e.validation_loss, e.cer
            FROM main.thanosql_runs AS r
            JOIN main.thanosql_epochs AS e ON e.run_id = r.id AND e.kept
            WHERE r.id = ?
            """,
            (model.run_id,),
        )
        names = [name for name, _ in cursor.get_description()]
        return [fact for row in cursor for fact in zip(names, row, strict=True)]

    def _exists(self) -> bool:
        return bool(
            self._connection.execute(
                "SELECT count(*) FROM main.sqlite_schema WHERE name = 'thanosql_models'"
            ).get
        )

    def _delete(self, name: str) -> None:
        model = self.find(name)
        if model is not None:
            self._connection.execute(
                "DELETE FROM main.thanosql_files WHERE model_id = ?", (model.id,)
            )
            self._connection.execute(
                "DELETE FROM main.thanosql_models WHERE id = ?", (model.id,)
            )

    def _save_run(self, record: ModelRecord, run: Run) -> int:
        self._connection.execute(
            """
            INSERT INTO main.thanosql_runs
              (model_name, base, query, options, device, utterances,
               validation_utterances, audio_seconds, dropped, started_at, seconds)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
            """,
            (
                record.name,
                record.base,
                record.query,
                json.dumps(record.options),
                run.device,
                run.utterances,
                run.validation_utterances,
                run.audio_seconds,
                json.dumps(run.dropped, ensure_ascii=False),
                run.started_at,
                run.seconds,
            ),
        )
        run_id = self._connection.last_insert_rowid()
        self._connection.executemany(
            "INSERT INTO main.thanosql_epochs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            ((run_id, *epoch) for epoch in run.epochs),
        )
        return run_id

    @contextmanager
    def _transaction(self, patience: float = 0.0) -> Iterator[None]:
        """Write all of the block or nothing; in an open transaction, as part of it.

        A database that another connection writes to is waited for, `patience` seconds
        beyond the connection's own timeout.
        """
        begin, undo, end = (
            ("SAVEPOINT thanosql", "ROLLBACK TO thanosql", "RELEASE thanosql")
            if self._connection.in_transaction
            else ("BEGIN IMMEDIATE", "ROLLBACK", "COMMIT")
        )
        tried_until = time.monotonic() + patience
        while True:
            try:
                self._connection.execute(begin)
                break
            except apsw.BusyError:
                if time.monotonic() >= tried_until:
                    raise
                time.sleep(0.05)
        try:
            yield
            self._connection.execute(end)
        except BaseException:
            # SQLite may have rolled the whole transaction back by itself (disk full).
            if self._connection.in_transaction:
                self._connection.execute(undo)
                if begin.startswith("SAVEPOINT"):
                    self._connection.execute(end)
            raise


def export(files: Mapping[str, bytes | bytearray], target: Path) -> None:
    """Write a model's files below `target`, and nowhere else."""
    for path, content in files.items():
        parts = PurePosixPath(path)
        if parts.is_absolute() or ".." in parts.parts or "\\" in path or ":" in path:
            message = f"the stored model names a file outside its directory: {path!r}"
            raise errors.DatabaseError(message)
        place = target.joinpath(*parts.parts)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while data := file.read(CHUNK):
            yield data


def _digest(directory: Path, paths: Iterable[Path]) -> str:
    """Return the SHA-256 over every file's relative path, size and content."""
    digest = hashlib.sha256()
    for path in paths:
        name = path.relative_to(directory).as_posix()
        digest.update(f"{name}\0{path.stat().st_size}\0".encode())
        for data in _chunks(path):
            digest.update(data)
    return digest.hexdigest()
