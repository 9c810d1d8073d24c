"""The interface of all model families: features in; hypotheses, or a loss, out.

Each family is a subclass that knows everything specific to it. `families.py` chooses
the subclass once, when a model is opened. No code outside this folder calls a model
directly or asks which family it belongs to.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

import torch
import transformers
from transformers.utils import logging as transformers_logging

from thanosql.errors import AudioError, NotSupportedError, OptionError
from thanosql.speech.decoding.decoding import NO_REQUEST, Decoding, Request, decode
from thanosql.speech.sound.audio import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from thanosql.speech.decoding.spelling import Normalized
    from thanosql.speech.recognizers.adapter import Adapter
    from thanosql.speech.recognizers.draws import Draws
    from thanosql.speech.results import Hypothesis
    from thanosql.speech.sound.windows import Windows

# Any, since transformers is only partly annotated.
_hf: Any = transformers
_logging: Any = transformers_logging
_QUIET = threading.RLock()


class Loss(NamedTuple):
    """The loss that a training step minimises, and a sign of whether it learns."""

    mean: Tensor
    "The mean loss of a target token of the batch, as the family weighs them: a scalar."
    speaking: Tensor
    "The share of frames at which the model writes something: a scalar."


class Writing(Protocol):
    """The conversion of text to target ids and back, for a model's vocabulary."""

    def normalize(self, text: str) -> Normalized:
        """Return the text as a model without errors would write it."""

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the target ids of a normalized text."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids."""


