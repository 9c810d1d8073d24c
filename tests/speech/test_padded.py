"""Every architecture of CTC model through the one forward, and SpecAugment."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import CONFIGS, MELS, VOCABULARY, build, draws, inputs
from transformers import Wav2Vec2Config

from thanosql.speech.recognizers.spec_augment import (
    draw_mask,
    mask_log_mels,
    spec_augment,
)
from thanosql.speech.recognizers.wav2vec2 import Wav2Vec2Recognizer
from thanosql.speech.training.conditions import spec_augmented

SEEDS = st.integers(0, 2**32)
SEE_THE_BATCH = ("parakeet", "parakeet, factor 8", "lasr")  # padded, and a batch norm
MASKED = ("wavlm", "sew", "sew-d", "conformer", "wav2vec2-bert")


def transformers_own(recognizer, features):
    """Return the logits that the model itself gives for one utterance."""
    if recognizer.model.config.model_type == "omniasr_ctc":
        features = features[None]  # of one channel
    return recognizer.model(features[None]).logits[0]


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_a_row_is_what_the_model_gives_for_it_alone(name):
    recognizer = build(name)
    features = inputs(recognizer)
    logits, lengths = recognizer.logits(features)
    for row, length, feature in zip(logits, lengths, features, strict=True):
        alone = transformers_own(recognizer, feature)
        assert length == len(alone) == recognizer.frames(len(feature))
        torch.testing.assert_close(row[:length], alone, atol=1e-4, rtol=0)
        assert not row[length:].any()
    assert logits.abs().max() > 0.1  # so that 1e-4 says something


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_neighbours_and_their_order_change_nothing(name):
    recognizer = build(name)
    features = inputs(recognizer)
    logits, lengths = recognizer.logits(features)
    backwards, _ = recognizer.logits(features[::-1])
    torch.testing.assert_close(backwards.flip(0), logits, atol=1e-4, rtol=0)
    for many in (1, 3):
        first, _ = recognizer.logits(features[:many])
        torch.testing.assert_close(
            first[0, : lengths[0]], logits[0, : lengths[0]], atol=1e-4, rtol=0
        )


@pytest.mark.parametrize("name", [n for n in CONFIGS if n not in SEE_THE_BATCH])
def test_gradients_are_those_of_each_utterance_alone(name):
    recognizer = build(name)
    model = recognizer.model.train()
    features = inputs(recognizer)

    def gradients(rows):
        model.zero_grad()
        torch.stack([row.square().sum() for row in rows]).sum().backward()
        return {
            parameter_name: parameter.grad
            for parameter_name, parameter in model.named_parameters()
            if parameter.grad is not None
        }

    alone = gradients([transformers_own(recognizer, each) for each in features])
    logits, lengths = recognizer.logits(features)
    ours = gradients([row[:n] for row, n in zip(logits, lengths, strict=True)])
    assert ours.keys() == alone.keys()
    # A key's bias adds the same to a frame's scores: its gradient is noise.
    scale = max(gradient.norm() for gradient in alone.values())
    for parameter_name, gradient in alone.items():
        difference = (ours[parameter_name] - gradient).norm()
        assert difference <= 1e-3 * gradient.norm() + 1e-6 * scale, parameter_name


@pytest.mark.parametrize("name", SEE_THE_BATCH)
def test_a_batch_norm_is_trained_on_the_batch_as_a_whole(name):
    recognizer = build(name)
    norm = next(
        m for m in recognizer.model.modules() if isinstance(m, torch.nn.BatchNorm1d)
    )
    recognizer.model.train()
    logits, lengths = recognizer.logits(inputs(recognizer))
    assert norm.num_batches_tracked == 1
    torch.stack(
        [r[:n].sum() for r, n in zip(logits, lengths, strict=True)]
    ).sum().backward()
    for parameter in recognizer.model.parameters():
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_too_short_an_utterance_has_length_zero(name, training):
    recognizer = build(name)
    recognizer.model.train(training)
    normal = inputs(recognizer)[1]
    empty = normal[:0]
    logits, lengths = recognizer.logits([empty, normal])
    assert lengths.tolist() == [0, recognizer.frames(len(normal))]
    assert logits.shape == (2, int(lengths[1]), VOCABULARY)
    logits, lengths = recognizer.logits([empty])
    assert logits.shape == (1, 0, VOCABULARY)
    assert lengths.dtype == torch.int64
    # The shortest that gives a frame at all.
    shortest = next(n for n in range(1000) if recognizer.frames(n))
    if not training:  # some have a batch norm, which is not trained on one frame
        assert recognizer.logits([normal[:shortest]])[1].tolist() == [
            recognizer.frames(shortest)
        ]


@pytest.mark.parametrize("name", MASKED)
def test_spec_augment_follows_the_draws_and_leaves_no_trace(name):
    recognizer = build(name, apply_spec_augment=True, mask_time_prob=0.5)
    model = recognizer.model.train()
    features = inputs(recognizer)
    # Shorter than a mask of ten frames, where transformers' own would raise.
    features.append(features[0][:2_000] if features[0].ndim == 1 else features[0][:6])

    def run(seed):
        return recognizer.logits(features, draws(seed, len(features)))[0]

    np.random.seed(7)
    before = np.random.get_state()[1].copy()
    torch.testing.assert_close(run(1), run(1), atol=0, rtol=0)
    assert not torch.equal(run(1), run(2))
    assert (np.random.get_state()[1] == before).all()
    assert model.config.apply_spec_augment is True
    assert not model.base_model.encoder._forward_pre_hooks
    model.eval()
    torch.testing.assert_close(run(1), run(2), atol=0, rtol=0)


def test_the_family_of_wav2vec2_runs_unpadded_and_others_do_not():
    supported = {
        name for name in CONFIGS if isinstance(build(name), Wav2Vec2Recognizer)
    }
    assert supported == {"wav2vec2"}


@pytest.mark.parametrize("name", ["wavlm", "parakeet"])
def test_autocast_to_bfloat16_runs_on_a_cpu(name):
    recognizer = build(name)
    features = inputs(recognizer)
    features.insert(0, features[0][:0])
    exact, _ = recognizer.logits(features)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits, _ = recognizer.logits(features)
    assert (logits.float() - exact).norm() < 0.1 * exact.norm()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_masks_cover_the_share_that_was_asked_for():
    masks = [draw_mask(1000, 0.05, 10, 0, generator(seed)) for seed in range(400)]
    share = torch.stack(masks).float().mean().item()
    # Of fifty frames in five spans a few lie on one another.
    assert 0.045 < share < 0.05


def test_masks_come_in_whole_spans():
    mask = draw_mask(200, 0.1, 10, 2, generator())
    edges = torch.nn.functional.pad(mask.int(), (1, 1)).diff()
    starts, ends = (edges == 1).nonzero(), (edges == -1).nonzero()
    assert len(starts) > 0
    assert ((ends - starts) >= 10).all()


@pytest.mark.parametrize("length", [0, 1, 9, 10, 19, 22, 49, 50, 99])
def test_least_masks_never_hide_more_than_a_fifth_of_a_short_utterance(length):
    for seed in range(50):
        mask = draw_mask(length, 1e-9, 10, 2, generator(seed))
        assert mask.shape == (length,)
        assert mask.sum() <= length / 5


def test_least_masks_are_kept_where_there_is_room():
    counts = {int(draw_mask(400, 1e-9, 10, 2, generator(s)).sum()) for s in range(50)}
    assert max(counts) == 20
    assert min(counts) > 10


def test_every_place_is_masked_sooner_or_later():
    masks = [draw_mask(30, 0.4, 3, 0, generator(seed)) for seed in range(300)]
    counts = torch.stack(masks).sum(0)
    assert counts.min() > 0


def test_time_masks_become_the_mask_vector_and_feature_masks_zero():
    config = Wav2Vec2Config(
        mask_time_prob=0.3,
        mask_time_length=4,
        mask_feature_prob=0.3,
        mask_feature_length=3,
    )
    hidden, vector = torch.ones(90, 24), torch.full((24,), 5.0)
    lengths = (50, 3, 37)
    masked = spec_augment(hidden, lengths, vector, config, draws(0, 3))
    again = spec_augment(hidden, lengths, vector, config, draws(0, 3))
    torch.testing.assert_close(masked, again, atol=0, rtol=0)
    assert set(masked.unique().tolist()) == {0.0, 1.0, 5.0}
    assert (hidden == 1).all()
    for utterance in masked.split(lengths):
        silenced = (utterance == 0).all(0)  # the same features in every frame
        assert silenced.sum() == (utterance == 0).any(0).sum()
        hidden_frames = (utterance[:, ~silenced] == 5).any(1)
        assert (utterance[hidden_frames][:, ~silenced] == 5).all()
    assert not (masked.split(lengths)[1] == 5).any()  # shorter than a mask


@settings(deadline=None, max_examples=40)
@pytest.mark.parametrize("repeats", [1, 4])
@given(lengths=st.lists(st.integers(0, 1200), min_size=1, max_size=5), seed=SEEDS)
def test_log_mels_are_masked_in_bands_and_stretches(repeats, lengths, seed):
    random = np.random.default_rng(0)
    features = [
        torch.from_numpy(random.normal(5, 1, (length, 80 * repeats)))
        for length in lengths
    ]
    masked = mask_log_mels(features, 80, draws(seed, len(features)))
    again = mask_log_mels(features, 80, draws(seed, len(features)))
    for before, after, same in zip(features, masked, again, strict=True):
        assert after.shape == before.shape
        if not len(before):
            continue
        assert torch.equal(after, same)
        hidden = after != before
        means = before.mean(0).expand_as(after)
        assert torch.equal(after[hidden], means[hidden])
        bands = hidden.all(0)
        assert torch.equal(bands, bands[:80].repeat(repeats))
        stretches = hidden.all(1)
        if len(before) > 1:
            assert bands[:80].sum() <= 2 * 27
            count = min(10, len(before) // 25)
            assert stretches.sum() <= count * int(0.05 * len(before))
            assert stretches.sum() <= len(before) / 2
            assert torch.equal(hidden, stretches[:, None] | bands)


def test_log_mel_masks_are_of_every_width_and_everywhere():
    features = [torch.randn(400, 80) for _ in range(600)]
    masked = mask_log_mels(features, 80, draws(0, len(features)))
    pairs = zip(masked, features, strict=True)
    hidden = torch.stack([after != before for after, before in pairs])
    bands, stretches = hidden.all(1), hidden.all(2)
    assert bands.sum(0).min() > 0
    assert stretches.sum(0).min() > 0
    assert bands.sum(1).min() < 3  # of two masks of 0 to 27
    assert bands.sum(1).max() > 45
    # Ten of 0 to 20 of 400 frames, some upon others.
    assert 0.18 < stretches.float().mean() < 0.25


@pytest.mark.parametrize("name", list(CONFIGS))
def test_spec_augment_is_to_be_had_with_every_base_and_leaves_no_trace(name):
    recognizer = build(name)
    recognizer.feature_extractor = SimpleNamespace(feature_size=MELS)
    config = recognizer.model.config
    before = config.to_dict()
    with spec_augmented(recognizer, True):
        assert config.apply_spec_augment is not bool(recognizer.mel_bins)
        if not recognizer.mel_bins:
            assert config.mask_time_prob > 0
    with spec_augmented(recognizer, False):
        assert config.apply_spec_augment is False
    with spec_augmented(recognizer, "auto"):
        assert config.to_dict() == before
    assert config.to_dict() == before


def test_sizes_of_masks_are_the_configs_where_it_has_any():
    recognizer = build("wav2vec2", mask_time_prob=0.0, mask_feature_prob=0.0)
    with spec_augmented(recognizer, True):
        assert recognizer.model.config.mask_time_prob == 0.05
    assert recognizer.model.config.mask_time_prob == 0.0
    recognizer = build("wav2vec2", mask_time_prob=0.0, mask_feature_prob=0.3)
    with spec_augmented(recognizer, True):
        assert recognizer.model.config.mask_time_prob == 0.0
