"""The history of trainings: a run in, rows of three tables out.

They are written while a training is under way, so that another connection can follow
it. A run stays when its model is dropped or trained again. `parent_run_id` is the run
of the stored model that a training started from.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw

from thanosql import errors
from thanosql.store import training_folders
from thanosql.store.guard import GuardedTables
from thanosql.store.records import Status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thanosql.store.records import TrainingRun

LIVE_EVERY = 1.0
"""Seconds between two writings of epochs: a commit waits for the disk."""

_PATIENCE = 0.1
"""Seconds that a training waits for a lock to write an epoch; it tries again later."""

_ID = "[0-9a-f]{32}"

EPOCH_COLUMNS = (
    "epoch",
    "steps",
    "train_loss",
    "validation_loss",
    "wer",
    "cer",
    "learning_rate",
    "audio_seconds",
    "seconds",
)
"""What `thanosql_epochs` keeps of an epoch, beside its run and whether it was kept."""

_INSERT_EPOCH = f"""
INSERT INTO main.thanosql_epochs (run_id, kept, {", ".join(EPOCH_COLUMNS)})
VALUES (?, 0, {", ".join("?" for _ in EPOCH_COLUMNS)})
"""
_FIND_UNDER_WAY = """
SELECT id, training FROM main.thanosql_runs WHERE status = 'training'
"""


class Ledger:
    """A training's run in the database: its epochs, and at last how it ended.

    While the training runs, the ledger writes to the file `live` about once a second,
    or later where the database is busy: in short transactions of a connection of its
    own, so that others can follow the training.

    `live` is None where nothing may be written before the model is stored: the database
    is in memory; the user has a transaction open, which the model is to belong to; or a
    query is half read, so that this connection could not write after another one has.
    """

    def __init__(self, run: TrainingRun, live: Path | None) -> None:
        self._run = run
        self._live = live
        self._began = self._written_at = time.monotonic()
        self._epochs: list[Mapping[str, Any]] = []
        self._is_written = False  # whether the database has a row of this run
        self._write(Status.TRAINING)

    def add(self, epoch: Mapping[str, Any]) -> None:
        """Take an epoch's values by name; those not in EPOCH_COLUMNS are ignored."""
        self._epochs.append(epoch)
        if time.monotonic() - self._written_at >= LIVE_EVERY:
            self._write(Status.TRAINING)

    def store(self, connection: apsw.Connection, kept: int) -> int:
        """Write, in the caller's transaction, that the model is stored; return the id.

        kept: the epoch whose weights are the model's.
        """
        run_id = self._put(connection, Status.STORED)
        connection.execute(
            "UPDATE main.thanosql_epochs SET kept = 1 WHERE run_id = ? AND epoch = ?",
            (run_id, kept),
        )
        return run_id

    def end(self, status: Status, reason: str) -> bool:
        """Write that the training ended without a model, if the database lets us.

        Returns False if the database still has it as under way.
        """
        return self._write(status, reason) or not self._is_written

    def _write(self, status: Status, reason: str | None = None) -> bool:
        """Write the run and its epochs to `live`; return whether that succeeded."""
        if self._live is None:
            return False
        try:
            with (
                closing(_opened(str(self._live), _PATIENCE)) as connection,
                GuardedTables(connection).writing(),
            ):
                self._put(connection, status, reason)
        except (apsw.Error, errors.DatabaseError):
            # Somebody else writes, the disk is full, our tables have got a trigger: the
            # training goes on, and storing it says what is wrong.
            return False
        finally:
            self._written_at = time.monotonic()
        self._is_written = True
        return True

    def _put(
        self, connection: apsw.Connection, status: Status, reason: str | None = None
    ) -> int:
        run = self._run
        found = connection.execute(
            "SELECT id, status FROM main.thanosql_runs WHERE training = ?",
            (run.training,),
        ).fetchone()
        run_id, before = found or (self._insert(connection), Status.TRAINING)
        if before == Status.STORED and status not in (Status.TRAINING, Status.STORED):
            return run_id  # the model is stored, whatever failed after the commit
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
        # All epochs again: they are few, and those that an interrupted training wrote,
        # and that are now trained again, must go.
        connection.execute(
            "DELETE FROM main.thanosql_epochs WHERE run_id = ?", (run_id,)
        )
        connection.executemany(
            _INSERT_EPOCH,
            (
                (run_id, *(epoch[name] for name in EPOCH_COLUMNS))
                for epoch in self._epochs
            ),
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
            (
                (run_id, each.audio, each.row, each.text, each.validation)
                for each in run.rows()
            ),
        )
        return run_id


def _forget(connection: apsw.Connection, run_id: int) -> None:
    """Delete what the tables still say of an earlier run with that id.

    A table that was made without AUTOINCREMENT gives the id of a deleted run again.
    """
    for table in ("epochs", "rows"):
        connection.execute(
            f"DELETE FROM main.thanosql_{table} WHERE run_id = ?", (run_id,)
        )
    connection.execute(
        "UPDATE main.thanosql_runs SET parent_run_id = NULL WHERE parent_run_id = ?",
        (run_id,),
    )
    connection.execute(
        "UPDATE main.thanosql_models SET run_id = NULL WHERE run_id = ?", (run_id,)
    )


def settle(tables: GuardedTables) -> None:
    """Write how trainings ended that are still under way but whose process is gone.

    A connection of its own writes, so that the caller's transaction and its counts of
    changes stay as they are. It does not wait: if the database is busy, a later call
    writes. Nothing is written for a connection that may only read, nor for one that is
    reading now: in WAL mode that one could not write after another connection has.
    """
    connection = tables.connection
    if connection.txn_state("main") != apsw.SQLITE_TXN_NONE:
        return
    try:
        under_way = tables.reading().execute(_FIND_UNDER_WAY).fetchall()
    except (apsw.Error, errors.DatabaseError):  # no such table, or one of another kind
        return
    database = connection.filename
    if not under_way or not database or not writable(connection):
        return
    for run_id, training in under_way:
        if not isinstance(training, str) or re.fullmatch(_ID, training) is None:
            continue
        outcome = training_folders.outcome(
            training_folders.home(Path(database)), training
        )
        if outcome is None:
            continue
        with (
            # Busy, read-only, or tables that the guard refuses.
            suppress(apsw.Error, errors.DatabaseError),
            closing(_opened(database)) as other,
            GuardedTables(other).writing() as writer,
        ):
            writer.execute(
                """
                UPDATE main.thanosql_runs SET status = ?, reason = ?
                WHERE id = ? AND training = ? AND status = 'training'
                """,
                (*outcome, run_id, training),
            )


def writable(connection: apsw.Connection) -> bool:
    """Whether the connection may write: no read-only file, no PRAGMA query_only."""
    query_only = connection.execute("PRAGMA query_only").get
    return not (connection.readonly("main") or query_only)


def _opened(database: str, patience: float = 0.0) -> apsw.Connection:
    """Return another connection to an existing database."""
    connection = apsw.Connection(database, apsw.SQLITE_OPEN_READWRITE)
    connection.set_busy_timeout(int(patience * 1000))
    return connection


def digest(value: Any) -> bytes:
    """Return 16 bytes that stand for a value of a row: a path, a BLOB, a text."""
    content = value if isinstance(value, bytes) else repr(value).encode()
    return hashlib.blake2b(content, digest_size=16).digest()
