"""The wav2vec 2.0 family without padding: waveforms in, CTC logits out, exactly.

A batch of utterances of different lengths is usually padded to the longest, and
every layer must then be told, by masks, what is padding. Most are not: the models
with a GroupNorm average it over the padding and take no mask, so that a transcript
depends on its neighbours, and all of them spend their arithmetic on padding. Here
nothing is padded but, at times, attention. Which parts of the network look beyond one
frame?

* The convolutional encoder (and its GroupNorm): run per utterance, in
  `wav2vec2_encoder.py`.
* The positional convolution, in `wav2vec2_positions.py`, and the adapter's
  (`add_adapter`): per utterance.
* Attention: softmax(QK'/sqrt d)V among an utterance's own frames, per utterance by
  `scaled_dot_product_attention`; but on a GPU, or of words, where so many small calls
  take longer than the arithmetic, padded, with a mask over the keys.

All else (projection, layer norms, the products before and after attention, feed
forward, attention adapters, CTC head) treats every frame alone. There the frames of
all the utterances simply lie one after the other, (sum of lengths, features): one
large product instead of many small ones. So row i of the result is, but for the
order of floating-point sums, what the model gives for utterance i alone, and so are
gradients. Modules and parameters are the model's own: what is loaded into them, frozen
or quantized there, holds here.

In training, dropout and LayerDrop are the config's, SpecAugment is our own
(`spec_augment.py`), and gradient checkpointing is done where transformers' switch put
it. transformers also drops adapter layers at random; here none is, since without one
the frame rate doubles, which no caller could know. HuBERT's `conv_pos_batch_norm`, in
training, takes its statistics from all the batch's frames, none of them padding.
Where no gradients are wanted, what follows attention is computed `ROWS` frames at a
time, which keeps the wide feed-forward activations in the cache and memory flat.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from torch.utils.checkpoint import checkpoint

from thanosql.speech.recognizers import wav2vec2_encoder, wav2vec2_positions
from thanosql.speech.recognizers.ctc import CTCRecognizer
from thanosql.speech.recognizers.precision import sent
from thanosql.speech.recognizers.quantization import Int8Linear, quantized, rounded
from thanosql.speech.recognizers.spec_augment import spec_augment

if TYPE_CHECKING:
    from collections.abc import Sequence

Module = Any  # transformers', made of parts that mypy can only take for tensors

ROWS = 1024  # frames (20 s) that go through a feed-forward layer together
SHORT = 40  # frames of the longest utterance, up to which a CPU pads in attention


@dataclass(frozen=True, slots=True)
class Rounded:
    """What `int8` computes by other means than linear layers."""

    convolutions: list[Int8Linear | None]
    "Of the encoder; None for a layer that stays as it is."
    projections: list[Int8Linear | None]
    "To queries, keys and values together, of each transformer layer."
    positions: Tensor | None
    "The transform of the positional convolution's kernel."


@dataclass(eq=False)
class Wav2Vec2Recognizer(CTCRecognizer):
    """wav2vec 2.0 and those made of its blocks, without padding."""

    architectures: ClassVar[frozenset[str]] = frozenset(
        {
            "Wav2Vec2ForCTC",
            "HubertForCTC",
            "Data2VecAudioForCTC",
            "UniSpeechForCTC",
            "UniSpeechSatForCTC",
        }
    )
    "Classes of transformers; a test compares each with transformers' own forward."

    rounded: Rounded | None = None

    @property
    def fp32_layers(self) -> tuple[str, ...]:
        """The projections, which are rounded together."""
        return ("q_proj", "k_proj", "v_proj")

    def frames(self, length: int) -> int:
        """Return how many frames of logits come out of that many samples."""
        base: Module = self.model.base_model
        return _logit_frames(
            base, wav2vec2_encoder.output_length(base.feature_extractor, length)
        )

    def frozen(self, batch: Sequence[Tensor]) -> list[Tensor]:
        """Return the convolutional encoder's frames, if none of it is trained.

        Each is (frames, channels), about 50 frames a second, in the precision of its
        products; (0, channels) of fewer samples than a frame takes, 400.
        """
        base: Module = self.model.base_model
        if any(p.requires_grad for p in base.feature_extractor.parameters()):
            return list(batch)
        return self._extracted(batch)

    def logits(
        self, batch: Sequence[Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return logits (batch, frames, vocab) and lengths (batch,)."""
        model: Module = self.model
        inputs = [each.to(model.device, non_blocking=True) for each in batch]
        return self._encoded(self._extracted(inputs), generator)

    @cached_property
    def int8(self) -> CTCRecognizer:
        """The same, multiplying in int8; itself where no layer is large enough."""
        base: Module = self.model.base_model
        with torch.no_grad():
            parts = Rounded(
                [
                    None,  # of one channel
                    *(
                        # (out, kernel * in)
                        rounded(
                            module.conv.weight.transpose(1, 2).flatten(1),
                            module.conv.bias,
                        )
                        for module in base.feature_extractor.conv_layers[1:]
                    ),
                ],
                [
                    _rounded_projections(layer.attention)
                    for layer in base.encoder.layers
                ],
                wav2vec2_positions.transform(base.encoder.pos_conv_embed),
            )
        model = quantized(self.model, self._stays_fp32)
        if model is None and not any((*parts.convolutions, *parts.projections)):
            return self
        return replace(self, model=model or self.model, rounded=parts)

    def _extracted(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Return the encoder's frames of each utterance; what is frames stays so."""
        waveforms = [i for i, utterance in enumerate(inputs) if utterance.ndim == 1]
        results = list(inputs)
        base: Module = self.model.base_model
        frames = wav2vec2_encoder.extract(
            base.feature_extractor,
            [inputs[i] for i in waveforms],
            self.rounded.convolutions if self.rounded else None,
        )
        for i, each in zip(waveforms, frames, strict=True):
            results[i] = each
        return results

    def _encoded(
        self, frames: Sequence[Tensor], generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Return what `logits` does, of the encoder's frames of each utterance."""
        model: Module = self.model
        base, config = model.base_model, model.config
        stable = getattr(config, "do_stable_layer_norm", False)
        lengths = [_logit_frames(base, len(utterance)) for utterance in frames]
        present = [u for u, length in zip(frames, lengths, strict=True) if length]
        if not present:
            empty = torch.zeros(len(frames), 0, config.vocab_size, device=model.device)
            return empty, torch.tensor(lengths)
        counts = [len(utterance) for utterance in present]

        hidden = base.feature_projection(torch.cat(present))
        if isinstance(hidden, tuple):  # some return what they projected as well
            hidden = hidden[0]
        # As transformers takes it where a config, such as data2vec's, does not say.
        if model.training and getattr(config, "apply_spec_augment", True):
            mask_vector = getattr(base, "masked_spec_embed", hidden.new_zeros(()))
            hidden = spec_augment(hidden, counts, mask_vector, config, generator)
        encoder = base.encoder
        parts = self.rounded or Rounded([], [None] * len(encoder.layers), None)
        hidden = hidden + wav2vec2_positions.positions(
            encoder.pos_conv_embed, hidden, counts, parts.positions
        )
        if not stable:
            hidden = encoder.layer_norm(hidden)
        hidden = encoder.dropout(hidden)
        batch = _batch(counts, hidden.device)
        for layer, projections in zip(encoder.layers, parts.projections, strict=True):
            if model.training and _chance(config.layerdrop, generator):
                continue
            if model.training and layer.gradient_checkpointing:
                hidden = checkpoint(
                    _layer,
                    layer,
                    projections,
                    hidden,
                    batch,
                    stable,
                    use_reentrant=False,
                )
            else:
                hidden = _layer(layer, projections, hidden, batch, stable)
        if stable:
            hidden = encoder.layer_norm(hidden)
        if getattr(base, "adapter", None) is not None:
            hidden = _adapter(base.adapter, hidden, counts)

        logits = torch.split(model.lm_head(model.dropout(hidden)), lengths)
        return pad_sequence(list(logits), batch_first=True), torch.tensor(lengths)


@dataclass(frozen=True, slots=True)
class _Batch:
    """Where the utterances are among the frames that lie one after the other."""

    counts: list[int]
    "How many frames each has."
    places: Tensor | None
    "Where each frame is when all are padded to the longest; None to pad nothing."


def _batch(counts: list[int], device: torch.device) -> _Batch:
    """Return how attention is to see the batch: padded where calls are what costs."""
    if device.type == "cpu" and max(counts) > SHORT:
        return _Batch(counts, None)
    return _Batch(counts, sent(_places(counts), device))


def _places(counts: list[int]) -> Tensor:
    longest = max(counts)
    return torch.cat([i * longest + torch.arange(n) for i, n in enumerate(counts)])


def _layer(
    layer: Module,
    projections: Int8Linear | None,
    hidden: Tensor,
    batch: _Batch,
    stable: bool,
) -> Tensor:
    """Return a transformer layer's output, (sum of counts, features), of `hidden`.

    projections: what computes queries, keys and values in int8, if anything does.
    """
    attention = layer.attention
    inputs = layer.layer_norm(hidden) if stable else hidden
    # Per tensor (heads, sum of counts, features of a head)
    queries, keys, values = (
        projected.view(len(hidden), attention.num_heads, -1).transpose(0, 1)
        for projected in _projected(attention, projections, inputs)
    )
    attend = _one_by_one if batch.places is None else _padded
    dropout = attention.dropout if layer.training else 0.0
    context = attend(queries, keys, values, batch, dropout, attention.scaling)
    if torch.is_grad_enabled():
        return _feed_forward(layer, hidden, context, stable)
    at_once = ROWS if hidden.device.type == "cpu" else len(hidden)
    for rows, rows_context in zip(
        torch.split(hidden, at_once), torch.split(context, at_once), strict=True
    ):
        rows.copy_(_feed_forward(layer, rows, rows_context, stable))  # into `hidden`
    return hidden


def _one_by_one(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    batch: _Batch,
    dropout: float,
    scale: float,
) -> Tensor:
    """Return attention's context, (sum of counts, features), within each utterance.

    queries, keys, values: (heads, sum of counts, features of a head).
    """
    utterances = zip(
        *(torch.split(each, batch.counts, 1) for each in (queries, keys, values)),
        strict=True,
    )
    return torch.cat(
        [
            functional.scaled_dot_product_attention(
                query[None], key[None], value[None], dropout_p=dropout, scale=scale
            )[0]
            .transpose(0, 1)
            .flatten(1)
            for query, key, value in utterances
        ]
    )


def _padded(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    batch: _Batch,
    dropout: float,
    scale: float,
) -> Tensor:
    """Return what `_one_by_one` does in as many operations as for one utterance.

    The padding's keys have no weight, exactly, and what its queries find is left out.
    """
    assert batch.places is not None
    size, longest = len(batch.counts), max(batch.counts)
    rows = size * longest
    query, key, value = (
        each.new_zeros(rows, len(each), each.shape[2])
        .index_copy(0, batch.places, each.transpose(0, 1))
        .view(size, longest, len(each), -1)
        .transpose(1, 2)
        for each in (queries, keys, values)
    )  # each (batch, heads, longest, features of a head)
    mask = None
    if min(batch.counts) < longest:
        filled = torch.zeros(rows, dtype=torch.bool, device=queries.device)
        mask = filled.index_fill_(0, batch.places, True).view(size, 1, 1, longest)
    context = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, dropout_p=dropout, scale=scale
    )
    return context.transpose(1, 2).flatten(0, 1)[batch.places].flatten(1)


def _projected(
    attention: Module, int8: Int8Linear | None, inputs: Tensor
) -> Sequence[Tensor]:
    """Return queries, keys and values, each as `inputs`, (frames, features), is."""
    if int8 is not None:
        together: Tensor = int8(inputs)
        return together.chunk(3, 1)
    return attention.q_proj(inputs), attention.k_proj(inputs), attention.v_proj(inputs)


def _rounded_projections(attention: Module) -> Int8Linear | None:
    """Return what computes queries, keys and values, one behind the other, in int8."""
    projections = [getattr(attention, f"{name}_proj") for name in "qkv"]
    return rounded(
        torch.cat([each.weight for each in projections]),
        torch.cat([each.bias for each in projections]),
    )


def _feed_forward(
    layer: Module, hidden: Tensor, context: Tensor, stable: bool
) -> Tensor:
    """Return what a layer makes of its input and its attention's context.

    All three are (any number of frames, features). "Stable": layer norms before
    attention and feed forward (Xiong et al. 2020), else behind them.
    """
    hidden = hidden + layer.dropout(layer.attention.out_proj(context))
    if not stable:
        hidden = layer.layer_norm(hidden)
        hidden = layer.final_layer_norm(hidden + layer.feed_forward(hidden))
        return hidden
    hidden = hidden + layer.feed_forward(layer.final_layer_norm(hidden))
    if layer.adapter_layer is not None:
        hidden = hidden + layer.adapter_layer(hidden)
    return hidden


def _adapter(adapter: Module, hidden: Tensor, counts: list[int]) -> Tensor:
    """Return `hidden` at the adapter's lower frame rate and its width."""
    if adapter.proj is not None:
        hidden = adapter.proj_layer_norm(adapter.proj(hidden))
    utterances = [utterance.T[None] for utterance in torch.split(hidden, counts)]
    for layer in adapter.layers:
        utterances = [layer(utterance) for utterance in utterances]
    return torch.cat([utterance[0].T for utterance in utterances])


def _logit_frames(base: Module, frames: int) -> int:
    """Return how many frames of logits there are for that many frames."""
    adapter = getattr(base, "adapter", None)
    for layer in adapter.layers if adapter is not None and frames else ():
        conv = layer.conv
        frames += 2 * conv.padding[0] - conv.kernel_size[0]
        frames = max(frames // conv.stride[0] + 1, 0)
    return frames


def _chance(probability: float, generator: torch.Generator | None) -> bool:
    return float(torch.rand((), generator=generator)) < probability
