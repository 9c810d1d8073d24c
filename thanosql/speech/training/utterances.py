"""Utterances of a training: what is known of each, and which are held out."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import overload

import numpy as np


@dataclass(frozen=True, slots=True)
class Utterance:
    """What batching needs to know of a row; its audio and text stay where they are."""

    row: int
    "Its number in the query, from 1."
    seconds: float
    content: int
    "A digest of its waveform, of 64 bits: equal recordings have the same."


class Utterances(Sequence[Utterance]):
    """The utterances of a training in the memory of three numbers each."""

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
    """Return the utterances to train on and a drawn `share` to validate on.

    Both keep the rows' order. Equal recordings are on one side, so that the share may
    be a little larger. At least one utterance is held out where the share is not 0, and
    at least one is left to train on, although they may be equal where all are.
    """
    count = round(len(utterances) * share)
    if share > 0:
        count = max(0, min(max(1, count), len(utterances) - 1))
    contents = np.asarray(utterances.contents)
    _, first, groups = np.unique(contents, return_index=True, return_inverse=True)
    # Numbered as they come, so that where no two are equal a group is its utterance.
    groups = np.argsort(np.argsort(first))[groups]
    if len(first) < 2:
        groups = np.arange(len(utterances))
    sizes = np.bincount(groups)
    drawn = np.random.default_rng(seed).permutation(len(sizes))
    # As many groups as the count takes, but for one.
    needed = int(np.searchsorted(np.cumsum(sizes[drawn]), count)) + 1 if count else 0
    held = np.isin(groups, drawn[: min(needed, len(sizes) - 1)]).tolist()
    return (
        Utterances(compress(utterances, (not each for each in held))),
        Utterances(compress(utterances, held)),
    )


def trained_on(validation: Utterances, training: Utterances) -> int:
    """Return how many of the recordings to validate on are among those to train on."""
    return int(np.isin(validation.contents, training.contents).sum())
