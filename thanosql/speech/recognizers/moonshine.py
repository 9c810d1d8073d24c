"""Moonshine: a waveform in; a text, written token by token, or its loss out.

Jeffries et al. 2024, "Moonshine: speech recognition for live transcription and voice
commands". Encoder and decoder have rotary positions, so a recording is heard as long as
it is, without padding. Both run by transformers' own forward, one utterance at a time:
nothing in a batch can change another's text.
"""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import torch
import transformers
from torch import Tensor
from torch.nn import functional

from thanosql.errors import DataError, OptionError
from thanosql.speech.decoding.decoding import NO_REQUEST, Request, decode, refuse
from thanosql.speech.decoding.search import beam_search, write
from thanosql.speech.decoding.subwords import Subwords
from thanosql.speech.decoding.windows_text import WindowText, WindowTexts
from thanosql.speech.recognizers.generation import end_token, rules
from thanosql.speech.recognizers.precision import sent
from thanosql.speech.recognizers.quantization import quantized
from thanosql.speech.recognizers.recognizer import Loss, Recognizer
from thanosql.speech.recognizers.spec_augment import spec_augment
from thanosql.speech.sound.audio import SAMPLE_RATE
from thanosql.speech.sound.pauses import AtPauses

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from thanosql.speech.recognizers.draws import Draws
    from thanosql.speech.results import Hypothesis
    from thanosql.speech.sound.windows import Windows

# Any, since transformers is only partly annotated.
_hf: Any = transformers

MOST_SECONDS = 30.0  # of a window: no recording that it was trained on is longer
_LEAST_SECONDS = 5.0  # of a window; in less there is too little to understand
# The fewest samples that the encoder makes a frame of: its convolutions have kernels of
# 127, 7 and 3, every 64, 3 and 2.
_LEAST_SAMPLES = 64 * (3 * (3 - 1) + 7 - 1) + 127
_OTHERS = "other models"
# Why Moonshine refuses the options of other models.
_REASONS = {
    "language": "Moonshine writes the one language it was trained on",
    "task": "Moonshine writes what it hears, and cannot translate",
    "prompt": "Moonshine begins every text anew",
    "words": "Moonshine does not say when a word was said; Whisper, transducers and "
    "CTC models do",
    "alternatives": "Moonshine writes one text",
    "language_model": "Moonshine has learned how words follow one another",
    "lm_weight": "Moonshine has learned how words follow one another",
    "word_bonus": "Moonshine has learned how words follow one another",
    "hotwords": "Moonshine chooses words by what is before them",
    "own_hotwords": "Moonshine chooses words by what is before them",
    "hotword_weight": "Moonshine takes no hotwords",
    "align": "Moonshine does not score every frame; take a CTC model, such as TinyEn",
}


@dataclass(frozen=True, slots=True)
class TokenByToken:
    """How Moonshine is to write: a `Decoding`."""

    beam_size: int

    def start(self, expected: tuple[str, ...] = ()) -> WindowTexts:
        """Return a decoder for one recording."""
        return WindowTexts()


class MoonshineSteps:
    """The decoder for one utterance; see `decoding.search.Steps`."""

    def __init__(self, model: PreTrainedModel, frames: Tensor) -> None:
        """Begin with one hypothesis. frames: (frames, width), the encoder's output."""
        untyped: Any = model
        self._decoder, self._last = untyped.model.decoder, untyped.proj_out
        self._frames = frames[None]
        self._cache = _hf.EncoderDecoderCache(_hf.DynamicCache(), _hf.DynamicCache())
        # transformers 5.24 calls it cache, older ones past_key_values.
        names = inspect.signature(self._decoder.forward).parameters
        self._name = "cache" if "cache" in names else "past_key_values"

    def advance(self, tokens: Tensor) -> Tensor:
        """Take the next tokens of each hypothesis; return the logits after the last."""
        hidden = self._decoder(
            input_ids=tokens,
            encoder_hidden_states=self._frames,
            use_cache=True,
            **{self._name: self._cache},
        ).last_hidden_state
        logits: Tensor = self._last(hidden[:, -1]).float()
        return logits

    def select(self, hypotheses: Sequence[int]) -> None:
        """Go on with these hypotheses only."""
        self._cache.reorder_cache(torch.tensor(hypotheses, device=self._frames.device))


