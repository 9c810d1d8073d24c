"""What a step is: batches in; steps of the optimizer, and scores, out.

The objective is the recognizer's; the loop is the same for all families.
"""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch

from thanosql.speech.metrics import EditCounts, character_errors, word_errors
from thanosql.speech.recognizers.precision import within_memory
from thanosql.speech.recognizers.spec_augment import mask_log_mels
from thanosql.speech.training.checkpoint import State
from thanosql.speech.training.conditions import mixed_seed
from thanosql.speech.training.monitoring import LossLog
from thanosql.speech.training.optimization import adamw, rate_factor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thanosql.speech.progress import Progress
    from thanosql.speech.training.batches import Batches, Prepared
    from thanosql.speech.training.utterances import Utterances

_WEIGHTS, _MOMENTS = "model.", "optimizer."  # what tensors of a State begin with


class Score(NamedTuple):
    """How a model reads utterances; lower is better, and the first counts most."""

    is_stuck: bool  # one and the same text is written, whatever is heard
    cer: float  # before WER, which stays near 1 while letters are being learned
    wer: float
    loss: float  # mean over utterances, per target character
    text: str  # the one that is written, if it is one; else empty


@dataclass
class Loop:
    """A training under way: its optimizer, its place in the schedule, its clock."""

    batches: Batches
    utterances: Utterances
    "Those to train on."
    rows: Sequence[tuple[object, object]]
    "(audio, text) of the query they are of."
    progress: Progress
    epoch: int = 0
    step: int = 0
    learning_rate: float = 0.0
    _began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        config = self.config = self.batches.config
        self.recognizer, self.compute = self.batches.recognizer, self.batches.compute
        self.total_steps = config.epochs * math.ceil(
            len(self.utterances) / config.batch_size
        )
        if config.max_steps is not None:
            self.total_steps = min(self.total_steps, config.max_steps)
        self._model: torch.nn.Module = self.recognizer.model
        self._optimizer = adamw(self._model, config.weight_decay)
        self._scaler = self.compute.grad_scaler()
        warmup_steps = round(config.warmup * self.total_steps)
        self._log = LossLog(self.compute.device, warmup_steps)

    def state(self, *, ended: bool) -> State:
        """Return what the next epoch needs of those before: copies, on the CPU.

        Where no epoch follows, that is the weights alone.
        """
        tensors = {
            f"{_WEIGHTS}{name}": tensor
            for name, tensor in trained_state(self._model).items()
        }
        if not ended:
            for number, values in self._optimizer.state_dict()["state"].items():
                for name, value in values.items():
                    tensors[f"{_MOMENTS}{number}.{name}"] = _copied(value)
        return State(
            tensors,
            {
                "epoch": self.epoch,
                "step": self.step,
                "learning_rate": self.learning_rate,
                "elapsed": time.monotonic() - self._began,
                "scaler": self._scaler.state_dict(),
                "log": self._log.state(),
            },
        )

    def restore(self, state: State) -> None:
        """Go on from a state that `state` returned."""
        facts = state.facts
        self._model.load_state_dict(weights_of(state), strict=False)
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in state.tensors.items():
            if name.startswith(_MOMENTS):
                number, _, key = name.removeprefix(_MOMENTS).partition(".")
                moments.setdefault(int(number), {})[key] = tensor
        groups = self._optimizer.state_dict()["param_groups"]
        self._optimizer.load_state_dict({"state": moments, "param_groups": groups})
        if facts["scaler"]:  # empty where it was idle, on a device of another precision
            self._scaler.load_state_dict(facts["scaler"])
        self._log.restore(facts["log"])
        self.epoch, self.step = facts["epoch"], facts["step"]
        self.learning_rate = facts["learning_rate"]
        self._began = time.monotonic() - facts["elapsed"]

    @property
    def first_loss(self) -> float:
        """The mean loss of the first step, on weights that were not trained yet."""
        return self._log.first

    @property
    def ended(self) -> bool:
        """Whether the steps, or the time, are used up."""
        return self.step >= self.total_steps or self._time_share() >= 1

    def _time_share(self) -> float:
        """Return the share of the time limit that is used up; 0 where there is none."""
        if self.config.time_limit is None:
            return 0.0
        return (time.monotonic() - self._began) / self.config.time_limit

    def run_epoch(self) -> tuple[float, float]:
        """Train on every utterance once; return the mean loss, the seconds of audio."""
        self.epoch += 1
        self._model.train()
        # SpecAugment's own, whatever else draws random numbers.
        masks = torch.Generator().manual_seed(mixed_seed(self.config.seed, self.epoch))
        audio_seconds = 0.0
        epoch = self.batches.training(self.utterances, self.rows, self.epoch)
        with closing(epoch) as batches:
            for batch in batches:
                with within_memory(len(batch)):
                    self._train_step(batch, masks)
                audio_seconds += sum(p.utterance.seconds for p in batch)
                self.progress(
                    "train",
                    self.step,
                    self.total_steps,
                    epoch=self.epoch,
                    loss=self._log.latest,
                    learning_rate=self.learning_rate,
                    audio_seconds=audio_seconds,
                )
                if self.ended:
                    break
        return self._log.mean(), audio_seconds

    def _train_step(self, batch: list[Prepared], masks: torch.Generator) -> None:
        """Take one step of the optimizer. Nothing in it waits for a GPU."""
        # Towards whichever end comes first, the last step's or the time limit's.
        done = max((self.step + 1) / (self.total_steps + 1), self._time_share())
        factor = rate_factor(done, self.config.warmup)
        self.learning_rate = self.config.learning_rate * factor
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate
        with self.compute.autocast():
            inputs = self._inputs(batch)
            bins = self.recognizer.mel_bins
            if bins and self.config.spec_augment is True:
                inputs = mask_log_mels(inputs, bins, masks)
            targets = [p.targets for p in batch]
            loss = self.recognizer.loss(inputs, targets, masks)
        torch.autograd.backward(self._scaler.scale(loss.mean))
        self._scaler.unscale_(self._optimizer)
        torch.nn.utils.clip_grad_norm_(
            self._model.parameters(), self.config.max_grad_norm
        )
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self._log.add(loss, len(batch))

    def score(
        self,
        utterances: Utterances,
        rows: Sequence[tuple[object, object]],
    ) -> Score | None:
        """Return how the model as it is reads utterances; None if there are none."""
        if not utterances:
            return None
        self._model.eval()
        words = characters = EditCounts()
        loss, done = 0.0, 0
        first: tuple[str, str] | None = None  # hypothesis and reference
        are_many_written = are_many_wanted = False
        decoding = self.recognizer.decoding
        validation = self.batches.validation(
            utterances, rows, held_out=rows is not self.rows
        )
        with closing(validation) as batches:
            for batch in batches:
                targets = [p.targets for p in batch]
                # Not inference mode, whose tensors training could not use again.
                with (
                    torch.no_grad(),
                    within_memory(len(batch)),
                    self.compute.autocast(),
                ):
                    mean, found = self.recognizer.assess(
                        self._inputs(batch), targets, decoding
                    )
                hypotheses = [hypothesis.text for hypothesis in found]
                references = [self.recognizer.spelling.decode(t) for t in targets]
                words += word_errors(references, hypotheses)
                characters += character_errors(references, hypotheses)
                first = first or (hypotheses[0], references[0])
                are_many_written |= any(text != first[0] for text in hypotheses)
                are_many_wanted |= any(text != first[1] for text in references)
                loss += float(mean) * len(batch)
                done += len(batch)
                self.progress("validate", done, len(utterances), epoch=self.epoch)
        text = first[0] if first is not None and not are_many_written else None
        return Score(
            is_stuck=text == "" or (text is not None and are_many_wanted),
            # Of word delimiters alone there is no rate.
            cer=characters.rate or 0.0,
            wer=words.rate or 0.0,
            loss=loss / done,
            text=text or "",
        )

    def _inputs(self, batch: Sequence[Prepared]) -> list[torch.Tensor]:
        """Return what the first trained layer takes of each, kept if there is room."""
        features = [self.compute.move(p.features) for p in batch]
        inputs = self.recognizer.frozen(features)
        for prepared, moved, frozen in zip(batch, features, inputs, strict=True):
            if prepared.key is not None:
                # Features that no layer has touched are on the CPU already.
                keep = prepared.features if frozen is moved else frozen
                self.batches.cache.add(prepared.key, keep, prepared.targets)
        return inputs


def trained_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return copies, on the CPU, of all that training changes: weights and buffers."""
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    return {
        name: _copied(tensor)
        for name, tensor in model.state_dict().items()
        if name not in frozen
    }


def weights_of(state: State) -> dict[str, torch.Tensor]:
    """Return the weights and buffers of a state, as `trained_state` names them."""
    return {
        name.removeprefix(_WEIGHTS): tensor
        for name, tensor in state.tensors.items()
        if name.startswith(_WEIGHTS)
    }


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()
