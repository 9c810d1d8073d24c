from __future__ import annotations

import math
import threading
from contextlib import suppress

import numpy as np
import pytest
import torch
from tones import spoken, tones
from toys import config, parakeet, transcriptions, wav2vec2

from thanosql import errors
from thanosql.errors import AudioError, OptionError, TrainingError
from thanosql.speech.recognizers.recognizer import Loss
from thanosql.speech.training import train
from thanosql.speech.training.examination import examine
from thanosql.speech.training.monitoring import PLATEAU_STEPS, LossLog
from thanosql.speech.training.optimization import adamw, rate_factor
from thanosql.speech.training.utterances import Utterances


def fit(recognizer, rows, validation=(), *, may_be_silent=False, **changes):
    """Train to the end and return the results; `validation` indexes `rows`.

    may_be_silent: it is too short a training to teach it to speak.
    """
    utterances = examine(recognizer, rows, None).utterances
    held = Utterances(utterances[i] for i in validation)
    rest = Utterances(u for i, u in enumerate(utterances) if i not in set(validation))
    results = []
    try:
        results.extend(
            train.train(recognizer, rows, rest, held, config(**changes), None)
        )
    except TrainingError as error:
        if not may_be_silent or "the model writes" not in str(error):
            raise
    return results


def weights(recognizer):
    return {k: v.clone() for k, v in recognizer.model.state_dict().items()}


def test_one_batch_can_be_overfitted(tmp_path):
    recognizer = parakeet(tmp_path)
    rows = spoken(8)
    results = fit(recognizer, rows, epochs=40, batch_size=8, learning_rate=1e-2)
    assert results[-1].train_loss < 0.1 < 1 < results[0].train_loss
    (batch,) = transcriptions(recognizer, [audio for audio, _ in rows], batch_size=8)
    assert [each.text for each in batch] == [text for _, text in rows]
    assert not recognizer.model.training


def test_a_model_learns_to_read_what_it_never_heard(tmp_path):
    torch.manual_seed(0)
    recognizer = parakeet(tmp_path)
    rows = spoken(64, letters="abc")
    results = fit(recognizer, rows, validation=range(16), epochs=8)
    assert results[-1].wer <= 0.3
    assert results[-1].cer <= results[-1].wer


def trained(directory, make, **changes):
    """Return the weights after two epochs, which need not teach it to speak."""
    torch.manual_seed(1)
    recognizer = make(directory)
    fit(
        recognizer,
        spoken(12),
        validation=range(3),
        epochs=2,
        **changes,
        may_be_silent=True,
    )
    return weights(recognizer)


