"""The steps of a training: batches in; a trained model, losses and scores out.

The recognizer gives the loss, so the loop is the same for all families.
"""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from thanosql.catalog.bases import LEARNING_RATE
from thanosql.speech.recognizers.draws import Draws
from thanosql.speech.recognizers.precision import within_memory
from thanosql.speech.recognizers.spec_augment import mask_log_mels
from thanosql.speech.training.checkpoint import State
from thanosql.speech.training.conditions import freezes_encoder
from thanosql.speech.training.monitoring import LossLog
from thanosql.speech.training.optimization import adamw, rate_factor
from thanosql.speech.training.parallel import ALONE, Group
from thanosql.speech.training.scoring import Score, Tally

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thanosql.speech.progress import Progress
    from thanosql.speech.training.batches import Batches, Prepared
    from thanosql.speech.training.utterances import Utterances

_WEIGHTS, _MOMENTS = "model.", "optimizer."  # prefixes of a State's tensor names


@dataclass
class Loop:
    """A training in progress: its optimizer, its place in the schedule, its clock."""

    batches: Batches
    utterances: Utterances
    "The utterances to train on."
    rows: Sequence[tuple[object, object]]
    "(audio, text) of every row of their query."
    progress: Progress
    group: Group = ALONE
    epoch: int = 0
    step: int = 0
    learning_rate: float = 0.0
    spent_before: float = 0.0
    "Seconds of the time limit that are spent already."
    _began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        options = self.options = self.batches.options
        self.recognizer, self.compute = self.batches.recognizer, self.batches.compute
        self.total_steps = options.epochs * math.ceil(
            len(self.utterances) / options.batch_size
        )
        if options.max_steps is not None:
            self.total_steps = min(self.total_steps, options.max_steps)
        self.highest_rate = options.learning_rate or LEARNING_RATE
        self._model: torch.nn.Module = self.recognizer.model
        self._optimizer = adamw(self._model, options.weight_decay)
        self._loss = self.group.objective(self.recognizer)
        self._scaler = self.compute.grad_scaler()
        warmup_steps = round(options.warmup * self.total_steps)
        self._log = LossLog(self.compute.device, warmup_steps)

    def state(self, *, ended: bool) -> State:
        """Return a copy, on the CPU, of all that the next epoch depends on.

        ended: no epoch follows, so the state of the optimizer is left out.
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
                "spent_before": self.spent_before,
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
        if facts["scaler"]:  # empty if the training was not in fp16 before
            self._scaler.load_state_dict(facts["scaler"])
        self._log.restore(facts["log"])
        self.epoch, self.step = facts["epoch"], facts["step"]
        self.learning_rate = facts["learning_rate"]
        self._began = time.monotonic() - facts["elapsed"]
        self.spent_before = facts.get("spent_before", 0.0)  # not in older ones

    @property
    def first_loss(self) -> float:
        """The mean loss of the first step, on weights that were not trained yet."""
        return self._log.first

    @property
    def ended(self) -> bool:
        """Whether the steps or the time limit are used up."""
        return self.step >= self.total_steps or self._time_share() >= 1

    def _time_share(self) -> float:
        """Return the share of the time limit that is used up; 0 without a limit."""
        if self.options.time_limit is None:
            return 0.0
        left = self.options.time_limit - self.spent_before
        share = (time.monotonic() - self._began) / left if left > 0 else 1.0
        return self.group.agreed(share)

    def run_epoch(self) -> tuple[float, float]:
        """Train on every utterance once; return the mean loss and seconds of audio.

        Ends early when the steps or the time limit are used up.
        """
        self.epoch += 1
        self._model.train()
        if freezes_encoder(self.recognizer, self.utterances, self.options):
            # Nor may batch norms of what is frozen take other means.
            for name, module in self._model.named_modules():
                if name and self.recognizer.encodes(name):
                    module.training = False
        if self.recognizer.adapter is not None:
            self.recognizer.adapter.hold_norms(self._model)
        audio_seconds = 0.0
        epoch = self.batches.training(self.utterances, self.rows, self.epoch)
        with closing(epoch) as batches:
            buckets = self.batches.buckets(self.utterances, self.epoch)
            for bucket, batch in zip(buckets, batches, strict=True):
                with within_memory(len(batch)):
                    self._train_step(batch, len(bucket))
                audio_seconds += sum(self.utterances.seconds[i] for i in bucket)
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

    def _train_step(self, batch: list[Prepared], count: int) -> None:
        """Take one step of the optimizer, without waiting for a GPU.

        batch: this process' share of `count` utterances.
        """
        # The rate falls towards the last step or the time limit, whichever is nearer.
        done = max((self.step + 1) / (self.total_steps + 1), self._time_share())
        factor = rate_factor(done, self.options.warmup)
        self.learning_rate = self.highest_rate * factor
        for group in self._optimizer.param_groups:
            group["lr"] = self.learning_rate
        if self.recognizer.adapter is not None:
            self.recognizer.adapter.apply()
        with self.compute.autocast():
            draws = Draws.of(
                self.options.seed,
                self.epoch,
                self.step,
                [p.utterance.row for p in batch],
            )
            inputs = self._inputs(batch, draws)
            targets = [p.targets for p in batch]
            mine, loss = self._loss(inputs, targets, draws, count)
        if mine.requires_grad:  # LayerDrop may leave out all that is adapted
            torch.autograd.backward(self._scaler.scale(mine))
            self._scaler.unscale_(self._optimizer)
            torch.nn.utils.clip_grad_norm_(
                self._model.parameters(), self.options.max_grad_norm
            )
            self._scaler.step(self._optimizer)
            self._scaler.update()
            self._optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self._log.add(loss, count)

    def score(
        self,
        utterances: Utterances,
        rows: Sequence[tuple[object, object]],
    ) -> Score | None:
        """Return the score of the current weights; None without utterances."""
        if not utterances:
            return None
        self._model.eval()
        if self.recognizer.adapter is not None:
            self.recognizer.adapter.settle()
        tally = Tally()
        decoding = self.recognizer.decoding()
        validation = self.batches.validation(
            utterances, rows, held_out=rows is not self.rows
        )
        with closing(validation) as batches:
            for batch in batches:
                targets = [p.targets for p in batch]
                # Not inference mode: training could not use its tensors from the cache.
                with (
                    torch.no_grad(),
                    within_memory(len(batch)),
                    self.compute.autocast(),
                ):
                    mean, found = self.recognizer.assess(
                        self._inputs(batch), targets, decoding
                    )
                tally += Tally.of(
                    [self.recognizer.spelling.decode(t) for t in targets],
                    [hypothesis.text for hypothesis in found],
                    float(mean),
                )
                # The other processes have done as many, but at the end.
                done = min(tally.count * self.group.world, len(utterances))
                self.progress("validate", done, len(utterances), epoch=self.epoch)
        return sum(self.group.gathered(tally), Tally()).score()

    def _inputs(
        self, batch: Sequence[Prepared], draws: Draws | None = None
    ) -> list[torch.Tensor]:
        """Return the inputs of the first trained layer, and cache them.

        draws: of the masks of SpecAugment, where the options ask for it. Log-mels that
        are masked anew in each epoch are cached as they were.
        """
        features = [self.compute.move(p.features) for p in batch]
        bins = self.recognizer.mel_bins
        masked = bool(bins) and self.options.spec_augment is True and draws is not None
        inputs = features if masked else self.recognizer.frozen(features)
        for prepared, moved, frozen in zip(batch, features, inputs, strict=True):
            if prepared.key is not None:
                # If no layer is frozen, the features on the CPU are the same.
                keep = prepared.features if frozen is moved else frozen
                self.batches.cache.add(prepared.key, keep, prepared.targets)
        return mask_log_mels(inputs, bins, draws) if masked else inputs


def trained_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return copies, on the CPU, of all weights and buffers that training changes.

    Weights that have two names are copied once, under the first.
    """
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    named = dict(model.named_parameters(remove_duplicate=False))
    return {
        name: _copied(tensor)
        for name, tensor in model.state_dict().items()
        if name in trained or name not in named
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
