"""The training of a stored model: the id of its run in, facts of it out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from thanosql.store import runs

if TYPE_CHECKING:
    from collections.abc import Callable

    from thanosql.store.guard import GuardedTables

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
"The facts that DESCRIBE MODEL tells of a training, and the columns they are in."


def facts(tables: GuardedTables, run_id: int | None) -> list[tuple[str, Any]]:
    """Return a training as (name, value); nothing for None: the model was imported."""
    if run_id is None:
        return []
    rows = tables.rows(
        f"""
        SELECT {", ".join(_FACTS.values())}
        FROM main.thanosql_runs AS r
        JOIN main.thanosql_epochs AS e ON e.run_id = r.id AND e.kept
        WHERE r.id = ?
        """,
        (run_id,),
    )
    return [fact for row in rows for fact in zip(_FACTS, row, strict=True)]


def trained_on(tables: GuardedTables, run_id: int | None) -> Callable[[Any], bool]:
    """Return a function that says whether a model was trained on an audio value.

    `run_id` is the training that made the model; those it went on from count too.
    """
    if run_id is None:
        return lambda _value: False
    connection = tables.reading()
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
        connection = tables.reading()  # again: the schema may change between two rows
        found: int = connection.execute(
            """
            SELECT EXISTS (
              SELECT 1
              FROM json_each(?) AS run
              CROSS JOIN main.thanosql_rows AS r ON r.run_id = run.value
              WHERE r.audio = ? AND NOT r.validation
            )
            """,
            (ids, runs.digest(value)),
        ).get
        return bool(found)

    return is_among
