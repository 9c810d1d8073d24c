"""CTC models by their own forward: padded where that is exact, one by one elsewhere."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from thanosql.errors import NotSupportedError
from thanosql.speech.recognizers.ctc import CTCRecognizer
from thanosql.speech.recognizers.spec_augment import spec_augment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn

# Their masks reach every layer that looks beyond a frame, so that a padded row differs
# from a lone one by float noise only; a test holds each of them to that.
_MASKS_ARE_EXACT = frozenset({"LasrForCTC", "ParakeetForCTC", "Wav2Vec2BertForCTC"})

# Layers whose weights are looked at from outside, so that int8 leaves them.
_KEPT = {
    "GraniteSpeech5ForCTC": (".input_linear",),
    "WavLMForCTC": (".q_proj", ".k_proj", ".v_proj", ".out_proj"),
}

LEAST_SHARE = 0.8  # of the longest utterance, that one padded to it must have itself


class PaddedRecognizer(CTCRecognizer):
    """Any CTC class of transformers.

    An architecture whose own masks are exact runs padded, beside utterances of like
    length; any other, one utterance at a time. In training mode the former runs as a
    whole, since batch norms need to see the batch.
    """

    @property
    def fp32_layers(self) -> tuple[str, ...]:
        """What the names of linear layers end in that `int8` leaves as they are."""
        return _KEPT.get(type(self.model).__name__, ())

    def frames(self, length: int) -> int:
        """Return how many frames of logits come of features of that length, perhaps 0.

        Raises NotSupportedError for a class that does not tell.
        """
        # transformers has no public name for it, and two private ones.
        model = self.model
        for name in (
            "_get_subsampling_output_length",
            "_get_feat_extract_output_lengths",
        ):
            formula: Any = getattr(model, name, None)
            if formula is not None:
                frames = int(formula(torch.tensor([length]))[0])
                # SEW works on frames in twos, and on no less.
                return (
                    frames
                    if frames >= getattr(model.config, "squeeze_factor", 1)
                    else 0
                )
        message = (
            f"{type(model).__name__} does not tell how many frames it makes of a "
            "recording; use a model of another architecture"
        )
        raise NotSupportedError(message)

    def logits(
        self, batch: Sequence[Tensor], generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return logits (batch, frames, vocab) and lengths (batch,)."""
        model = self.model
        inputs = [each.to(model.device, non_blocking=True) for each in batch]
        lengths = [self.frames(len(each)) for each in inputs]
        rows: dict[int, Tensor] = {}
        for group in self._groups(inputs, lengths):
            together = [inputs[i] for i in group]
            lengths_of_group = [len(each) for each in together]
            with self._our_randomness(lengths_of_group, generator):
                logits = self.own_logits(together)
            for i, row in zip(group, logits, strict=True):
                # A lone row's own length: an adapter may drop layers in training.
                rows[i] = row[: lengths[i]] if len(group) > 1 else row
        some = next(iter(rows.values()), torch.zeros(0, model.config.vocab_size))
        in_order = [rows.get(i, some[:0]) for i in range(len(inputs))]
        return (
            pad_sequence(in_order, batch_first=True),
            torch.tensor([len(row) for row in in_order]),
        )

    @property
    def encoder(self) -> nn.Module:
        """The module that takes the frames which SpecAugment masks, as its input."""
        base: Any = self.model.base_model
        encoder: nn.Module = base.encoder
        return encoder

    def own_logits(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return the model's own logits (batch, frames, vocab) of utterances padded."""
        name = self.model.main_input_name
        arguments = {name: pad_sequence(list(inputs), batch_first=True)}
        if len(inputs) > 1:
            ones = [
                torch.ones(len(each), dtype=torch.long, device=each.device)
                for each in inputs
            ]
            arguments["attention_mask"] = pad_sequence(ones, batch_first=True)
        logits: Tensor = self.model(**arguments).logits
        return logits

    def _groups(
        self, inputs: Sequence[Tensor], lengths: Sequence[int]
    ) -> Iterator[list[int]]:
        """Yield the indexes that run together, of all inputs that give a frame."""
        indexes = [i for i, length in enumerate(lengths) if length]
        exact = type(self.model).__name__ in _MASKS_ARE_EXACT
        if not exact or getattr(self.model.config, "add_adapter", False):
            yield from ([i] for i in indexes)
            return
        share = 0.0 if self.model.training else LEAST_SHARE
        group: list[int] = []
        for i in sorted(indexes, key=lambda i: -len(inputs[i])):
            if group and len(inputs[i]) < share * len(inputs[group[0]]):
                yield group
                group = []
            group.append(i)
        if group:
            yield group

    @contextmanager
    def _our_randomness(
        self, feature_lengths: Sequence[int], generator: torch.Generator | None
    ) -> Iterator[None]:
        """Let what transformers' forward draws follow `generator`, with no trace of it.

        Its SpecAugment fails for an utterance shorter than a mask, and draws, as some
        of its adapters do, from numpy's global generator. That is seeded from ours and
        put back, and our SpecAugment takes its place, on the way into the encoder.
        """
        model, config = self.model, self.model.config
        base: Any = model.base_model

        def augmented(
            _module: nn.Module, inputs: tuple[Tensor, ...]
        ) -> tuple[Tensor, ...]:
            hidden, *others = inputs  # (batch, frames, features)
            lengths = list(feature_lengths) if len(hidden) > 1 else [hidden.shape[1]]
            frames = torch.cat(
                [row[:n] for row, n in zip(hidden, lengths, strict=True)]
            )
            mask_vector = getattr(base, "masked_spec_embed", hidden.new_zeros(()))
            frames = spec_augment(frames, lengths, mask_vector, config, generator)
            rows = list(torch.split(frames, lengths))
            return pad_sequence(rows, batch_first=True), *others

        ours = model.training and getattr(config, "apply_spec_augment", False)
        numpy_state = np.random.get_state()
        if model.training:
            np.random.seed(int(torch.randint(2**31, (), generator=generator)))
        if ours:
            hook = self.encoder.register_forward_pre_hook(augmented)
            config.apply_spec_augment = False
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            if ours:
                hook.remove()
                config.apply_spec_augment = True
