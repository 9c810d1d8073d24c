"""The inside of a training: batches of rows in, steps of the optimizer and scores out.

Rows are read, in the calling thread, one to two batches ahead of the step they are
for; of them a `FeatureCache` keeps what fits its budget.
"""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch

from thanosql.speech.decoding.best_path import greedy_decode
from thanosql.speech.metrics import EditCounts, character_errors, word_errors
from thanosql.speech.recognizers.ctc import ctc_loss, speaking_share
from thanosql.speech.recognizers.padded import forward, frozen_part
from thanosql.speech.recognizers.precision import within_memory
from thanosql.speech.recognizers.spec_augment import mask_log_mels
from thanosql.speech.sound.augmentation import draw_acoustics, draw_speeds
from thanosql.speech.training.batches import (
    chunks,
    length_buckets,
    prefetched,
    row_features,
)
from thanosql.speech.training.caching import FeatureCache, Key
from thanosql.speech.training.checkpoint import State
from thanosql.speech.training.conditions import mixed_seed
from thanosql.speech.training.monitoring import LossLog
from thanosql.speech.training.optimization import adamw, rate_factor

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence
    from pathlib import Path

    from thanosql.speech.progress import Progress
    from thanosql.speech.recognizers.precision import Compute
    from thanosql.speech.recognizers.recognizer import Recognizer
    from thanosql.speech.training.examination import Utterance
    from thanosql.speech.training.train import TrainingConfig

_WEIGHTS, _MOMENTS = "model.", "optimizer."  # what tensors of a State begin with
AHEAD = 2  # batches prepared in threads while the model works on one


class Score(NamedTuple):
    """How a model reads utterances; lower is better, and the first counts most."""

    silent: bool  # not one character was written
    cer: float  # before WER, which stays near 1 while letters are being learned
    wer: float
    loss: float  # mean over utterances, per target character


class _Task(NamedTuple):
    utterance: Utterance
    key: Key
    audio: object  # None where the features were kept
    kept: torch.Tensor | None


class _Prepared(NamedTuple):
    utterance: Utterance
    key: Key | None  # None where they are never needed again
    features: torch.Tensor  # on the CPU; perhaps those behind the frozen layers


