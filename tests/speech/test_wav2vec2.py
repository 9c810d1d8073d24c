"""The padding-free forward against transformers' own, on each utterance alone."""

from __future__ import annotations

import pytest
import torch
from toys import draws
from transformers import (
    Data2VecAudioConfig,
    Data2VecAudioForCTC,
    HubertConfig,
    HubertForCTC,
    UniSpeechConfig,
    UniSpeechForCTC,
    UniSpeechSatConfig,
    UniSpeechSatForCTC,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
    WavLMConfig,
    WavLMForCTC,
)

from thanosql.speech.recognizers import (
    families,
    wav2vec2,
    wav2vec2_encoder,
    wav2vec2_positions,
)

SAMPLES = (7_000, 400, 16_321, 9_999, 3_200)

TINY = {
    "vocab_size": 11,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "conv_dim": (16, 16, 16, 16, 16, 16, 20),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "apply_spec_augment": False,
    "initializer_range": 0.3,  # logits well apart from nothing
    **dict.fromkeys(
        (
            "hidden_dropout",
            "attention_dropout",
            "activation_dropout",
            "feat_proj_dropout",
            "final_dropout",
            "layerdrop",
        ),
        0.0,
    ),
}
LAYER_NORM = {"feat_extract_norm": "layer", "conv_bias": True}
STABLE = {**LAYER_NORM, "do_stable_layer_norm": True}
ADAPTER = {"add_adapter": True, "output_hidden_size": 28, "num_adapter_layers": 2}
WAV2VEC2 = (Wav2Vec2Config, Wav2Vec2ForCTC)
HUBERT = (HubertConfig, HubertForCTC)
DATA2VEC = (Data2VecAudioConfig, Data2VecAudioForCTC)
UNISPEECH = (UniSpeechConfig, UniSpeechForCTC)
UNISPEECH_SAT = (UniSpeechSatConfig, UniSpeechSatForCTC)

VARIANTS = {
    "wav2vec2, group norm": (WAV2VEC2, {}),
    "wav2vec2, group norm and bias": (WAV2VEC2, {"conv_bias": True}),
    "wav2vec2, layer norm": (WAV2VEC2, LAYER_NORM),
    "wav2vec2, stable": (WAV2VEC2, STABLE),
    "wav2vec2, stable, group norm": (WAV2VEC2, {"do_stable_layer_norm": True}),
    "wav2vec2, adapter": (WAV2VEC2, ADAPTER),
    "wav2vec2, attention adapters": (WAV2VEC2, {**STABLE, "adapter_attn_dim": 8}),
    "wav2vec2, other kernels": (
        WAV2VEC2,
        {"conv_kernel": (10, 4, 3, 5, 2, 2, 1), "conv_stride": (5, 2, 2, 1, 2, 2, 1)},
    ),
    "hubert, group norm": (HUBERT, {}),
    "hubert, stable": (HUBERT, STABLE),
    "hubert, no projection norm": (HUBERT, {"feat_proj_layer_norm": False}),
    "hubert, batch norm": (HUBERT, {"conv_pos_batch_norm": True}),
    "data2vec": (DATA2VEC, {"conv_pos_kernel_size": 5, "num_conv_pos_embeddings": 3}),
    "data2vec, adapter": (DATA2VEC, {**ADAPTER, "num_conv_pos_embeddings": 2}),
    "unispeech, group norm": (UNISPEECH, {}),
    "unispeech, stable": (UNISPEECH, STABLE),
    "unispeech-sat, group norm": (UNISPEECH_SAT, {}),
    "unispeech-sat, stable": (UNISPEECH_SAT, STABLE),
}


def build(variant="wav2vec2, group norm", **settings):
    (config_class, model_class), overrides = VARIANTS[variant]
    torch.manual_seed(0)
    model = model_class(config_class(**{**TINY, **overrides, **settings})).eval()
    with torch.no_grad():  # norms that do something
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter += 0.3 * torch.randn(parameter.shape)
    return model


def noises(samples=SAMPLES, seed=0):
    torch.manual_seed(seed)
    # Mostly low tones, as speech is, and not around zero.
    return [torch.randn(n).cumsum(0) / 30 + torch.randn(n) + 0.1 for n in samples]


def together(model, waveforms, draws=None):
    return recognizer_of(model).logits(waveforms, draws)


def recognizer_of(model):
    return families.recognizer(model, None, None)


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_logits_are_those_of_transformers_on_each_utterance_alone(variant):
    model = build(variant)
    waveforms = noises()
    recognizer = recognizer_of(model)
    assert isinstance(recognizer, wav2vec2.Wav2Vec2Recognizer)
    logits, lengths = together(model, waveforms)
    for waveform, row, length in zip(waveforms, logits, lengths, strict=True):
        alone = model(input_values=waveform[None]).logits[0]
        assert length == len(alone) == recognizer.frames(len(waveform))
        torch.testing.assert_close(row[:length], alone, atol=1e-4, rtol=0)
        assert not row[length:].any()
    assert logits.abs().max() > 0.5  # so that 1e-4 says something


