"""Make batches: durations, or rows in order, in; features ready for the model out."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from thanosql.errors import AudioError
from thanosql.speech.recognizers.ctc import frames_needed
from thanosql.speech.recognizers.padded import output_length
from thanosql.speech.sound.audio import SAMPLE_RATE, load
from thanosql.speech.sound.augmentation import Acoustics, change_speed, hear

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from thanosql.speech.recognizers.recognizer import Recognizer

_Item = TypeVar("_Item")
_Prepared = TypeVar("_Prepared")

# Durations are jittered before they are sorted, by a share of each and by seconds.
NOISE_SHARE = 0.1
NOISE_SECONDS = 1.0
CUT_OFF = 0.1  # seconds of silence that a recording may lack at its end
# Decoding is cheap beside any model, which wants the other cores for itself.
WORKERS = max(1, min(8, (os.cpu_count() or 1) - 1))


def length_buckets(
    seconds: Sequence[float], batch_size: int, seed: int, epoch: int
) -> list[list[int]]:
    """Return one epoch's batches of indexes, each of utterances of similar length.

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
    order = np.argsort(jittered, kind="stable").tolist()
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    return [batches[i] for i in random.permutation(len(batches))]


def chunks(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Yield the items in their order, `size` at a time."""
    chunk: list[_Item] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def prefetched(
    batches: Iterable[Sequence[_Item]],
    prepare: Callable[[_Item], _Prepared],
    ahead: int = 1,
) -> Generator[list[_Prepared], None, None]:
    """Yield each batch with `prepare` applied to its items, in order.

    Threads prepare up to `ahead` batches while the caller works on the one before.
    `batches` itself is advanced in the calling thread only, so it may read from a
    SQLite connection. What `prepare` raises is raised here, when that item's batch
    is due. Closing the generator, or any error, ends the threads.
    """
    waiting: deque[deque[Future[_Prepared]]] = deque()
    with preparing_threads() as pool:
        for batch in batches:
            waiting.append(deque(pool.submit(prepare, item) for item in batch))
            if len(waiting) > ahead:
                yield _results(waiting.popleft())
        while waiting:
            yield _results(waiting.popleft())


@contextmanager
def preparing_threads() -> Iterator[ThreadPoolExecutor]:
    """Open the threads that prepare what a model works on next; end them with it.

    Where each of them shared its operations out among threads of its own, as torch
    does, these and the model's would wait for each other: on two cores, half the speed.
    """
    # Each thread has a count of its own, which is, as long as nobody has asked for it,
    # whatever was last set in any: the caller's is asked for before theirs are set, and
    # set again once all of theirs are.
    count = torch.get_num_threads()
    begun = Barrier(WORKERS + 1)
    pool = ThreadPoolExecutor(WORKERS, "thanosql-prepare", _share_nothing_out)
    try:
        for _ in range(WORKERS):
            pool.submit(begun.wait)
        begun.wait()
        torch.set_num_threads(count)
        yield pool
    finally:
        begun.abort()  # where an interrupt came before all had begun
        pool.shutdown(wait=True, cancel_futures=True)


def _share_nothing_out() -> None:
    # Asked for first: else it would be taken over from the others after this.
    torch.get_num_threads()
    torch.set_num_threads(1)


def _results(futures: deque[Future[_Prepared]]) -> list[_Prepared]:
    """Return the results, in order.

    A future that fails is held by no variable when it raises: the error's traceback
    holds the variables, and the future the error, so that neither would ever go.
    """
    results = []
    while futures:
        results.append(futures.popleft().result())
    return results


def row_features(
    recognizer: Recognizer,
    row: int,
    value: object,
    root: Path | None,
    speed: float = 1.0,
    targets: Sequence[int] = (),
    acoustics: Acoustics | None = None,
) -> torch.Tensor:
    """Return a row's recording as the model's features: (samples,) or (frames, mels).

    speed: played so many times as fast, unless `targets` would then no longer fit;
    targets: silence is added where they do not fit otherwise; acoustics: heard under
    these, or else as it is. Raises AudioError that names the row.
    """
    with naming(row):
        waveform = load(value, root)
        # The later ones only where the text does not fit into those before.
        for heard in (change_speed(waveform, speed), waveform, lengthened(waveform)):
            features = recognizer.features(
                heard if acoustics is None else hear(heard, acoustics)
            )
            if frames_needed(targets) <= output_length(recognizer, len(features)):
                break
        return features


def lengthened(waveform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a recording (samples,) with the silence that was cut off its end.

    A word cut out closely may have a frame or two less than its letters need.
    """
    return np.pad(waveform, (0, round(CUT_OFF * SAMPLE_RATE)))


@contextmanager
def naming(row: int) -> Iterator[None]:
    """Put the row's number, from 1, before the reason of an AudioError."""
    try:
        yield
    except AudioError as error:
        message = f"row {row}: {error}"
        raise AudioError(message) from error
