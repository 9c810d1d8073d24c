"""Parakeet's fast conformer without padding: log-mel frames in, CTC logits out.

Transducers have the same encoder, and run it by the functions here (`transducer.py`).

transformers pads a batch to its longest utterance and masks the padding in every layer.
Here the frames of all utterances lie one after the other, (sum of lengths, features),
as in `wav2vec2.py`. These layers look beyond one frame; each is kept from mixing
neighbouring utterances:

* Subsampling (Rekesh et al. 2023, section 3): 3 x 3 convolutions of stride 2 over time
  and mels, depthwise except for the first. Rows of zeros lie between utterances; they
  stand for the zero padding that each would have alone. The first convolution has one
  input channel: it is a matrix product over its nine inputs and a tenth, constant one,
  whose weight is the bias. Between utterances all ten are zero, so the result is zero.
  The others run in channels-last layout: on a CPU, several times as fast as
  transformers', forward and backward.
* Attention with relative positions (Dai et al. 2019, appendix B): one utterance at a
  time. The encodings of positions are made once, and projected once in each layer, for
  the longest utterance; a shorter one uses the middle part of them. To shift scores
  from distances to places only the strides change: nothing is copied.
* The depthwise convolution over time: zeros lie between utterances.
* Batch norm in training: its statistics are over the batch's frames, none of them
  padding; transformers' counts padding too. In evaluation it treats each frame alone.

So in evaluation row i of the result is what the model gives for utterance i alone,
except for the order of floating-point sums. In training it is what the model gives for
the batch. The modules and parameters are the model's own.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

from thanosql.speech.recognizers.padded import PaddedRecognizer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from thanosql.speech.recognizers.draws import Draws

Module = Any  # of transformers; mypy would take each of its parts for a tensor


class ParakeetRecognizer(PaddedRecognizer):
    """Parakeet: without padding on a CPU, by transformers' own forward elsewhere."""

    def logits(
        self, batch: Sequence[Tensor], draws: Draws | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return logits (batch, frames, vocab) and lengths (batch,)."""
        model: Module = self.model
        if any(self._is_encoded(each) for each in batch):
            heard = [self._encoded_alone(each) for each in batch]
            scored = [_pointwise(model.ctc_head, each) for each in heard]
            return pad_sequence(scored, batch_first=True), torch.tensor(
                [len(each) for each in scored]
            )
        lengths = [self.frames(len(each)) for each in batch]
        if not self.runs_unpadded or not any(lengths):
            return super().logits(batch, draws)
        hidden, _ = encoded(model, [each for each in batch if len(each)])
        rows = torch.split(_pointwise(model.ctc_head, hidden), lengths)
        return pad_sequence(list(rows), batch_first=True), torch.tensor(lengths)

    def frozen(self, batch: Sequence[Tensor]) -> list[Tensor]:
        """Return the encoder's frames if all of it is frozen, else the features."""
        model: Module = self.model
        can_tell_frames = model.config.encoder_config.hidden_size != self.mel_bins
        if not can_tell_frames or any(
            p.requires_grad for p in model.encoder.parameters()
        ):
            return list(batch)
        with torch.no_grad():
            return [self._encoded_alone(each) for each in batch]

    def _is_encoded(self, each: Tensor) -> bool:
        """Return whether these are frames that `frozen` returned."""
        encoder: Any = self.model.config.encoder_config
        width = encoder.hidden_size
        return bool(each.shape[1] == width != self.mel_bins)

    def _encoded_alone(self, each: Tensor) -> Tensor:
        """Return the frames (frames, width) of features, or such frames as they are.

        Alone, since its last bits would depend on the others in a batch.
        """
        model: Module = self.model
        each = each.to(model.device, non_blocking=True)
        if self._is_encoded(each):
            return each
        if not self.frames(len(each)):
            return each.new_zeros(0, model.config.encoder_config.hidden_size)
        if self.runs_unpadded:
            return encoded(model, [each])[0]
        frames: Tensor = model.encoder(input_features=each[None]).last_hidden_state[0]
        return frames

    @property
    def runs_unpadded(self) -> bool:
        """Whether the code here can replace transformers' forward at the moment."""
        return runs_unpadded(self.model)


def runs_unpadded(model: Module) -> bool:
    """Return whether `encoded` can replace the encoder's own forward at the moment.

    It has no dropout, LayerDrop or SpecAugment: a model that uses one of them is
    trained by transformers' forward. So is any model on a GPU, which has fast
    convolutions of its own, and for which padding is faster than one utterance at a
    time.
    """
    config: Any = model.config.encoder_config
    random = (
        config.dropout,
        config.dropout_positions,
        config.attention_dropout,
        config.activation_dropout,
        config.layerdrop,
        getattr(model.config, "apply_spec_augment", False),
    )
    return (
        model.device.type == "cpu"
        and config.subsampling_conv_kernel_size == 3
        and config.subsampling_conv_stride == 2
        and config.conv_kernel_size % 2 == 1
        and not (model.training and any(random))
    )


def encoded(model: Module, features: Sequence[Tensor]) -> tuple[Tensor, list[int]]:
    """Return the frames, (sum of lengths, features), of all utterances, and lengths.

    The frames are the encoder's, of utterances one after the other. features: log-mels
    of each utterance, (frames, mels), at least one frame. An utterance's length is the
    number of frames that subsampling leaves.
    """
    encoder = model.encoder
    hidden, counts = _subsampled(encoder.subsampling, features)
    hidden = hidden * encoder.input_scale
    # (2 * longest - 1, features), from the farthest behind to the farthest ahead
    positions = encoder.encode_positions(hidden.new_empty(1, max(counts), 1))[0]
    for layer in encoder.layers:
        if model.training and layer.gradient_checkpointing:
            hidden = checkpoint(
                _layer, layer, hidden, positions, counts, use_reentrant=False
            )
        else:
            hidden = _layer(layer, hidden, positions, counts)
    return hidden, counts


def _subsampled(
    subsampling: Module, features: Sequence[Tensor]
) -> tuple[Tensor, list[int]]:
    """Return (sum of lengths, hidden features), and the length of each utterance."""
    first, _, *others = subsampling.layers
    factor = 2**subsampling.num_layers
    lengths = [len(utterance) for utterance in features]
    counts = [-(-length // factor) for length in lengths]
    # A span is an utterance and the zeros after it: at least one frame of the result.
    spans = [(count + 1) * factor for count in counts]
    mels = torch.cat(
        [
            functional.pad(utterance, (0, 0, 0, span - len(utterance)))
            for utterance, span in zip(features, spans, strict=True)
        ]
    )
    lengths = [(length + 1) // 2 for length in lengths]
    spans = [span // 2 for span in spans]
    inside = _inside(lengths, spans).to(mels.dtype)[:, None, None]
    padded = functional.pad(mels, (1, 1, 1, 1))
    windows = padded.unfold(0, 3, 2).unfold(1, 3, 2).flatten(2)  # (time, mels, 9)
    ones = windows.new_ones(1).expand(*windows.shape[:2], 1)
    weight = torch.cat([first.weight.flatten(1), first.bias[:, None]], 1)
    windows = torch.cat([windows, ones], 2) * inside
    hidden = functional.linear(windows, weight).relu_()  # (time, mels, channels)
    for depthwise, pointwise in zip(others[::3], others[1::3], strict=True):
        if depthwise is not others[0]:
            hidden = hidden * _inside(lengths, spans).to(hidden.dtype)[:, None, None]
        lengths = [(length + 1) // 2 for length in lengths]
        spans = [span // 2 for span in spans]
        hidden = _channels_last(depthwise, hidden)
        hidden = _pointwise(pointwise, hidden).relu_()
    hidden = hidden[_inside(counts, spans)]
    # transformers' linear layer expects the mels of a channel side by side.
    return subsampling.linear(hidden.transpose(1, 2).flatten(1)), counts


def _inside(lengths: Sequence[int], spans: Sequence[int]) -> Tensor:
    """Return a mask (sum of spans,): True for the first `lengths` rows of each span."""
    inside = torch.zeros(sum(spans), dtype=torch.bool)
    for start, length in zip(accumulate(spans, initial=0), lengths, strict=False):
        inside[start : start + length] = True
    return inside


def _channels_last(conv: Module, rows: Tensor) -> Tensor:
    """Return a depthwise convolution's output for (time, mels, channels)."""
    weight = conv.weight if conv.weight.ndim == 4 else conv.weight[..., None]
    result = functional.conv2d(
        rows[None].permute(0, 3, 1, 2),
        weight,
        conv.bias,
        (*conv.stride, 1)[:2],
        (*conv.padding, 0)[:2],
        groups=conv.groups,
    )
    return result[0].permute(1, 2, 0)


def _pointwise(conv: Module, rows: Tensor) -> Tensor:
    """Return the output of a convolution of kernel 1 for (..., channels)."""
    return functional.linear(rows, conv.weight.flatten(1), conv.bias)


def _layer(
    layer: Module, hidden: Tensor, positions: Tensor, counts: list[int]
) -> Tensor:
    """Return a conformer block's output for `hidden`: (sum of counts, features)."""
    hidden = hidden.add(
        layer.feed_forward1(layer.norm_feed_forward1(hidden)), alpha=0.5
    )
    hidden = hidden + _attention(
        layer.self_attn, layer.norm_self_att(hidden), positions, counts
    )
    hidden = hidden + _convolution(layer.conv, layer.norm_conv(hidden), counts)
    hidden = hidden.add(
        layer.feed_forward2(layer.norm_feed_forward2(hidden)), alpha=0.5
    )
    normed: Tensor = layer.norm_out(hidden)
    return normed


def _convolution(conv: Module, inputs: Tensor, counts: list[int]) -> Tensor:
    """Return the convolution module's output for (sum of counts, features)."""
    gated = functional.glu(_pointwise(conv.pointwise_conv1, inputs), 1)
    inside = _inside(counts, [count + conv.padding for count in counts])
    rows = gated.new_zeros(len(inside), gated.shape[1])
    rows = rows.index_copy(0, inside.nonzero()[:, 0], gated)
    mixed = _channels_last(conv.depthwise_conv, rows[:, None])[inside, 0]
    return _pointwise(conv.pointwise_conv2, conv.activation(conv.norm(mixed)))


def _attention(
    attention: Module, inputs: Tensor, positions: Tensor, counts: list[int]
) -> Tensor:
    """Return attention's output for (sum of counts, features).

    Each frame attends to the frames of its own utterance only.
    """
    width = attention.head_dim
    queries, keys, values, distances = (
        projected.unflatten(1, (-1, width)).transpose(0, 1)
        for projected in (
            attention.q_proj(inputs),
            attention.k_proj(inputs),
            attention.v_proj(inputs),
            attention.relative_k_proj(positions),
        )
    )  # each (heads, frames, width)
    by_content, by_position = (
        # The biases are fp32; back to autocast's precision.
        ((queries + bias[:, None]) * attention.scaling).to(keys.dtype)
        for bias in (attention.bias_u, attention.bias_v)
    )
    context = _Attention.apply(by_content, by_position, keys, values, distances, counts)
    output: Tensor = attention.o_proj(context)
    return output


class _Attention(torch.autograd.Function):
    """Attention by content and by position, an utterance at a time.

    The backward pass is written by hand because autograd would record every product of
    every utterance; for an utterance of a second that takes as long as the products.
    by_content, by_position, keys, values: (heads, sum of counts, width); distances:
    (heads, 2 * longest - 1, width), the farthest behind first. Returns (sum of counts,
    heads * width).
    """

    @staticmethod
    def forward(
        ctx: Any,
        by_content: Tensor,
        by_position: Tensor,
        keys: Tensor,
        values: Tensor,
        distances: Tensor,
        counts: list[int],
    ) -> Tensor:
        heads, frames, width = values.shape
        context = values.new_empty(frames, heads, width)
        weights = []
        for rows, near in _places(counts):
            scores = torch.baddbmm(
                _shifted(by_position[:, rows] @ distances[:, near].mT),
                by_content[:, rows],
                keys[:, rows].mT,
            )
            weight = scores.softmax(2, dtype=torch.float32).to(values.dtype)
            context[rows] = (weight @ values[:, rows]).transpose(0, 1)
            weights.append(weight)
        ctx.save_for_backward(
            by_content, by_position, keys, values, distances, *weights
        )
        ctx.counts = counts
        return context.flatten(1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        by_content, by_position, keys, values, distances, *weights = ctx.saved_tensors
        heads, frames, width = values.shape
        gradient = gradient.reshape(frames, heads, width).transpose(0, 1)
        # In the memory layout of the projections' outputs.
        to_content, to_position, to_keys, to_values = (
            values.new_empty(frames, heads, width).transpose(0, 1) for _ in range(4)
        )
        to_distances = torch.zeros_like(distances)
        for weight, (rows, near) in zip(weights, _places(ctx.counts), strict=True):
            to_values[:, rows] = weight.mT @ gradient[:, rows]
            to_weight = gradient[:, rows] @ values[:, rows].mT
            to_scores = torch.ops.aten._softmax_backward_data(
                to_weight, weight, 2, weight.dtype
            )
            to_content[:, rows] = to_scores @ keys[:, rows]
            to_keys[:, rows] = to_scores.mT @ by_content[:, rows]
            by_distance = to_scores.new_zeros(*weight.shape[:2], near.stop - near.start)
            _shifted(by_distance).copy_(to_scores)
            to_position[:, rows] = by_distance @ distances[:, near]
            to_distances[:, near] += by_distance.mT @ by_position[:, rows]
        return to_content, to_position, to_keys, to_values, to_distances, None


def _places(counts: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Yield for each utterance the slice of its frames and that of its distances."""
    starts = accumulate(counts, initial=0)
    for start, count in zip(starts, counts, strict=False):
        far = max(counts) - count
        yield slice(start, start + count), slice(far, far + 2 * count - 1)


def _shifted(scores: Tensor) -> Tensor:
    """Return scores by distance, (heads, n, 2n - 1), as a view (heads, n, n) by frame.

    Frame i's score for frame j is that of distance j - i, at index n - 1 - i + j.
    """
    heads, count, distances = scores.shape
    return scores.as_strided(
        (heads, count, count),
        (count * distances, distances - 1, 1),
        count - 1,
    )