@pytest.mark.parametrize("frozen", [False, True], ids=["all trained", "conv frozen"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_are_those_of_transformers_on_each_utterance_alone(variant, frozen):
    model = build(variant).train()
    model.base_model.feature_extractor.requires_grad_(not frozen)
    # A batch norm, while it is trained, is the one thing that sees its neighbours.
    waveforms = noises(SAMPLES[:1] if "batch norm" in variant else SAMPLES)
    weights = [torch.randn(250, TINY["vocab_size"]) for _ in waveforms]

    def gradients(rows):
        model.zero_grad()
        losses = [
            (row * weight[: len(row)]).sum()
            for row, weight in zip(rows, weights, strict=True)
        ]
        torch.stack(losses).sum().backward()
        return {
            name: parameter.grad
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        }

    alone = gradients([model(input_values=w[None]).logits[0] for w in waveforms])
    logits, lengths = together(model, waveforms)
    ours = gradients([row[:n] for row, n in zip(logits, lengths, strict=True)])
    assert ours.keys() <= alone.keys()
    assert any("feature_extractor" in name for name in ours) is not frozen
    # A key's bias adds the same to all of a frame's scores, and a bias before a
    # GroupNorm is taken out again: what gradient there is, is noise.
    scale = max(gradient.norm() for gradient in alone.values())
    for name, gradient in alone.items():
        difference = (ours.get(name, torch.zeros(())) - gradient).norm()
        assert difference <= 1e-3 * gradient.norm() + 1e-6 * scale, name


@pytest.mark.parametrize("variant", ["wav2vec2, group norm", "hubert, stable"])
@torch.no_grad()
def test_neighbours_change_nothing(variant):
    model = build(variant)
    waveforms = noises()
    forwards, lengths = together(model, waveforms)
    backwards, _ = together(model, waveforms[::-1])
    pair, _ = together(model, [waveforms[2], 100 * noises((16_000,), seed=5)[0]])
    torch.testing.assert_close(backwards.flip(0), forwards, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        pair[0, : lengths[2]], forwards[2, : lengths[2]], atol=1e-5, rtol=0
    )


@torch.no_grad()
def test_a_long_utterance_is_the_same_in_stretches_and_whole(monkeypatch):
    model = build()
    waveforms = noises((30_000, 8_000))
    whole, _ = together(model, waveforms)
    monkeypatch.setattr(wav2vec2_encoder, "STRETCH", 7)
    monkeypatch.setattr(wav2vec2, "ROWS", 11)
    in_stretches, _ = together(model, waveforms)
    torch.testing.assert_close(in_stretches, whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kernel", [16, 17, 6])
@torch.no_grad()
def test_positions_by_fourier_are_those_of_the_convolution(kernel):
    model = build(num_conv_pos_embeddings=kernel)
    embedding = model.base_model.encoder.pos_conv_embed
    counts = [2 * kernel, 1, kernel + 1, 100, 7 * kernel + 3]
    hidden = torch.randn(sum(counts), TINY["hidden_size"])
    by_fourier = wav2vec2_positions.positions(
        embedding, hidden, counts, wav2vec2_positions.transform(embedding)
    )
    convolved = wav2vec2_positions.positions(embedding, hidden, counts)
    torch.testing.assert_close(by_fourier, convolved, atol=1e-5, rtol=0)
    assert not torch.equal(by_fourier, convolved)  # two ways indeed


@pytest.mark.parametrize("value", [0.0, 0.7, 1e-6], ids=str)
@torch.no_grad()
def test_a_constant_recording_gives_what_exact_arithmetic_gives(value):
    model = build()
    waveform = torch.full((4_000,), value)
    logits, _ = together(model, [waveform])
    # Of a variance of zero, transformers' float32 makes more noise than we do.
    exact = model.double()(waveform.double()[None]).logits.float()
    torch.testing.assert_close(logits, exact, atol=1e-4, rtol=0)


@pytest.mark.parametrize("variant", ["wav2vec2, group norm", "data2vec, adapter"])
@pytest.mark.parametrize("training", [False, True])
def test_an_utterance_too_short_for_a_frame_has_no_logits(variant, training):
    model = build(variant).train(training)
    short = [torch.randn(399), torch.randn(0), torch.randn(5)]
    logits, lengths = together(model, short)
    assert logits.shape == (3, 0, TINY["vocab_size"])
    assert lengths.tolist() == [0, 0, 0]
    long = noises((5_000,))[0]
    logits, lengths = together(model, [short[0], long, short[1]])
    expected = recognizer_of(model).frames(5_000)
    assert lengths.tolist() == [0, expected, 0]
    assert logits.shape == (3, expected, TINY["vocab_size"])
    torch.testing.assert_close(
        logits[1], model(input_values=long[None]).logits[0], atol=1e-4, rtol=0
    )


def test_gradient_checkpointing_changes_no_gradient():
    model = build(hidden_dropout=0.1).train()
    waveforms = noises()

    def gradient():
        model.zero_grad()
        torch.manual_seed(3)
        together(model, waveforms)[0].square().sum().backward()
        # All, but for the mask vector that is not used.
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    plain = gradient()
    for module in model.modules():  # as transformers' own switch does
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = True
    torch.testing.assert_close(gradient(), plain)


def test_layer_drop_and_spec_augment_follow_the_draws():
    model = build(apply_spec_augment=True, layerdrop=0.5, mask_time_prob=0.3).train()
    waveforms = noises()

    def run(seed):
        return together(model, waveforms, draws(seed, len(waveforms)))[0]

    torch.testing.assert_close(run(1), run(1), atol=0, rtol=0)
    assert not torch.equal(run(1), run(2))
    model.eval()
    torch.testing.assert_close(run(1), run(2), atol=0, rtol=0)


def test_spec_augment_is_on_where_a_config_does_not_say():
    config = Data2VecAudioConfig(
        **{name: value for name, value in TINY.items() if "spec" not in name},
        mask_time_prob=0.3,
    )
    assert not hasattr(config, "apply_spec_augment")
    model = Data2VecAudioForCTC(config).train()
    masked = together(model, noises(), draws(1, len(noises())))[0]
    config.apply_spec_augment = False
    assert not torch.equal(together(model, noises())[0], masked)


@pytest.mark.parametrize("variant", ["wav2vec2, group norm", "wav2vec2, stable"])
@pytest.mark.parametrize("training", [False, True])
def test_autocast_to_bfloat16_runs_close_to_float32(variant, training):
    model = build(variant).train(training)
    waveforms = noises()
    exact, _ = together(model, waveforms)
    with torch.set_grad_enabled(training), torch.autocast("cpu", torch.bfloat16):
        logits, _ = together(model, waveforms)
    error = (logits.float() - exact).norm() / exact.norm()
    assert error < 0.1
    if training:
        logits.float().sum().backward()
        assert all(
            p.grad is not None and p.grad.isfinite().all()
            for p in model.parameters()
            if p is not getattr(model.base_model, "masked_spec_embed", None)
        )


def test_other_architectures_are_left_to_others():
    wavlm = WavLMForCTC(WavLMConfig(**TINY))
    assert not isinstance(recognizer_of(wavlm), wav2vec2.Wav2Vec2Recognizer)

    class Wav2Vec2ForCTC(type(build())):
        """Another model by the same name."""

    other = recognizer_of(Wav2Vec2ForCTC(Wav2Vec2Config(**TINY)))
    assert not isinstance(other, wav2vec2.Wav2Vec2Recognizer)


@pytest.mark.parametrize("counts", [[5, 1, 9], [7, 7], [3]])
@pytest.mark.parametrize("attention", ["_one_by_one", "_padded"])
def test_both_ways_of_attention_are_softmax_among_an_utterances_frames(
    counts, attention
):
    torch.manual_seed(0)
    heads, width, scale = 3, 4, 0.7
    frames = [torch.randn(heads, sum(counts), width) for _ in range(3)]
    exact, found = ([f.clone().requires_grad_() for f in frames] for _ in range(2))
    batch = wav2vec2._Batch(counts, wav2vec2._places(counts))
    context = getattr(wav2vec2, attention)(*found, batch, 0.0, scale)
    by_hand = [
        (torch.softmax(scale * q @ k.transpose(1, 2), 2) @ v).transpose(0, 1).flatten(1)
        for q, k, v in zip(*(torch.split(f, counts, 1) for f in exact), strict=True)
    ]
    torch.testing.assert_close(context, torch.cat(by_hand), atol=1e-5, rtol=0)
    weights = torch.randn_like(context)
    (context * weights).sum().backward()
    (torch.cat(by_hand) * weights).sum().backward()
    for one, other in zip(found, exact, strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_model_gives_the_same_with_attention_padded(variant, monkeypatch):
    model = build(variant)
    waveforms = noises()
    results = []
    for short in (0, 1_000):
        monkeypatch.setattr(wav2vec2, "SHORT", short)
        model.zero_grad()
        logits, _ = together(model, waveforms)
        logits.square().sum().backward()
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        results.append((logits, grads))
    (apart, apart_grads), (padded, padded_grads) = results
    torch.testing.assert_close(padded, apart, atol=1e-5, rtol=1e-5)
    norm = torch.stack([grad.norm() for grad in apart_grads]).norm()
    for one, other in zip(padded_grads, apart_grads, strict=True):
        assert (one - other).norm() <= 1e-5 * norm
