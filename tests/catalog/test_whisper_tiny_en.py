"""WhisperTinyEn, the recognizer in the package, and the recipe that made its files."""

import json
import struct

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.torch import load_file
from whisper_tiny_en import TYPES, checked, quantized, read, translated

from thanosql.catalog.bases import BASES
from thanosql.speech.opening.opening import open_base
from thanosql.speech.opening.weights import widened
from thanosql.speech.sound.audio import load

WHISPER = BASES["WhisperTinyEn"]
FOLDER = WHISPER.directory


def no_texts():
    pytest.fail("Whisper keeps its own vocabulary")


@pytest.fixture(scope="module")
def recognizer():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        return open_base("whispertinyen", no_texts)


def test_it_takes_at_most_45_megabytes_and_is_listed_first(connection):
    assert 35_000_000 < WHISPER.bytes <= 45_000_000
    name, size, wer = connection.execute(
        "SELECT name, bytes, wer FROM (LIST BASES)"
    ).fetchone()
    assert (name, size, wer) == ("WhisperTinyEn", WHISPER.bytes, WHISPER.wer)
    told = dict(connection.execute("DESCRIBE BASE whispertinyen"))
    assert told["license"] == "MIT"
    assert told["learning_rate"] == WHISPER.learning_rate


def test_it_opens_without_a_network_whole_and_in_32_bits(recognizer):
    model = recognizer.model
    assert recognizer.fresh == frozenset()
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.num_parameters() == pytest.approx(WHISPER.parameters, rel=0.001)
    assert model.proj_out.weight is model.model.decoder.embed_tokens.weight


def test_its_matrices_lie_in_8_bits_and_the_rest_in_16(recognizer):
    state = load_file(FOLDER / "model.safetensors")
    matrices = {n for n, t in state.items() if t.dtype == torch.int8}
    assert {f"{name}_scale" for name in matrices} < state.keys()
    assert sum(state[name].numel() for name in matrices) > 0.96 * WHISPER.parameters
    others = {
        n: t for n, t in state.items() if n.removesuffix("_scale") not in matrices
    }
    assert {t.dtype for t in others.values()} == {torch.float16}
    opened = recognizer.model.state_dict()
    assert all(torch.equal(opened[n], t.float()) for n, t in others.items())
    for name in matrices:
        # All rows use the whole range but for a few of next to nothing.
        assert (state[name].abs().amax(1) == 127).float().mean() > 0.99


def test_every_output_has_its_token(recognizer):
    """The ids of the settings are checked against the tokenizer on opening."""
    tokenizer, outputs = recognizer.tokenizer, recognizer.model.config.vocab_size
    assert sorted(tokenizer.get_vocab().values()) == list(range(outputs))
    assert tokenizer.convert_ids_to_tokens([50362, 50363, 50364, 51863]) == [
        "<|notimestamps|>",
        "<|0.00|>",
        "<|0.02|>",
        "<|30.00|>",
    ]
    assert tokenizer.all_special_ids[-1] == 50362  # the timestamps begin behind it
    text = " It's 5 o'clock; naïve 한국어."
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert set(recognizer.model.generation_config.suppress_tokens) >= {
        tokenizer.convert_tokens_to_ids(token)
        for token in ("<|startoftranscript|>", "<|nocaptions|>", "Ġ(", '"')
    }
    assert tokenizer.english_spelling_normalizer["colour"] == "color"


def test_it_reads_a_person(recognizer, speech):
    (audio, _), *_ = speech("librispeech", "train")
    with torch.inference_mode():
        features = recognizer.features(load(audio, None))
        found = recognizer.recognize([features], recognizer.decoding())[0].text
    assert found == (
        "Mr. Quilter is the apostle of the middle classes, and we are glad to welcome "
        "his gospel."
    )


# The recipe

NUMBERS = st.floats(-4, 4, width=16)