@dataclass
class Loop:
    """A training under way: its optimizer, its place in the schedule, its clock."""

    recognizer: Recognizer
    utterances: Sequence[Utterance]
    rows: Sequence[tuple[object, object]]
    config: TrainingConfig
    compute: Compute
    root: Path | None
    progress: Progress
    epoch: int = 0
    step: int = 0
    learning_rate: float = 0.0
    _began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        config = self.config
        self.total_steps = config.epochs * math.ceil(
            len(self.utterances) / config.batch_size
        )
        if config.max_steps is not None:
            self.total_steps = min(self.total_steps, config.max_steps)
        self._model: torch.nn.Module = self.recognizer.model
        self._optimizer = adamw(self._model, config.weight_decay)
        self._scaler = self.compute.grad_scaler()
        self._cache = FeatureCache(config.feature_cache)
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
        with closing(self._training_batches()) as batches:
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

    def _train_step(self, batch: list[_Prepared], masks: torch.Generator) -> None:
        """Take one step of the optimizer. Nothing in it waits for a GPU."""
        # Towards whichever end comes first, the last step's or the time limit's.
        done = max((self.step + 1) / (self.total_steps + 1), self._time_share())
        factor = rate_factor(done, self.config.warmup)
        self.learning_rate = self.config.learning_rate * factor
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate
        loss, logits, lengths = self._forward(batch, masks)
        speaking = speaking_share(logits.detach(), lengths, self.recognizer.blank)
        torch.autograd.backward(self._scaler.scale(loss))
        self._scaler.unscale_(self._optimizer)
        torch.nn.utils.clip_grad_norm_(
            self._model.parameters(), self.config.max_grad_norm
        )
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self._log.add(loss, speaking, len(batch))

    def score(
        self,
        utterances: Sequence[Utterance],
        rows: Sequence[tuple[object, object]],
    ) -> Score | None:
        """Return how the model as it is reads utterances; None if there are none."""
        if not utterances:
            return None
        self._model.eval()
        by_length = sorted(utterances, key=lambda u: u.seconds)
        words = characters = EditCounts()
        loss, done, silent = 0.0, 0, True
        plain = ((u, 1.0) for u in by_length)
        tasks = self._prepared(chunks(plain, self.config.batch_size), rows)
        with closing(tasks) as batches:
            for batch in batches:
                # Not inference mode, whose tensors training could not use again.
                with torch.no_grad(), within_memory(len(batch)):
                    mean, logits, lengths = self._forward(batch)
                    hypotheses = greedy_decode(logits, lengths, self.recognizer)
                references = [
                    self.recognizer.spelling.decode(p.utterance.targets) for p in batch
                ]
                words += word_errors(references, hypotheses)
                characters += character_errors(references, hypotheses)
                silent = silent and not any(hypotheses)
                loss += float(mean) * len(batch)
                done += len(batch)
                self.progress("validate", done, len(by_length), epoch=self.epoch)
        # Of word delimiters alone there is no rate.
        return Score(silent, characters.rate or 0.0, words.rate or 0.0, loss / done)

    def _forward(
        self, batch: Sequence[_Prepared], masks: torch.Generator | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the loss, the logits (batch, frames, vocab) and lengths (batch,)."""
        features = [self.compute.move(p.features) for p in batch]
        with self.compute.autocast():
            inputs = frozen_part(self.recognizer, features)
            for prepared, moved, frozen in zip(batch, features, inputs, strict=True):
                # Features that no layer has touched are on the CPU already.
                keep = prepared.features if frozen is moved else frozen
                if prepared.key is not None:
                    self._cache.add(prepared.key, keep)
            bins = self.recognizer.mel_bins
            if masks is not None and bins and self.config.spec_augment is True:
                inputs = mask_log_mels(inputs, bins, masks)
            logits, lengths = forward(self.recognizer, inputs, generator=masks)
        targets = [p.utterance.targets for p in batch]
        loss = ctc_loss(logits, lengths, targets, self.recognizer.blank)
        return loss, logits, lengths

    def _training_batches(self) -> Generator[list[_Prepared], None, None]:
        config, epoch = self.config, self.epoch
        seconds = [u.seconds for u in self.utterances]
        buckets = length_buckets(seconds, config.batch_size, config.seed, epoch)
        speeds = [1.0] * len(seconds)
        if config.speed_perturbation:
            speeds = draw_speeds(len(seconds), config.seed, epoch)
        batches = ([(self.utterances[i], speeds[i]) for i in b] for b in buckets)
        noisy = epoch if config.noise_perturbation else None
        return self._prepared(batches, self.rows, noisy)

    def _prepared(
        self,
        batches: Iterable[list[tuple[Utterance, float]]],
        rows: Sequence[tuple[object, object]],
        noisy: int | None = None,
    ) -> Generator[list[_Prepared], None, None]:
        """Yield the batches with their features, each utterance at its speed.

        noisy: the epoch with whose noises they are heard, this once and never again.
        """
        held_out = rows is not self.rows

        def task(utterance: Utterance, speed: float) -> _Task:
            key = Key(held_out, utterance.row, speed)
            kept = self._cache.get(key) if noisy is None else None
            audio = rows[utterance.row - 1][0] if kept is None else None
            return _Task(utterance, key, audio, kept)

        def prepare(task: _Task) -> _Prepared:
            utterance, key, audio, features = task
            if features is None:
                acoustics = None
                if noisy is not None:
                    acoustics = draw_acoustics(self.config.seed, noisy, utterance.row)
                features = self.compute.stage(
                    row_features(
                        self.recognizer,
                        utterance.row,
                        audio,
                        self.root,
                        key.speed,
                        utterance.targets,
                        acoustics,
                    )
                )
            return _Prepared(utterance, key if noisy is None else None, features)

        tasks = ([task(u, speed) for u, speed in batch] for batch in batches)
        return prefetched(tasks, prepare, AHEAD)


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
