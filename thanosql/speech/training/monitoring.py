"""Watch a training: the losses of its steps in; their mean, warnings and errors out."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from thanosql.errors import TrainingError, warn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thanosql.speech.recognizers.recognizer import Loss

SEND_EVERY = 10  # steps between copies from a GPU; on a CPU every step is read
# A warning is given if the mean loss of so many steps is not lower, by this share, than
# that of as many steps before.
PLATEAU_STEPS = 250
PLATEAU_GAIN = 0.02


@dataclass(frozen=True, slots=True)
class _Sent:
    values: torch.Tensor  # (steps, 2): loss, share of frames at which it writes
    weights: list[int]  # utterances of each step
    arrived: torch.Event | None  # None on a CPU


class LossLog:
    """The losses of a training's steps, fetched from the device without waiting.

    Raises TrainingError at the first loss that is NaN or infinite. Warns once if the
    loss is flat while the model writes nothing (of CTC's models, only blanks). On a GPU
    both come up to twice `SEND_EVERY` steps late.
    """

    def __init__(self, device: torch.device, warmup_steps: int) -> None:
        self.first = self.latest = math.nan
        self._send_every = SEND_EVERY if device.type == "cuda" else 1
        self._pending: list[torch.Tensor] = []
        self._weights: list[int] = []
        self._sent: deque[_Sent] = deque()
        self._step = 0
        self._warmup_steps = warmup_steps
        self._recent: deque[tuple[float, float]] = deque(maxlen=2 * PLATEAU_STEPS)
        self._warned = False
        self._sum = self._weight = 0.0

    def add(self, loss: Loss, weight: int) -> None:
        """Take the loss of one step. weight: its number of utterances."""
        self._pending.append(torch.stack([loss.mean.detach(), loss.speaking]))
        self._weights.append(weight)
        if len(self._pending) == self._send_every:
            self._send()
        self._receive(wait=False)

    def mean(self) -> float:
        """Return the mean over the utterances since the last call; waits for a GPU."""
        self._send()
        self._receive(wait=True)
        mean = self._sum / self._weight
        self._sum = self._weight = 0.0
        return mean

    def state(self) -> dict[str, Any]:
        """Return what is known of the steps so far, in types of JSON.

        To be called after `mean`, which fetches the losses still on the device.
        """
        return {
            "step": self._step,
            "first": self.first,
            "latest": self.latest,
            "recent": list(self._recent),
            "warned": self._warned,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._step = state["step"]
        self.first, self.latest = state["first"], state["latest"]
        self._recent.extend((loss, speaking) for loss, speaking in state["recent"])
        self._warned = state["warned"]

    def _send(self) -> None:
        if not self._pending:
            return
        rows = torch.stack(self._pending)
        arrived = torch.Event(rows.device) if rows.is_cuda else None
        # From a GPU: into pinned memory, while the GPU computes later steps.
        values = rows.to("cpu", non_blocking=True)
        if arrived is not None:
            arrived.record()
        self._sent.append(_Sent(values, self._weights, arrived))
        self._pending, self._weights = [], []

    def _receive(self, *, wait: bool) -> None:
        while self._sent:
            sent = self._sent[0]
            if sent.arrived is not None and wait:
                sent.arrived.synchronize()
            elif sent.arrived is not None and not sent.arrived.query():
                return
            self._sent.popleft()
            steps = zip(sent.values.tolist(), sent.weights, strict=True)
            for (loss, speaking), weight in steps:
                self._take(loss, speaking, weight)

    def _take(self, loss: float, speaking: float, weight: int) -> None:
        self._step += 1
        if not math.isfinite(loss):
            message = (
                f"the loss became {loss} at step {self._step}; "
                "try a lower learning_rate, a longer warmup or precision='fp32'"
            )
            raise TrainingError(message)
        self.latest = loss
        if self._step == 1:
            self.first = loss
        self._sum += loss * weight
        self._weight += weight
        if self._step > self._warmup_steps and not self._warned:
            self._recent.append((loss, speaking))
            if len(self._recent) == 2 * PLATEAU_STEPS:
                self._warn_of_plateau()

    def _warn_of_plateau(self) -> None:
        losses, shares = zip(*self._recent, strict=True)
        before = sum(losses[:PLATEAU_STEPS]) / PLATEAU_STEPS
        now = sum(losses[PLATEAU_STEPS:]) / PLATEAU_STEPS
        if any(shares[PLATEAU_STEPS:]) or now < before * (1 - PLATEAU_GAIN):
            return
        self._warned = True
        message = (
            f"the loss has been flat near {now:.2f} for {2 * PLATEAU_STEPS} steps and "
            "the model still writes nothing; if that goes on, check that the texts "
            "belong to their recordings, then raise learning_rate, train longer, or "
            "start from a pretrained base"
        )
        warn(message)
