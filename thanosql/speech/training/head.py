"""Train fresh last layers by themselves: a recognizer in, the same with a head out.

Fresh layers pull a trained encoder away from what it knows, so it is frozen until they
read (Kumar et al. 2022, "Fine-tuning can distort pretrained features and underperform
out-of-distribution"). Its frames are computed once and kept, so an epoch over them
takes a moment.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from thanosql.speech.training.batches import Batches
from thanosql.speech.training.caching import FeatureCache
from thanosql.speech.training.conditions import frozen, mixed_seed, seeded
from thanosql.speech.training.loop import Loop
from thanosql.speech.training.utterances import some_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thanosql.speech.progress import Progress
    from thanosql.speech.training.utterances import Utterances

EPOCHS, STEPS = 10, 400  # at least as many of each
LEARNING_RATE = 2e-3
SECONDS = 3600.0  # of recordings; more hardly make a linear layer better
SHARE = 0.25
KEPT = 10**9  # bytes of frames; an hour of Whisper's tiny encoder is 276 MB


def train_head(
    batches: Batches,
    utterances: Utterances,
    rows: Sequence[tuple[object, object]],
    progress: Progress,
) -> None:
    """Train the fresh layers on an hour of the utterances, drawn by the seed.

    As a training by itself with the encoder frozen, without perturbations, in at most
    `SHARE` of the time limit.
    """
    given = batches.options
    seed = mixed_seed(given.seed, 0)
    some = some_of(utterances, SECONDS, seed)
    options = replace(
        given,
        time_limit=None if given.time_limit is None else SHARE * given.time_limit,
        epochs=max(EPOCHS, -(-STEPS // -(-len(some) // given.batch_size))),
        learning_rate=LEARNING_RATE,
        freeze_encoder=True,
        speed_perturbation=False,
        noise_perturbation=False,
        spec_augment=False,
        max_steps=None,
    )
    recognizer, compute = batches.recognizer, batches.compute
    cache = FeatureCache(KEPT)
    kept = Batches(recognizer, options, compute, batches.root, cache)

    def tell(stage: str, done: float, total: float | None, **facts: float) -> None:
        progress("train the head" if stage == "train" else stage, done, total, **facts)

    with frozen(recognizer, feature_encoder=True, encoder=True):
        loop = Loop(kept, some, rows, tell)
        while not loop.ended:
            with compute.tf32(), seeded(seed, loop.epoch + 1, compute.device):
                loop.run_epoch()
