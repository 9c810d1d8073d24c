"""What a family of models is: features of utterances in; hypotheses, or a loss, out.

One object, chosen when a model is opened (`families.py`), knows all that sets its
family apart. Nothing outside of this folder calls a model, or asks which one it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import transformers
from transformers.utils import logging as transformers_logging

from thanosql.errors import AudioError
from thanosql.speech.decoding.decoding import Decoding, decode
from thanosql.speech.decoding.spelling import Spelling
from thanosql.speech.sound.audio import SAMPLE_RATE
from thanosql.speech.sound.windows import Layout, layout

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from thanosql.speech.results import Hypothesis

# transformers is annotated in part only: what it leaves open goes by Any.
_hf: Any = transformers
_logging: Any = transformers_logging


class Loss(NamedTuple):
    """What a training step minimises, and what tells whether it learns."""

    mean: Tensor
    "Over the utterances of the batch, per target token: a scalar."
    speaking: Tensor
    "Share of the frames at which the model writes something: a scalar."


@dataclass(eq=False)
class Recognizer(ABC):
    """A model with all it takes to go from a waveform to text and back.

    What it is given as features is a tensor an utterance, (samples,) or (frames, mels),
    on any device, as `features` makes them or `frozen` returns them. In evaluation mode
    what it makes of an utterance does not depend, but for float noise, on the others.
    """

    model: PreTrainedModel
    "In evaluation mode when opened."
    tokenizer: PreTrainedTokenizerBase
    feature_extractor: Any
    "A SequenceFeatureExtractor of transformers, for 16 kHz."
    fresh: frozenset[str]
    "Names of the parameters that were newly drawn, not loaded."

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return torch.device(self.model.device)

    @cached_property
    def spelling(self) -> Spelling:
        """What the model can spell: text to target ids, and back."""
        return Spelling(self.tokenizer, self.model.config.vocab_size)

    @cached_property
    def mel_bins(self) -> int:
        """How many mel bands a frame of its features has; 0 where they are samples.

        What a model takes as one frame may be several in a row, or have their deltas.
        """
        if self.model.main_input_name == "input_values":
            return 0
        extractor = self.feature_extractor
        return int(getattr(extractor, "num_mel_bins", extractor.feature_size))

    def features(self, waveform: NDArray[np.float32]) -> Tensor:
        """Return what the model takes of one utterance, with no padding.

        waveform: (samples,), mono, 16 kHz; result: (samples,) or (frames, mels),
        float32 on the CPU. Raises AudioError where it is too short to give a frame.
        """
        try:
            inputs = self.feature_extractor(
                waveform,
                sampling_rate=SAMPLE_RATE,
                return_tensors="pt",
                return_attention_mask=True,
            )
        except (ValueError, RuntimeError, IndexError, ZeroDivisionError) as error:
            raise _too_short(waveform) from error
        values = inputs[self.model.main_input_name][0]
        if "attention_mask" in inputs:
            values = values[: int(inputs["attention_mask"][0].sum())]
        if len(values) == 0 or not bool(torch.isfinite(values).all()):
            raise _too_short(waveform)
        features: Tensor = values.to(torch.float32)
        return features

    # Recognition

    @property
    @abstractmethod
    def stride(self) -> int:
        """Samples from one frame of scores to the next."""

    def windows(self, chunk_seconds: float) -> Layout:
        """Return how a recording longer than `chunk_seconds` is cut.

        Raises OptionError where that is too short for the model.
        """
        return layout(self.stride, chunk_seconds)

    @property
    @abstractmethod
    def decoding(self) -> Decoding:
        """How its scores become text where nothing else is asked for."""

    @abstractmethod
    def scores(self, batch: Sequence[Tensor], decoding: Any) -> list[Tensor]:
        """Return what `decoding` takes of each utterance: (frames, ...), on the CPU.

        batch: features; decoding: one that fits the family.
        """

    def recognize(
        self, batch: Sequence[Tensor], decoding: Decoding
    ) -> list[Hypothesis]:
        """Return the hypothesis of each utterance of a batch of features."""
        return decode(decoding, self.scores(batch, decoding))

    @cached_property
    def int8(self) -> Recognizer:
        """The same, multiplying in int8, for inference on a CPU.

        Itself where no layer is large enough to gain by it.
        """
        return self

    @abstractmethod
    def try_out(self) -> None:
        """Raise ValueError where the model makes nothing of a second of noise.

        What its files do not contradict may still make no model: a stride of 0, say.
        """

    # Training

    def targets(self, text: str) -> tuple[int, ...]:
        """Return the target ids of a transcript, of what of it the model can spell."""
        return self.spelling.encode(self.spelling.normalize(text).text)

    @abstractmethod
    def loss(
        self,
        batch: Sequence[Tensor],
        targets: Sequence[Sequence[int]],
        generator: torch.Generator | None = None,
    ) -> Loss:
        """Return the objective of a batch of features and their target ids.

        generator: on the CPU; what SpecAugment and LayerDrop draw from in training
        mode, where dropout draws from torch's default generator.
        """

    @abstractmethod
    def assess(
        self,
        batch: Sequence[Tensor],
        targets: Sequence[Sequence[int]],
        decoding: Any,
    ) -> tuple[Tensor, list[Hypothesis]]:
        """Return the mean loss of a batch, a scalar, and its hypotheses."""

    @abstractmethod
    def misfit(self, targets: Sequence[int], length: int, seconds: float) -> str:
        """Return why no training can fit targets to features; "" where one can.

        length: of the features, of a recording of so many seconds.
        """

    @property
    def feature_encoder(self) -> nn.Module | None:
        """The layers before the encoder, which `freeze_feature_encoder` freezes."""
        return None

    def frozen(self, batch: Sequence[Tensor]) -> list[Tensor]:
        """Return what the layers before the first trained one make of each utterance.

        It depends on the utterance and frozen parameters alone, so it may be kept, and
        given in place of the features.
        """
        return list(batch)

    # Storage

    def save(self, directory: Path) -> None:
        """Write a model directory that transformers' Auto classes open."""
        with quiet():
            self.model.save_pretrained(directory)
            if isinstance(self.feature_extractor, _hf.Wav2Vec2FeatureExtractor):
                # AutoProcessor knows not of itself which one data2vec needs.
                processor = _hf.Wav2Vec2Processor(
                    self.feature_extractor, self.tokenizer
                )
                processor.save_pretrained(directory)
            self.tokenizer.save_pretrained(directory)
            self.feature_extractor.save_pretrained(directory)


def _too_short(waveform: NDArray[np.float32]) -> AudioError:
    message = (
        f"the recording is too short for the model: {len(waveform) / SAMPLE_RATE:.3f} s"
    )
    return AudioError(message)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the progress bars and the advice of transformers inside the block."""
    verbosity = _logging.get_verbosity()
    bars = _logging.is_progress_bar_enabled()
    _logging.set_verbosity_error()
    _logging.disable_progress_bar()
    try:
        yield
    finally:
        _logging.set_verbosity(verbosity)
        if bars:
            _logging.enable_progress_bar()
