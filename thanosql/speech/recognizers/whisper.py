"""Whisper: log-mels of 30 s in; a text, written token by token, or its loss out.

Radford et al. 2022, "Robust speech recognition via large-scale weak supervision". The
encoder hears windows of 30 s, shorter ones filled up with silence. The decoder writes
after a prefix of special tokens (`whisper_settings.py`).
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from thanosql.errors import DataError, OptionError
from thanosql.speech.decoding.decoding import NO_REQUEST, Request, decode, refuse
from thanosql.speech.decoding.subwords import Subwords
from thanosql.speech.prefetch import chunks
from thanosql.speech.recognizers.quantization import quantized
from thanosql.speech.recognizers.recognizer import Loss, Recognizer
from thanosql.speech.recognizers.spec_augment import spec_augment
from thanosql.speech.recognizers.whisper_decoder import WhisperSteps
from thanosql.speech.recognizers.whisper_encoder import (
    FRAMES_A_SECOND,
    SETTING,
    Window,
    encoded,
    window_frames,
)
from thanosql.speech.recognizers.whisper_settings import WhisperSettings
from thanosql.speech.recognizers.whisper_teaching import taught
from thanosql.speech.recognizers.whisper_writing import Writer
from thanosql.speech.sound.audio import SAMPLE_RATE
from thanosql.speech.sound.pauses import AtPauses

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from thanosql.speech.decoding.windows_text import WindowText
    from thanosql.speech.recognizers.draws import Draws
    from thanosql.speech.recognizers.whisper_settings import Dictation
    from thanosql.speech.results import Hypothesis
    from thanosql.speech.sound.windows import Windows

# A text that repeats itself is drawn again at these temperatures, one after the other,
# until one does not (Radford et al. 2022, section 4.5).
TEMPERATURES = (0.2, 0.4, 0.6, 0.8, 1.0)
_LEAST_SECONDS = 5.0  # of a window; in less there is too little to understand
_MOST_BYTES = 2**29  # of keys and values of utterances that are written together
# Why Whisper refuses the options of a search over frames.
_NAMES = "name words and names in prompt"
_REASONS = {
    "alternatives": "Whisper writes one text",
    "language_model": f"Whisper has learned how words follow one another; {_NAMES}",
    "word_bonus": "Whisper has learned how words follow one another",
    "hotwords": f"Whisper chooses words by what is before them; {_NAMES}",
    "own_hotwords": f"Whisper chooses words by what is before them; {_NAMES}",
    "align": "Whisper does not score every frame; they align its transcripts, too",
}


class WhisperRecognizer(Recognizer):
    """`WhisperForConditionalGeneration`, of any size and language.

    Features are (3000, mels): 30 s at 100 frames a second; less if the model is trained
    on a short window. In their place the encoder's output may stand, (1500, width) or
    less, as `frozen` returns it.
    """

    objective = "seq2seq"
    writes = True
    needed_files: ClassVar[Mapping[str, tuple[tuple[str, ...], ...]]] = {
        "tokenizer": (("tokenizer.json",), ("vocab.json", "merges.txt")),
        "generation config": (("generation_config.json",),),
    }

    def check(self, where: str) -> None:
        """Raise if model, tokenizer and feature extractor do not belong together."""
        super().check(where)
        self._settings.check(self.tokenizer, where)
        mels, frames = self._config.num_mel_bins, 2 * self._config.max_source_positions
        extractor = self.feature_extractor
        if (extractor.feature_size, extractor.nb_max_frames) != (mels, frames):
            message = (
                f"{where}: the model takes {frames} frames of {mels} mel bands, its "
                f"feature extractor gives {extractor.nb_max_frames} of "
                f"{extractor.feature_size}; take the preprocessor_config.json of the "
                "model that it was made from"
            )
            raise DataError(message)
        if self.window not in get_args(Window):
            message = (
                f"{where}: {SETTING} is {self.window!r:.20} in its config.json, not "
                f"one of {', '.join(get_args(Window))}"
            )
            raise DataError(message)

    @property
    def window(self) -> Window:
        """Whether the encoder hears 30 s, or as much as there is."""
        window: Window = getattr(self._config, SETTING, "exact")
        return window

    @cached_property
    def spelling(self) -> Subwords:
        """The conversion of text to subword ids and back."""
        return Subwords(self.tokenizer)

    @property
    def window_seconds(self) -> float:
        """The seconds that the encoder hears at once."""
        return float(self._config.max_source_positions / FRAMES_A_SECOND)

    def features(self, waveform: NDArray[np.float32]) -> Tensor:
        """Return the log-mels of one utterance, filled up with silence.

        waveform: (samples,), mono, 16 kHz; what is beyond the window is left out.
        """
        extractor = self.feature_extractor
        seconds, most = len(waveform) / SAMPLE_RATE, self._config.max_source_positions
        length = 2 * window_frames(self.window, seconds, most)
        # Only so much silence is transformed that the last frame has nothing else in
        # it. The frames that are missing are like that one.
        longest = length * extractor.hop_length
        samples = min(len(waveform) + 2 * extractor.n_fft, longest)
        padded = np.zeros(samples, np.float32)
        padded[: len(waveform)] = waveform[:samples]
        mels = extractor(padded, sampling_rate=SAMPLE_RATE, padding="do_not_pad")
        short = torch.from_numpy(mels["input_features"][0].T)
        return torch.cat([short, short[-1:].expand(length - len(short), -1)])

    # Recognition

    def windows(
        self, chunk_seconds: float, vad: Literal["auto"] | bool = "auto"
    ) -> Windows:
        """Return windows that end in pauses, of at most the seconds the encoder hears.

        They do not overlap. The middle of a long pause is left out, unless `vad` is
        False.
        """
        least = min(_LEAST_SECONDS, self.window_seconds)
        if chunk_seconds < least:
            message = (
                f"chunk_seconds={chunk_seconds:g} is too little for the model, which "
                f"is made for {self.window_seconds:g} s; {least:g} is the least"
            )
            raise OptionError(message)
        return AtPauses(min(chunk_seconds, self.window_seconds), vad=vad is not False)

    def decoding(self, request: Request = NO_REQUEST) -> Dictation:
        """Return the decoding that a statement asks for.

        What it leaves open is as the model's generation config says. Raises OptionError
        for a language that the model lacks, a translation by a model of English only,
        or a prompt that is too long, or an alignment.
        """
        refuse(request, _REASONS, "CTC models, such as TinyEn")
        return self._settings.dictation(request)

    def scores(self, batch: Sequence[Tensor], decoding: Dictation) -> list[WindowText]:
        """Return the text of each utterance, which is all that its decoder needs."""
        # In each layer a frame has a key and a value, in fp32 as wide as itself.
        config = self._config
        size = 8 * config.d_model * config.decoder_layers * config.max_source_positions
        return [
            text
            for group in chunks(batch, max(1, _MOST_BYTES // size))
            for text in self._writer.texts(
                self.encoded(group), decoding, TEMPERATURES, group
            )
        ]

    @cached_property
    def int8(self) -> Recognizer:
        """A copy whose encoder computes its products in int8.

        The decoder stays in fp32: it takes a small part of the time, and what it
        writes decides what it writes next.
        """
        model = quantized(self.model, lambda layer: not self.encodes(layer))
        return self if model is None else replace(self, model=model)

    @torch.inference_mode()
    def try_out(self) -> None:
        """Raise ValueError if its scores for a second of noise are NaN or infinite."""
        noise = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE)
        frames = self.encoded([self.features(noise.astype(np.float32))])
        tokens = torch.tensor([[self._settings.start]], device=self.device)
        logits = WhisperSteps(self.model, frames).advance(tokens)
        if not bool(torch.isfinite(logits).all()):
            message = "its output for a second of noise holds NaN or infinite values"
            raise ValueError(message)

    # Training

    def adopt(self, request: Request) -> Request:
        """Make the language and the task of the texts the model's own, and return them.

        Raises OptionError if a multilingual model has no language of its own and is
        told none.
        """
        return self._settings.adopt(request)

    def adopt_window(self, window: Window | None) -> Window:
        """Hear recordings in this window from now on; None leaves it as it is."""
        if window not in (None, self.window):
            setattr(self._config, SETTING, window)
        return self.window

    def loss(
        self,
        batch: Sequence[Tensor],
        targets: Sequence[Sequence[int]],
        draws: Draws | None = None,
    ) -> Loss:
        """Return the cross-entropy of the targets and the end, by teacher forcing.

        It is the mean over all scored tokens of the batch; the prefix is not scored.
        """
        if self.model.training and self._config.apply_spec_augment:
            batch = [
                self._augmented(each, draws and draws.only([i]))
                for i, each in enumerate(batch)
            ]
        mean = self._cross_entropy(self.encoded(batch), targets)
        return Loss(mean, torch.ones((), device=self.device))

    def loss_weight(self, targets: Sequence[Sequence[int]]) -> int:
        """Return the number of scored tokens, each of which weighs the same."""
        return sum(len(each) + 1 for each in targets)

    def assess(
        self,
        batch: Sequence[Tensor],
        targets: Sequence[Sequence[int]],
        decoding: Dictation,
    ) -> tuple[Tensor, list[Hypothesis]]:
        """Return the mean loss and the hypotheses, both from the same frames."""
        frames = self.encoded(batch)
        mean = self._cross_entropy(frames, targets)
        # Without a second hearing: an epoch in which all texts loop would take hours.
        heard = self._writer.texts(frames, decoding, temperatures=())
        return mean, decode(decoding, heard)

    def misfit(self, targets: Sequence[int], length: int, seconds: float) -> str:
        """Return why the text or the recording is too long; "" if neither is."""
        if seconds > self.window_seconds:
            return (
                f"recording of {seconds:.2f} s: the model is trained on at most "
                f"{self.window_seconds:g} s; cut it, and its text, into shorter ones"
            )
        most = self._config.max_target_positions - len(self._own_prefix) - 1
        if len(targets) > most:
            return (
                f"text of {len(targets)} tokens: the model writes at most {most}; cut "
                "it, and its recording, into shorter ones"
            )
        return ""

    def encodes(self, name: str) -> bool:
        """Return whether a parameter or module is of the encoder."""
        return f"{name}.".startswith("model.encoder.")

    @property
    def encoder(self) -> torch.nn.Module:
        """The layers up to the frames."""
        encoder: torch.nn.Module = self._untyped.model.encoder
        return encoder

    def frozen(self, batch: Sequence[Tensor]) -> list[Tensor]:
        """Return the encoder's frames if it is frozen, else the features."""
        if any(p.requires_grad for p in self.encoder.parameters()):
            return list(batch)
        with torch.no_grad():
            return self.encoded(batch)

    # Storage

    def save(self, directory: Path) -> None:
        """Write a model directory, with what transformers itself leaves out."""
        super().save(directory)
        spellings = getattr(self.tokenizer, "english_spelling_normalizer", None)
        if spellings is not None:
            content = json.dumps(spellings, ensure_ascii=False)
            (directory / "normalizer.json").write_text(content, encoding="utf-8")

    # The model

    @property
    def _untyped(self) -> Any:
        return self.model

    @property
    def _config(self) -> Any:
        return self.model.config

    @cached_property
    def _settings(self) -> WhisperSettings:
        return WhisperSettings(self.model, self.spelling.encode)

    @cached_property
    def _writer(self) -> Writer:
        return Writer(self.model, self._settings, self.spelling)

    @property
    def _own_prefix(self) -> tuple[int, ...]:
        """The prefix that the model is trained with."""
        dictation = self.decoding()
        return self._settings.prefix(dictation, dictation.language)

    def encoded(self, batch: Sequence[Tensor]) -> list[Tensor]:
        """Return the encoder's output of each utterance: (1500, width), or a part.

        batch: features, or such outputs, which are returned as they are.
        """
        unheard = [i for i, each in enumerate(batch) if self._are_features(each)]
        frames = encoded([batch[i] for i in unheard], self.encoder, self.device)
        outputs = list(batch)
        for i, each in zip(unheard, frames, strict=True):
            outputs[i] = each
        return outputs

    def _are_features(self, tensor: Tensor) -> bool:
        """Return whether an utterance is log-mels, not frames of the encoder."""
        length, width = tensor.shape
        if self.window == "exact":
            return bool(length == 2 * self._config.max_source_positions)
        return bool(width == self._config.num_mel_bins)

    def _augmented(self, features: Tensor, draws: Draws | None) -> Tensor:
        """Return log-mels masked as the config says; frames of the encoder as given."""
        if not self._are_features(features):
            return features
        nothing = features.new_zeros(())
        return spec_augment(features, [len(features)], nothing, self._config, draws)

    def _cross_entropy(
        self, frames: Sequence[Tensor], targets: Sequence[Sequence[int]]
    ) -> Tensor:
        """Return the mean cross-entropy over the targets and ends of the batch."""
        end = self._settings.end
        return taught(self.model, frames, targets, self._own_prefix, end)
