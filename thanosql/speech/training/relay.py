"""The checkpoints of a training whose files another process keeps: states in and out.

Arrays are passed on, not tensors: Ray hands arrays over without copying them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from thanosql.speech.training.checkpoint import State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Parcel:
    """A state, and the best epoch's weights, as `Checkpoints` takes and gives them."""

    tensors: Arrays
    facts: Mapping[str, Any]
    best: Arrays

    @classmethod
    def of(cls, state: State, best: Mapping[str, Tensor]) -> Parcel:
        """Return what is to be passed on of a state."""
        return cls(arrays(state.tensors), state.facts, arrays(best))

    def opened(self) -> tuple[State, dict[str, Tensor]]:
        """Return the state and the best weights, as copies."""
        return State(tensors(self.tensors), self.facts), tensors(self.best)


class Relay:
    """Takes the place of `Checkpoints` in a process that has no folder."""

    def __init__(
        self,
        saved: Parcel | None,
        send: Callable[[Parcel], None] | None,
        is_ready: Callable[[], bool] = lambda: False,
    ) -> None:
        """Begin with what was saved before.

        send: passes on the next state; None where another process does. is_ready:
        whether the last one has arrived.
        """
        self._saved, self._send, self._is_ready = saved, send, is_ready

    @property
    def ready(self) -> bool:
        """Whether a state can be passed on without waiting."""
        return self._send is not None and self._is_ready()

    def load(self) -> tuple[State, Mapping[str, Tensor]] | None:
        """Return what was saved before; None if there is nothing."""
        return None if self._saved is None else self._saved.opened()

    def save(self, state: State, best: Mapping[str, Tensor]) -> None:
        """Pass a state on."""
        if self._send is not None:
            self._send(Parcel.of(state, best))


def arrays(tensors: Mapping[str, Tensor]) -> Arrays:
    """Return tensors on the CPU as arrays, without copying them."""
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def tensors(arrays: Arrays) -> dict[str, Tensor]:
    """Return arrays as tensors, as copies: what Ray hands over cannot be written to."""
    return {name: torch.from_numpy(each.copy()) for name, each in arrays.items()}
