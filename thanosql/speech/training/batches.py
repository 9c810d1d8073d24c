"""Make the batches of a training: examined rows in, features and target ids out.

Rows are read in the calling thread, up to two batches ahead of the training step. A
`FeatureCache` keeps as many features as its budget allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
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
    from thanosql.speech.training.utterances import Utterance, Utterances
    from thanosql.statements import BuildOptions

# Before durations are sorted, each is changed at random: by up to this share of it, and
# by up to this many seconds.
NOISE_SHARE = 0.1
NOISE_SECONDS = 1.0
AHEAD = 2  # batches that threads prepare while the model works on one


class Prepared(NamedTuple):
    """An utterance of a batch, ready for the model."""

    utterance: Utterance
    key: Key | None  # for the cache; None if the features are never used again
    features: torch.Tensor  # on the CPU, as `Recognizer.features` or `frozen` made them
    targets: tuple[int, ...]


class _Task(NamedTuple):
    utterance: Utterance
    key: Key
    audio: object  # None if the cache has the features
    features: torch.Tensor | None  # from the cache
    targets: tuple[int, ...]


@dataclass(frozen=True)
class Batches:
    """The batches of a training.

    With several processes, the share of each batch that belongs to process `rank` of
    `world`: every `world`-th utterance, so that the shares are of like length.
    """

    recognizer: Recognizer
    options: BuildOptions
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
        """Yield the share of each of `buckets`, at speeds and noises of this epoch.

        rows: (audio, text) of every row of the query. A share that would be empty has
        the first utterance of the batch: every process takes every step.
        """
        options = self.options
        speeds = [1.0] * len(utterances)
        if options.speed_perturbation:
            speeds = draw_speeds(len(utterances), options.seed, epoch)
        batches = (
            [
                (utterances[i], speeds[i])
                for i in bucket[self.rank :: self.world] or bucket[:1]
            ]
            for bucket in self.buckets(utterances, epoch)
        )
        noisy = epoch if options.noise_perturbation else None
        return self._prepared(batches, rows, noisy=noisy)

    def buckets(self, utterances: Utterances, epoch: int) -> Iterator[list[int]]:
        """Yield the indexes of each batch of an epoch, of all processes together."""
        options = self.options
        return length_buckets(
            utterances.seconds, options.batch_size, options.seed, epoch
        )

    def validation(
        self,
        utterances: Utterances,
        rows: Sequence[tuple[object, object]],
        *,
        held_out: bool,
    ) -> Generator[list[Prepared], None, None]:
        """Yield utterances sorted by length, without perturbation.

        With several processes, every `world`-th batch is one's own.

        held_out: whether `rows` are those of a validation query.
        """
        by_length = np.argsort(utterances.seconds, kind="stable")
        whole = ((utterances[int(i)], 1.0) for i in by_length)
        batches = chunks(whole, self.options.batch_size)
        batches = islice(batches, self.rank, None, self.world)
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

        noisy: the epoch to draw noise for. Such features are not cached, since every
        epoch draws others. None adds no noise.
        """

        def task(utterance: Utterance, speed: float) -> _Task:
            key = Key(held_out, utterance.row, speed)
            kept = self.cache.get(key) if noisy is None else None
            if kept is not None:
                return _Task(utterance, key, None, *kept)
            audio, text = rows[utterance.row - 1]
            # Here, in the calling thread: tokenizers are not thread-safe.
            targets = self.recognizer.targets(str(text))
            return _Task(utterance, key, audio, None, targets)

        def prepare(task: _Task) -> Prepared:
            utterance, key, audio, features, targets = task
            if features is None:
                acoustics = None
                if noisy is not None:
                    acoustics = draw_acoustics(self.options.seed, noisy, utterance.row)
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
        return prefetched_batches(tasks, prepare, AHEAD * self.options.batch_size)


def length_buckets(
    seconds: Sequence[float], batch_size: int, seed: int, epoch: int
) -> Iterator[list[int]]:
    """Yield one epoch's batches of indexes, each of utterances of similar length.

    Every index comes once. Sorting by a randomly changed duration keeps padding small
    (an eighth, on LibriSpeech) and still gives an utterance other neighbours in each
    epoch. Commands of one word differ by less than `NOISE_SECONDS`, so they are mixed
    freely. They must be: their length tells the word, and batches of one word teach
    badly. The order of the batches is shuffled, so the last one, which may be smaller,
    can come anywhere.
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
    """Return the features of a row's recording: (samples,) or (frames, mels).

    value: the row's audio. speed: the factor by which it is played faster. If `targets`
    do not fit then, the original speed is used; if they do not fit either, silence is
    added at the end. acoustics: the room, noise and microphone to add; None adds none.
    Raises AudioError naming the row.
    """
    with naming(row):
        waveform = load(value, root)
        # The first of these that has enough frames for the text.
        for variant in (change_speed(waveform, speed), waveform, lengthened(waveform)):
            features = recognizer.features(
                variant if acoustics is None else hear(variant, acoustics)
            )
            heard = len(variant) / SAMPLE_RATE
            if not recognizer.misfit(targets, len(features), heard):
                break
        return features


def lengthened(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a recording (samples,) with `CUT_OFF` seconds of silence at its end.

    A word that was cut out closely may be a frame or two short of its letters.
    """
    return np.pad(waveform, (0, round(CUT_OFF * SAMPLE_RATE)))
