from __future__ import annotations

import threading
from contextlib import closing
from itertools import chain

import numpy as np
import pytest
import torch
from tones import spoken, tones
from toys import config, parakeet

from thanosql.errors import AudioError
from thanosql.speech.prefetch import chunks, prefetched_batches
from thanosql.speech.recognizers.precision import resolve
from thanosql.speech.sound.augmentation import SPEEDS, change_speed, draw_speeds
from thanosql.speech.training.batches import Batches, length_buckets, row_features
from thanosql.speech.training.caching import FeatureCache
from thanosql.speech.training.examination import examine


def preparing_threads():
    return [t for t in threading.enumerate() if t.name.startswith("thanosql-prepare")]


def test_every_utterance_comes_once_an_epoch():
    seconds = np.random.default_rng(0).uniform(1, 20, 103).tolist()
    batches = [*length_buckets(seconds, 16, seed=0, epoch=1)]
    assert sorted(chain.from_iterable(batches)) == list(range(103))
    assert sorted(map(len, batches)) == [7] + [16] * 6


def test_batches_are_the_same_for_the_same_seed_and_others_in_another_epoch():
    seconds = np.random.default_rng(0).uniform(1, 20, 100).tolist()
    first = [*length_buckets(seconds, 8, seed=3, epoch=1)]
    assert [*length_buckets(seconds, 8, seed=3, epoch=1)] == first
    assert [*length_buckets(seconds, 8, seed=3, epoch=2)] != first
    assert [*length_buckets(seconds, 8, seed=4, epoch=1)] != first


def test_batches_hold_utterances_of_similar_length():
    seconds = np.random.default_rng(0).uniform(1, 30, 960)
    padded = sum(
        len(batch) * seconds[batch].max()
        for batch in length_buckets(seconds.tolist(), 16, seed=0, epoch=1)
    )
    assert padded < 1.2 * seconds.sum()


def test_short_words_of_different_length_share_batches():
    seconds = [0.3] * 80 + [0.6] * 80
    batches = [*length_buckets(seconds, 16, seed=0, epoch=1)]
    mixed = [len({seconds[i] for i in batch}) == 2 for batch in batches]
    assert sum(mixed) >= 6


def test_preparation_is_two_batches_ahead_and_no_further():
    taken = []

    def batches():
        for i in range(10):
            taken.append(i)
            yield [i]

    prepared = prefetched_batches(batches(), lambda item: item * 10, 2)
    assert next(prepared) == [0]
    assert taken == [0, 1, 2]
    assert [*prepared] == [[i * 10] for i in range(1, 10)]


def test_batches_are_read_in_the_calling_thread_only():
    readers, workers = set(), set()

    def batches():
        for i in range(5):
            readers.add(threading.get_ident())
            yield [i, i]

    def prepare(item):
        workers.add(threading.get_ident())
        return item

    assert len([*prefetched_batches(batches(), prepare, 2)]) == 5
    assert readers == {threading.get_ident()}
    assert threading.get_ident() not in workers


def test_an_error_is_raised_when_its_batch_is_due():
    def prepare(item):
        if item == 2:
            message = "row 3: no"
            raise AudioError(message)
        return item

    prepared = prefetched_batches([[0, 1], [2, 3], [4, 5]], prepare, 4)
    assert next(prepared) == [0, 1]
    with pytest.raises(AudioError, match="row 3"):
        next(prepared)
    assert not preparing_threads()


def test_threads_end_when_the_generator_is_closed():
    prepared = prefetched_batches(([i] for i in range(10_000)), lambda item: item, 1)
    next(prepared)
    assert preparing_threads()
    prepared.close()
    assert not preparing_threads()


