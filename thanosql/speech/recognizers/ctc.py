"""CTC models: features in; best path or CTC loss out, the same for all CTC families.

Graves et al. 2006, "Connectionist temporal classification": each frame emits a
character or a blank; repeats are merged and blanks dropped; the loss is the negative
log-probability of all frame sequences that read as the target.
"""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch.nn import functional

from thanosql.errors import DataError
from thanosql.speech.decoding.alignment import Aligning
from thanosql.speech.decoding.beam import Beam
from thanosql.speech.decoding.best_path import BestPath, TimedBestPath
from thanosql.speech.decoding.decoding import NO_REQUEST, Request, decode, refuse
from thanosql.speech.decoding.spelling import Spelling
from thanosql.speech.decoding.words import Grid
from thanosql.speech.recognizers.precision import sent
from thanosql.speech.recognizers.quantization import quantized
from thanosql.speech.recognizers.recognizer import Loss, Recognizer
from thanosql.speech.sound.audio import SAMPLE_RATE
from thanosql.speech.sound.pauses import WithSpeech
from thanosql.speech.sound.windows import layout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from thanosql.speech.recognizers.draws import Draws
    from thanosql.speech.results import Hypothesis
    from thanosql.speech.sound.windows import Windows

# How the names of the layer that scores the vocabulary begin, over all CTC classes of
# transformers. Granite ties it to a layer half-way and saves it under that one's name.
LAST_LAYERS = ("lm_head.", "ctc_head.", "encoder.out.")
_MOST_FRAMES = 400  # a second; 12 to 50 are usual, and attention costs their square
# Why a CTC model refuses the options of the others.
_REASONS = {
    "language": "a CTC model writes the language that it was trained on",
    "task": "a CTC model writes what it hears, and cannot translate",
    "prompt": "a CTC model scores every frame by itself, whatever came before",
}
CUT_OFF = 0.1  # seconds of silence that training may add to a recording's end


