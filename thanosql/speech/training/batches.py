"""What a batch is: examined rows in, features ready for the model out.

Rows are read, in the calling thread, one to two batches ahead of the step they are
for; of them a `FeatureCache` keeps what fits its budget.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from thanosql.speech.prefetch import chunks, prefetched_batches
from thanosql.speech.recognizers.ctc import CUT_OFF
from thanosql.speech.sound.audio import SAMPLE_RATE, load
from thanosql.speech.sound.augmentation import (
    Acoustics,
    change_speed,
    draw_acoustics,
    draw_speeds,
    hear,
)
from thanosql.speech.sound.files import naming
from thanosql.speech.training.caching import FeatureCache, Key

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

    from thanosql.speech.recognizers.precision import Compute
    from thanosql.speech.recognizers.recognizer import Recognizer
    from thanosql.speech.training.config import TrainingConfig
    from thanosql.speech.training.utterances import Utterance, Utterances

# Durations are jittered before they are sorted, by a share of each and by seconds.
NOISE_SHARE = 0.1
NOISE_SECONDS = 1.0
AHEAD = 2  # batches prepared in threads while the model works on one


class Prepared(NamedTuple):
    """An utterance of a batch."""

    utterance: Utterance
    key: Key | None  # None where the features are never needed again
    features: torch.Tensor  # on the CPU; perhaps those behind the frozen layers
    targets: tuple[int, ...]


class _Task(NamedTuple):
    utterance: Utterance
    key: Key
    audio: object  # None where the features were kept
    features: torch.Tensor | None
    targets: tuple[int, ...]


@dataclass(frozen=True)
class Batches:
    """The batches of a training, or, of `world` processes, one rank's share of each."""

    recognizer: Recognizer
    config: TrainingConfig
    compute: Compute
    root: Path | None
    cache: FeatureCache
    rank: int = 0
    world: int = 1

    def training(
        self,
        utterances: Utterances,
        rows: Sequence[tuple[object, object]],
        epoch: int,
    ) -> Generator[list[Prepared], None, None]:
        """Yield every utterance once, each as the epoch draws its speed and noise.

        rows: (audio, text) of the query, by position.
        """
        config = self.config
        speeds = [1.0] * len(utterances)
        if config.speed_perturbation:
            speeds = draw_speeds(len(utterances), config.seed, epoch)
        buckets = length_buckets(
            utterances.seconds, config.batch_size, config.seed, epoch
        )
        batches = (
            [(utterances[i], speeds[i]) for i in bucket[self.rank :: self.world]]
            for bucket in buckets
        )
        noisy = epoch if config.noise_perturbation else None
        return self._prepared(batches, rows, noisy=noisy)

    def validation(
        self,
        utterances: Utterances,
        rows: Sequence[tuple[object, object]],
        *,
        held_out: bool,
    ) -> Generator[list[Prepared], None, None]:
        """Yield every utterance as it is, by length.

        held_out: whether `rows` are those of a validation query.
        """
        by_length = np.argsort(utterances.seconds, kind="stable")
        whole = ((utterances[int(i)], 1.0) for i in by_length)
        batches = chunks(whole, self.config.batch_size)
        return self._prepared(batches, rows, held_out=held_out)

    def _prepared(
        self,
        batches: Iterable[list[tuple[Utterance, float]]],
        rows: Sequence[tuple[object, object]],
        *,
        held_out: bool = False,
        noisy: int | None = None,
    ) -> Generator[list[Prepared], None, None]:
        """Yield the batches with their features, each utterance at its speed.

        noisy: the epoch with whose noises they are heard, this once and never again.
        """

        def task(utterance: Utterance, speed: float) -> _Task:
            key = Key(held_out, utterance.row, speed)
            kept = self.cache.get(key) if noisy is None else None
            if kept is not None:
                return _Task(utterance, key, None, *kept)
            audio, text = rows[utterance.row - 1]
            # In this thread, since a tokenizer is not made for several.
            targets = self.recognizer.targets(str(text))
            return _Task(utterance, key, audio, None, targets)

        def prepare(task: _Task) -> Prepared:
            utterance, key, audio, features, targets = task
            if features is None:
                acoustics = None
                if noisy is not None:
                    acoustics = draw_acoustics(self.config.seed, noisy, utterance.row)
                features = self.compute.stage(
                    row_features(
                        self.recognizer,
                        utterance.row,
                        audio,
                        targets,
                        self.root,
                        key.speed,
                        acoustics,
                    )
                )
            kept_as = key if noisy is None else None
            return Prepared(utterance, kept_as, features, targets)

        tasks = ([task(u, speed) for u, speed in batch] for batch in batches)
        return prefetched_batches(tasks, prepare, AHEAD * self.config.batch_size)


def length_buckets(
    seconds: Sequence[float], batch_size: int, seed: int, epoch: int
) -> Iterator[list[int]]:
    """Yield one epoch's batches of indexes, each of utterances of similar length.

    Every index comes once. Sorting by a jittered duration keeps padding small (an
    eighth, on LibriSpeech) and yet mixes the neighbours anew each epoch. Among short
    commands a second's difference is all of it, and length tells the word: those are
    mixed at will, since batches of one word teach badly. The order of the batches is
    shuffled, and any one of them may be the short one.
    """
    random = np.random.default_rng((seed, epoch))
    jittered = np.asarray(seconds) * random.uniform(
        1 - NOISE_SHARE, 1 + NOISE_SHARE, len(seconds)
    ) + random.uniform(0, NOISE_SECONDS, len(seconds))
    order = np.argsort(jittered, kind="stable")
    for batch in random.permutation(-(-len(order) // batch_size)):
        yield order[batch * batch_size : (batch + 1) * batch_size].tolist()


def row_features(
    recognizer: Recognizer,
    row: int,
    value: object,
    targets: Sequence[int],
    root: Path | None,
    speed: float = 1.0,
    acoustics: Acoustics | None = None,
) -> torch.Tensor:
    """Return a row's recording as the model's features: (samples,) or (frames, mels).

    value: its audio. speed: played so many times as fast, unless `targets` would then
    no longer fit; silence is added where they do not fit otherwise. acoustics: under
    these, or else as it is. Raises AudioError that names the row.
    """
    with naming(row):
        waveform = load(value, root)
        # The later ones only where the text does not fit into those before.
        for heard in (change_speed(waveform, speed), waveform, lengthened(waveform)):
            features = recognizer.features(
                heard if acoustics is None else hear(heard, acoustics)
            )
            if not recognizer.misfit(targets, len(features), 0.0):
                break
        return features


def lengthened(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a recording (samples,) with the silence that was cut off its end.

    A word cut out closely may have a frame or two less than its letters need.
    """
    return np.pad(waveform, (0, round(CUT_OFF * SAMPLE_RATE)))
