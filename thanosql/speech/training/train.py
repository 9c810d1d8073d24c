"""Train a model: examined rows in, an `EpochResult` for each epoch out.

`loop.py` has the steps of an epoch. This file runs the epochs, keeps the weights of the
best one and writes checkpoints.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from thanosql.errors import TrainingError
from thanosql.speech.progress import Progress, silent
from thanosql.speech.recognizers.precision import resolve
from thanosql.speech.results import EpochResult
from thanosql.speech.training.batches import Batches
from thanosql.speech.training.caching import FeatureCache
from thanosql.speech.training.checkpoint import State
from thanosql.speech.training.conditions import (
    freezes_encoder,
    frozen,
    gradient_checkpointing,
    seeded,
    spec_augmented,
)
from thanosql.speech.training.head import train_head
from thanosql.speech.training.loop import Loop, trained_state, weights_of
from thanosql.speech.training.parallel import ALONE, Group
from thanosql.speech.training.scoring import Score

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from pathlib import Path

    import torch

    from thanosql.speech.recognizers.recognizer import Recognizer
    from thanosql.speech.training.checkpoint import Checkpoints
    from thanosql.speech.training.relay import Relay
    from thanosql.speech.training.utterances import Utterances
    from thanosql.statements import BuildOptions

SAMPLE = 8  # training utterances that are scored if none are held out
# After a training that raised the loss, the model counts as worse if its CER rose by
# more than this, or if its loss is more than factor * before + margin.
WORSE_CER = 0.1
WORSE_LOSS = 2.0, 1.0  # factor, margin


def train(
    recognizer: Recognizer,
    rows: Sequence[tuple[object, object]],
    utterances: Utterances,
    validation_utterances: Utterances,
    options: BuildOptions,
    root: Path | None,
    progress: Progress = silent,
    *,
    validation_rows: Sequence[tuple[object, object]] | None = None,
    checkpoints: Checkpoints | Relay | None = None,
    group: Group = ALONE,
    head_first: bool = True,
) -> Generator[EpochResult, None, None]:
    """Train the recognizer's model, yielding the result of each epoch.

    rows: (audio, text) each, as `examine` saw them. validation_rows: the rows of the
    validation utterances; None if they are `rows`. Both are read in the calling thread.
    checkpoints: keeps the training's state after each epoch. If it has a state already,
    which must be of the same arguments, the training goes on from it; the results of
    the epochs before it are yielded first. group: of several processes, each calls this
    with the same arguments but for `progress`; each yields the same, and has the same
    weights. head_first: whether fresh last layers are trained by themselves before,
    where the recognizer asks for it.

    When exhausted, the model holds the weights of the epoch with the best `Score` on
    the validation utterances (lowest CER, then WER), or of the last epoch if there are
    none, and is in evaluation mode. The same seed gives the same weights on a CPU,
    whether the training was interrupted or not. At each yield the global generators of
    torch and numpy have the states they had before.

    Raises TrainingError if the loss becomes NaN or infinite, if the model writes the
    same text for every recording, or if it is worse than before the training;
    AudioError if a recording can no longer be read; OptionError if the device or
    precision is not available here.
    """
    if not utterances:
        message = "there is no utterance to train on"
        raise TrainingError(message)
    if validation_rows is None:
        validation_rows = rows
    compute = resolve(options.device, options.precision)
    model: torch.nn.Module = recognizer.model
    model.to(compute.device)
    before: Score | None = None  # of the weights that the training begins with
    best: Score | None = None
    best_epoch = 0
    kept: Mapping[str, torch.Tensor] = {}  # the best weights; empty if the model's own
    results: list[EpochResult] = []
    began = time.monotonic()
    try:
        with (
            frozen(
                recognizer,
                feature_encoder=options.freeze_feature_encoder is not False,
                encoder=freezes_encoder(recognizer, utterances, options),
            ),
            gradient_checkpointing(recognizer.model, options.gradient_checkpointing),
            spec_augmented(recognizer, options.spec_augment),
            group.training(recognizer),
        ):
            cache = FeatureCache(options.feature_cache)
            batches = Batches(
                recognizer, options, compute, root, cache, group.rank, group.world
            )
            saved = None if checkpoints is None else checkpoints.load()
            if (
                head_first
                and saved is None
                and recognizer.head_first
                and recognizer.fresh
                and not freezes_encoder(recognizer, utterances, options)
            ):
                # Each process of the group by itself; they go on with the first's.
                train_head(batches, utterances, rows, progress)
            spent = time.monotonic() - began
            loop = Loop(batches, utterances, rows, progress, group, spent_before=spent)
            if saved is not None:
                at, kept = saved
                loop.restore(at)
                best_epoch = at.facts["best_epoch"]
                if at.facts["best"] is not None:
                    best = Score(*at.facts["best"])
                    if best_epoch == loop.epoch and not loop.ended:
                        kept = weights_of(at)
                if at.facts["before"] is not None:
                    before = Score(*at.facts["before"])
                results = [EpochResult(**values) for values in at.facts["results"]]
                del saved, at
                yield from results
            elif not recognizer.fresh:  # with fresh weights it cannot transcribe yet
                with compute.tf32():
                    before = loop.score(validation_utterances, validation_rows)
            # At least one epoch is trained, however short the time limit is.
            ended = bool(results) and loop.ended
            while not ended:
                epoch_began = time.monotonic()
                with (
                    compute.tf32(),
                    seeded(options.seed, loop.epoch + 1, compute.device, group.rank),
                ):
                    train_loss, audio_seconds = loop.run_epoch()
                    score = loop.score(validation_utterances, validation_rows)
                ended = loop.ended
                improved = score is None or best is None or score < best
                state: State | None = None
                # While the last state is still being written, this epoch is skipped:
                # training does not wait for the disk.
                if checkpoints is not None and (ended or checkpoints.ready):
                    state = loop.state(ended=ended)
                if improved:
                    best, best_epoch = score, loop.epoch
                    # The last epoch's weights are in the model and need no copy.
                    kept = {}
                    if score is not None and not ended:
                        kept = weights_of(state) if state else trained_state(model)
                results.append(
                    EpochResult(
                        epoch=loop.epoch,
                        steps=loop.step,
                        train_loss=train_loss,
                        validation_loss=score.loss if score else None,
                        wer=score.wer if score else None,
                        cer=score.cer if score else None,
                        learning_rate=loop.learning_rate,
                        audio_seconds=audio_seconds,
                        seconds=time.monotonic() - epoch_began,
                        best=improved,
                    )
                )
                if checkpoints is not None and state is not None:
                    facts = {
                        **state.facts,
                        "before": before,
                        "best": best,
                        "best_epoch": best_epoch,
                        "results": [asdict(result) for result in results],
                    }
                    checkpoints.save(
                        State(state.tensors, facts), {} if improved else kept
                    )
                    state = None  # frees three times the memory of the model
                yield results[-1]
            model.load_state_dict(kept, strict=False)
        # From all over: rows that lie together may have one text.
        some = utterances[:: -(-len(utterances) // SAMPLE)]
        after = best or loop.score(some, rows)
        if after is not None:
            when = f"epoch {loop.epoch}, step {loop.step}"
            _check(before, loop.first_loss, after, when, loop.highest_rate)
    finally:
        model.eval()
        if recognizer.adapter is not None:
            recognizer.adapter.settle()


def _check(
    before: Score | None,
    first_loss: float,
    after: Score,
    when: str,
    rate: float,
) -> None:
    """Raise TrainingError if the model is useless, or was better before.

    before: of the weights that the training began with, on the same utterances as
    `after`. Where it is None, `first_loss`, the first step's, says what was before.
    """
    way_out = f"another learning_rate than {rate:g}"
    if after.is_stuck:
        what = repr(after.text) if after.text else "nothing"
        message = (
            f"the model writes {what}, whatever it hears ({when}, loss "
            f"{after.loss:.2f}); train for more epochs, with {way_out}, or from a "
            "larger or a pretrained base"
        )
        raise TrainingError(message)
    before_loss = first_loss if before is None else before.loss
    factor, margin = WORSE_LOSS
    is_worse = after.loss > factor * before_loss + margin
    cer = ""
    if before is not None:
        is_worse |= after.loss > before.loss and after.cer > before.cer + WORSE_CER
        cer = f"its CER of {before.cer:.2f} became {after.cer:.2f}, "
    if is_worse:
        message = (
            f"the model reads worse than before it was trained ({when}): {cer}its loss "
            f"of {before_loss:.2f} became {after.loss:.2f}; train with {way_out}, or "
            "for fewer epochs"
        )
        raise TrainingError(message)
