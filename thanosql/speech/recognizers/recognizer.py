"""A model with its tokenizer and feature extractor: a waveform in, text out, and back.

The model is any CTC model of transformers.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers.utils import logging as transformers_logging

from thanosql.errors import AudioError
from thanosql.speech.decoding.spelling import Spelling
from thanosql.speech.sound.audio import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# transformers is annotated in part only: what it leaves open goes by Any.
_hf: Any = transformers
_logging: Any = transformers_logging

# The layer that scores the vocabulary, in every CTC class of transformers; Granite's
# is one with a layer half-way, under whose name it is saved.
LAST_LAYERS = ("lm_head.", "ctc_head.", "encoder.out.")


@dataclass(eq=False)
class Recognizer:
    """A CTC model with all it takes to go from a waveform to text and back."""

    model: PreTrainedModel
    "Any that AutoModelForCTC gives, in evaluation mode when opened."
    tokenizer: PreTrainedTokenizerBase
    feature_extractor: Any
    "A SequenceFeatureExtractor of transformers, for 16 kHz."
    fresh: frozenset[str]
    "Names of the parameters that were newly drawn, not loaded."

    @property
    def blank(self) -> int:
        """The token id that stands for no letter in CTC."""
        return int(self.model.config.pad_token_id)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return torch.device(self.model.device)

    @cached_property
    def mel_bins(self) -> int:
        """How many mel bands a frame of its features has; 0 where they are samples.

        What a model takes as one frame may be several in a row, or have their deltas.
        """
        if self.model.main_input_name == "input_values":
            return 0
        extractor = self.feature_extractor
        return int(getattr(extractor, "num_mel_bins", extractor.feature_size))

    @cached_property
    def spelling(self) -> Spelling:
        """What the model can spell."""
        return Spelling(self.tokenizer, self.model.config.vocab_size)

    @cached_property
    def int8(self) -> Recognizer:
        """The same, multiplying in int8, for inference on a CPU."""
        from thanosql.speech.recognizers.quantization import (
            quantized,  # it imports this module
        )

        return quantized(self)

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the target ids of a normalized text."""
        return self.spelling.encode(text)

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

    def save(self, directory: Path) -> None:
        """Write a model directory that AutoModelForCTC and AutoProcessor open."""
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
