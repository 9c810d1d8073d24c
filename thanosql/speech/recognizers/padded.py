"""CTC models that run by transformers' own forward: features in, logits out.

An architecture runs padded in a batch if its masks are exact, else one utterance at a
time.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from thanosql.errors import NotSupportedError
from thanosql.speech.recognizers.ctc import CTCRecognizer
from thanosql.speech.recognizers.draws import of_utterances
from thanosql.speech.recognizers.spec_augment import spec_augment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn

    from thanosql.speech.recognizers.draws import Draws

# Architectures that mask the padding in every layer that looks beyond a frame, so that
# a padded utterance differs from a lone one by float noise only. A test checks each.
_MASKS_ARE_EXACT = frozenset({"LasrForCTC", "ParakeetForCTC", "Wav2Vec2BertForCTC"})

# Layers whose weights other modules read directly, so int8 cannot replace them.
_KEPT = {
    "GraniteSpeech5ForCTC": (".input_linear",),
    "WavLMForCTC": (".q_proj", ".k_proj", ".v_proj", ".out_proj"),
}

LEAST_SHARE = 0.8  # least length of an utterance, as a share of its group's longest


class PaddedRecognizer(CTCRecognizer):
    """Any CTC class of transformers.

    An architecture whose masks are exact runs padded, in groups of similar length; any
    other runs one utterance at a time. In training mode the former runs the whole batch
    together, since batch norms need to see all of it.
    """

    @property
    def fp32_layers(self) -> tuple[str, ...]:
        """How the names of the linear layers end that `int8` leaves in fp32."""
        return _KEPT.get(type(self.model).__name__, ())

    def frames(self, length: int) -> int:
        """Return how many frames of logits features of this length give; may be 0.

        Raises NotSupportedError for a class that has no such formula.
        """
        # transformers has the formula under one of two private names.
        model = self.model
        for name in (
            "_get_subsampling_output_length",
            "_get_feat_extract_output_lengths",
        ):
            formula: Any = getattr(model, name, None)
            if formula is not None:
                frames = int(formula(torch.tensor([length]))[0])
                # SEW squeezes two frames into one, and cannot run on fewer.
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
        self, batch: Sequence[Tensor], draws: Draws | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return logits (batch, frames, vocab) and lengths (batch,)."""
        model = self.model
        inputs = [each.to(model.device, non_blocking=True) for each in batch]
        lengths = [self.frames(len(each)) for each in inputs]
        rows: dict[int, Tensor] = {}
        for group in self._groups(inputs, lengths):
            together = [inputs[i] for i in group]
            lengths_of_group = [len(each) for each in together]
            with self._our_randomness(lengths_of_group, draws and draws.only(group)):
                logits = self.own_logits(together)
            for i, row in zip(group, logits, strict=True):
                # What always runs alone is not padded, so its own length counts: in
                # training an adapter may drop layers, which gives more frames.
                rows[i] = row[: lengths[i]] if self.trains_together else row
        some = next(iter(rows.values()), torch.zeros(0, model.config.vocab_size))
        in_order = [rows.get(i, some[:0]) for i in range(len(inputs))]
        return (
            pad_sequence(in_order, batch_first=True),
            torch.tensor([len(row) for row in in_order]),
        )

    @property
    def masked(self) -> nn.Module:
        """The module whose input are the frames that SpecAugment masks."""
        base: Any = self.model.base_model
        encoder: nn.Module = base.encoder
        return encoder

    def own_logits(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return transformers' logits (batch, frames, vocab) of padded utterances."""
        name = self.model.main_input_name
        arguments = {name: padded(inputs, self.least_length)}
        if len(inputs) > 1 or self.least_length:
            ones = [
                torch.ones(len(each), dtype=torch.long, device=each.device)
                for each in inputs
            ]
            arguments["attention_mask"] = padded(ones, self.least_length)
        logits: Tensor = self.model(**arguments).logits
        return logits

    @property
    def trains_together(self) -> bool:
        """Whether a batch runs padded."""
        exact = type(self.model).__name__ in _MASKS_ARE_EXACT
        return exact and not getattr(self.model.config, "add_adapter", False)

    def _groups(
        self, inputs: Sequence[Tensor], lengths: Sequence[int]
    ) -> Iterator[list[int]]:
        """Yield the groups of indexes that run together, without inputs of no frame."""
        indexes = [i for i, length in enumerate(lengths) if length]
        if not self.trains_together:
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
        self, feature_lengths: Sequence[int], draws: Draws | None
    ) -> Iterator[None]:
        """Make transformers' forward draw from `draws` only, and undo that after.

        Some adapters, of models that run one utterance at a time, draw from numpy's
        global generator: it is seeded from `draws`, and its state is restored.
        transformers' SpecAugment draws from it too, and fails for an utterance shorter
        than a mask: ours runs in its place, in a hook before the encoder.
        """
        model, config = self.model, self.model.config
        base: Any = model.base_model

        def augmented(
            _module: nn.Module, inputs: tuple[Tensor, ...]
        ) -> tuple[Tensor, ...]:
            hidden, *others = inputs  # (batch, frames, features)
            lengths = [hidden.shape[1]]
            if self.trains_together:
                lengths = list(feature_lengths)
            frames = torch.cat(
                [row[:n] for row, n in zip(hidden, lengths, strict=True)]
            )
            mask_vector = getattr(base, "masked_spec_embed", hidden.new_zeros(()))
            frames = spec_augment(frames, lengths, mask_vector, config, draws)
            rows = list(torch.split(frames, lengths))
            return padded(rows, hidden.shape[1]), *others

        ours = model.training and getattr(config, "apply_spec_augment", False)
        numpy_state = np.random.get_state()
        if model.training:
            first = of_utterances(draws, 1)[0]
            np.random.seed(int(torch.randint(2**31, (), generator=first)))
        if ours:
            hook = self.masked.register_forward_pre_hook(augmented)
            config.apply_spec_augment = False
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            if ours:
                hook.remove()
                config.apply_spec_augment = True


def padded(rows: Sequence[Tensor], length: int) -> Tensor:
    """Return rows of any lengths, padded with zeros to the longest, or to `length`."""
    together = pad_sequence(list(rows), batch_first=True)
    missing = max(0, length - together.shape[1])
    return functional.pad(together, (0, 0) * (together.ndim - 2) + (0, missing))
