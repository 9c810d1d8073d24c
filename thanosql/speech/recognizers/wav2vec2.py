"""The wav2vec 2.0 family without padding: waveforms in, CTC logits out, exactly.

Usually a batch is padded to its longest utterance, and masks tell each layer what is
padding. In this family most layers take no mask. Models with a GroupNorm even average
over the padding, so that a transcript depends on the other utterances of its batch; and
all models compute the padding for nothing. Here nothing is padded except, in some
cases, attention. These parts of the network look beyond one frame:

* The convolutional encoder and its GroupNorm: run on each utterance alone, in
  `wav2vec2_encoder.py`.
* The positional convolution (`wav2vec2_positions.py`) and the convolutions of the
  adapter (`add_adapter`): run on each utterance alone.
* Attention, softmax(QK'/sqrt d)V among the frames of an utterance: one call of
  `scaled_dot_product_attention` for each utterance. On a GPU, and for short utterances
  on a CPU, so many small calls take longer than the arithmetic: there it is padded,
  with a mask over the keys.

All other parts (projection, layer norms, the products before and after attention, feed
forward, attention adapters, CTC head) treat every frame alone. For them the frames of
all utterances lie one after the other, (sum of lengths, features): one large product
instead of many small ones. So row i of the result is what the model gives for utterance
i alone, except for the order of floating-point sums; the same holds for gradients. The
modules and parameters are the model's own, so weights that are loaded, frozen or
quantized there take effect here.

In training, dropout and LayerDrop follow the config, SpecAugment is our own
(`spec_augment.py`), and transformers' switch for gradient checkpointing is obeyed.
transformers also drops adapter layers at random. That is left out here: without one of
them the frame rate doubles, and no caller could know. HuBERT's `conv_pos_batch_norm`
takes its statistics in training from all frames of the batch, none of them padding.
Without gradients the layers after attention run on `ROWS` frames at a time. This keeps
the wide feed-forward activations in the cache, and memory does not grow.
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

    from thanosql.speech.recognizers.draws import Draws

Module = Any  # of transformers; mypy would take each of its parts for a tensor

ROWS = 1024  # frames (20 s) that go through a feed-forward layer together
SHORT = 40  # frames; up to this length a CPU pads utterances in attention


@dataclass(frozen=True, slots=True)
class Rounded:
    """Parts for int8 that replace no single linear layer of the model."""

    convolutions: list[Int8Linear | None]
    "The layers of the convolutional encoder; None for one that stays in fp32."
    projections: list[Int8Linear | None]
    "For each transformer layer, queries, keys and values in one product."
    positions: Tensor | None
    "The Fourier transform of the positional convolution's kernel."


@dataclass(eq=False)
class Wav2Vec2Recognizer(CTCRecognizer):
    """wav2vec 2.0 and the models made of its blocks, without padding."""

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
    "Set in the recognizer that `int8` returns."

    @property
    def fp32_layers(self) -> tuple[str, ...]:
        """The projections, which `Rounded.projections` computes instead."""
        return ("q_proj", "k_proj", "v_proj")

    def frames(self, length: int) -> int:
        """Return how many frames of logits so many samples give; may be 0."""
        base: Module = self.model.base_model
        return _logit_frames(
            base, wav2vec2_encoder.output_length(base.feature_extractor, length)
        )

    def frozen(self, batch: Sequence[Tensor]) -> list[Tensor]:
        """Return the convolutional encoder's frames, if all of it is frozen.

        Each is (frames, channels), about 50 frames a second, in the precision of the
        products; (0, channels) for fewer than 400 samples, which make no frame. If the
        encoder is trained, the features are returned as they are.
        """
        base: Module = self.model.base_model
        if any(p.requires_grad for p in base.feature_extractor.parameters()):
            return list(batch)
        return self._extracted(batch)

    def logits(
        self, batch: Sequence[Tensor], draws: Draws | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return logits (batch, frames, vocab) and lengths (batch,)."""
        model: Module = self.model
        inputs = [each.to(model.device, non_blocking=True) for each in batch]
        return self._encoded(self._extracted(inputs), draws)

    @cached_property
    def int8(self) -> CTCRecognizer:
        """A copy with products in int8; itself if no layer is large enough."""
        base: Module = self.model.base_model
        with torch.no_grad():
            parts = Rounded(
                [
                    None,  # the first layer: its input has one channel
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
        return replace(self, model=model or self.model, rounded=parts, alone=True)

    def _extracted(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Return the encoder's frames of each utterance.

        An input may be these frames already, from `frozen`; it is returned as it is.
        """
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
        self, frames: Sequence[Tensor], draws: Draws | None
    ) -> tuple[Tensor, Tensor]:
        """Return the result of `logits`, given the encoder's frames."""
        model: Module = self.model
        base, config = model.base_model, model.config
        stable = getattr(config, "do_stable_layer_norm", False)
        lengths = [_logit_frames(base, len(utterance)) for utterance in frames]
        places = [i for i, length in enumerate(lengths) if length]
        present = [frames[i] for i in places]
        if not present:
            empty = torch.zeros(len(frames), 0, config.vocab_size, device=model.device)
            return empty, torch.tensor(lengths)
        counts = [len(utterance) for utterance in present]

        hidden = base.feature_projection(torch.cat(present))
        if isinstance(hidden, tuple):  # some classes return their normed input as well
            hidden = hidden[0]
        # data2vec's config lacks the switch; transformers takes it for True.
        if model.training and getattr(config, "apply_spec_augment", True):
            mask_vector = getattr(base, "masked_spec_embed", hidden.new_zeros(()))
            masks = draws and draws.only(places)
            hidden = spec_augment(hidden, counts, mask_vector, config, masks)
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
            if model.training and _chance(config.layerdrop, draws):
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
    """Which of the frames, all one after the other, belong to which utterance."""

    counts: list[int]
    "The number of frames of each utterance."
    places: Tensor | None
    "Each frame's row if all are padded to the longest; None if attention is unpadded."


def _batch(counts: list[int], device: torch.device) -> _Batch:
    """Return the batch for attention: padded if many small calls would cost more."""
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
    """Return a transformer layer's output for `hidden`: (sum of counts, features).

    projections: computes queries, keys and values in int8; None: the layer's own do.
    Without gradients the result overwrites `hidden`.
    """
    attention = layer.attention
    inputs = layer.layer_norm(hidden) if stable else hidden
    # each (heads, sum of counts, features of a head)
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
    """Return the result of `_one_by_one`, with one call for the whole batch.

    The mask gives the keys of the padding a weight of exactly 0; the results of its
    queries are left out.
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
    """Return queries, keys and values of `inputs`, each (frames, features)."""
    if int8 is not None:
        together: Tensor = int8(inputs)
        return together.chunk(3, 1)
    return attention.q_proj(inputs), attention.k_proj(inputs), attention.v_proj(inputs)


def _rounded_projections(attention: Module) -> Int8Linear | None:
    """Return one int8 layer for queries, keys and values; None if it is too small."""
    projections = [getattr(attention, f"{name}_proj") for name in "qkv"]
    return rounded(
        torch.cat([each.weight for each in projections]),
        torch.cat([each.bias for each in projections]),
    )


def _feed_forward(
    layer: Module, hidden: Tensor, context: Tensor, stable: bool
) -> Tensor:
    """Return a layer's output from its input and its attention's context.

    All three are (any number of frames, features). stable: the layer norms come before
    attention and feed forward (Xiong et al. 2020), else after them.
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
    """Return how many frames the adapter, if there is one, makes of so many."""
    adapter = getattr(base, "adapter", None)
    for layer in adapter.layers if adapter is not None and frames else ():
        conv = layer.conv
        frames += 2 * conv.padding[0] - conv.kernel_size[0]
        frames = max(frames // conv.stride[0] + 1, 0)
    return frames


def _chance(probability: float, draws: Draws | None) -> bool:
    generator = None if draws is None else draws.batch
    return float(torch.rand((), generator=generator)) < probability
