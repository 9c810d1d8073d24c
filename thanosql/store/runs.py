"""The history of trainings: a run in, rows of three tables out.

    thanosql_runs     one row a training
    thanosql_epochs   one row an epoch of a training
    thanosql_rows     one row for each that a training used, as digests

They are written while a training is under way, so that another connection can follow
it. A run stays when its model is dropped or trained again. Who was trained from whom is
in `parent_run_id`: the run of the stored model that a training went on from.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import apsw

from thanosql import errors
from thanosql.store import guard, training_folders
from thanosql.store.transactions import transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

LIVE_EVERY = 1.0
"""Seconds between two writings of epochs: a commit waits for the disk."""

_PATIENCE = 0.1
"""Seconds that the training waits for a lock, so that others can read of it."""

_ID = "[0-9a-f]{32}"

SCHEMA = f"""
CREATE TABLE IF NOT EXISTS thanosql_runs (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  training TEXT NOT NULL UNIQUE,  -- names the folder of its checkpoint
  status TEXT NOT NULL,           -- training, stored, failed, interrupted, killed
  reason TEXT,                    -- why there is no model of it
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
  seconds REAL NOT NULL,          -- since it began, or was resumed
  parent TEXT,                    -- name of the stored model it went on from
  parent_sha256 TEXT,             -- digest of that model, whatever has the name now
  parent_run_id INTEGER REFERENCES thanosql_runs (id)
);
{guard.UNDER_WAY};
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
    """A training, as its tables keep it: what is known when it begins."""

    training: str
    "Its own id; an interrupted one goes on under the same."
    model_name: str
    base: str
    query: str
    options: Mapping[str, Any]
    device: str
    utterances: int
    validation_utterances: int
    audio_seconds: float
    dropped: Mapping[str, int]
    rows: Callable[[], Iterable[Sequence[Any]]] = lambda: ()
    "Gives the columns of `thanosql_rows` after `run_id`."
    parent: Parent | None = None


class Ledger:
    """A training's run in the database: its epochs, and at last how it ended.

    While the training runs, others are to read of it: what there is to say is written
    in short transactions of a connection of its own, about once a second, and again
    later where the database is busy. With `database` empty (it is in memory, or the
    user has a transaction open, which the model is to belong to, or a query half read,
    which could write nothing once another connection has), all is written at the end.
    """

    def __init__(self, run: Run, database: str) -> None:
        self._run = run
        self._database = database
        self._began = self._written_at = time.monotonic()
        self._epochs: list[Sequence[Any]] = []
        self._written = 0
        self._is_known = False
        self._write()

    def add(self, epoch: Sequence[Any]) -> None:
        """Take an epoch: the columns of `thanosql_epochs` after `run_id`."""
        self._epochs.append(epoch)
        if time.monotonic() - self._written_at >= LIVE_EVERY:
            self._write()

    def store(self, connection: apsw.Connection, kept: int) -> int:
        """Write, in the caller's transaction, that the model is stored; return the id.

        kept: the epoch whose weights are the model's.
        """
        run_id = self._put(connection, "stored", None)
        connection.execute(
            """
            UPDATE main.thanosql_epochs SET kept = (epoch = ?) WHERE run_id = ?
            """,
            (kept, run_id),
        )
        return run_id

    def end(self, status: str, reason: str) -> bool:
        """Write that the training ended without a model, if the database lets us.

        False where the database says that it is under way still.
        """
        return self._write(status, reason) or not self._is_known

    def _write(self, status: str = "training", reason: str | None = None) -> bool:
        """Write what there is to say; return whether that went well."""
        if not self._database:
            return False
        try:
            with closing(_opened(self._database, _PATIENCE)) as connection:
                with transaction(connection):
                    guard.check(connection, to_write=True)
                    self._put(connection, status, reason)
                self._written = len(self._epochs)
        except (apsw.Error, errors.DatabaseError):
            # Somebody else writes, the disk is full, our tables have got a trigger: the
            # training goes on, and storing it says what is wrong.
            return False
        finally:
            self._written_at = time.monotonic()
        self._is_known = True
        return True

    def _put(self, connection: apsw.Connection, status: str, reason: str | None) -> int:
        connection.execute(SCHEMA)
        run = self._run
        found = connection.execute(
            "SELECT id, status FROM main.thanosql_runs WHERE training = ?",
            (run.training,),
        ).fetchone()
        run_id: int | None = None
        before = ""
        if found is not None:
            run_id, before = found
        if run_id and before == "stored" and status not in ("training", "stored"):
            return run_id  # what came behind the commit changes nothing of it
        if run_id is None:
            run_id = self._insert(connection)
            self._written = 0
        elif self._written == 0:  # resumed: what follows the checkpoint is done again
            connection.execute(
                "DELETE FROM main.thanosql_epochs WHERE run_id = ?", (run_id,)
            )
        connection.execute(
            """
            UPDATE main.thanosql_runs
            SET status = ?, reason = ?, device = ?, seconds = ?, query = ?, options = ?
            WHERE id = ?
            """,
            (
                status,
                reason,
                run.device,
                time.monotonic() - self._began,
                run.query,
                json.dumps(run.options),
                run_id,
            ),
        )
        connection.executemany(
            """
            INSERT OR REPLACE INTO main.thanosql_epochs
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)
            """,
            ((run_id, *epoch) for epoch in self._epochs[self._written :]),
        )
        return run_id

    def _insert(self, connection: apsw.Connection) -> int:
        run, parent = self._run, self._run.parent
        connection.execute(
            """
            INSERT INTO main.thanosql_runs
              (training, status, model_name, base, query, options, device, utterances,
               validation_utterances, audio_seconds, dropped, started_at, seconds,
               parent, parent_sha256, parent_run_id)
            VALUES (?, '', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?, ?)
            """,
            (
                run.training,
                run.model_name,
                run.base,
                run.query,
                json.dumps(run.options),
                run.device,
                run.utterances,
                run.validation_utterances,
                run.audio_seconds,
                json.dumps(run.dropped, ensure_ascii=False),
                datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                *(
                    (parent.name, parent.sha256, parent.run_id)
                    if parent
                    else (None,) * 3
                ),
            ),
        )
        run_id = connection.last_insert_rowid()
        _forget(connection, run_id)
        connection.executemany(
            "INSERT INTO main.thanosql_rows VALUES (?, ?, ?, ?, ?)",
            ((run_id, *row) for row in run.rows()),
        )
        return run_id


