"""The history of trainings: a finished run in, rows of three tables out.

    thanosql_runs     one row a training
    thanosql_epochs   one row an epoch of a training
    thanosql_rows     one row for each that a training used, as digests

A run stays when its model is dropped or trained again. Who was trained from whom is
in `parent_run_id`: the run of the stored model that a training went on from.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thanosql.transactions import guarded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import apsw

_FACTS = {
    "run_id": "r.id",
    "parent": "r.parent",
    "parent_sha256": "r.parent_sha256",
    "parent_run_id": "r.parent_run_id",
    "device": "r.device",
    "utterances": "r.utterances",
    "validation_utterances": "r.validation_utterances",
    "audio_seconds": "r.audio_seconds",
    "dropped": "r.dropped",
    "started_at": "r.started_at",
    "training_seconds": "r.seconds",
    "kept_epoch": "e.epoch",
    "steps": "e.steps",
    "train_loss": "e.train_loss",
    "validation_loss": "e.validation_loss",
    "cer": "e.cer",
}
"What DESCRIBE tells of a model's training, and where it stands."

SCHEMA = """
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
  seconds REAL NOT NULL,
  parent TEXT,                    -- name of the stored model it went on from
  parent_sha256 TEXT,             -- digest of that model, whatever has the name now
  parent_run_id INTEGER REFERENCES thanosql_runs (id)
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
CREATE TABLE IF NOT EXISTS thanosql_rows (
  run_id INTEGER NOT NULL REFERENCES thanosql_runs (id),
  audio BLOB NOT NULL,            -- digest of the audio column's value
  row INTEGER NOT NULL,           -- in the query, from 1; in the validation query too
  text BLOB NOT NULL,             -- digest of the text
  validation INTEGER NOT NULL,    -- 1: held out, 0: trained on
  PRIMARY KEY (run_id, audio, row, validation)
) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Parent:
    """The stored model that a training went on from."""

    name: str
    sha256: str
    run_id: int | None
    "The training that made it; None for an imported one."


@dataclass(frozen=True, slots=True)
class Run:
    """A finished training, as its tables keep it."""

    device: str
    utterances: int
    validation_utterances: int
    audio_seconds: float
    dropped: Mapping[str, int]
    started_at: str
    seconds: float
    epochs: Sequence[Sequence[Any]]
    "The columns of `thanosql_epochs` after `run_id`."
    rows: Sequence[Sequence[Any]] = ()
    "The columns of `thanosql_rows` after `run_id`."
    parent: Parent | None = None


def digest(value: Any) -> bytes:
    """Return what stands for a value of a row (a path, a BLOB, a text): 16 bytes."""
    content = value if isinstance(value, bytes) else repr(value).encode()
    return hashlib.blake2b(content, digest_size=16).digest()


def save(
    connection: apsw.Connection,
    run: Run,
    *,
    model_name: str,
    base: str,
    query: str | None,
    options: Mapping[str, Any] | None,
) -> int:
    """Write a run in the caller's transaction and return its id."""
    parent = run.parent
    connection.execute(
        """
        INSERT INTO main.thanosql_runs
          (model_name, base, query, options, device, utterances,
           validation_utterances, audio_seconds, dropped, started_at, seconds,
           parent, parent_sha256, parent_run_id)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        """,
        (
            model_name,
            base,
            query,
            json.dumps(options),
            run.device,
            run.utterances,
            run.validation_utterances,
            run.audio_seconds,
            json.dumps(run.dropped, ensure_ascii=False),
            run.started_at,
            run.seconds,
            *((parent.name, parent.sha256, parent.run_id) if parent else (None,) * 3),
        ),
    )
    run_id = connection.last_insert_rowid()
    connection.executemany(
        "INSERT INTO main.thanosql_epochs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        ((run_id, *epoch) for epoch in run.epochs),
    )
    connection.executemany(
        "INSERT INTO main.thanosql_rows VALUES (?, ?, ?, ?, ?)",
        ((run_id, *row) for row in run.rows),
    )
    return run_id


def facts(connection: apsw.Connection, run_id: int | None) -> list[tuple[str, Any]]:
    """Return a training as (name, value); nothing for None: the model was imported."""
    if run_id is None:
        return []
    with guarded(connection):
        rows = connection.execute(
            f"""
            SELECT {", ".join(_FACTS.values())}
            FROM main.thanosql_runs AS r
            JOIN main.thanosql_epochs AS e ON e.run_id = r.id AND e.kept
            WHERE r.id = ?
            """,
            (run_id,),
        ).fetchall()
    return [fact for row in rows for fact in zip(_FACTS, row, strict=True)]


def trained_on(
    connection: apsw.Connection, run_id: int | None
) -> Callable[[Any], bool]:
    """Return a function that says whether a model was trained on an audio value.

    `run_id` is the training that made the model; those it went on from count too.
    """
    if run_id is None:
        return lambda _value: False
    with guarded(connection):
        ids: str = connection.execute(
            """
            WITH RECURSIVE run (id) AS (
              SELECT ?
              UNION
              SELECT r.parent_run_id
              FROM run JOIN main.thanosql_runs AS r USING (id)
              WHERE r.parent_run_id IS NOT NULL
            )
            SELECT json_group_array(id) FROM run
            """,
            (run_id,),
        ).get

    def is_among(value: Any) -> bool:
        with guarded(connection):
            return bool(
                connection.execute(
                    """
                    SELECT EXISTS (
                      SELECT 1
                      FROM json_each(?) AS run
                      CROSS JOIN main.thanosql_rows AS r ON r.run_id = run.value
                      WHERE r.audio = ? AND NOT r.validation
                    )
                    """,
                    (ids, digest(value)),
                ).get
            )

    return is_among
