"""Transducers: log-mels in; a text, or its loss, out.

An encoder makes frames of the recording; a prediction network, an LSTM, sums up the
tokens so far; a joint network scores the next token of a frame and such a sum.
`transducer_search.py` finds the tokens, `transducer_decoding.py` makes them a text,
`transducer_loss.py` has its probability.

The classes of transformers differ in their encoders. Parakeet's is run without padding
on a CPU, by `parakeet.py`; any other, and any on a GPU, by transformers' own forward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from thanosql.errors import DataError, OptionError
from thanosql.speech.decoding.decoding import NO_REQUEST, Request, decode, refuse
from thanosql.speech.decoding.spelling import Spelling
from thanosql.speech.decoding.words import Grid
from thanosql.speech.recognizers import parakeet, transducer_loss
from thanosql.speech.recognizers.padded import padded
from thanosql.speech.recognizers.precision import sent
from thanosql.speech.recognizers.quantization import quantized
from thanosql.speech.recognizers.recognizer import Loss, Recognizer
from thanosql.speech.recognizers.transducer_decoding import Transduction
from thanosql.speech.recognizers.transducer_search import GreedySearch
from thanosql.speech.sound.audio import SAMPLE_RATE
from thanosql.speech.sound.pauses import WithSpeech
from thanosql.speech.sound.windows import layout

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from thanosql.speech.recognizers.draws import Draws
    from thanosql.speech.results import Hypothesis
    from thanosql.speech.sound.windows import Windows

# Why a transducer refuses the options of other models.
_REASONS = {
    "language": "a transducer writes the languages it was trained on, and finds by "
    "itself which one it hears",
    "task": "a transducer writes what it hears, and cannot translate",
    "prompt": "a transducer begins every text anew",
    "alternatives": "a transducer's search is greedy, and finds one text",
    "language_model": "a transducer's search is greedy; a CTC model takes one",
    "lm_weight": "a transducer's search is greedy; a CTC model takes a language model",
    "word_bonus": "a transducer's search is greedy; a CTC model takes a language model",
    "hotwords": "a transducer's search is greedy; a CTC model takes them",
    "own_hotwords": "a transducer's search is greedy; a CTC model takes them",
    "hotword_weight": "a transducer's search is greedy; a CTC model takes hotwords",
    "align": "a transducer does not score every frame by itself; take a CTC model",
}
_LEAST_SHARE = 0.8  # least length of an utterance, as a share of its group's longest


@dataclass(eq=False)
class TransducerRecognizer(Recognizer):
    """A model with a prediction network and a joint network, as Parakeet has them."""

    alone: bool = False
    """Whether the encoder takes one utterance at a time.

    A batch changes an utterance by float noise, but rounding to int8 makes more than
    noise of it.
    """

    objective = "transducer"
    last_layers = ("decoder.embedding.", "joint.head.")

    def check(self, where: str) -> None:
        """Raise if model, tokenizer and feature extractor do not belong together."""
        super().check(where)
        config = self._config
        outputs, blank = config.vocab_size, config.blank_token_id
        known = set(self.tokenizer.get_vocab().values())
        if blank not in range(outputs) or not (
            self.spelling.ids <= set(range(outputs)) <= known | {blank}
        ):
            message = (
                f"{where}: the model has {outputs} outputs, its tokenizer {len(known)} "
                f"tokens up to id {max(known)}, with blank {blank}; they do not belong "
                "together"
            )
            raise DataError(message)
        if blank in self.spelling.ids:
            message = f"{where}: the blank, {blank}, is a token of text as well"
            raise DataError(message)
        if config.max_symbols_per_step < 1:
            message = f"{where}: max_symbols_per_step is less than 1"
            raise DataError(message)
        durations = self._durations
        if durations is not None and (1 not in durations or min(durations) < 0):
            message = (
                f"{where}: the durations {durations} lack 1, or hold one below 0, so "
                "that there are recordings whose end they do not reach"
            )
            raise DataError(message)
        # What transformers' own `generate` needs, and what a bare config does not say:
        # it begins with the blank, and takes no score of a duration for a token's.
        generation: Any = self.model.generation_config
        if generation.decoder_start_token_id is None:
            generation.decoder_start_token_id = blank
        if durations is not None and generation.suppress_tokens is None:
            generation.suppress_tokens = [outputs + i for i in range(len(durations))]

    @cached_property
    def spelling(self) -> Spelling:
        """The conversion of text to target ids and back, for the model's vocabulary."""
        return Spelling(self.tokenizer, self._config.vocab_size)

    @property
    def stride(self) -> int:
        """The number of samples from one frame to the next."""
        encoder = self._config.encoder_config
        return int(self.feature_extractor.hop_length * encoder.subsampling_factor)

    # Recognition

    def windows(
        self, chunk_seconds: float, vad: Literal["auto"] | bool = "auto"
    ) -> Windows:
        """Return windows that overlap, of at most what the encoder has positions for.

        They are the same whether speech is looked for or not, which it is only if `vad`
        is True.
        """
        plan = layout(self.stride, min(chunk_seconds, self._longest_seconds))
        return WithSpeech(plan) if vad is True else plan

    def decoding(self, request: Request = NO_REQUEST) -> Transduction:
        """Return the greedy search.

        Raises OptionError for what other models can do.
        """
        refuse(request, _REASONS, "other models")
        if (request.beam_size or 1) > 1:
            message = (
                "option beam_size is for other models; a transducer's search is "
                "greedy, and weighs one text"
            )
            raise OptionError(message)
        grid = self._grid if request.words else None
        return Transduction(GreedySearch(self.model), self.spelling, grid)

    def scores(self, batch: Sequence[Tensor], decoding: Transduction) -> list[Tensor]:
        """Return the frames of each utterance, on the model's device."""
        return self.encoded(batch)

    @cached_property
    def int8(self) -> Recognizer:
        """A copy whose encoder computes its products in int8.

        The other networks stay in fp32: what is written decides what is written next.
        """
        model = quantized(self.model, lambda layer: not self.encodes(layer))
        return self if model is None else replace(self, model=model, alone=True)

    @torch.inference_mode()
    def try_out(self) -> None:
        """Raise ValueError if its scores for a second of noise are NaN or infinite."""
        noise = np.random.default_rng(0).normal(0, 0.1, SAMPLE_RATE)
        features = self.features(noise.astype(np.float32))
        (frames,) = self.encoded([features])
        blank = torch.tensor([[self._config.blank_token_id]], device=self.device)
        scores = self._untyped.joint(
            encoder_hidden_states=frames,
            decoder_hidden_states=self._untyped.decoder(blank)[0],
        )
        if not len(frames) or not bool(torch.isfinite(scores).all()):
            message = "it makes no frames of a second of noise, or no finite scores"
            raise ValueError(message)

    # Training

    def loss(
        self,
        batch: Sequence[Tensor],
        targets: Sequence[Sequence[int]],
        draws: Draws | None = None,
    ) -> Loss:
        """Return the mean loss per token, and how often the model would write.

        Each utterance weighs the same, however long its text.
        """
        return self._loss(self.encoded(batch), targets)

    def assess(
        self,
        batch: Sequence[Tensor],
        targets: Sequence[Sequence[int]],
        decoding: Transduction,
    ) -> tuple[Tensor, list[Hypothesis]]:
        """Return the mean loss and the hypotheses, both from the same frames."""
        frames = self.encoded(batch)
        return self._loss(frames, targets).mean, decode(decoding, frames)

    def misfit(self, targets: Sequence[int], length: int, seconds: float) -> str:
        """Return why the recording is too long, or its text; "" if neither is."""
        frames = self._frames(length)
        if frames > self._longest:
            return (
                f"recording of {seconds:.2f} s: the model hears at most "
                f"{self._longest_seconds:g} s at once; cut it, and its text, into "
                "shorter ones"
            )
        least = min(self._durations or [0])
        # The last blank moves on by a frame, too.
        most = (frames - 1) // least if least else frames * self._most_written
        if len(targets) > most:
            return (
                f"text too long for its audio: {seconds:.2f} s give {frames} frames, "
                f"at which the model writes at most {most} tokens, not {len(targets)}"
            )
        return ""

    def encodes(self, name: str) -> bool:
        """Return whether a parameter or module is of the encoder."""
        return f"{name}.".startswith("encoder.")

    # The model

    @property
    def _untyped(self) -> Any:
        return self.model

    @property
    def _config(self) -> Any:
        return self.model.config

    @property
    def _durations(self) -> list[int] | None:
        """The frames by which a token may move on; None if the model scores none."""
        durations = getattr(self._config, "durations", None)
        return None if durations is None else [*durations]

    @property
    def _most_written(self) -> int:
        return int(self._config.max_symbols_per_step)

    @property
    def _longest(self) -> int:
        """The most frames that the encoder has positions for."""
        return int(self._config.encoder_config.max_position_embeddings)

    @property
    def _longest_seconds(self) -> float:
        return (self._longest - 1) * self.stride / SAMPLE_RATE

    @property
    def _grid(self) -> Grid:
        """Where the frames lie in a waveform: as far from its beginning as its end."""
        samples = 5 * SAMPLE_RATE
        frames = self._frames(samples // self.feature_extractor.hop_length)
        left = samples - (frames - 1) * self.stride
        return Grid(self.stride, max(0, left // 2))

    def _frames(self, length: int) -> int:
        """Return how many frames features of this length give."""
        formula = self._untyped._get_subsampling_output_length
        return int(formula(torch.tensor([length]))[0])

    def encoded(self, batch: Sequence[Tensor]) -> list[Tensor]:
        """Return the frames of each utterance, as the joint network takes them.

        batch: features. Result: (frames, width) each, on the model's device.
        """
        if self.alone and len(batch) > 1:
            return [frames for each in batch for frames in self.encoded([each])]
        features = [each.to(self.device, non_blocking=True) for each in batch]
        model = self._untyped
        if type(model.encoder).__name__ == "ParakeetEncoder" and (
            parakeet.runs_unpadded(model)
        ):
            hidden, counts = parakeet.encoded(model, features)
            return list(torch.split(model.encoder_projector(hidden), counts))
        found: dict[int, Tensor] = {}
        for group in self._groups(features):
            rows = self._padded([features[i] for i in group])
            found.update(zip(group, rows, strict=True))
        return [found[i] for i in range(len(features))]

    def _padded(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return the frames of utterances that transformers encodes together."""
        lengths = [len(each) for each in features]
        inputs = padded(features, self.least_length)
        mask = torch.arange(inputs.shape[1]) < torch.tensor(lengths)[:, None]
        output = self._untyped.get_audio_features(
            input_features=inputs,
            # Without one a lone utterance is spared the masks of every layer.
            attention_mask=sent(mask, self.device)
            if len(features) > 1 or self.least_length
            else None,
            **self._settings(len(features)),
        )
        return [
            row[: self._frames(length)]
            for row, length in zip(output.pooler_output, lengths, strict=True)
        ]

    def _settings(self, count: int) -> dict[str, Any]:
        """Return what Nemotron is told with `count` utterances: its config's defaults.

        They are how far each frame looks ahead, and that it is to find the language.
        """
        config = self._config
        settings: dict[str, Any] = {}
        if hasattr(config.encoder_config, "default_num_lookahead_tokens"):
            ahead = config.encoder_config.default_num_lookahead_tokens
            settings["num_lookahead_tokens"] = ahead
        if hasattr(config, "default_prompt_id"):
            prompts = torch.full((count,), config.default_prompt_id)
            settings["prompt_ids"] = sent(prompts, self.device)
        return settings

    def _groups(self, features: Sequence[Tensor]) -> Iterator[list[int]]:
        """Yield the indexes of utterances that are encoded together.

        A batch norm that learns must see the whole batch. Otherwise a CPU takes one
        utterance at a time, which keeps all cores busy, and a GPU those of like length.
        """
        share = 0.0 if self.model.training else _LEAST_SHARE
        if self.device.type == "cpu" and not self.model.training:
            share = math.inf
        group: list[int] = []
        for i in sorted(range(len(features)), key=lambda i: -len(features[i])):
            if group and len(features[i]) < share * len(features[group[0]]):
                yield group
                group = []
            group.append(i)
        if group:
            yield group

    def _loss(self, frames: Sequence[Tensor], targets: Sequence[Sequence[int]]) -> Loss:
        """Return the mean over utterances of the loss per token."""
        model, blank = self._untyped, self._config.blank_token_id

        def joint(heard: Tensor, said: Tensor) -> Tensor:
            scores: Tensor = model.joint(
                encoder_hidden_states=heard, decoder_hidden_states=said
            )
            return scores

        given = [torch.tensor([blank, *each]) for each in targets]
        tokens = pad_sequence(given, batch_first=True, padding_value=blank)
        lattice, speaking = transducer_loss.arcs(
            joint,
            frames,
            model.decoder(sent(tokens, self.device)),
            targets,
            blank,
            self._config.vocab_size,
            self._durations,
        )
        total = transducer_loss.log_likelihood(
            lattice, [len(each) for each in frames], targets
        )
        counts = torch.tensor([max(1, len(each)) for each in targets])
        return Loss(-(total / sent(counts, self.device)).mean(), speaking)
