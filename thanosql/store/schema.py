"""The tables that thanosql keeps in a database, and the steps to them.

    thanosql_runs     one row a training
    thanosql_epochs   one row an epoch of a training
    thanosql_rows     one row for each row that a training used, as digests
    thanosql_models   one row a model
    thanosql_files    one row for each stretch of a model's files
    thanosql_schema   one row: the version of these tables

They are made together, when thanosql first writes to a database. Plain SQL may read
them all.
"""

from __future__ import annotations

import re

_UNDER_WAY = """
thanosql_runs_under_way ON thanosql_runs (status) WHERE status = 'training'
"""

# A step that was released is never changed; a later one alters what it made.
STEPS = (
    # IF NOT EXISTS: a release without versions may have made some or all of the tables.
    f"""
CREATE TABLE IF NOT EXISTS main.thanosql_runs (
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
CREATE INDEX IF NOT EXISTS main.{_UNDER_WAY};
CREATE TABLE IF NOT EXISTS main.thanosql_epochs (
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
CREATE TABLE IF NOT EXISTS main.thanosql_rows (
  run_id INTEGER NOT NULL REFERENCES thanosql_runs (id),
  audio BLOB NOT NULL,            -- digest of the audio column's value
  row INTEGER NOT NULL,           -- in the query, from 1; in the validation query too
  text BLOB NOT NULL,             -- digest of the text
  validation INTEGER NOT NULL,    -- 1: held out, 0: trained on
  PRIMARY KEY (run_id, audio, row, validation)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS main.thanosql_models (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
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
CREATE TABLE IF NOT EXISTS main.thanosql_files (
  model_id INTEGER NOT NULL REFERENCES thanosql_models (id),
  path TEXT NOT NULL,
  chunk INTEGER NOT NULL,
  data BLOB NOT NULL,
  UNIQUE (model_id, path, chunk)
);
CREATE TABLE main.thanosql_schema (version INTEGER NOT NULL);
INSERT INTO main.thanosql_schema VALUES (0);
""",
)
"""``STEPS[n]`` brings tables of version n to n + 1; 0 is a file without a version."""

VERSION = len(STEPS)
"""The version of the tables that this thanosql writes."""

TABLES = tuple(re.findall(r"CREATE TABLE.* main\.(\w+)", "".join(STEPS)))
"""The names of the tables, of all versions."""

UNDER_WAY = f"CREATE INDEX {_UNDER_WAY}".split()
"""The SQL, as SQLite keeps it, of our one index with a WHERE, split into words."""
