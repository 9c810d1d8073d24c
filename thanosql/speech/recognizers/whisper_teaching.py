"""Whisper's decoder in training: frames and whole texts in, its hidden states out.

The layers are transformers' own, and so is the result, but for rounding. Only the
attention to the frames is computed in another order: there are 1500 frames and a few
tokens, so the tokens' queries are projected to the width of the frames, rather than the
frames to keys and values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from torch import Tensor


def taught(decoder: Any, tokens: Tensor, frames: Tensor) -> Tensor:
    """Return the last hidden state at each token of texts that the decoder is given.

    decoder: `WhisperDecoder`. tokens: (batch, n), padded at the end. frames: the
    encoder's output, (batch, frames, width). Returns (batch, n, width).
    """
    training = decoder.training
    positions = decoder.embed_positions.weight[: tokens.shape[1]]
    hidden = _dropped(decoder, decoder.embed_tokens(tokens) + positions)
    for layer in decoder.layers:
        if training and decoder.layerdrop > 0 and torch.rand([]) < decoder.layerdrop:
            continue
        if layer.gradient_checkpointing and training and torch.is_grad_enabled():
            hidden = checkpoint(_passed, layer, hidden, frames, use_reentrant=False)
        else:
            hidden = _passed(layer, hidden, frames)
    last: Tensor = decoder.layer_norm(hidden)
    return last


def _passed(layer: Any, hidden: Tensor, frames: Tensor) -> Tensor:
    """Return the output (batch, n, width) of a `WhisperDecoderLayer`."""
    inputs = layer.self_attn_layer_norm(hidden)
    hidden = hidden + _dropped(layer, _attend_before(layer.self_attn, inputs))
    inputs = layer.encoder_attn_layer_norm(hidden)
    hidden = hidden + _dropped(layer, attend_across(layer.encoder_attn, inputs, frames))
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


def attend_across(attention: Any, inputs: Tensor, frames: Tensor) -> Tensor:
    """Return the attention of tokens to the frames of their utterance.

    A score is (Wq x) . (Wk f) = (Wk' Wq x) . f, and a head's output is the sum of
    a (Wv f + b) = Wv (sum of a f) + b (sum of a), with the weights a of the frames f.
    """
    (batch, count, width), heads = inputs.shape, attention.num_heads
    if count * (heads - 1) > width:  # projecting the frames is less work
        found: Tensor = attention(inputs, key_value_states=frames)[0]
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
    weights = functional.dropout(
        torch.matmul(wide, frames.transpose(1, 2)).softmax(-1),
        attention.dropout,
        attention.training,
    )
    context = torch.matmul(weights, frames).view(batch, heads, count, width)
    sums = weights.sum(-1).view(batch, heads, count).transpose(1, 2)  # 1, or dropped
    bias = attention.v_proj.bias.view(heads, -1)
    found = torch.einsum("bhnw,hdw->bnhd", context, values) + sums[..., None] * bias
    joined: Tensor = attention.out_proj(found.flatten(2))
    return joined


def _dropped(module: Any, outputs: Tensor) -> Tensor:
    """Return the outputs with the module's dropout, which training alone has."""
    return functional.dropout(outputs, module.dropout, module.training)
