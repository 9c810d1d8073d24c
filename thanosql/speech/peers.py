"""What a process of a training in several knows of the others; torch is not needed."""

from __future__ import annotations

from dataclasses import dataclass

from thanosql.errors import OperationalError


class PeerLostError(OperationalError):
    """Another process of a training has ended amidst it."""


@dataclass(frozen=True, slots=True)
class Seat:
    """The place of a process among those that train a model together."""

    rank: int
    world: int
    "How many there are."
    host: str
    "Of process 0, which the others ask for one another."
    port: int
    "A free one there."