@dataclass(eq=False)
class CTCRecognizer(Recognizer):
    """A model that scores, for every frame, each character and the blank."""

    alone: bool = False
    """Whether `scores` takes one utterance at a time.

    A batch changes an utterance by float noise, but rounding to int8 makes more than
    noise of it.
    """

    last_layers = LAST_LAYERS
    objective = "ctc"

    def check(self, where: str) -> None:
        """Raise if model, tokenizer and feature extractor do not belong together."""
        super().check(where)
        config, tokenizer = self.model.config, self.tokenizer
        # If config and tokenizer name different blanks, the tokenizer's is taken:
        # published models are decoded with it.
        if tokenizer.pad_token_id is not None:
            config.pad_token_id = tokenizer.pad_token_id
        outputs = config.vocab_size
        known = set(tokenizer.get_vocab().values())
        if config.pad_token_id not in range(outputs) or not (
            self.spelling.ids <= set(range(outputs)) <= known | {config.pad_token_id}
        ):
            message = (
                f"{where}: the model has {outputs} outputs, its tokenizer {len(known)} "
                f"tokens up to id {max(known)}, with blank {config.pad_token_id}; "
                "they do not belong together"
            )
            raise DataError(message)

    @property
    def fp32_layers(self) -> tuple[str, ...]:
        """How the names of the linear layers end that `int8` leaves in fp32."""
        return ()

    @property
    def blank(self) -> int:
        """The token id of the CTC blank."""
        return int(self.model.config.pad_token_id)

    @abstractmethod
    def logits(
        self, batch: Sequence[Tensor], draws: Draws | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return logits (batch, frames, vocab), zero-padded, and lengths (batch,).

        batch: features; lengths: int64, on the CPU. An utterance too short for a frame
        has length 0. draws: as in `loss`.
        """

    @abstractmethod
    def frames(self, length: int) -> int:
        """Return how many frames of logits features of this length give; may be 0."""

    @cached_property
    def spelling(self) -> Spelling:
        """The conversion of text to target ids and back, for the model's vocabulary."""
        return Spelling(self.tokenizer, self.model.config.vocab_size)

    def windows(
        self, chunk_seconds: float, vad: Literal["auto"] | bool = "auto"
    ) -> Windows:
        """Return windows that overlap, the same whether speech is looked for or not.

        It is looked for only if `vad` is True.
        """
        plan = layout(self.stride, chunk_seconds)
        return WithSpeech(plan) if vad is True else plan

    def decoding(
        self, request: Request = NO_REQUEST
    ) -> BestPath | TimedBestPath | Beam | Aligning:
        """Return the decoding that a statement asks for.

        It is the best path, with times where words are asked for; a beam search; or
        what aligns a text. Raises OptionError for what only a model that writes by
        itself can do, and for a language model or hotwords that the vocabulary cannot
        spell.
        """
        others = "models that write text by themselves, such as WhisperTinyEn"
        refuse(request, _REASONS, others)
        grids = self.frame_grid, self.feature_grid
        if request.align:
            return Aligning(self.spelling, self.blank, *grids)
        if request.searches:
            outputs = self.model.config.vocab_size
            return Beam(self.spelling, self.blank, outputs, request, grids)
        if request.words:
            return TimedBestPath(self.spelling, self.blank, *grids)
        return BestPath(self.spelling, self.blank)

    def scores(
        self,
        batch: Sequence[Tensor],
        decoding: BestPath | TimedBestPath | Beam | Aligning,
    ) -> list[Any]:
        """Return what the decoding needs of each utterance's logits and features."""
        batches = [[each] for each in batch] if self.alone else [batch]
        return [
            row for each in batches for row in decoding.scores(*self.logits(each), each)
        ]

    def loss(
        self,
        batch: Sequence[Tensor],
        targets: Sequence[Sequence[int]],
        draws: Draws | None = None,
    ) -> Loss:
        """Return CTC's loss, and the share of frames that are not blank."""
        logits, lengths = self.logits(batch, draws)
        return Loss(
            ctc_loss(logits, lengths, targets, self.blank),
            speaking_share(logits.detach(), lengths, self.blank),
        )

    def assess(
        self,
        batch: Sequence[Tensor],
        targets: Sequence[Sequence[int]],
        decoding: BestPath,
    ) -> tuple[Tensor, list[Hypothesis]]:
        """Return the mean loss and the hypotheses, both from the same logits."""
        logits, lengths = self.logits(batch)
        hypotheses = decode(decoding, decoding.scores(logits, lengths))
        return ctc_loss(logits, lengths, targets, self.blank), hypotheses

    def misfit(self, targets: Sequence[int], length: int, seconds: float) -> str:
        """Return a message if the frames are too few for the characters; else ""."""
        needed, frames = frames_needed(targets), self.frames(length)
        if frames >= needed:
            return ""
        # Frames grow with the length, so bisection finds the least that suffices.
        lengths = range(1, max(1, length) * 2 * needed * 400)
        least = 1 + bisect_left(lengths, needed, key=self.frames)
        return (
            f"text too long for its audio: {needed} frames are needed for its "
            f"{len(targets)} characters, {seconds:.2f} s give {frames}; it would need "
            f"{seconds * least / max(1, length) - CUT_OFF:.2f} s"
        )

    @property
    def feature_encoder(self) -> nn.Module | None:
        """The convolutions over the waveform; None if the features are log-mels."""
        base: Any = self.model.base_model
        encoder: nn.Module | None = getattr(base, "feature_extractor", None)
        return encoder

    @property
    def stride(self) -> int:
        """The number of samples from one frame of logits to the next."""
        return self.frame_grid.step

    @cached_property
    def feature_grid(self) -> Grid:
        """Where the features of a waveform lie in it.

        The step is measured, because each architecture's config names it differently.
        As many samples are left over after the middle of the last feature as there are
        before that of the first: none where the ends are padded.
        """
        few, many = (len(self.features(_noise(seconds))) for seconds in (1, 5))
        step = round(4 * SAMPLE_RATE / (many - few))
        return Grid(step, (5 * SAMPLE_RATE - (many - 1) * step) // 2)

    @cached_property
    def frame_grid(self) -> Grid:
        """Where the frames of logits lie in the waveform; measured like features."""
        features = 10**9
        step = self.feature_grid.step * round(features / self.frames(features))
        frames = self.frames(len(self.features(_noise(5))))
        return Grid(step, (5 * SAMPLE_RATE - (frames - 1) * step) // 2)

    @torch.inference_mode()
    def try_out(self) -> None:
        """Raise ValueError if a second of noise gives no frames, or NaN or infinity."""
        features = self.features(_noise(1))
        frames = self.frames(len(features))
        if not 1 <= frames <= _MOST_FRAMES:
            message = f"it makes {frames} frames of a second of audio"
            raise ValueError(message)
        logits, _ = self.logits([features])
        if not bool(torch.isfinite(logits).all()):
            message = "its output for a second of noise holds NaN or infinite values"
            raise ValueError(message)

    @cached_property
    def int8(self) -> CTCRecognizer:
        """A copy with products in int8; itself if no layer is large enough."""
        model = quantized(self.model, self._stays_fp32)
        return self if model is None else replace(self, model=model, alone=True)

    def _stays_fp32(self, layer: str) -> bool:
        last = f"{layer}.".startswith(LAST_LAYERS)
        return last or layer.endswith(self.fp32_layers)


def _noise(seconds: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    return rng.normal(0, 0.1, seconds * SAMPLE_RATE).astype(np.float32)


def frames_needed(targets: Sequence[int]) -> int:
    """Return the least number of frames that can spell `targets`.

    It is one for each character, and one for the blank between two equal characters.
    """
    return len(targets) + sum(a == b for a, b in pairwise(targets))


def ctc_loss(
    logits: torch.Tensor,
    lengths: torch.Tensor,
    targets: Sequence[Sequence[int]],
    blank: int,
) -> torch.Tensor:
    """Return the mean over the batch of each utterance's loss per target character.

    logits: (batch, frames, vocab), any precision; lengths: (batch,), on the CPU: the
    frames that are not padding. Each utterance weighs the same, however long its text;
    transformers calls this ``ctc_loss_reduction="mean"``. The loss is infinite if a
    text does not fit its frames.
    """
    log_probs = functional.log_softmax(logits, dim=-1, dtype=torch.float32)
    characters = torch.tensor(list(chain.from_iterable(targets)))
    return functional.ctc_loss(
        log_probs.transpose(0, 1),
        sent(characters, logits.device),
        lengths,
        torch.tensor([len(target) for target in targets]),
        blank=blank,
        reduction="mean",
    )


def speaking_share(
    logits: torch.Tensor, lengths: torch.Tensor, blank: int
) -> torch.Tensor:
    """Return the share of frames whose most likely output is not the blank: a scalar.

    logits: (batch, frames, vocab); lengths: (batch,), on the CPU. CTC training begins
    with a share of 0 (blanks only), and a training that fails stays there.
    """
    counts = torch.arange(logits.shape[1]) < lengths[:, None]
    speaking = (logits.argmax(-1) != blank) & sent(counts, logits.device)
    return speaking.sum() / int(lengths.sum())
