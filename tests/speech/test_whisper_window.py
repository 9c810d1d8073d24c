"""Whisper on windows shorter than 30 s, which BUILD trains it on (`window='short'`)."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import whisper
from transformers import (
    AutoFeatureExtractor,
    AutoTokenizer,
    WhisperForConditionalGeneration,
)

from thanosql.errors import DataError
from thanosql.speech.recognizers import families
from thanosql.speech.recognizers import whisper as module
from thanosql.speech.recognizers.whisper_encoder import encode, window_frames
from thanosql.speech.training.conditions import seeded
from thanosql.speech.training.loop import trained_state

RATE = 16_000
SECONDS = (0.3, 1.2, 0.45, 0.51, 0.2)  # windows of one and of two seconds
TEXTS = ("some words", "a", "and more", "b", "c d")


def opened(directory):
    return families.recognizer(
        WhisperForConditionalGeneration.from_pretrained(directory).eval(),
        AutoTokenizer.from_pretrained(directory),
        AutoFeatureExtractor.from_pretrained(directory),
    )


@pytest.fixture
def short(tmp_path):
    recognizer = opened(whisper(tmp_path / "base"))
    assert recognizer.adopt_window("short") == "short"
    return recognizer


def features(recognizer):
    random = np.random.default_rng(0)
    return [
        recognizer.features(random.normal(0, 0.1, round(RATE * s)).astype(np.float32))
        for s in SECONDS
    ]


@given(st.floats(0, 40), st.floats(0, 1))
def test_a_window_holds_the_recording_and_a_little_silence(seconds, more):
    frames = window_frames("short", seconds, 1500)
    assert frames % 50 == 0
    assert frames == 1500 or 0.5 <= frames / 50 - seconds <= 1.5
    assert frames <= window_frames("short", seconds + more, 1500) <= 1500
    assert window_frames("exact", seconds, 1500) == 1500


@pytest.mark.parametrize("training", [False, True])
def test_30_seconds_are_encoded_as_by_transformers(tmp_path, training):
    settings = {"dropout": 0.1, "encoder_layerdrop": 0.5, "encoder_layers": 3}
    recognizer = opened(whisper(tmp_path, **settings))
    encoder = recognizer.encoder.train(training)
    batch = torch.stack([each.T for each in features(recognizer)])
    for seed in range(4):
        with seeded(seed), torch.no_grad():
            ours = encode(encoder, batch)
        with seeded(seed), torch.no_grad():
            theirs = encoder(batch).last_hidden_state
        assert torch.equal(ours, theirs)


def test_only_the_silence_behind_a_recording_is_cut(short):
    cut = features(short)
    assert [len(each) for each in cut] == [100, 200, 100, 200, 100]
    short.adopt_window("exact")
    for whole, each in zip(features(short), cut, strict=True):
        assert len(whole) == 200
        assert torch.equal(whole[: len(each)], each)


def test_texts_of_many_lengths_do_not_depend_on_the_batch(short, monkeypatch):
    monkeypatch.setattr(module, "TEMPERATURES", ())
    batch, decoding = features(short), short.decoding()
    with torch.inference_mode():
        alone = [short.scores([each], decoding)[0].text for each in batch]
        assert [each.text for each in short.scores(batch, decoding)] == alone
        backwards = short.scores(batch[::-1], decoding)
        assert [each.text for each in backwards[::-1]] == alone
    assert len({*alone}) > 1


@pytest.mark.parametrize("heads", [2, 8])  # either order of the products
def test_the_loss_of_a_batch_is_that_of_its_utterances(tmp_path, heads):
    recognizer = opened(whisper(tmp_path, decoder_attention_heads=heads))
    recognizer.adopt_window("short")
    model = recognizer.model.double()
    batch = [each.double() for each in features(recognizer)]
    targets = [recognizer.targets(text) for text in TEXTS]

    def gradients(loss):
        model.zero_grad()
        loss.backward()
        return {n: p.grad for n, p in model.named_parameters() if p.requires_grad}

    together = recognizer.loss(batch, targets).mean
    counts = [len(each) + 1 for each in targets]  # the end is scored too
    alone = sum(
        recognizer.loss([each], [target]).mean * count / sum(counts)
        for each, target, count in zip(batch, targets, counts, strict=True)
    )
    torch.testing.assert_close(together, alone)
    found, expected = gradients(together), gradients(alone)
    largest = max(float(each.abs().max()) for each in expected.values())
    for name, each in expected.items():
        assert float((found[name] - each).abs().max()) < 1e-5 * largest, name


def test_frames_of_a_frozen_encoder_stand_for_short_features(short):
    batch = features(short)
    targets = [short.targets(text) for text in TEXTS]
    short.encoder.requires_grad_(False)
    frames = short.frozen(batch)
    assert [each.shape for each in frames[:2]] == [(50, 32), (100, 32)]
    mixed = [*frames[:2], *batch[2:]]  # the cache has not room for all
    assert torch.equal(short.loss(mixed, targets).mean, short.loss(batch, targets).mean)


def test_a_model_keeps_its_window_and_transformers_opens_it(short, tmp_path):
    short.save(tmp_path / "saved")
    again = opened(tmp_path / "saved")
    assert again.window == "short"
    assert again.adopt_window(None) == "short"
    again.check("the model")
    assert again.adopt_window("exact") == "exact"


def test_a_window_that_is_not_known_is_refused(short):
    short.model.config.audio_window = "long"
    with pytest.raises(DataError, match=r"'long' in its config.json, not one of exact"):
        short.check("the model")


def test_weights_of_two_names_are_kept_once(short):
    model = short.model
    assert model.proj_out.weight is model.model.decoder.embed_tokens.weight
    kept = trained_state(model)
    assert sum(each.numel() for each in kept.values()) == sum(
        p.numel() for p in model.parameters() if p.requires_grad
    )
    with torch.no_grad():
        model.proj_out.weight.zero_()
    model.load_state_dict(kept, strict=False)
    assert model.model.decoder.embed_tokens.weight.any()
