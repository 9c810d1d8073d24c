"""Keep the features of recordings between epochs: features in, the same out later.

Everything before the first trained layer gives the same result for a recording in every
epoch: decoding, resampling, filterbanks, and the convolutional encoder while it is
frozen (a third of wav2vec 2.0's forward pass). SpecAugment and dropout come later, so
the cache does not change a bit of the training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Key(NamedTuple):
    """Which recording, played at which speed, the features are of."""

    held_out: bool  # the row is one of the validation query's
    row: int  # from 1
    speed: float


class Kept(NamedTuple):
    """The features of a recording, and the target ids of its text."""

    features: Tensor
    targets: tuple[int, ...]


class FeatureCache:
    """Features by key, up to a number of bytes; what does not fit is not kept.

    Nothing is ever thrown out. If the budget is less than the features of one epoch,
    throwing out the least recently used would throw out all of them before their next
    use. If training runs on a GPU, the features are in pinned memory of the host.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._kept: dict[Key, Kept] = {}
        self.bytes = 0

    def get(self, key: Key) -> Kept | None:
        """Return the features kept under `key`, on the CPU, or None."""
        return self._kept.get(key)

    def add(self, key: Key, features: Tensor, targets: tuple[int, ...]) -> None:
        """Keep features, from any device, if there is room, without waiting for a GPU.

        A copy from a GPU may be unfinished when this returns. Only later work of the
        same CUDA stream may read it; training is such work.
        """
        if key in self._kept:
            return
        size = features.nbytes
        if features.is_cuda or features.is_pinned():
            size = 1 << (size - 1).bit_length()  # torch pins memory in powers of two
        if self.bytes + size > self._budget:
            return
        kept = features.to("cpu", non_blocking=True)
        if kept.untyped_storage().nbytes() > kept.nbytes:
            kept = kept.clone()  # a view would keep the whole of its storage alive
        self._kept[key] = Kept(kept, targets)
        self.bytes += size
