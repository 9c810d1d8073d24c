"""Parakeet without padding against transformers' own forward."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pad_sequence
from transformers import LasrCTCConfig, LasrForCTC, ParakeetCTCConfig, ParakeetForCTC

from thanosql.speech.recognizers import families
from thanosql.speech.recognizers.parakeet import ParakeetRecognizer

VOCABULARY, MELS = 11, 16
FRAMES = (40, 81, 33, 1, 76)
NO_DROPOUT = dict.fromkeys(
    (
        "dropout",
        "dropout_positions",
        "attention_dropout",
        "activation_dropout",
        "layerdrop",
    ),
    0.0,
)
TINY = {
    **NO_DROPOUT,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "num_mel_bins": MELS,
    "subsampling_factor": 4,
    "subsampling_conv_channels": 8,
    "conv_kernel_size": 7,
    "initializer_range": 0.3,  # logits well apart from nothing
}
VARIANTS = {
    "factor 4": {},
    "factor 2": {"subsampling_factor": 2},
    "factor 8": {"subsampling_factor": 8},
    "no biases": {"attention_bias": False, "convolution_bias": False},
    "unscaled": {"scale_input": False},
    "another activation": {"hidden_act": "gelu"},
    "one head, kernel 1": {"num_attention_heads": 1, "conv_kernel_size": 1},
    "other mels": {"num_mel_bins": 20},
}


def build(variant="factor 4", **others):
    encoder = {**TINY, **VARIANTS[variant], **others}
    torch.manual_seed(0)
    config = ParakeetCTCConfig(vocab_size=VOCABULARY, encoder_config=encoder)
    model = ParakeetForCTC(config).eval()
    with torch.no_grad():  # norms and biases that do something
        for name, tensor in model.state_dict().items():
            if "norm" in name and tensor.is_floating_point():
                tensor += 0.3 * torch.rand(tensor.shape)
            elif "bias" in name:
                tensor += 0.3 * torch.randn(tensor.shape)
    return model


def noises(model, frames=FRAMES, seed=1):
    torch.manual_seed(seed)
    mels = model.config.encoder_config.num_mel_bins
    return [torch.randn(count, mels) for count in frames]


def rows_of(model, features):
    """Return the logits (frames, vocab) of each utterance."""
    logits, lengths = recognizer_of(model).logits(features)
    return [row[:length] for row, length in zip(logits, lengths, strict=True)]


def recognizer_of(model):
    return families.recognizer(model, None, None)


def gradients(model, rows):
    """Return those of a loss that weighs each logit differently."""
    model.zero_grad()
    torch.manual_seed(2)
    losses = [(row * torch.randn(row.shape)).sum() for row in rows]
    torch.stack(losses).sum().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_same_gradients(ours, theirs):
    # A key's bias adds the same to all of a frame's scores, and one before a batch
    # norm is taken out again: what gradient there is, is noise.
    scale = max(gradient.norm() for gradient in theirs.values())
    for name, gradient in theirs.items():
        difference = (ours[name] - gradient).norm()
        assert difference <= 1e-3 * gradient.norm() + 1e-6 * scale, name


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_utterance_has_the_logits_and_gradients_that_transformers_gives_it_alone(
    variant,
):
    model = build(variant)
    features = noises(model)
    assert recognizer_of(model).runs_unpadded
    ours = rows_of(model, features)
    theirs = [model(utterance[None]).logits[0] for utterance in features]
    for row, alone in zip(ours, theirs, strict=True):
        torch.testing.assert_close(row, alone, atol=1e-4, rtol=0)
    assert torch.cat(theirs).abs().max() > 0.5  # so that 1e-4 says something
    assert_same_gradients(gradients(model, ours), gradients(model, theirs))


@pytest.mark.parametrize("variant", VARIANTS)
def test_training_on_utterances_of_one_length_is_what_it_is_in_transformers(variant):
    """Then nothing is padding, and the batch norms see the same frames.

    In float64: a batch norm of few frames makes much of the noise in its inputs.
    """
    ours, theirs = (build(variant).double().train() for _ in range(2))
    features = [utterance.double() for utterance in noises(ours, (61, 61, 61))]
    rows = rows_of(ours, features)
    expected = theirs(torch.stack(features)).logits
    torch.testing.assert_close(torch.stack(rows), expected, atol=1e-4, rtol=0)
    assert_same_gradients(gradients(ours, rows), gradients(theirs, list(expected)))
    for (name, buffer), other in zip(
        ours.named_buffers(), theirs.buffers(), strict=True
    ):
        torch.testing.assert_close(buffer, other, atol=1e-5, rtol=1e-4, msg=name)


def test_batch_norms_learn_from_the_frames_of_utterances_and_from_no_padding():
    model = build(num_hidden_layers=1).train()
    features = noises(model)
    seen = []
    norm = model.encoder.layers[0].conv.norm
    norm.momentum = 1.0  # keep the last batch's statistics alone
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    rows_of(model, features)
    model.eval()  # what comes before the only batch norm is the same in evaluation
    for utterance in features:
        model(utterance[None])
    together, *alone = seen
    frames = torch.cat([each[0].T for each in alone])
    torch.testing.assert_close(together, frames, atol=1e-4, rtol=0)
    torch.testing.assert_close(norm.running_mean, frames.mean(0), atol=1e-4, rtol=0)
    torch.testing.assert_close(norm.running_var, frames.var(0), atol=1e-4, rtol=1e-4)


@given(
    frames=st.lists(st.integers(1, 90), min_size=1, max_size=5),
    factor=st.sampled_from([2, 4, 8]),
)
@settings(max_examples=30, deadline=None)
@torch.no_grad()
def test_neighbours_change_nothing(frames, factor):
    model = build(f"factor {factor}")
    features = noises(model, frames)
    for row, utterance in zip(rows_of(model, features), features, strict=True):
        (alone,) = rows_of(model, [utterance])
        assert len(alone) == -(-len(utterance) // factor)
        torch.testing.assert_close(row, alone, atol=1e-5, rtol=0)


def test_gradient_checkpointing_changes_no_gradient():
    model = build().train()
    features = noises(model)
    plain = gradients(model, rows_of(model, features))
    for module in model.modules():  # as transformers' own switch does
        if hasattr(module, "gradient_checkpointing"):
            module.gradient_checkpointing = True
    checkpointed = gradients(model, rows_of(model, features))
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, msg=name)


def test_autocast_to_bfloat16_trains_close_to_float32():
    model = build().train()
    features = noises(model)
    exact = torch.cat(rows_of(model, features))
    with torch.autocast("cpu", torch.bfloat16):
        rows = rows_of(model, features)
    assert (torch.cat(rows).float() - exact).norm() < 0.1 * exact.norm()
    for gradient in gradients(model, [row.float() for row in rows]).values():
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", NO_DROPOUT)
def test_a_model_that_draws_random_numbers_is_trained_by_transformers(name):
    model = build(**{name: 0.1})
    assert recognizer_of(model).runs_unpadded
    assert not recognizer_of(model.train()).runs_unpadded


@torch.no_grad()
def test_other_models_are_left_to_others():
    sizes = {**TINY, "num_attention_heads": 2, "head_dim": 12}
    lasr = LasrForCTC(LasrCTCConfig(vocab_size=VOCABULARY, encoder_config=sizes))
    assert not isinstance(recognizer_of(lasr), ParakeetRecognizer)
    assert not recognizer_of(build(subsampling_conv_kernel_size=5)).runs_unpadded

    class ParakeetForCTC(type(build())):
        """Another model by the same name."""

    other = recognizer_of(ParakeetForCTC(build().config))
    assert not isinstance(other, ParakeetRecognizer)


@torch.no_grad()
def test_transformers_masks_let_padding_touch_no_utterance():
    """So that what cannot run unpadded may run padded."""
    model = build()
    features = noises(model)
    mask = pad_sequence([torch.ones(len(each)) for each in features], batch_first=True)
    padded = model(pad_sequence(features, batch_first=True), mask.long()).logits
    for row, logits in zip(rows_of(model, features), padded, strict=True):
        torch.testing.assert_close(row, logits[: len(row)], atol=1e-4, rtol=0)
