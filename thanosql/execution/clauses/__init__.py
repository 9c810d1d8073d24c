"""One function a statement: a clause's node in, its relation out.

Each module ends with `RELATIONS`: which of its functions is for which node.

A function checks what can be known before anything runs (model, options, columns) and
returns the columns and a function that starts a scan. A change of the database is an
effect, which the context keeps for later. `thanosql.speech` does the long work.

    training.py         BUILD, FIT MODEL
    models.py           GET, DROP, IMPORT, EXPORT MODEL
    language_models.py  BUILD MODEL ... USING NGram; its models in the others
    recordings.py       PREDICT, EVALUATE, PRINT AUDIO
    alignment.py        ALIGN
    columns.py          what these two add to the rows, and how it is written
    data.py             COPY, GET DATASET
    facts.py            LIST, DESCRIBE
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from thanosql.execution.clauses import (
    alignment,
    data,
    facts,
    models,
    recordings,
    training,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thanosql import statements
    from thanosql.execution.context import Context
    from thanosql.execution.relation import Relation


def relation(context: Context, node: statements.Node) -> Relation | None:
    """Return the rows that a clause yields; None for DROP MODEL, which yields none."""
    made: Relation | None = _RELATIONS[type(node)](context, node)
    return made


_RELATIONS: Mapping[type, Any] = {
    **training.RELATIONS,
    **models.RELATIONS,
    **recordings.RELATIONS,
    **alignment.RELATIONS,
    **data.RELATIONS,
    **facts.RELATIONS,
}
