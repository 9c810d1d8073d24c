"""Keep what training would compute again: features of a row in, the same out.

What lies before the first layer that is trained gives the same for a recording in
every epoch: its decoding, resampling and filterbanks, and, while it is frozen, the
convolutional encoder, which is a third of wav2vec 2.0's forward pass. SpecAugment and
dropout come after all that, so that an epoch is the same to the bit with and without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Key(NamedTuple):
    """Which features: of which recording, played at which speed."""

    held_out: bool  # the row is one of the validation query's
    row: int  # from 1
    speed: float


class Kept(NamedTuple):
    """What is kept of a recording, and of its text."""

    features: Tensor
    targets: tuple[int, ...]


class FeatureCache:
    """Features by key, up to a number of bytes; past it, they are computed again.

    First come, first kept: with a budget below one epoch's features, any policy that
    throws out what was used least recently would throw out all before its next use.
    On a GPU they lie in pinned memory of the host.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._kept: dict[Key, Kept] = {}
        self.bytes = 0

    def get(self, key: Key) -> Kept | None:
        """Return the features kept under `key`, on the CPU, or None."""
        return self._kept.get(key)

    def add(self, key: Key, features: Tensor, targets: tuple[int, ...] = ()) -> None:
        """Keep features, from any device, if there is room; nothing waits for a GPU.

        A copy from one may still be under way afterwards: only what the same stream
        does later, as training does, may read it.
        """
        if key in self._kept:
            return
        size = features.nbytes
        if features.is_cuda or features.is_pinned():
            size = 1 << (size - 1).bit_length()  # torch hands out powers of two there
        if self.bytes + size > self._budget:
            return
        kept = features.to("cpu", non_blocking=True)
        if kept.untyped_storage().nbytes() > kept.nbytes:
            kept = kept.clone()  # a view would hold on to all that it is a part of
        self._kept[key] = Kept(kept, targets)
        self.bytes += size
