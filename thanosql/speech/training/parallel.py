"""Train in several processes: each one's share of a batch in, the batch's gradient out.

Each process has the whole model and computes the loss of its share of every batch;
torch's `DistributedDataParallel` adds the gradients up while they are computed. Shares
are weighed, so that the sum is the gradient of the whole batch's loss, and batch norms
see the whole batch (`norms.py`). What is drawn at random for an utterance is the same
in any share (`draws.py`), but for dropout.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import distributed, nn

from thanosql.speech.peers import PeerLostError
from thanosql.speech.recognizers.recognizer import Loss
from thanosql.speech.training.norms import Norms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from torch import Tensor

    from thanosql.speech.peers import Seat
    from thanosql.speech.recognizers.draws import Draws
    from thanosql.speech.recognizers.recognizer import Recognizer

    # Takes inputs, targets and draws of a share, and how many utterances the batch has.
    # Returns what to differentiate, and the loss of the whole batch.
    Objective = Callable[
        [Sequence[Tensor], Sequence[Sequence[int]], Draws, int], tuple[Tensor, Loss]
    ]

_torch: Any = distributed  # not all that it documents is in its types
_Value = TypeVar("_Value")

_MEET_WITHIN = timedelta(minutes=5)  # for the processes to find one another
# Whoever started the processes notices a dead one, and the living may have to wait for
# a slow one. So this only ends what everybody has forgotten.
_WAIT_AT_MOST = timedelta(days=2)


class Group:
    """The processes that train a model together: by itself, this one alone."""

    rank = 0
    "This one's number."
    world = 1
    "How many there are."

    def training(self, recognizer: Recognizer) -> AbstractContextManager[object]:
        """Return a context in which the recognizer's model is trained."""
        return nullcontext()

    def objective(self, recognizer: Recognizer) -> Objective:
        """Return the loss to minimise, of parameters that are trained from now on."""

        def loss(
            inputs: Sequence[Tensor],
            targets: Sequence[Sequence[int]],
            draws: Draws,
            count: int,
        ) -> tuple[Tensor, Loss]:
            whole = recognizer.loss(inputs, targets, draws)
            return whole.mean, whole

        return loss

    def agreed(self, value: float) -> float:
        """Return the first process' value, which is to be asked for in all."""
        return value

    def gathered(self, value: _Value) -> list[_Value]:
        """Return the values of all processes, in the order of their ranks."""
        return [value]


ALONE = Group()


class Processes(Group):
    """Several processes, of which this is one; `joined` makes it."""

    def __init__(self, rank: int, world: int) -> None:
        self.rank, self.world = rank, world
        # Values of Python go by the CPU. Norms have a connection of their own: they
        # are computed amidst the sums of gradients, which have another order.
        self._talk: Any = distributed.new_group(backend="gloo", timeout=_WAIT_AT_MOST)
        self._norms = Norms(distributed.new_group(timeout=_WAIT_AT_MOST))

    def training(self, recognizer: Recognizer) -> AbstractContextManager[object]:
        """Return a context in which batch norms see the utterances of all processes."""
        return self._norms.shared(recognizer)

    def objective(self, recognizer: Recognizer) -> Objective:
        """Return the loss of a share, weighed so that the gradient is the batch's.

        It takes a share that is not to count at all if the batch has fewer utterances
        than there are processes.
        """
        step = nn.parallel.DistributedDataParallel(
            _Step(recognizer),
            forward_sync_buffers=False,  # they are the same everywhere
            find_unused_parameters=True,  # of a dropped layer, or a mask not drawn
        )

        def loss(
            inputs: Sequence[Tensor],
            targets: Sequence[Sequence[int]],
            draws: Draws,
            count: int,
        ) -> tuple[Tensor, Loss]:
            weight = recognizer.loss_weight(targets) if self.rank < count else 0
            longest = self._longest(inputs) if self._norms.see_padding else 0
            with (
                self._norms.step(draws, counts=weight > 0),
                _padded(recognizer, longest),
            ):
                mean, speaking, is_trained = step(inputs, targets, draws)
            sums = (
                torch.stack([mean.detach(), speaking, torch.ones_like(mean)]) * weight
            )
            distributed.all_reduce(sums)
            whole = sums[:2] / sums[2]
            # The gradients are divided by the number of processes.
            mine = mean * (self.world * weight / sums[2])
            if recognizer.adapter is not None and not self._any(is_trained and weight):
                mine = mine.detach()  # as in one process: no step is taken
            return mine, Loss(whole[0], whole[1])

        return loss

    def agreed(self, value: float) -> float:
        """Return the first process' value."""
        decided = torch.tensor(value, dtype=torch.float64)
        distributed.broadcast(decided, 0, group=self._talk)
        return float(decided)

    def gathered(self, value: _Value) -> list[_Value]:
        """Return the values of all processes, in the order of their ranks."""
        values: list[_Value] = [value] * self.world
        distributed.all_gather_object(values, value, group=self._talk)
        return values

    def _any(self, value: float) -> bool:
        """Return whether there is a process whose value is not 0."""
        found = torch.tensor(bool(value), dtype=torch.uint8)
        distributed.all_reduce(found, distributed.ReduceOp.MAX, group=self._talk)
        return bool(found)

    def _longest(self, inputs: Sequence[Tensor]) -> int:
        """Return the length of the batch's longest utterance."""
        longest = torch.tensor(max(len(each) for each in inputs))
        distributed.all_reduce(longest, distributed.ReduceOp.MAX, group=self._talk)
        return int(longest)


