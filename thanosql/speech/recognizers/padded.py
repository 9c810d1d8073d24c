"""Run a CTC model: features of utterances in, logits out, no row touched by another.

The only way training and transcription call a model.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from thanosql.errors import NotSupportedError
from thanosql.speech.recognizers import parakeet, wav2vec2
from thanosql.speech.recognizers.spec_augment import spec_augment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn
    from transformers import PreTrainedModel

    from thanosql.speech.recognizers.recognizer import Recognizer

# Their masks reach every layer that looks beyond a frame, so that a padded row differs
# from a lone one by float noise only; a test holds each of them to that.
_MASKS_ARE_EXACT = frozenset({"LasrForCTC", "ParakeetForCTC", "Wav2Vec2BertForCTC"})

LEAST_SHARE = 0.8  # of the longest utterance, that one padded to it must have itself


def forward(
    recognizer: Recognizer,
    features: Sequence[Tensor],
    *,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Return logits (batch, frames, vocab), zeros at the end, and lengths (batch,).

    features: a tensor an utterance, (samples,) or (frames, mels), on any device, or
    what `frozen_part` made of it; lengths: int64, on the CPU. In evaluation mode a row
    is, but for float noise, what the model gives for that utterance alone. Three ways
    lead there: the wav2vec 2.0 family (`wav2vec2.py`) and, on a CPU, Parakeet
    (`parakeet.py`) run unpadded; an architecture whose own masks are exact runs
    padded, beside utterances of like length; any other, one utterance at a time. An
    utterance too short for a frame has length 0.

    In training mode, what is drawn for SpecAugment comes from `generator` (on the
    CPU; None for torch's default), and dropout from torch's default generator. The
    ways with batch norms, which need to see the batch, then run it as a whole.
    """
    model = recognizer.model
    inputs = [f.to(model.device, non_blocking=True) for f in features]
    if wav2vec2.supports(model):
        return wav2vec2.encode(model, _extracted(model, inputs), generator)
    lengths = [output_length(recognizer, len(f)) for f in inputs]
    if parakeet.supports(model) and any(lengths):
        logits = parakeet.encode(model, [f for f in inputs if len(f)])
        return (
            pad_sequence(list(torch.split(logits, lengths)), batch_first=True),
            torch.tensor(lengths),
        )
    rows: dict[int, Tensor] = {}
    for group in _groups(model, inputs, lengths):
        together = [inputs[i] for i in group]
        with _our_randomness(model, [len(f) for f in together], generator):
            logits = _padded(model, together)
        for i, row in zip(group, logits, strict=True):
            # A lone row's own length: an adapter may drop layers while it is trained.
            rows[i] = row[: lengths[i]] if len(group) > 1 else row
    some = next(iter(rows.values()), torch.zeros(0, model.config.vocab_size))
    in_order = [rows.get(i, some[:0]) for i in range(len(inputs))]
    logits = pad_sequence(in_order, batch_first=True)
    return logits, torch.tensor([len(row) for row in in_order])


def frozen_part(recognizer: Recognizer, features: Sequence[Tensor]) -> list[Tensor]:
    """Return what the layers before the first trained one make of each utterance.

    features: as for `forward`, which takes the result in their place. For the wav2vec
    2.0 family with its convolutional encoder frozen, these are that encoder's frames,
    (frames, channels) in the precision of its products; else the features as they
    are. They depend on the utterance and frozen parameters alone, so may be kept.
    """
    model = recognizer.model
    base: Any = model.base_model
    if not wav2vec2.supports(model) or any(
        parameter.requires_grad for parameter in base.feature_extractor.parameters()
    ):
        return list(features)
    return _extracted(model, features)


def output_length(recognizer: Recognizer, feature_length: int) -> int:
    """Return how many frames of logits come of features of that length, perhaps 0."""
    model = recognizer.model
    if wav2vec2.supports(model):
        return wav2vec2.output_length(model, feature_length)
    # transformers has no public name for it, and two private ones.
    for name in ("_get_subsampling_output_length", "_get_feat_extract_output_lengths"):
        formula: Any = getattr(model, name, None)
        if formula is not None:
            length = int(formula(torch.tensor([feature_length]))[0])
            # SEW works on frames in twos, and on no less.
            return length if length >= getattr(model.config, "squeeze_factor", 1) else 0
    message = (
        f"{type(model).__name__} does not tell how many frames it makes of a "
        "recording; use a model of another architecture"
    )
    raise NotSupportedError(message)


def _extracted(model: PreTrainedModel, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the encoder's frames of each utterance, of which some may be frames."""
    waveforms = [i for i, utterance in enumerate(inputs) if utterance.ndim == 1]
    results = list(inputs)
    frames = wav2vec2.extract(model, [inputs[i] for i in waveforms])
    for i, each in zip(waveforms, frames, strict=True):
        results[i] = each
    return results


def _groups(
    model: PreTrainedModel, inputs: Sequence[Tensor], lengths: Sequence[int]
) -> Iterator[list[int]]:
    """Yield the indexes that run together, of all inputs that give a frame."""
    indexes = [i for i, length in enumerate(lengths) if length]
    exact = type(model).__name__ in _MASKS_ARE_EXACT
    if not exact or getattr(model.config, "add_adapter", False):
        yield from ([i] for i in indexes)
        return
    share = 0.0 if model.training else LEAST_SHARE
    group: list[int] = []
    for i in sorted(indexes, key=lambda i: -len(inputs[i])):
        if group and len(inputs[i]) < share * len(inputs[group[0]]):
            yield group
            group = []
        group.append(i)
    if group:
        yield group


def _padded(model: PreTrainedModel, inputs: Sequence[Tensor]) -> Tensor:
    """Return the model's own logits (batch, frames, vocab) of utterances padded."""
    arguments = {model.main_input_name: pad_sequence(list(inputs), batch_first=True)}
    if len(inputs) > 1:
        ones = [torch.ones(len(f), dtype=torch.long, device=f.device) for f in inputs]
        arguments["attention_mask"] = pad_sequence(ones, batch_first=True)
    logits: Tensor = model(**arguments).logits
    return logits


@contextmanager
def _our_randomness(
    model: PreTrainedModel,
    feature_lengths: Sequence[int],
    generator: torch.Generator | None,
) -> Iterator[None]:
    """Let what transformers' forward draws follow `generator`; leave no trace of it.

    Its SpecAugment fails for an utterance shorter than a mask, and draws, as some of
    its adapters do, from numpy's global generator. That is seeded from ours and put
    back, and our SpecAugment takes its place, on the way into the encoder.
    """
    config: Any = model.config
    base: Any = model.base_model

    def augmented(encoder: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        hidden, *others = inputs  # (batch, frames, features)
        lengths = list(feature_lengths) if len(hidden) > 1 else [hidden.shape[1]]
        frames = torch.cat([row[:n] for row, n in zip(hidden, lengths, strict=True)])
        mask_vector = getattr(base, "masked_spec_embed", hidden.new_zeros(()))
        frames = spec_augment(frames, lengths, mask_vector, config, generator)
        rows = list(torch.split(frames, lengths))
        return pad_sequence(rows, batch_first=True), *others

    ours = model.training and getattr(config, "apply_spec_augment", False)
    numpy_state = np.random.get_state()
    if model.training:
        np.random.seed(int(torch.randint(2**31, (), generator=generator)))
    if ours:
        hook = base.encoder.register_forward_pre_hook(augmented)
        config.apply_spec_augment = False
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        if ours:
            hook.remove()
            config.apply_spec_augment = True
