"""Damaged model directories: refused with their name, in bounded time and memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import thanosql
from thanosql.speech.opening.opening import open_base

CORPUS = Path(__file__).with_name("model_corpus.py")


@pytest.mark.thorough(seconds=80)
def test_every_damaged_model_is_refused_or_read_and_nothing_else(base):
    seed, count = 2, 400
    arguments = [str(base), str(seed), str(count)]
    ran = subprocess.run(
        [sys.executable, str(CORPUS), *arguments],
        capture_output=True,
        text=True,
        timeout=500,
    )
    # A library may write lines of its own (tokenizers: "Ignored unknown kwarg").
    lines = (line for line in ran.stdout.splitlines() if line.startswith("{"))
    results = [*map(json.loads, lines)]
    assert ran.returncode == 0, (results[-1:], ran.stderr[-2000:])
    assert len(results) > count
    odd = [
        each
        for each in results
        if each["outcome"].startswith("not PEP 249")
        or (each["outcome"] != "stored" and "TMP/model" not in each["message"])
        or not each["unchanged"]
        or each["grown_mib"] > 500
    ]
    assert odd == []
    # Harmless damage is the smaller part: a corpus that is all read shows nothing.
    assert sum(each["outcome"] == "stored" for each in results) < len(results) / 3


def change(directory, name, **settings):
    path = directory / name
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


@pytest.fixture
def model(base, tmp_path):
    """Return a copy of the model directory, to damage."""
    for path in base.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def refuse(connection, model, message):
    with pytest.raises(thanosql.DataError, match=message):
        connection.execute("IMPORT MODEL m FROM ?", (str(model),))
    assert connection.execute("LIST MODELS").fetchall() == []


def test_a_fifo_in_place_of_the_weights_is_not_waited_for(connection, model):
    (model / "model.safetensors").unlink()
    os.mkfifo(model / "model.safetensors")
    refuse(connection, model, r"'model\.safetensors' in .* is not a file")


def test_weights_that_are_no_numbers_are_refused(connection, model):
    state = load_file(model / "model.safetensors")
    state["lm_head.bias"][3] = float("nan")
    save_file(state, model / "model.safetensors")
    refuse(connection, model, r"lm_head\.bias hold NaN")


def test_whole_numbers_are_not_taken_for_weights(connection, model):
    state = load_file(model / "model.safetensors")
    state["lm_head.bias"] = state["lm_head.bias"].to(torch.int32)
    save_file(state, model / "model.safetensors")
    refuse(connection, model, r"lm_head\.bias are int32")


def test_a_layer_the_weights_lack_is_not_drawn_at_random(connection, model):
    change(model, "config.json", num_hidden_layers=3)
    refuse(connection, model, r"no weights for wav2vec2\.encoder\.layers\.2")


def test_a_layer_the_config_lacks_is_not_left_out(connection, model):
    change(model, "config.json", num_hidden_layers=1)
    refuse(connection, model, r"layers\.1\..* of a layer that config\.json lacks")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_hidden_layers": 10**6}, "num_hidden_layers = 1000000; 1,000 is"),
        ({"hidden_size": 10**9}, "hidden_size = 1000000000; 16,777,216 is"),
        ({"conv_stride": [0, 0, 0]}, "cannot be opened"),
        ({"conv_stride": [1, 1, 1]}, "frames of a second"),
        ({"conv_dim": [32] * 2000}, "2000 values of conv_dim"),
        ({"hidden_size": 64}, "is of shape .* in the weights"),
    ],
)
def test_a_config_beyond_reason_is_refused(settings, message, connection, model):
    change(model, "config.json", **settings)
    refuse(connection, model, message)


def test_a_bare_config_that_memory_cannot_hold_is_refused(model):
    (model / "model.safetensors").unlink()
    change(model, "config.json", hidden_size=2**20, num_attention_heads=1)
    with pytest.raises(thanosql.DataError, match=r"describes a model of .* GB; this"):
        open_base(str(model), lambda: ["abc"])


def test_a_changed_size_is_no_reason_to_draw_weights_at_random(model):
    for name in ("vocab.json", "tokenizer_config.json", "processor_config.json"):
        (model / name).unlink()
    change(model, "config.json", hidden_size=64)
    with pytest.raises(thanosql.DataError, match=r"is of shape .* in the weights"):
        open_base(str(model), lambda: ["abc"])


def test_a_kernel_that_a_config_names_is_not_asked_for(model):
    change(model, "config.json", attn_implementation="somebody/kernels")
    recognizer = open_base(str(model), list)
    assert recognizer.model.config._attn_implementation in ("eager", "sdpa")


def test_an_index_of_weights_cannot_lead_out_of_the_directory(connection, model):
    (model / "model.safetensors").rename(model.parent / "out.safetensors")
    index = {"weight_map": {"lm_head.weight": "../out.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    refuse(connection, model, r"names '\.\./out\.safetensors', which is not there")


def test_a_key_that_is_there_twice_is_damage(connection, model):
    (model / "vocab.json").write_text('{"a": 1, "a": 2}')
    refuse(connection, model, r"'vocab\.json' in .* the key 'a' is there twice")


def test_quantized_weights_are_not_supported(connection, model):
    change(model, "config.json", quantization_config={"quant_method": "gptq"})
    with pytest.raises(thanosql.NotSupportedError, match="quantized weights"):
        connection.execute("IMPORT MODEL m FROM ?", (str(model),))


@pytest.mark.parametrize("place", ["a" * 5000, "a\0b", "~nobody-of-that-name/x"])
def test_a_place_that_cannot_be_one_is_an_error_of_ours(place, calls):
    for statement in (
        "IMPORT MODEL n FROM ?",
        "EXPORT MODEL m TO ?",
        "BUILD MODEL n USING '{}' AS SELECT * FROM calls",
    ):
        parameters = (place,) if "?" in statement else ()
        with pytest.raises(thanosql.Error):
            calls.execute(statement.format(place), parameters)


def test_whisper_s_feature_extractor_cannot_take_all_memory(model):
    settings = {"feature_extractor_type": "WhisperFeatureExtractor", "n_fft": 10**9}
    (model / "processor_config.json").unlink()
    (model / "preprocessor_config.json").write_text(json.dumps(settings))
    with pytest.raises(thanosql.DataError, match="n_fft = 1000000000"):
        open_base(str(model), list)
    assert transformers.WhisperFeatureExtractor().n_fft < 1000