def _forget(connection: apsw.Connection, run_id: int) -> None:
    """Delete what is still said of an earlier run with that id.

    Only a table that was made without AUTOINCREMENT gives an id again, once whoever
    tidied up has deleted its run.
    """
    for table in ("epochs", "rows"):
        connection.execute(
            f"DELETE FROM main.thanosql_{table} WHERE run_id = ?", (run_id,)
        )
    connection.execute(
        "UPDATE main.thanosql_runs SET parent_run_id = NULL WHERE parent_run_id = ?",
        (run_id,),
    )
    if connection.table_exists("main", "thanosql_models"):
        connection.execute(
            "UPDATE main.thanosql_models SET run_id = NULL WHERE run_id = ?", (run_id,)
        )


def settle(connection: apsw.Connection) -> None:
    """Say of trainings that no process is at work on any more how they ended.

    Through a connection of its own, so that the caller's transaction, and what it
    counts, stay as they are; without waiting, since the next statement comes here too.
    Not for a connection that only reads, nor for one whose view of the database, in WAL
    mode, would be outdated by it: it could write no more.
    """
    if connection.txn_state("main") != apsw.SQLITE_TXN_NONE:
        return
    try:
        guard.check(connection)
        under_way = connection.execute(
            "SELECT id, training FROM main.thanosql_runs WHERE status = 'training'"
        ).fetchall()
    except (apsw.Error, errors.DatabaseError):  # no such table, or one of another kind
        return
    database = connection.filename
    if not under_way or not database or not writable(connection):
        return
    for run_id, training in under_way:
        if not isinstance(training, str) or re.fullmatch(_ID, training) is None:
            continue
        outcome = training_folders.outcome(training_folders.home(database), training)
        if outcome is None:
            continue
        with (
            # Busy, read-only, or more than a table.
            suppress(apsw.Error, errors.DatabaseError),
            closing(_opened(database)) as writer,
        ):
            guard.check(writer, to_write=True)
            writer.execute(
                """
                UPDATE main.thanosql_runs SET status = ?, reason = ?
                WHERE id = ? AND training = ? AND status = 'training'
                """,
                (*outcome, run_id, training),
            )


def writable(connection: apsw.Connection) -> bool:
    """Whether the connection may write: not opened to read, nor told to only read."""
    query_only = connection.execute("PRAGMA query_only").get
    return not (connection.readonly("main") or query_only)


def _opened(database: str, patience: float = 0.0) -> apsw.Connection:
    """Return another connection to a database that is there."""
    connection = apsw.Connection(database, apsw.SQLITE_OPEN_READWRITE)
    connection.set_busy_timeout(int(patience * 1000))
    return connection


def digest(value: Any) -> bytes:
    """Return what stands for a value of a row (a path, a BLOB, a text): 16 bytes."""
    content = value if isinstance(value, bytes) else repr(value).encode()
    return hashlib.blake2b(content, digest_size=16).digest()
