"""Batch norms over several processes: each one's frames in, all frames' norm out.

torch's SyncBatchNorm is for GPUs only. This one computes the same on any device. In a
model that runs each utterance by itself, so do its batch norms; there only the running
statistics are shared, in the order in which one process would have taken them.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed, nn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from thanosql.speech.recognizers.draws import Draws
    from thanosql.speech.recognizers.recognizer import Recognizer

_Norm = nn.modules.batchnorm._BatchNorm


class Norms:
    """The batch norms of a model that several processes train."""

    def __init__(self, connection: Any) -> None:
        """Begin without a model; connection: a group of torch's, for norms alone."""
        self._connection = connection
        self._counts = True
        self._layers: list[tuple[nn.Module, float]] = []
        self._dropped: set[nn.Module] = set()
        self._alone: dict[_Norm, list[Tensor]] = {}
        self.see_padding = False
        "Whether what norms see depends on how far a batch is padded."

    @contextmanager
    def shared(self, recognizer: Recognizer) -> Iterator[None]:
        """Replace the forward passes of the model's batch norms in the block."""
        norms = [m for m in recognizer.model.modules() if isinstance(m, _Norm)]
        together = recognizer.trains_together
        self.see_padding = bool(norms) and together and recognizer.mel_bins > 0
        with ExitStack() as undo:
            for norm in norms:
                if together:
                    forward = partial(self._over_all, norm, norm.forward)
                else:
                    self._alone[norm] = []
                    forward = partial(self._over_one, norm, norm.forward)
                _replaced(undo, norm, forward=forward)
            if norms and together:
                self._drop_alike(recognizer.model, undo)
            yield

    @contextmanager
    def step(self, draws: Draws, *, counts: bool) -> Iterator[None]:
        """Have the forward pass of a step run in the block.

        counts: whether the share of the batch counts; else it is there only so that
        this process takes part.
        """
        self._counts = counts
        for seen in self._alone.values():
            seen.clear()
        self._dropped = {
            layer
            for layer, share in self._layers
            if float(torch.rand((), generator=draws.batch)) < share
        }
        yield
        self._settle()

    # A model that runs the batch together

    def _over_all(
        self, norm: _Norm, own: Callable[[Tensor], Tensor], inputs: Tensor
    ) -> Tensor:
        """Return the norm of (rows, channels) or (batch, channels, frames)."""
        if not norm.training:
            return own(inputs)
        rows = inputs.movedim(1, -1)
        normed, mean, variance, count = _Normalized.apply(
            rows.reshape(-1, rows.shape[-1]).float(),
            norm.weight,
            norm.bias,
            norm.eps,
            self._counts,
            self._connection,
        )
        _update(norm, mean, variance * (count / (count - 1)))
        result: Tensor = normed.reshape(rows.shape).movedim(-1, 1).to(inputs.dtype)
        return result

    def _drop_alike(self, model: nn.Module, undo: ExitStack) -> None:
        """Have the same layers dropped in all processes, not others in each.

        Else a batch norm would wait for processes that leave its layer out.
        """
        self._layers = []
        undo.callback(self._layers.clear)
        for encoder in model.modules():
            share = getattr(encoder, "layerdrop", 0.0)
            layers = getattr(encoder, "layers", None)
            if not share or not isinstance(layers, nn.ModuleList):
                continue
            _replaced(undo, encoder, layerdrop=0.0)
            for layer in layers:
                self._layers.append((layer, share))
                forward = partial(self._unless_dropped, layer, layer.forward)
                _replaced(undo, layer, forward=forward)

    def _unless_dropped(
        self,
        layer: nn.Module,
        own: Callable[..., Tensor],
        hidden_states: Tensor,
        *others: Any,
        **named: Any,
    ) -> Tensor:
        if layer.training and layer in self._dropped:
            return hidden_states
        return own(hidden_states, *others, **named)

    # A model that runs each utterance by itself

    def _over_one(
        self, norm: _Norm, own: Callable[[Tensor], Tensor], inputs: Tensor
    ) -> Tensor:
        """Return the norm of one utterance, and note its statistics."""
        if not norm.training:
            return own(inputs)
        if self._counts:
            rows = inputs.detach().movedim(1, -1).flatten(0, -2).float()
            variance, mean = torch.var_mean(rows, 0)
            self._alone[norm].append(torch.stack([mean, variance]))
        return nn.functional.batch_norm(
            inputs, None, None, norm.weight, norm.bias, training=True, eps=norm.eps
        )

    def _settle(self) -> None:
        """Take over the statistics of all processes' utterances, in the batch's order.

        Gradient checkpointing runs a layer twice; what it sees the second time is not
        taken over.
        """
        if not self._alone:
            return
        world = distributed.get_world_size(self._connection)
        mine = [[each.cpu() for each in seen] for seen in self._alone.values()]
        theirs: list[list[list[Tensor]]] = [mine] * world
        distributed.all_gather_object(theirs, mine, group=self._connection)
        for number, norm in enumerate(self._alone):
            seen = [process[number] for process in theirs]
            for place in range(max(len(each) for each in seen)):
                for each in seen:
                    if place < len(each):
                        mean, variance = each[place].to(norm.weight.device)
                        _update(norm, mean, variance)


class _Normalized(torch.autograd.Function):
    """The norm of rows by the mean and variance of all processes' rows.

    rows: (rows, channels), fp32. Returns the normed rows, mean and (biased) variance,
    (channels,) each, and the number of rows, (). Ioffe and Szegedy 2015, section 3; in
    the backward pass the two sums go over all processes, too.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        weight: Tensor,
        bias: Tensor,
        eps: float,
        counts: bool,
        connection: Any,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        sums = torch.cat([rows.sum(0), rows.new_full((1,), len(rows))]) * counts
        distributed.all_reduce(sums, group=connection)
        mean, count = sums[:-1] / sums[-1], sums[-1]
        # In a second pass: the mean square less the squared mean loses digits.
        squares = (rows - mean).square().sum(0) * counts
        distributed.all_reduce(squares, group=connection)
        variance = squares / count
        scale = (variance + eps).rsqrt()
        unit = (rows - mean) * scale
        ctx.save_for_backward(unit, weight, scale, count)
        ctx.counts, ctx.connection = counts, connection
        ctx.mark_non_differentiable(mean, variance, count)
        return unit * weight + bias, mean, variance, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        unit, weight, scale, count = ctx.saved_tensors
        to_bias, to_weight = gradient.sum(0), (gradient * unit).sum(0)
        sums = torch.stack([to_bias, to_weight])
        distributed.all_reduce(sums, group=ctx.connection)
        by_mean, by_variance = sums / count
        to_rows = weight * scale * (gradient - by_mean - unit * by_variance)
        to_rows *= ctx.counts  # what does not count has changed neither
        return to_rows, to_weight, to_bias, None, None, None


def _update(norm: _Norm, mean: Tensor, variance: Tensor) -> None:
    """Take over the statistics of a batch; variance: (channels,), unbiased."""
    if norm.running_mean is None or norm.running_var is None:
        return
    with torch.no_grad():
        share = norm.momentum
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked += 1
            if share is None:  # the mean of all batches
                share = 1 / float(norm.num_batches_tracked)
        assert share is not None
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
        norm.running_var.lerp_(variance.to(norm.running_var.dtype), share)


def _replaced(undo: ExitStack, module: nn.Module, **attributes: Any) -> None:
    """Set attributes of a module until `undo`."""
    for name, value in attributes.items():
        if name in module.__dict__:
            undo.callback(setattr, module, name, module.__dict__[name])
        else:
            undo.callback(delattr, module, name)
        setattr(module, name, value)