@dataclass(eq=False)
class Recognizer(ABC):
    """A model with its tokenizer and feature extractor: from a waveform to text.

    A batch of features is one tensor for each utterance, (samples,) or (frames, mels),
    on any device, as `features` or `frozen` returns it. In evaluation mode the result
    of an utterance does not depend on the others in its batch, except for float noise.
    """

    model: PreTrainedModel
    "In evaluation mode when opened."
    tokenizer: PreTrainedTokenizerBase
    feature_extractor: Any
    "A SequenceFeatureExtractor of transformers, for 16 kHz."
    fresh: frozenset[str]
    "Names of the parameters that were drawn at random, not loaded."
    adapter: Adapter | None = None
    "What is trained in place of the model's weights; None if those are."

    last_layers: ClassVar[tuple[str, ...]] = ()
    """How the names of the layers begin that score the vocabulary.

    They are drawn anew where a model gets a vocabulary of the texts it is trained on;
    empty for a family whose models always keep their own.
    """
    needed_files: ClassVar[Mapping[str, tuple[tuple[str, ...], ...]]] = {}
    """What a directory must have beside its config and its weights.

    What it is -> the files of each form that it may have.
    """

    def check(self, where: str) -> None:
        """Raise if model, tokenizer and feature extractor do not belong together.

        where: the model's name for errors, DataError and NotSupportedError. The config
        may be mended, where the tokenizer knows better.
        """
        extractor = self.feature_extractor
        gives, takes = extractor.model_input_names[0], self.model.main_input_name
        if gives != takes or extractor.sampling_rate != SAMPLE_RATE:
            message = (
                f"{where}: the model takes {takes} of {SAMPLE_RATE} Hz audio, its "
                f"feature extractor gives {gives} of {extractor.sampling_rate} Hz audio"
            )
            raise NotSupportedError(message)

    @property
    def device(self) -> torch.device:
        """The device that the model is on."""
        return torch.device(self.model.device)

    @property
    @abstractmethod
    def spelling(self) -> Writing:
        """The conversion of text to target ids and back, for the model's vocabulary."""

    @cached_property
    def mel_bins(self) -> int:
        """The number of mel bands of the features; 0 if the features are samples.

        One input frame may have a multiple of this: some models stack several frames,
        or append their deltas.
        """
        if self.model.main_input_name == "input_values":
            return 0
        extractor = self.feature_extractor
        return int(getattr(extractor, "num_mel_bins", extractor.feature_size))

    def features(self, waveform: NDArray[np.float32]) -> Tensor:
        """Return the model's input for one utterance, without padding.

        waveform: (samples,), mono, 16 kHz; result: (samples,) or (frames, mels),
        float32 on the CPU. Raises AudioError if the waveform is too short for a frame.
        """
        try:
            inputs = self.feature_extractor(
                waveform,
                sampling_rate=SAMPLE_RATE,
                return_tensors="pt",
                return_attention_mask=True,
            )
        except (ValueError, RuntimeError, IndexError, ZeroDivisionError) as error:
            if len(waveform) >= SAMPLE_RATE:  # a second is enough for every model
                raise
            raise _too_short(waveform) from error
        values = inputs[self.model.main_input_name][0]
        if "attention_mask" in inputs:
            values = values[: int(inputs["attention_mask"][0].sum())]
        if len(values) == 0 or not bool(torch.isfinite(values).all()):
            raise _too_short(waveform)
        features: Tensor = values.to(torch.float32)
        return features

    # Recognition

    @abstractmethod
    def windows(
        self, chunk_seconds: float, vad: Literal["auto"] | bool = "auto"
    ) -> Windows:
        """Return how a recording longer than `chunk_seconds` is cut into windows.

        vad: whether to find speech first, so that windows without any are not heard.
        Raises OptionError if `chunk_seconds` is too short for the model.
        """

    @abstractmethod
    def decoding(self, request: Request = NO_REQUEST) -> Decoding:
        """Return the decoding that a statement asks for.

        Raises OptionError for what the model cannot do.
        """

    @abstractmethod
    def scores(self, batch: Sequence[Tensor], decoding: Any) -> list[Any]:
        """Return what a decoder of `decoding` takes of each utterance, on the CPU.

        batch: features. decoding: as the method of that name returns it.
        """

    def recognize(
        self, batch: Sequence[Tensor], decoding: Decoding
    ) -> list[Hypothesis]:
        """Return the hypothesis of each utterance of a batch of features."""
        return decode(decoding, self.scores(batch, decoding))

    @cached_property
    def int8(self) -> Recognizer:
        """A copy with products in int8, for inference on a CPU.

        It is the recognizer itself if no layer is large enough to gain by it.
        """
        return self

    @abstractmethod
    def try_out(self) -> None:
        """Raise ValueError if the model cannot transcribe a second of noise.

        This finds faults that are in no single file, such as a stride of 0.
        """

    # Training

    def adopt(self, request: Request) -> Request:
        """Make what a BUILD says of the texts the model's own: language and task.

        Returns the request with what the model had before, where it says nothing.
        Raises OptionError for what the model cannot do, and for what it must be told.
        """
        self.decoding(request)
        return request

    def adopt_window(
        self, window: Literal["exact", "short"] | None
    ) -> Literal["exact", "short"] | None:
        """Make the window that a BUILD asks for the model's own, and return its own.

        Raises OptionError if the model hears everything as long as it is anyway.
        """
        if window is not None:
            message = (
                "option window is for a model that hears 30 s at a time, such as "
                "Whisper; this one hears each recording as long as it is; leave it out"
            )
            raise OptionError(message)
        return window

    def targets(self, text: str) -> tuple[int, ...]:
        """Return a transcript's target ids, without what the model cannot spell."""
        return self.spelling.encode(self.spelling.normalize(text).text)

    @abstractmethod
    def loss(
        self,
        batch: Sequence[Tensor],
        targets: Sequence[Sequence[int]],
        draws: Draws | None = None,
    ) -> Loss:
        """Return the training objective of a batch of features and their target ids.

        draws: in training mode SpecAugment and LayerDrop draw from these; dropout draws
        from torch's default generator.
        """

    def loss_weight(self, targets: Sequence[Sequence[int]]) -> int:
        """Return how much a batch with these targets counts in a mean over batches.

        By this the losses of a batch's parts are weighed, so that their mean is the
        loss of the batch. It is the number of utterances, unless a family weighs by
        tokens.
        """
        return len(targets)

    least_length = 0
    """The least length that features are padded to, where they are padded at all.

    Processes that share a batch set it, so that all of them pad alike.
    """

    @property
    def trains_together(self) -> bool:
        """Whether a layer sees all utterances of a batch at once in training.

        Else each utterance runs by itself, and so do the statistics of batch norms.
        """
        return True

    @abstractmethod
    def assess(
        self,
        batch: Sequence[Tensor],
        targets: Sequence[Sequence[int]],
        decoding: Any,
    ) -> tuple[Tensor, list[Hypothesis]]:
        """Return the mean loss of a batch, a scalar, and its hypotheses.

        Both come from one forward pass. decoding: as `scores` takes it.
        """

    @abstractmethod
    def misfit(self, targets: Sequence[int], length: int, seconds: float) -> str:
        """Return why no training can fit the targets to the features; "" if one can.

        length: of the features. seconds: of the recording, for the message.
        """

    objective: ClassVar[Literal["ctc", "seq2seq", "transducer"]]
    "What the family is trained by, as the option of that name calls it."
    learning_rate: ClassVar[float | None] = None
    "Default of BUILD and FIT; None for that of the base."
    head_first: bool = False
    """Whether fresh last layers are trained by themselves before everything is.

    They are where only the encoder of a trained model was taken.
    """
    writes = False
    "Whether the model writes text by itself, rather than to score every frame."

    def encodes(self, name: str) -> bool:
        """Return whether a parameter or module is of what `freeze_encoder` freezes.

        That is all but the last layers, unless a family says otherwise.
        """
        return not f"{name}.".startswith(self.last_layers)

    @property
    def feature_encoder(self) -> nn.Module | None:
        """The layers before the encoder, which `freeze_feature_encoder` freezes."""
        return None

    def frozen(self, batch: Sequence[Tensor]) -> list[Tensor]:
        """Return the input of the first trained layer, for each utterance.

        It depends only on the utterance and on frozen parameters, so a caller may keep
        it and pass it in place of the features. By default the features themselves.
        """
        return list(batch)

    # Storage

    def save(self, directory: Path) -> None:
        """Write a model directory that transformers' Auto classes can open.

        Of a model with an adapter, that of the model as it is without.
        """
        state = None if self.adapter is None else self.adapter.base_state(self.model)
        with quiet():
            self.model.save_pretrained(directory, state_dict=state)
            if isinstance(self.feature_extractor, _hf.Wav2Vec2FeatureExtractor):
                # Without this, AutoProcessor does not know which one data2vec needs.
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
    """Silence the progress bars and warnings of transformers inside the block.

    Only one thread at a time is inside. Models are opened in such blocks, which switch
    settings of the whole process, torch's initialisation of weights among them
    (`no_init_weights`). Two threads would restore each other's switched settings.
    """
    with _QUIET:
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