@pytest.fixture
def two_threads():
    """Have torch share its work out between two threads, not one as in all tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_a_thread_that_computes_first_while_others_prepare_has_all_cores():
    counts = []

    def compute(_batch):
        counts.append(torch.get_num_threads())

    def train():
        for batch in prefetched_batches([[None]] * 3, lambda item: item, 1):
            new = threading.Thread(target=compute, args=(batch,))
            new.start()
            new.join()
        compute(None)

    # A thread in which nothing of torch has run has the count that was set last in any.
    trains = threading.Thread(target=train)
    trains.start()
    trains.join()
    assert counts == [2] * 4


def test_threads_end_when_the_rows_raise():
    def batches():
        yield [1]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(prefetched_batches(batches(), lambda item: item, 1))
    assert not preparing_threads()


def test_speed_changes_the_length_and_the_pitch():
    time = np.arange(16_000) / 16_000
    tone = np.sin(2 * np.pi * 1000 * time).astype(np.float32)
    for speed in SPEEDS:
        changed = change_speed(tone, speed)
        assert changed.dtype == np.float32
        assert len(changed) == pytest.approx(16_000 / speed, abs=1)
        peak = np.abs(np.fft.rfft(changed)).argmax() * 16_000 / len(changed)
        assert peak == pytest.approx(1000 * speed, abs=3)


def test_speeds_are_drawn_from_the_whole_set_and_by_the_seed():
    assert set(draw_speeds(200, seed=0, epoch=1)) == set(SPEEDS)
    assert draw_speeds(9, seed=0, epoch=1) == draw_speeds(9, seed=0, epoch=1)
    assert draw_speeds(9, seed=0, epoch=1) != draw_speeds(9, seed=0, epoch=2)


def test_a_text_that_would_no_longer_fit_keeps_its_recordings_speed(tmp_path):
    recognizer = parakeet(tmp_path)
    blob = tones("abcd")
    plain = row_features(recognizer, 1, blob, (), None)
    assert len(row_features(recognizer, 1, blob, (3, 4), None, 1.12)) < len(plain)
    frames = (len(plain) + 3) // 4
    tight = tuple([3, 4] * frames)[:frames]
    assert len(row_features(recognizer, 1, blob, tight, None, 1.12)) == len(plain)


def test_a_bad_recording_is_named_by_its_row(tmp_path):
    with pytest.raises(AudioError, match=r"^row 7: .*no audio"):
        row_features(parakeet(tmp_path), 7, b"this is text", (), None)


def test_the_ranks_of_a_world_share_out_each_batch(tmp_path):
    recognizer, rows = parakeet(tmp_path), spoken(11)
    utterances = examine(recognizer, rows, None).utterances

    def epoch(rank, world):
        batches = Batches(
            recognizer, config(batch_size=4), resolve("cpu"), None, FeatureCache(0),
            rank, world,
        )  # fmt: skip
        with closing(batches.training(utterances, rows, epoch=1)) as prepared:
            return [[each.utterance.row for each in batch] for batch in prepared]

    whole = epoch(0, 1)
    shares = [epoch(rank, 4) for rank in range(4)]
    assert [batch[:1] for batch in whole] == shares[0]
    for batch, *parts in zip(whole, *shares, strict=True):  # all take every step
        assert sorted(chain.from_iterable(parts[: len(batch)])) == sorted(batch)
        # One without a share of a short batch has the first utterance, not to count.
        assert all(part == batch[:1] for part in parts[len(batch) :])
    assert sorted(chain.from_iterable(whole)) == [*range(1, 12)]


def test_the_ranks_of_a_world_share_out_the_batches_to_validate_on(tmp_path):
    recognizer, rows = parakeet(tmp_path), spoken(11)
    utterances = examine(recognizer, rows, None).utterances

    def read(rank, world):
        batches = Batches(
            recognizer, config(batch_size=4), resolve("cpu"), None, FeatureCache(0),
            rank, world,
        )  # fmt: skip
        with closing(batches.validation(utterances, rows, held_out=False)) as prepared:
            return [[each.utterance.row for each in batch] for batch in prepared]

    whole = read(0, 1)
    assert [read(0, 2), read(1, 2)] == [whole[::2], whole[1::2]]
    assert read(3, 4) == []


def test_chunks_keep_the_order_and_the_rest():
    assert [*chunks(range(5), 2)] == [[0, 1], [2, 3], [4]]
