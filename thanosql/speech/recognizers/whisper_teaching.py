"""Whisper's decoder in training: frames and whole texts in, their loss out.

The layers are transformers' own, and so is the result, but for rounding. What differs
is the order of the work where tensors are large. There are 1500 frames and a few
tokens, so the tokens' queries are projected to the width of the frames, rather than the
frames to keys and values. And there are some 50 000 logits of each token: they are
kept once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

from thanosql.speech.recognizers.precision import sent
from thanosql.speech.recognizers.whisper_encoder import padded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from transformers import PreTrainedModel

_IGNORED = -100  # a target that is not scored


def taught(
    model: PreTrainedModel,
    frames: Sequence[Tensor],
    targets: Sequence[Sequence[int]],
    prefix: Sequence[int],
    end: int,
) -> Tensor:
    """Return the mean cross-entropy over the targets and ends of a batch.

    frames: the encoder's output of each utterance, (frames, width). targets: which the
    decoder is given after the tokens of `prefix`; `end` ends them.
    """
    untyped: Any = model
    decoder, last = untyped.model.decoder, untyped.proj_out
    rows = [torch.tensor([*prefix, *each]) for each in targets]
    wanted = [
        torch.tensor([*[_IGNORED] * (len(prefix) - 1), *each, end]) for each in targets
    ]
    given = pad_sequence(rows, batch_first=True, padding_value=end)
    labels = pad_sequence(wanted, batch_first=True, padding_value=_IGNORED)
    scored = labels != _IGNORED
    embedded = functional.embedding(
        sent(given, model.device),
        decoder.embed_tokens.weight,
        decoder.embed_tokens.padding_idx,
        # As a rule these are also the weights of the last layer, whose gradient is
        # dense. That of a few tokens is added to it, without a second one as large.
        sparse=decoder.embed_tokens.weight is last.weight,
    )
    hidden = _passed_on(decoder, embedded, *padded(frames))
    # Logits are computed only where they are scored: the vocabulary is wide.
    places = sent(scored.flatten().nonzero()[:, 0], model.device)
    logits = last(hidden.flatten(0, 1)[places]).float()
    mean: Tensor = _CrossEntropy.apply(logits, sent(labels[scored], model.device))
    return mean


def _passed_on(
    decoder: Any, embedded: Tensor, frames: Tensor, unheard: Tensor | None
) -> Tensor:
    """Return the last hidden state at each token, (batch, n, width), as embedded."""
    training = decoder.training
    positions = decoder.embed_positions.weight[: embedded.shape[1]]
    hidden = _dropped(decoder, embedded + positions)
    for layer in decoder.layers:
        if training and decoder.layerdrop > 0 and torch.rand([]) < decoder.layerdrop:
            continue
        if layer.gradient_checkpointing and training and torch.is_grad_enabled():
            hidden = checkpoint(
                _passed, layer, hidden, frames, unheard, use_reentrant=False
            )
        else:
            hidden = _passed(layer, hidden, frames, unheard)
    last: Tensor = decoder.layer_norm(hidden)
    return last


def _passed(
    layer: Any, hidden: Tensor, frames: Tensor, unheard: Tensor | None
) -> Tensor:
    """Return the output (batch, n, width) of a `WhisperDecoderLayer`."""
    inputs = layer.self_attn_layer_norm(hidden)
    hidden = hidden + _dropped(layer, _attend_before(layer.self_attn, inputs))
    inputs = layer.encoder_attn_layer_norm(hidden)
    found = attend_across(layer.encoder_attn, inputs, frames, unheard)
    hidden = hidden + _dropped(layer, found)
    inputs = layer.activation_fn(layer.fc1(layer.final_layer_norm(hidden)))
    inputs = functional.dropout(inputs, layer.activation_dropout, layer.training)
    return hidden + _dropped(layer, layer.fc2(inputs))


def _attend_before(attention: Any, inputs: Tensor) -> Tensor:
    """Return the attention of tokens to those before. No text attends to padding."""
    queries, keys, values = (
        projection(inputs).unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    found = functional.scaled_dot_product_attention(
        queries,
        keys,
        values,
        dropout_p=attention.dropout if attention.training else 0.0,
        is_causal=True,
        scale=attention.scaling,
    )
    joined: Tensor = attention.out_proj(found.transpose(1, 2).flatten(2))
    return joined


def attend_across(
    attention: Any, inputs: Tensor, frames: Tensor, unheard: Tensor | None = None
) -> Tensor:
    """Return the attention of tokens to the frames of their utterance.

    unheard: what `whisper_encoder.padding` returns for the frames.
    A score is (Wq x) . (Wk f) = (Wk' Wq x) . f, and a head's output is the sum of
    a (Wv f + b) = Wv (sum of a f) + b (sum of a), with the weights a of the frames f.
    """
    (batch, count, width), heads = inputs.shape, attention.num_heads
    if count * (heads - 1) > width:  # projecting the frames is less work
        mask = None if unheard is None else unheard[:, None]
        found: Tensor = attention(inputs, key_value_states=frames, attention_mask=mask)[
            0
        ]
        return found
    keys, values = (
        projection.weight.view(heads, -1, width)
        for projection in (attention.k_proj, attention.v_proj)
    )
    queries = (attention.q_proj(inputs) * attention.scaling).view(
        batch, count, heads, -1
    )
    # The heads side by side, as if they were tokens.
    wide = torch.einsum("bnhd,hdw->bhnw", queries, keys).flatten(1, 2)
    scores = torch.matmul(wide, frames.transpose(1, 2))
    if unheard is not None:
        scores = scores + unheard
    weights = functional.dropout(
        scores.softmax(-1), attention.dropout, attention.training
    )
    context = torch.matmul(weights, frames).view(batch, heads, count, width)
    bias = attention.v_proj.bias.view(heads, -1)
    if attention.training and attention.dropout:  # else the weights' sum is 1
        sums = weights.sum(-1).view(batch, heads, count).transpose(1, 2)
        bias = sums[..., None] * bias
    found = torch.einsum("bhnw,hdw->bnhd", context, values) + bias
    joined: Tensor = attention.out_proj(found.flatten(2))
    return joined


class _CrossEntropy(torch.autograd.Function):
    """The mean cross-entropy of labels; its gradient takes the place of the logits.

    By torch's own there would be four such tensors: the logits, their log-softmax and
    a gradient of each. logits: (tokens, vocabulary), float32. labels: (tokens,).
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        places = labels[:, None]
        values = logits.detach()
        values -= values.amax(-1, keepdim=True)
        scored = values.gather(1, places)
        sums = values.exp_().sum(-1, keepdim=True)
        # The softmax, less 1 at the label: the gradient of the sum.
        values /= sums
        values.scatter_add_(1, places, values.new_full(places.shape, -1))
        ctx.gradient = values
        return (sums.log() - scored).mean()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        gradient, ctx.gradient = ctx.gradient, None
        return gradient.mul_(slope / len(gradient)), None


def _dropped(module: Any, outputs: Tensor) -> Tensor:
    """Return the outputs with the module's dropout, which training alone has."""
    return functional.dropout(outputs, module.dropout, module.training)