@settings(deadline=None)
@given(arrays.arrays(np.float16, st.tuples(*[st.integers(1, 5)] * 2), elements=NUMBERS))
def test_a_matrix_loses_at_most_half_a_step_by_8_bits(matrix):
    given_ = torch.from_numpy(matrix)
    state = dict(quantized({"w": given_}))
    assert state["w"].dtype == torch.int8
    largest = given_.float().abs().amax(1, keepdim=True)
    step = (largest / 127).clamp(min=6.2e-5)
    assert ((widened(state)["w"] - given_.float()).abs() <= step * 0.501).all()


def test_positions_and_what_is_no_matrix_keep_their_16_bits():
    given_ = {
        "model.encoder.embed_positions.weight": torch.ones(3, 2).half(),
        "model.encoder.conv1.weight": torch.ones(2, 2, 3).half(),
        "model.encoder.conv1.bias": torch.ones(2).half(),
    }
    assert dict(quantized(given_)) == given_


def named(name):
    return struct.pack("<H", len(name) + 1) + name.encode() + b"\0"


def ctranslate2(variables):
    """Return a file of CTranslate2's, as its documentation of the format has it."""
    content = struct.pack("<I", 6) + named("WhisperSpec")
    content += struct.pack("<II", 3, len(variables))
    for name, values in variables.items():
        content += named(name) + struct.pack("<B", values.ndim)
        content += struct.pack(f"<{values.ndim}I", *values.shape)
        kind = TYPES.index(values.dtype.str.replace("|", "<"))
        content += struct.pack("<BI", kind, values.nbytes) + values.tobytes()
    return content


def test_a_file_of_ctranslate2_is_read_and_translated():
    rng = np.random.default_rng(0)

    def drawn(*shape):
        return rng.normal(size=shape).astype(np.float16)

    keys_without_bias = drawn(6)
    keys_without_bias[2:4] = 0
    given_ = {
        "decoder/num_heads": np.array(6, np.int16),
        "decoder/embeddings/weight": drawn(7, 2),
        "encoder/layer_norm/gamma": drawn(2),
        "encoder/layer_3/self_attention/linear_0/weight": drawn(6, 2),
        "encoder/layer_3/self_attention/linear_0/bias": keys_without_bias,
        "decoder/layer_0/attention/linear_1/weight": drawn(4, 2),
        "decoder/layer_0/ffn/layer_norm/beta": drawn(2),
    }
    variables = dict(read(ctranslate2(given_)))
    assert variables.keys() == given_.keys()
    assert all(np.array_equal(t.numpy(), given_[n]) for n, t in variables.items())
    stacked = variables["encoder/layer_3/self_attention/linear_0/weight"]
    layer = "model.encoder.layers.3.self_attn"
    found = translated(variables)
    assert torch.equal(found[f"{layer}.k_proj.weight"], stacked[2:4])
    assert {*found} == {
        "model.decoder.embed_tokens.weight",
        "model.encoder.layer_norm.weight",
        *(f"{layer}.{part}_proj.weight" for part in "qkv"),
        *(f"{layer}.{part}_proj.bias" for part in "qv"),
        *(f"model.decoder.layers.0.encoder_attn.{p}_proj.weight" for p in "kv"),
        "model.decoder.layers.0.final_layer_norm.bias",
    }


def test_the_recipe_takes_no_other_file_than_the_one_meant(tmp_path):
    (tmp_path / "other.whl").write_bytes(b"other")
    with pytest.raises(SystemExit, match=r"has the SHA-256 d9298a10.*, not abc"):
        checked(tmp_path / "other.whl", "abc")


def test_its_settings_are_those_of_its_kind():
    generation = json.loads((FOLDER / "generation_config.json").read_text("utf-8"))
    assert generation["forced_decoder_ids"] == [[1, 50362]]
    assert generation["is_multilingual"] is False
    assert generation["alignment_heads"][:3] == [[1, 0], [2, 0], [2, 5]]
    config = json.loads((FOLDER / "config.json").read_text("utf-8"))
    sizes = ("d_model", "encoder_layers", "decoder_layers", "encoder_ffn_dim")
    assert [config[size] for size in sizes] == [384, 4, 4, 1536]
