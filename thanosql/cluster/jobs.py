"""What goes out to workers: the recordings of a batch, and what is known of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thanosql.speech import Recording
    from thanosql.speech.results import Transcription


@dataclass(slots=True)
class Batch:
    """Recordings that are next to each other in the query, and what is known of them.

    A recording is called by its place in the batch.
    """

    first_row: int
    recordings: list[Recording] = field(default_factory=list)
    bytes: int = 0
    found: dict[int, Sequence[Transcription]] = field(default_factory=dict)
    errors: dict[int, Exception] = field(default_factory=dict)
    "What ends the statement when this recording is reached."

    def is_done(self) -> bool:
        """Whether all is known up to the end, or up to the first error."""
        end = min(self.errors, default=len(self.recordings))
        return all(place in self.found for place in range(end))


@dataclass(slots=True)
class Job:
    """What a worker is given at a time: recordings of one batch."""

    batch: Batch
    places: Sequence[int]
    on_error: Literal["raise", "null"] = "null"
    is_alone: bool = False
    "Whether the worker may have no other job: a worker has died of this one."
    deaths: int = 0
    "How many have died of it."
    unread: Sequence[Transcription] | None = None
    "What a worker made of its only recording, whose file it could not read."

    @property
    def recordings(self) -> list[Recording]:
        """The recordings, in the query's order."""
        return [self.batch.recordings[place] for place in self.places]

    @property
    def first_row(self) -> int:
        """The number of the first one's row."""
        return self.batch.first_row + self.places[0]

    def is_needed(self) -> bool:
        """Whether the statement does not end before these recordings."""
        return self.places[0] < min(self.batch.errors, default=self.places[0] + 1)
