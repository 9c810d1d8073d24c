"""Whisper's decoder, a token at a time: frames and tokens in, next-token logits out.

The layers are transformers' own; what is done here is the order of the work. The keys
and values of the frames are computed once an utterance. Those of the tokens are kept in
buffers that grow by doubling. When an utterance has ended, the frames' keys and values
of the others are not copied; views of them are taken.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from thanosql.speech.recognizers.whisper_encoder import padding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from transformers import PreTrainedModel

_LEAST_ROOM = 32  # tokens of the first buffer


class WhisperSteps:
    """The decoder for a batch of utterances; see `decoding.search.Steps`."""

    def __init__(self, model: PreTrainedModel, frames: Sequence[Tensor]) -> None:
        """Compute the keys and values of the frames.

        frames: the encoder's output of each utterance, (frames, width).
        """
        untyped: Any = model
        self._decoder = untyped.model.decoder
        self._last = untyped.proj_out
        self._heads = model.config.decoder_attention_heads
        self._across = [
            self._keys_and_values(layer.encoder_attn, frames)
            for layer in self._decoder.layers
        ]
        unheard = padding([len(each) for each in frames], self._across[0][0])
        self._unheard = None if unheard is None else unheard[:, None]
        self.begin(range(len(frames)))

    def begin(self, utterances: Sequence[int]) -> None:
        """Begin one new hypothesis for each of these utterances."""
        self._owners = list(utterances)
        self._runs = _runs(self._owners)
        self._length = 0
        # For each layer keys and values: (hypotheses, heads, room for tokens, head's).
        self._past: list[tuple[Tensor, Tensor] | None] = [None] * len(self._across)

    def select(self, hypotheses: Sequence[int]) -> None:
        """Go on with these hypotheses only."""
        self._owners = [self._owners[i] for i in hypotheses]
        self._runs = _runs(self._owners)
        rows = torch.tensor(list(hypotheses), device=self._across[0][0].device)
        for number, past in enumerate(self._past):
            if past is not None:
                keys, values = (each.index_select(0, rows) for each in past)
                self._past[number] = keys, values

    def advance(self, tokens: Tensor) -> Tensor:
        """Take the next tokens of each hypothesis; return the logits after the last."""
        return self._scores(self._hidden(tokens)[:, -1])

    def follow(self, utterance: int, tokens: Tensor) -> tuple[list[Tensor], Tensor]:
        """Take a whole text of one utterance; return what was asked, and the logits.

        tokens: (tokens,), int64, the prefix included. Results: for each layer the
        queries to the frames, (heads, tokens, head's width), for `attention`; the
        logits after each token, (tokens, vocabulary), float32.
        """
        self.begin([utterance])
        asked: list[Tensor] = []
        hidden = self._hidden(tokens[None], asked)
        return [queries[0] for queries in asked], self._scores(hidden[0])

    def attention(
        self,
        utterance: int,
        layer: int,
        queries: Tensor,
        heads: Sequence[int],
        frames: int,
    ) -> Tensor:
        """Return how queries of a layer weigh the first frames of an utterance.

        queries: (heads, tokens, head's width), of these heads. Result: (heads, tokens,
        frames), float32, whose sum over the frames is 1.
        """
        keys = self._across[layer][0][utterance, heads, :frames]
        return torch.matmul(queries, keys.transpose(1, 2)).float().softmax(-1)

    def _hidden(self, tokens: Tensor, asked: list[Tensor] | None = None) -> Tensor:
        """Return the last layer's output for the next tokens of each hypothesis.

        asked: takes the queries to the frames of each layer.
        """
        end = self._length + tokens.shape[1]
        positions = self._decoder.embed_positions.weight[self._length : end]
        hidden = self._decoder.embed_tokens(tokens) + positions
        for number, layer in enumerate(self._decoder.layers):
            inputs = layer.self_attn_layer_norm(hidden)
            hidden = hidden + self._attend_before(number, layer.self_attn, inputs)
            inputs = layer.encoder_attn_layer_norm(hidden)
            attention = layer.encoder_attn
            queries = self._split(attention.q_proj(inputs) * attention.scaling)
            if asked is not None:
                asked.append(queries)
            hidden = hidden + self._attend_across(number, attention, queries)
            inputs = layer.final_layer_norm(hidden)
            hidden = hidden + layer.fc2(layer.activation_fn(layer.fc1(inputs)))
        self._length = end
        normed: Tensor = self._decoder.layer_norm(hidden)
        return normed

    def _scores(self, hidden: Tensor) -> Tensor:
        """Return the logits (hypotheses, vocabulary) of (hypotheses, width)."""
        # The tall matrix comes first, and never meets a single column: with a few
        # hypotheses MKL then takes a fifth of the time, and most steps have few.
        count = len(hidden)
        columns = functional.pad(hidden, (0, 0, 0, 2 - count)) if count < 2 else hidden
        logits = torch.mm(self._last.weight, columns.T)
        return logits.T[:count].float().contiguous()

    def _attend_before(self, number: int, attention: Any, inputs: Tensor) -> Tensor:
        """Return the attention of tokens to those before, and keep theirs."""
        queries, keys, values = (
            self._split(projection(inputs))
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        begin, end = self._length, self._length + inputs.shape[1]
        past = self._past[number]
        if past is None or past[0].shape[2] < end:
            grown = []
            for i, new in enumerate((keys, values)):
                shape = (new.shape[0], new.shape[1], max(_LEAST_ROOM, 2 * end))
                buffer = new.new_empty(*shape, new.shape[3])
                if past is not None:
                    buffer[:, :, :begin] = past[i][:, :, :begin]
                grown.append(buffer)
            past = self._past[number] = grown[0], grown[1]
        past[0][:, :, begin:end] = keys
        past[1][:, :, begin:end] = values
        found = functional.scaled_dot_product_attention(
            queries * attention.scaling,
            past[0][:, :, :end],
            past[1][:, :, :end],
            is_causal=end - begin > 1,
            scale=1.0,
        )
        joined: Tensor = attention.out_proj(found.transpose(1, 2).flatten(2))
        return joined

    def _attend_across(self, number: int, attention: Any, queries: Tensor) -> Tensor:
        """Return the attention of tokens to the frames of their utterance."""
        keys, values = self._across[number]
        parts = []
        for first, utterances, count in self._runs:
            together = queries[first : first + utterances * count]
            # The hypotheses of an utterance side by side, as if they were tokens.
            together = together.view(utterances, count, *together.shape[1:])
            together = together.transpose(1, 2).flatten(2, 3)
            begin = self._owners[first]
            chosen = slice(begin, begin + utterances)
            scores = torch.matmul(together, keys[chosen].transpose(2, 3))
            if self._unheard is not None:
                scores = scores + self._unheard[chosen]
            weights = scores.softmax(-1)
            found = torch.matmul(weights.to(values.dtype), values[chosen])
            # Back to (hypotheses, heads, tokens, head's width).
            found = found.view(*found.shape[:2], count, -1, found.shape[3])
            parts.append(found.transpose(1, 2).flatten(0, 1))
        joined: Tensor = attention.out_proj(torch.cat(parts).transpose(1, 2).flatten(2))
        return joined

    def _split(self, projected: Tensor) -> Tensor:
        """Return (rows, tokens, width) as (rows, heads, tokens, head's width)."""
        shape = (*projected.shape[:-1], self._heads, -1)
        return projected.view(shape).transpose(1, 2)

    def _keys_and_values(
        self, attention: Any, frames: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Return two tensors (utterances, heads, longest's frames, head's width)."""
        longest = max(len(each) for each in frames)
        made: list[Tensor] = []
        for projection in (attention.k_proj, attention.v_proj):
            stacked: Tensor | None = None
            for i, each in enumerate(frames):
                split = self._split(projection(each)[None])[0]
                if stacked is None:
                    heads, _, width = split.shape
                    stacked = split.new_zeros(len(frames), heads, longest, width)
                stacked[i, :, : len(each)] = split
            assert stacked is not None
            made.append(stacked)
        return made[0], made[1]


def _runs(owners: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return the stretches of hypotheses whose utterances are neighbours.

    owners: the utterance of each hypothesis. A stretch is (its first hypothesis,
    utterances, hypotheses of each utterance).
    """
    runs: list[tuple[int, int, int]] = []
    first, following = 0, -1
    for owner, group in groupby(owners):
        count = len(list(group))
        if owner == following:
            start, utterances, _ = runs[-1]
            runs[-1] = start, utterances + 1, count
        else:
            runs.append((first, 1, count))
        first, following = first + count, owner + 1
    return runs
