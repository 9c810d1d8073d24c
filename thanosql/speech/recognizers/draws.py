"""Random numbers of a training step: seed, epoch and rows in, generators out.

An utterance's numbers depend on its row, not on the utterances beside it: so they are
the same in however many processes a batch is trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_WHOLE = 0  # in the place of a row: rows count from 1


@dataclass(frozen=True, slots=True)
class Draws:
    """The generators of a step, on the CPU, for all but dropout."""

    batch: torch.Generator
    "Of what is drawn once for the whole batch, such as LayerDrop."
    utterances: tuple[torch.Generator, ...]
    "Of what is drawn for each utterance, such as SpecAugment."

    @classmethod
    def of(cls, seed: int, epoch: int, step: int, rows: Iterable[int]) -> Self:
        """Return those of a step; rows: of the batch's utterances, or a part of it."""
        return cls(
            _seeded(seed, epoch, _WHOLE, step),
            tuple(_seeded(seed, epoch, row) for row in rows),
        )

    def only(self, places: Sequence[int]) -> Self:
        """Return those of some of the batch's utterances."""
        return type(self)(self.batch, tuple(self.utterances[i] for i in places))


def of_utterances(draws: Draws | None, count: int) -> Sequence[torch.Generator | None]:
    """Return the generator of each of `count` utterances; None for torch's own."""
    return (None,) * count if draws is None else draws.utterances


def _seeded(*numbers: int) -> torch.Generator:
    mixed = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(mixed[0]))
