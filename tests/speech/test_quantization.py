"""int8 against fp32: close, whatever the neighbours, and nothing of fp32 touched."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tones import spoken
from torch._subclasses import FakeTensorMode
from toys import CONFIGS, build, config, inputs, parakeet, transcriptions

from thanosql.errors import OptionError
from thanosql.speech.progress import silent
from thanosql.speech.recognizers import precision, quantization
from thanosql.speech.recognizers.quantization import Int8Linear
from thanosql.speech.recognizers.wav2vec2_positions import transform
from thanosql.speech.training.examination import examine
from thanosql.speech.training.train import train


@pytest.fixture(autouse=True)
def however_small(monkeypatch):
    monkeypatch.setattr(quantization, "LEAST_SIZE", 0)


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 70), st.integers(1, 40), st.integers(1, 9), st.booleans(), st.data()
)
def test_a_layer_is_close_to_its_fp32_self(features_in, out, frames, bias, data):
    torch.manual_seed(data.draw(st.integers(0, 99)))
    linear = torch.nn.Linear(features_in, out, bias=bias)
    values = torch.randn(2, frames, features_in)
    values[0, 0] = 0.0  # silence
    values[1] *= 1000.0
    with torch.no_grad():
        exact, rounded = linear(values), Int8Linear(linear.weight, linear.bias)(values)
    assert rounded.shape == exact.shape
    # Half a step of each factor, everywhere at its worst.
    largest = values.abs().amax(-1, keepdim=True) * linear.weight.abs().amax(1)
    assert ((exact - rounded).abs() <= features_in * largest / 60 + 1e-5).all()
    torch.testing.assert_close(rounded[0, 0], exact[0, 0])


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_every_architecture_runs_in_int8_close_to_fp32(name):
    recognizer = build(name)
    before = {n: p.clone() for n, p in recognizer.model.named_parameters()}
    features = inputs(recognizer)
    exact, lengths = recognizer.logits(features)
    int8 = recognizer.int8
    assert int8 is not recognizer
    logits, same = int8.logits(features)
    assert same.tolist() == lengths.tolist()
    assert 0 < (logits - exact).norm() < 0.1 * exact.norm()
    for name, parameter in recognizer.model.named_parameters():
        torch.testing.assert_close(parameter, before[name], rtol=0, atol=0)
    torch.testing.assert_close(recognizer.logits(features)[0], exact)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    torch.manual_seed(0)
    recognizer = parakeet(tmp_path_factory.mktemp("parakeet"))
    rows = spoken(48)
    utterances = examine(recognizer, rows, None, silent).utterances
    for _ in train(recognizer, rows, utterances, (), config(epochs=12), None, silent):
        pass
    return recognizer


def texts(recognizer, audio, batch_size, precision="int8"):
    return [
        each.text
        for batch in transcriptions(
            recognizer, audio, batch_size=batch_size, precision=precision, device="cpu"
        )
        for each in batch
    ]


def test_a_trained_model_reads_the_same_in_int8_in_any_batch(trained):
    rows = spoken(24, seed=5)
    audio = [recording for recording, _ in rows]
    exact = texts(trained, audio, 8, "fp32")
    assert sum(a == b for a, (_, b) in zip(exact, rows, strict=True)) > 12
    int8 = texts(trained, audio, 1)
    assert sum(a == b for a, b in zip(exact, int8, strict=True)) >= 22
    assert texts(trained, audio, 5) == int8
    assert texts(trained, audio[::-1], 16) == int8[::-1]
    assert texts(trained, audio, 8, "fp32") == exact
    assert trained.int8 is trained.int8


def test_a_model_too_small_for_int8_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(quantization, "LEAST_SIZE", 2**17)
    recognizer = build(next(iter(CONFIGS)))
    assert recognizer.int8 is recognizer


def test_int8_is_for_inference_on_a_cpu():
    assert precision.resolve("cpu", "int8", inference=True).precision == "int8"
    with pytest.raises(OptionError, match="'auto', 'fp32', 'bf16' or 'fp16'"):
        precision.resolve("cpu", "int8")


def test_positions_are_prepared_of_a_model_that_is_on_a_gpu():
    with FakeTensorMode(), torch.no_grad():  # a GPU of which only the shapes are there
        conv = torch.nn.Conv1d(32, 32, 8, groups=2, device="cuda")
        embedding = SimpleNamespace(conv=conv)
        assert transform(embedding).device.type == "cpu"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_int8_on_a_gpu_is_an_error_with_a_way_out():
    with pytest.raises(OptionError, match="use device='cpu', or 'fp16'"):
        precision.resolve("cuda", "int8", inference=True)