class _Step(nn.Module):
    """The loss of a share as a module, which is what torch wraps."""

    def __init__(self, recognizer: Recognizer) -> None:
        super().__init__()
        self.model = recognizer.model
        self._recognizer = recognizer
        self._trained = [p for p in self.model.parameters() if p.requires_grad]

    def forward(
        self,
        inputs: Sequence[Tensor],
        targets: Sequence[Sequence[int]],
        draws: Draws,
    ) -> tuple[Tensor, Tensor, bool]:
        """Return the two scalars of `Recognizer.loss`, and if the first is trained by.

        LayerDrop may leave out all that an adapter adapts, in this process alone; the
        others still wait for its gradients, so then there are some, which are 0.
        """
        loss = self._recognizer.loss(inputs, targets, draws)
        mean, is_trained = loss.mean, loss.mean.requires_grad
        if not is_trained:
            mean = mean + 0 * self._trained[0].sum()
        return mean, loss.speaking, is_trained


@contextmanager
def joined(seat: Seat, device: torch.device) -> Iterator[Processes]:
    """Take a seat in a group of processes, and leave it at the end.

    device: NCCL connects GPUs, gloo CPUs. Raises PeerLostError if another process ends
    amidst the work.
    """
    is_cuda = device.type == "cuda"
    if is_cuda:
        torch.cuda.set_device(device)
    try:
        # Of convolutions over one channel, whose gradients are copied once more.
        warnings.filterwarnings("ignore", "Grad strides do not match")
        store = _torch.TCPStore(
            seat.host,
            seat.port,
            seat.world,
            is_master=seat.rank == 0,
            timeout=_MEET_WITHIN,
        )
        distributed.init_process_group(
            "nccl" if is_cuda else "gloo",
            store=store,
            rank=seat.rank,
            world_size=seat.world,
            timeout=_WAIT_AT_MOST,
            device_id=device if is_cuda else None,
        )
        yield Processes(seat.rank, seat.world)
    except RuntimeError as error:
        if not _is_of_connection(error):
            raise
        message = f"a process of the training is gone: {error}"
        raise PeerLostError(message) from error
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()


def _is_of_connection(error: RuntimeError) -> bool:
    # gloo raises plain RuntimeErrors, which begin with the place in its source.
    return isinstance(error, distributed.DistError) or "gloo/transport" in str(error)


@contextmanager
def _padded(recognizer: Recognizer, length: int) -> Iterator[None]:
    """Have batches padded to at least a length in the block."""
    recognizer.least_length = length
    try:
        yield
    finally:
        recognizer.least_length = 0
