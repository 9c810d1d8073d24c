from __future__ import annotations

from contextlib import suppress

import pytest
import torch
from tones import spoken
from toys import config, parakeet, wav2vec2

from thanosql.errors import TrainingError
from thanosql.speech.opening.opening import open_base
from thanosql.speech.prefetch import prefetched_batches
from thanosql.speech.training import batches, train
from thanosql.speech.training.caching import FeatureCache, Key
from thanosql.speech.training.examination import examine


def pretrained(directory, **settings):
    """Return a wav2vec 2.0 whose convolutional encoder counts as trained."""
    recognizer = wav2vec2(directory, **settings)
    recognizer.fresh = frozenset()
    return recognizer


@pytest.fixture
def caches(monkeypatch):
    """Return the list of all caches that trainings make from now on."""
    made = []

    class Noted(FeatureCache):
        def __init__(self, budget):
            super().__init__(budget)
            made.append(self)

    monkeypatch.setattr(train, "FeatureCache", Noted)
    return made


@pytest.fixture
def prepared(monkeypatch):
    """Return the list of all rows whose features are computed from now on."""
    rows = []
    features = batches.row_features

    def noted(recognizer, row, *others):
        rows.append(row)
        return features(recognizer, row, *others)

    monkeypatch.setattr(batches, "row_features", noted)
    return rows


def epochs(directory, make, **changes):
    """Return what three epochs of a training report, but the time, and its weights."""
    torch.manual_seed(1)
    recognizer = make(directory)
    rows = spoken(14)
    utterances = examine(recognizer, rows, None).utterances
    trained = train.train(
        recognizer,
        rows,
        utterances[4:],
        utterances[:4],
        config(epochs=3, freeze_feature_encoder=True, **changes),
        None,
    )
    results = []
    with suppress(TrainingError):  # so short a training need not teach it to speak
        results.extend((r.train_loss, r.validation_loss, r.wer, r.cer) for r in trained)
    return results, recognizer.model.state_dict()


@pytest.mark.parametrize("speed_perturbation", [False, True])
@pytest.mark.parametrize("norm", ["layer", "group", None])
def test_epochs_are_the_same_with_and_without_it(
    tmp_path, caches, prepared, norm, speed_perturbation
):
    def make(directory):
        if norm is None:
            return parakeet(directory, dropout=0.1)
        stable = norm == "layer"
        return pretrained(
            directory, feat_extract_norm=norm, do_stable_layer_norm=stable
        )

    counts, found = [], []
    budget = 10**8
    for share in (1, 0.5, 0):
        prepared.clear()
        found.append(
            epochs(
                tmp_path,
                make,
                feature_cache=int(share * budget),
                speed_perturbation=speed_perturbation,
            )
        )
        counts.append(len(prepared))
        assert caches[-1].bytes <= share * budget
        budget = caches[0].bytes  # what all of it takes
    (results, weights), *others = found
    assert len(results) == 3
    for other_results, state in others:
        assert other_results == results
        assert all(torch.equal(state[name], weights[name]) for name in weights)
    # What is trained already is read once before the first epoch, too.
    before = 0 if norm is None else 4
    assert 14 <= counts[0] < counts[1] < counts[2] == 3 * 14 + before
    assert speed_perturbation or counts[0] == 14


@pytest.mark.parametrize("make", [parakeet, pretrained])
def test_what_is_heard_with_noise_is_not_kept(tmp_path, caches, prepared, make):
    epochs(tmp_path, make, feature_cache=10**8)
    (quiet,) = caches
    prepared.clear()
    epochs(tmp_path, make, feature_cache=10**8, noise_perturbation=True)
    validation = {key: kept for key, kept in quiet._kept.items() if key.row <= 4}
    assert caches[-1]._kept.keys() == validation.keys()  # and so of speed 1.0
    if make is parakeet:  # which has no layer to freeze whose output would be kept
        assert all(
            torch.equal(caches[-1]._kept[key].features, kept.features)
            for key, kept in validation.items()
        )
    assert len(prepared) == 3 * 10 + 4


def test_what_is_kept_is_what_comes_before_the_first_trained_layer(tmp_path, caches):
    epochs(tmp_path, pretrained, feature_cache=10**8)
    epochs(tmp_path, wav2vec2, feature_cache=10**8)  # fresh weights are trained
    shapes = [
        {tuple(kept.features.shape[1:]) for kept in cache._kept.values()}
        for cache in caches
    ]
    assert shapes == [{(32,)}, {()}]


def test_frozen_frames_stand_in_for_the_waveform(tmp_path):
    recognizer = pretrained(tmp_path)
    for parameter in recognizer.model.parameters():
        parameter.requires_grad_(False)
    waveforms = [torch.randn(length) for length in (9000, 16_000, 100)]
    frames = recognizer.frozen(waveforms)
    mixed = recognizer.frozen([waveforms[0], frames[1], frames[2]])
    for inputs in (frames, mixed):
        logits, lengths = recognizer.logits(inputs)
        expected, expected_lengths = recognizer.logits(waveforms)
        assert torch.equal(logits, expected)
        assert torch.equal(lengths, expected_lengths)


def test_a_row_of_the_validation_query_is_not_one_of_the_trained(tmp_path, prepared):
    recognizer = parakeet(tmp_path)
    rows, others = spoken(6), spoken(6, seed=1)
    found = examine(recognizer, rows, None).utterances
    found_others = examine(recognizer, others, None).utterances
    losses = []
    for held_out in (others, rows):
        prepared.clear()
        recognizer = open_base(str(tmp_path), lambda: ["abcd"])
        (result,) = train.train(
            recognizer,
            rows,
            found,
            found_others if held_out is others else found,
            config(learning_rate=1e-9, warmup=0.0),
            None,
            validation_rows=held_out,
        )
        losses.append(result.validation_loss)
        assert len(prepared) == (12 if held_out is others else 6)
    assert losses[0] != losses[1]


def test_the_budget_is_kept_to_and_what_is_kept_stays():
    cache = FeatureCache(1000)
    first, second, third = (torch.ones(n) for n in (100, 151, 150))
    keys = [Key(False, row, 1.0) for row in (1, 2, 3)]
    cache.add(keys[0], first, ())
    cache.add(keys[1], second, ())  # 4 bytes too many
    cache.add(keys[2], third, ())
    assert [cache.get(key) is not None for key in keys] == [True, False, True]
    assert cache.bytes == 1000
    assert cache.get(Key(True, 1, 1.0)) is None
    assert cache.get(Key(False, 1, 1.12)) is None


def test_a_view_does_not_keep_what_it_is_a_part_of():
    cache = FeatureCache(1000)
    key = Key(False, 1, 1.0)
    cache.add(key, torch.ones(10**6)[:10], ())
    assert cache.get(key).features.untyped_storage().nbytes() == 40


def test_threads_that_prepare_leave_the_cores_to_the_model():
    torch.set_num_threads(2)
    try:
        prepared = prefetched_batches(
            [[None] * 3] * 2, lambda _: torch.get_num_threads(), 3
        )
        assert list(prepared) == [[1, 1, 1]] * 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)  # as conftest.py has it: others would wait for it