@pytest.mark.parametrize("make", [parakeet, wav2vec2])
def test_the_same_seed_gives_the_same_weights(tmp_path, make):
    first, again, other = (
        trained(tmp_path, make, seed=seed, speed_perturbation=True)
        for seed in (5, 5, 6)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_the_callers_random_numbers_are_left_as_they_were(tmp_path):
    recognizer = wav2vec2(tmp_path)
    rows = spoken(8)
    utterances = examine(recognizer, rows, None).utterances
    epochs = train.train(recognizer, rows, utterances, (), config(epochs=3), None)
    torch.manual_seed(2)
    np.random.seed(2)
    next(epochs)
    drawn = torch.rand(()).item(), np.random.rand()
    next(epochs)
    epochs.close()
    torch.manual_seed(2)
    np.random.seed(2)
    assert drawn == (torch.rand(()).item(), np.random.rand())


def test_what_the_caller_draws_between_epochs_changes_nothing(tmp_path):
    def weights_after(disturb):
        torch.manual_seed(1)
        recognizer = wav2vec2(tmp_path)
        rows = spoken(8)
        utterances = examine(recognizer, rows, None).utterances
        with suppress(TrainingError):
            for _ in train.train(
                recognizer, rows, utterances, (), config(epochs=2), None
            ):
                disturb()
        return weights(recognizer)

    quiet = weights_after(lambda: None)
    disturbed = weights_after(lambda: torch.rand(7))
    assert all(torch.equal(quiet[name], disturbed[name]) for name in quiet)


def test_the_best_epoch_is_kept(tmp_path):
    torch.manual_seed(0)
    recognizer = parakeet(tmp_path)
    rows = spoken(8)
    utterances = examine(recognizer, rows, None).utterances
    epochs = train.train(
        recognizer,
        rows,
        utterances,
        utterances,
        config(epochs=30, batch_size=8, learning_rate=1e-2, feature_cache=0),
        None,
        validation_rows=list(rows),
    )
    results, seen = [], []
    for result in epochs:
        results.append(result)
        seen.append(weights(recognizer))
        if len(results) == 20:
            # From now on one recording stands for every word: it can only forget.
            rows[:] = [(tones("dddd"), text) for _, text in rows]
    ranks = [(r.cer == 1, r.wer, r.validation_loss) for r in results]
    best = ranks.index(min(ranks))
    assert 10 < best < 25
    assert [r.best for r in results] == [
        rank < min(ranks[:i], default=(True, math.inf, math.inf))
        for i, rank in enumerate(ranks)
    ]
    kept = weights(recognizer)
    assert all(torch.equal(kept[name], seen[best][name]) for name in kept)


def test_without_validation_the_last_epoch_is_kept(tmp_path):
    recognizer = parakeet(tmp_path)
    results = fit(recognizer, spoken(8), epochs=3, may_be_silent=True)
    assert all(r.best for r in results)
    assert {r.wer for r in results} == {None}
    assert {r.validation_loss for r in results} == {None}


def test_validation_may_have_rows_of_its_own(tmp_path):
    torch.manual_seed(0)
    recognizer = parakeet(tmp_path)
    rows, others = spoken(8), spoken(6, seed=1)
    results = [
        *train.train(
            recognizer,
            rows,
            examine(recognizer, rows, None).utterances,
            examine(recognizer, others, None).utterances,
            config(epochs=12),
            None,
            validation_rows=others,
        )
    ]
    assert results[-1].wer is not None


def test_a_frozen_feature_encoder_stays_and_its_fresh_weights_move(tmp_path):
    recognizer = wav2vec2(tmp_path)
    encoder = "wav2vec2.feature_extractor."
    fresh = {
        name
        for name, _ in recognizer.model.named_parameters()
        if not name.startswith(encoder) or "conv_layers.1" in name
    }
    recognizer.fresh = frozenset(fresh)
    before = weights(recognizer)
    fit(
        recognizer, spoken(8), freeze_feature_encoder=True, epochs=2, may_be_silent=True
    )
    moved = {k for k, v in weights(recognizer).items() if not torch.equal(v, before[k])}
    inside = {name for name in before if name.startswith(encoder)}
    assert moved & inside == fresh & inside
    assert {"lm_head.weight", "wav2vec2.feature_projection.projection.weight"} <= moved
    assert all(p.requires_grad for p in recognizer.model.parameters())


@pytest.mark.parametrize("model", [parakeet, wav2vec2])
def test_with_a_frozen_encoder_only_the_last_layer_of_a_ctc_model_moves(
    tmp_path, model
):
    recognizer = model(tmp_path)
    recognizer.fresh = frozenset()
    before = weights(recognizer)
    fit(recognizer, spoken(8), may_be_silent=True, epochs=2, freeze_encoder=True)
    after = weights(recognizer)
    # Buffers count too: a batch norm's running means.
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert moved
    assert all(name.startswith(recognizer.last_layers) for name in moved)
    assert all(p.requires_grad for p in recognizer.model.parameters())


def test_fresh_weights_are_never_frozen(tmp_path):
    recognizer = wav2vec2(tmp_path)
    before = weights(recognizer)
    fit(recognizer, spoken(8), freeze_feature_encoder=True, may_be_silent=True)
    after = weights(recognizer)
    assert not any(
        torch.equal(after[k], before[k]) for k in after if "conv_layers" in k
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("make", [parakeet, wav2vec2])
def test_every_precision_trains(tmp_path, make, precision):
    torch.manual_seed(0)
    recognizer = make(tmp_path)
    results = fit(
        recognizer,
        spoken(8),
        precision=precision,
        max_steps=6,
        epochs=9,
        may_be_silent=True,
    )
    loss = [r.train_loss for r in results]
    assert loss[-1] < loss[0]
    assert all(p.dtype == torch.float32 for p in recognizer.model.parameters())


def test_gradient_checkpointing_changes_memory_only(tmp_path):
    plain = trained(tmp_path, wav2vec2)
    checkpointed = trained(tmp_path, wav2vec2, gradient_checkpointing=True)
    for name, tensor in plain.items():
        torch.testing.assert_close(checkpointed[name], tensor, rtol=1e-3, atol=1e-4)


def test_steps_end_where_max_steps_says(tmp_path):
    recognizer = parakeet(tmp_path)
    results = fit(recognizer, spoken(32), epochs=20, max_steps=75)
    assert [r.steps for r in results][-2:] == [72, 75]
    assert results[-1].learning_rate < 0.03 * 3e-3


def test_a_time_limit_ends_the_training_at_a_step(tmp_path):
    recognizer = parakeet(tmp_path)
    results = fit(
        recognizer, spoken(16), epochs=10**6, time_limit=2, may_be_silent=True
    )
    assert len(results) < 10**6
    assert results[-1].learning_rate < 0.1 * max(r.learning_rate for r in results)


def test_a_loss_that_is_no_number_is_reported_with_its_step(tmp_path):
    recognizer = parakeet(tmp_path)
    with pytest.raises(TrainingError, match=r"became nan at step \d+; try a lower"):
        fit(recognizer, spoken(16), epochs=3, learning_rate=1e12, max_grad_norm=1e12)
    assert not recognizer.model.training


def test_a_model_that_writes_nothing_is_reported(tmp_path):
    recognizer = parakeet(tmp_path)
    with torch.no_grad():
        recognizer.model.ctc_head.bias[recognizer.blank] = 20
    message = r"writes nothing, .* \(epoch 1, step 2, loss .*learning_rate than 1e-09"
    with pytest.raises(TrainingError, match=message):
        fit(recognizer, spoken(8), learning_rate=1e-9)
    with pytest.raises(TrainingError, match="writes nothing"):
        fit(recognizer, spoken(8), learning_rate=1e-9, validation=[0, 1])


def test_nothing_to_train_on_is_reported(tmp_path):
    with pytest.raises(TrainingError, match="no utterance"):
        fit(parakeet(tmp_path), [])


def test_a_recording_that_vanished_since_is_named(tmp_path):
    recognizer = parakeet(tmp_path)
    rows = spoken(8)
    utterances = examine(recognizer, rows, None).utterances
    rows[5] = ("gone.wav", rows[5][1])
    with pytest.raises(AudioError, match=r"^row 6: .*gone\.wav"):
        [*train.train(recognizer, rows, utterances, (), config(), None)]


def test_threads_end_when_the_training_is_stopped(tmp_path):
    recognizer = parakeet(tmp_path)
    rows = spoken(40)
    utterances = examine(recognizer, rows, None).utterances

    def interrupt(stage, done, total, **facts):
        if done == 3:
            assert any(t.name.startswith("thanosql") for t in threading.enumerate())
            raise KeyboardInterrupt

    epochs = train.train(recognizer, rows, utterances, (), config(), None, interrupt)
    with pytest.raises(KeyboardInterrupt):
        next(epochs)
    assert not any(t.name.startswith("thanosql") for t in threading.enumerate())
    assert not recognizer.model.training


def test_progress_tells_the_steps_and_the_loss(tmp_path):
    recognizer = parakeet(tmp_path)
    rows = spoken(12)
    utterances = examine(recognizer, rows, None).utterances
    told = []
    with suppress(TrainingError):
        for _ in train.train(
            recognizer,
            rows,
            utterances[4:],
            utterances[:4],
            config(),
            None,
            lambda stage, done, total, **facts: told.append(
                ((stage, done, total), facts)
            ),
        ):
            pass
    assert [place for place, _ in told] == [
        ("train", 1, 2),
        ("train", 2, 2),
        ("validate", 4, 4),
    ]
    assert told[1][1].keys() == {"epoch", "loss", "learning_rate", "audio_seconds"}
    assert told[1][1]["loss"] > 0


def test_the_learning_rate_rises_is_held_and_falls():
    rates = [rate_factor(x, 0.2) for x in (0.0, 0.1, 0.2, 0.5, 0.75, 1.0, 1.1)]
    assert rates == pytest.approx([0.0, 0.5, 1.0, 1.0, 0.5, 0.0, 0.0])
    assert rate_factor(0.0, 0.0) == 1.0
    assert rate_factor(0.9, 0.8) == pytest.approx(0.5)
    assert [rate_factor(x, 1.0) for x in (0.5, 1.0)] == [0.5, 1.0]


def test_only_matrices_decay(tmp_path):
    model = wav2vec2(tmp_path).model
    decayed, others = adamw(model, 0.01).param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.01, 0.0)
    assert {p.ndim for p in decayed["params"]} == {2, 3}
    assert {p.ndim for p in others["params"]} == {1}


def losses(log, values, speaking=0.0):
    for value in values:
        log.add(Loss(torch.tensor(value), torch.tensor(speaking)), 1)


def test_a_flat_loss_without_a_word_is_warned_of_once():
    log = LossLog(torch.device("cpu"), warmup_steps=10)
    losses(log, [2.9] * (2 * PLATEAU_STEPS + 9))
    with pytest.warns(errors.Warning, match=r"flat near 2\.90 for 500 steps"):
        losses(log, [2.9])
    losses(log, [2.9] * 1000)


def test_a_loss_that_falls_or_a_model_that_speaks_is_not_warned_of():
    falling = LossLog(torch.device("cpu"), warmup_steps=0)
    losses(falling, np.linspace(3.2, 2.7, 4 * PLATEAU_STEPS).tolist())
    speaking = LossLog(torch.device("cpu"), warmup_steps=0)
    losses(speaking, [2.9] * 4 * PLATEAU_STEPS, speaking=0.05)


def test_the_mean_loss_weighs_each_utterance_alike():
    log = LossLog(torch.device("cpu"), warmup_steps=0)
    log.add(Loss(torch.tensor(1.0), torch.tensor(0.0)), 3)
    log.add(Loss(torch.tensor(5.0), torch.tensor(0.0)), 1)
    assert log.mean() == 2.0
    log.add(Loss(torch.tensor(7.0), torch.tensor(0.0)), 1)
    assert log.mean() == 7.0


def test_checkpointing_of_a_model_that_cannot_is_an_option_error(tmp_path):
    recognizer = wav2vec2(tmp_path)
    recognizer.model.supports_gradient_checkpointing = False
    with pytest.raises(OptionError, match="gradient_checkpointing"):
        fit(recognizer, spoken(4), gradient_checkpointing=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_learns_what_a_cpu_learns(tmp_path):
    torch.manual_seed(0)
    recognizer = parakeet(tmp_path)
    rows = spoken(8)
    results = fit(recognizer, rows, epochs=60, batch_size=8, device="cuda")
    assert results[-1].train_loss < 0.2
    audio = [audio for audio, _ in rows]
    on_gpu = [*transcriptions(recognizer, audio, batch_size=8, device="cuda")]
    on_cpu = [*transcriptions(recognizer, audio, batch_size=8, device="cpu")]
    assert on_gpu == on_cpu
    assert [each.text for each in on_gpu[0]] == [text for _, text in rows]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("make", [parakeet, wav2vec2])
def test_no_step_waits_for_the_gpu(tmp_path, make, precision):
    recognizer = make(tmp_path)
    recognizer.fresh = frozenset()
    rows = spoken(24)
    utterances = examine(recognizer, rows, None).utterances
    steps = []

    def watch(stage, done, total, **facts):
        # From the second step on: the first one allocates and tunes.
        steps.append(done)
        torch.cuda.set_sync_debug_mode("default" if done == total else "error")

    try:
        with suppress(TrainingError):
            for _ in train.train(
                recognizer,
                rows,
                utterances,
                (),
                config(
                    max_steps=6,
                    device="cuda",
                    precision=precision,
                    freeze_feature_encoder=True,
                ),
                None,
                watch,
            ):
                break
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert steps == [1, 2, 3, 4, 5, 6]
