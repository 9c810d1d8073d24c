"""The utterances of a training: usable rows in, a part to train on and one held out."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import overload

import numpy as np


@dataclass(frozen=True, slots=True)
class Utterance:
    """A usable row, without its audio and text."""

    row: int
    "Its number in the query, from 1."
    seconds: float
    content: int
    "A 64-bit digest of its waveform; equal recordings have the same."


class Utterances(Sequence[Utterance]):
    """A sequence of utterances that takes 24 bytes for each."""

    def __init__(self, utterances: Iterable[Utterance] = ()) -> None:
        self._rows, self.contents = array("q"), array("Q")
        self.seconds = array("d")
        for utterance in utterances:
            self.append(utterance)

    def append(self, utterance: Utterance) -> None:
        """Add one at the end."""
        self._rows.append(utterance.row)
        self.seconds.append(utterance.seconds)
        self.contents.append(utterance.content)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Utterance: ...
    @overload
    def __getitem__(self, index: slice) -> Utterances: ...
    def __getitem__(self, index: int | slice) -> Utterance | Utterances:
        if isinstance(index, slice):
            return Utterances(self[i] for i in range(*index.indices(len(self))))
        return Utterance(self._rows[index], self.seconds[index], self.contents[index])


def hold_out(
    utterances: Utterances, share: float, seed: int
) -> tuple[Utterances, Utterances]:
    """Return the utterances to train on, and a random `share` to validate on.

    Both keep the order of the rows. Equal recordings are never split between the two,
    so a little more than the share may be held out. If the share is not 0, at least one
    utterance is held out and at least one is left to train on. To allow that, equal
    recordings are split if all are equal.
    """
    count = round(len(utterances) * share)
    if share > 0:
        count = max(0, min(max(1, count), len(utterances) - 1))
    contents = np.asarray(utterances.contents)
    _, first, groups = np.unique(contents, return_index=True, return_inverse=True)
    # Groups are numbered by first appearance: without duplicates, group i is
    # utterance i.
    groups = np.argsort(np.argsort(first))[groups]
    if len(first) < 2:
        groups = np.arange(len(utterances))
    sizes = np.bincount(groups)
    drawn = np.random.default_rng(seed).permutation(len(sizes))
    # The fewest groups that hold `count` utterances; one group is always left.
    needed = int(np.searchsorted(np.cumsum(sizes[drawn]), count)) + 1 if count else 0
    held = np.isin(groups, drawn[: min(needed, len(sizes) - 1)]).tolist()
    return (
        Utterances(compress(utterances, (not each for each in held))),
        Utterances(compress(utterances, held)),
    )


def some_of(utterances: Utterances, seconds: float, seed: int) -> Utterances:
    """Return all utterances, or a random part of them that lasts about `seconds`.

    At least one is returned; they keep the order of the rows.
    """
    drawn = np.random.default_rng(seed).permutation(len(utterances))
    lasted = np.cumsum(np.asarray(utterances.seconds)[drawn])
    enough = int(np.searchsorted(lasted, seconds)) + 1
    return Utterances(utterances[int(i)] for i in np.sort(drawn[:enough]))


def trained_on(validation: Utterances, training: Utterances) -> int:
    """Return how many of the recordings to validate on are also trained on."""
    return int(np.isin(validation.contents, training.contents).sum())