class MoonshineRecognizer(Recognizer):
    """`MoonshineForConditionalGeneration`, of any size and language.

    Features are (samples,). In their place the encoder's output may stand, (frames,
    width), as `frozen` returns it.
    """

    objective = "seq2seq"
    writes = True
    needed_files: ClassVar[Mapping[str, tuple[tuple[str, ...], ...]]] = {
        "tokenizer": (("tokenizer.json",),),
        # Whether a recording is brought to a common loudness is in no config.
        "feature extractor": (
            ("preprocessor_config.json",),
            ("processor_config.json",),
        ),
    }

    def check(self, where: str) -> None:
        """Raise if model, tokenizer and feature extractor do not belong together."""
        super().check(where)
        outputs, generation = self._config.vocab_size, self._generation
        tokens = {
            "first token": generation.decoder_start_token_id,
            "end": generation.eos_token_id and end_token(generation),
            "last of the tokenizer": max(self.tokenizer.get_vocab().values()),
        }
        for what, token in tokens.items():
            if token not in range(outputs):
                message = (
                    f"{where}: the model has {outputs} outputs, and its {what} is "
                    f"token {token!r:.20}; take config, generation config and "
                    "tokenizer of the model that it was made from"
                )
                raise DataError(message)

    @cached_property
    def spelling(self) -> Subwords:
        """The conversion of text to subword ids and back."""
        return Subwords(self.tokenizer, begin="")

    def features(self, waveform: NDArray[np.float32]) -> Tensor:
        """Return the samples of one utterance, as the encoder takes them.

        waveform: (samples,), mono, 16 kHz; what is too short is filled up with silence.
        """
        missing = max(0, _LEAST_SAMPLES - len(waveform))
        return super().features(np.pad(waveform, (0, missing)))

    # Recognition

    def windows(
        self, chunk_seconds: float, vad: Literal["auto"] | bool = "auto"
    ) -> Windows:
        """Return windows that end in pauses, of at most what the model is trained on.

        They do not overlap. The middle of a long pause is left out, unless `vad` is
        False.
        """
        if chunk_seconds < _LEAST_SECONDS:
            message = (
                f"chunk_seconds={chunk_seconds:g} is too little for the model, which "
                f"is made for {MOST_SECONDS:g} s; {_LEAST_SECONDS:g} is the least"
            )
            raise OptionError(message)
        return AtPauses(min(chunk_seconds, MOST_SECONDS), vad=vad is not False)

    def decoding(self, request: Request = NO_REQUEST) -> TokenByToken:
        """Return the decoding that a statement asks for.

        Raises OptionError for what other models can do.
        """
        refuse(request, _REASONS, _OTHERS)
        return TokenByToken(request.beam_size or self._generation.num_beams or 1)

    def scores(
        self, batch: Sequence[Tensor], decoding: TokenByToken
    ) -> list[WindowText]:
        """Return the text of each utterance, which is all that its decoder needs."""
        return [self._written(frames, decoding) for frames in self.encoded(batch)]

    @cached_property
    def int8(self) -> Recognizer:
        """A copy whose encoder computes its products in int8.

        The decoder stays in fp32: what it writes decides what it writes next.
        """
        model = quantized(self.model, lambda layer: not self.encodes(layer))
        return self if model is None else replace(self, model=model)

    @torch.inference_mode()
    def try_out(self) -> None:
        """Raise ValueError if its scores for a second of noise are NaN or infinite."""
        noise = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE)
        (frames,) = self.encoded([self.features(noise.astype(np.float32))])
        logits = MoonshineSteps(self.model, frames).advance(self._start)
        if not bool(torch.isfinite(logits).all()):
            message = "its output for a second of noise holds NaN or infinite values"
            raise ValueError(message)

    # Training

    def loss(
        self,
        batch: Sequence[Tensor],
        targets: Sequence[Sequence[int]],
        draws: Draws | None = None,
    ) -> Loss:
        """Return the cross-entropy of the targets and the end, by teacher forcing.

        It is the mean over all scored tokens of the batch.
        """
        mean = self._cross_entropy(self.encoded(batch, draws), targets)
        return Loss(mean, torch.ones((), device=self.device))

    def loss_weight(self, targets: Sequence[Sequence[int]]) -> int:
        """Return the number of scored tokens, each of which weighs the same."""
        return sum(len(each) + 1 for each in targets)

    def assess(
        self,
        batch: Sequence[Tensor],
        targets: Sequence[Sequence[int]],
        decoding: TokenByToken,
    ) -> tuple[Tensor, list[Hypothesis]]:
        """Return the mean loss and the hypotheses, both from the same frames."""
        frames = self.encoded(batch)
        mean = self._cross_entropy(frames, targets)
        return mean, decode(decoding, [self._written(x, decoding) for x in frames])

    def misfit(self, targets: Sequence[int], length: int, seconds: float) -> str:
        """Return why the text or the recording is too long; "" if neither is."""
        if seconds > MOST_SECONDS:
            return (
                f"recording of {seconds:.2f} s: the model is trained on at most "
                f"{MOST_SECONDS:g} s; cut it, and its text, into shorter ones"
            )
        most = self._longest - 1
        if len(targets) > most:
            return (
                f"text of {len(targets)} tokens: the model writes at most {most}; cut "
                "it, and its recording, into shorter ones"
            )
        return ""

    def encodes(self, name: str) -> bool:
        """Return whether a parameter or module is of the encoder."""
        return f"{name}.".startswith("model.encoder.")

    def frozen(self, batch: Sequence[Tensor]) -> list[Tensor]:
        """Return the encoder's frames if it is frozen, else the features."""
        if any(p.requires_grad for p in self._encoder.parameters()):
            return list(batch)
        with torch.no_grad():
            return self.encoded(batch)

    # The model

    @property
    def _config(self) -> Any:
        return self.model.config

    @property
    def _generation(self) -> Any:
        generation: Any = self.model.generation_config
        return generation

    @property
    def _encoder(self) -> Any:
        untyped: Any = self.model
        return untyped.model.encoder

    @property
    def _start(self) -> Tensor:
        """The tokens before every text: (1, 1)."""
        start = self._generation.decoder_start_token_id
        return torch.tensor([[start]], device=self.device)

    @property
    def _longest(self) -> int:
        """The most tokens of a text, its end included, by the generation config."""
        generation = self._generation
        positions = int(self._config.max_position_embeddings)
        # max_length counts the token before the text as well.
        most = generation.max_new_tokens or (generation.max_length or positions) - 1
        return min(int(most), positions - 1)

    def encoded(
        self, batch: Sequence[Tensor], draws: Draws | None = None
    ) -> list[Tensor]:
        """Return the encoder's output of each utterance: (frames, width).

        batch: features, or such outputs, which are returned as they are. draws:
        SpecAugment draws from these, in training mode.
        """
        outputs = list(batch)
        for i, each in enumerate(batch):
            if each.dim() == 1:
                with self._augmented(draws and draws.only([i])):
                    outputs[i] = self._heard(each)
        return outputs

    def _heard(self, samples: Tensor) -> Tensor:
        """Return the encoder's output (frames, width) of (samples,)."""
        inputs = samples[None].to(self.device, non_blocking=True)
        # The encoder keeps nothing, but warns of it in gradient checkpointing.
        frames: Tensor = self._encoder(inputs, use_cache=False).last_hidden_state[0]
        return frames

    def _written(self, frames: Tensor, decoding: TokenByToken) -> WindowText:
        steps = MoonshineSteps(self.model, frames)
        allowed = rules(self._generation, self._longest, self.device)
        if decoding.beam_size > 1:
            (text,) = beam_search(steps, self._start, allowed, decoding.beam_size)
        else:
            (text,) = write(steps, self._start, allowed)
        return WindowText(
            self.spelling.decode(text.tokens), text.log_probability, text.scored
        )

    def _cross_entropy(
        self, frames: Sequence[Tensor], targets: Sequence[Sequence[int]]
    ) -> Tensor:
        """Return the mean cross-entropy over the targets and ends of the batch."""
        untyped: Any = self.model
        start, end = (
            self._generation.decoder_start_token_id,
            end_token(self._generation),
        )
        losses = []
        for each, ids in zip(frames, targets, strict=True):
            given, wanted = torch.tensor([[start, *ids]]), torch.tensor([*ids, end])
            hidden = untyped.model.decoder(
                input_ids=sent(given, self.device),
                encoder_hidden_states=each[None],
                use_cache=False,
            ).last_hidden_state[0]
            logits = untyped.proj_out(hidden).float()
            labels = sent(wanted, self.device)
            losses.append(functional.cross_entropy(logits, labels, reduction="none"))
        return torch.cat(losses).mean()

    @contextmanager
    def _augmented(self, draws: Draws | None) -> Iterator[None]:
        """Mask what comes from the convolutions in the block, as the config says."""
        config = self._config
        if not (self.model.training and getattr(config, "apply_spec_augment", False)):
            yield
            return

        def masked(_module: Any, _inputs: Any, hidden: Tensor) -> Tensor:
            frames = hidden[0].T  # of (1, width, frames)
            nothing, lengths = hidden.new_zeros(()), [len(frames)]
            return spec_augment(frames, lengths, nothing, config, draws).T[None]

        # Not at a layer: gradient checkpointing runs those twice. The activation that
        # follows leaves zeros as they are.
        hook = self._encoder.conv3.register_forward_hook(masked)
        try:
            yield
        finally:
            hook.remove()
