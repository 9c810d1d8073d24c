"""Whisper's directories: every way to open one, and every way that fails."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from toys import whisper
from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor
from whisper_tiny_en import quantized

import thanosql
from thanosql.errors import DataError, NotSupportedError
from thanosql.speech.loading import import_base
from thanosql.speech.opening.opening import open_base, open_files
from thanosql.speech.opening.weights import check, widened

LANGUAGES = ("en", "ko", "de")
EMBEDDINGS = "model.decoder.embed_tokens.weight"
QUERY = "model.encoder.layers.0.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def _directory(tmp_path_factory):
    return whisper(tmp_path_factory.mktemp("whisper"), LANGUAGES)


@pytest.fixture
def directory(_directory, tmp_path):
    """Return the directory of a small Whisper of three languages, to be changed."""
    shutil.copytree(_directory, tmp_path / "whisper")
    return tmp_path / "whisper"


def no_texts():
    pytest.fail("Whisper keeps its own vocabulary")


def opened(directory):
    return open_base(str(directory), no_texts)


def contents(directory):
    return {path.name: bytearray(path.read_bytes()) for path in directory.iterdir()}


def features():
    noise = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
    return noise


@torch.no_grad()
def logits(model, recognizer):
    inputs = recognizer.features(features()).T[None]
    return model(input_features=inputs, decoder_input_ids=torch.tensor([[257, 9, 40]]))[
        0
    ]


def change(path, **changes):
    """Change values of a JSON file; None removes one."""
    content = json.loads(path.read_text("utf-8")) | changes
    kept = {name: value for name, value in content.items() if value is not None}
    path.write_text(json.dumps(kept), "utf-8")


def change_weights(directory, **changes):
    """Change tensors, whose dots are written as underscores twice; None removes one."""
    weights = load_file(directory / "model.safetensors")
    for name, tensor in changes.items():
        weights[name.replace("__", ".")] = tensor
    kept = {name: tensor for name, tensor in weights.items() if tensor is not None}
    save_file(kept, directory / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("languages", [(), LANGUAGES])
def test_it_opens_saves_and_opens_again_also_with_transformers(languages, tmp_path):
    whisper(tmp_path / "given", languages)
    spellings = {"colour": "color"}
    (tmp_path / "given/normalizer.json").write_text(json.dumps(spellings))
    recognizer = opened(tmp_path / "given")
    recognizer.save(tmp_path / "saved")
    again = opened(tmp_path / "saved")
    stored = open_files(contents(tmp_path / "saved"))
    theirs = AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path / "saved").eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "saved")
    expected = logits(theirs, recognizer)
    rules = json.loads((tmp_path / "given/generation_config.json").read_text())
    for each in (recognizer, again, stored):
        assert each.fresh == frozenset()
        assert each.model.proj_out.weight is each.model.get_parameter(EMBEDDINGS)
        assert torch.equal(logits(each.model, each), expected)
        assert not each.model.training
        found = each.model.generation_config.to_dict()
        assert {name: found[name] for name in rules} == rules
    assert processor.tokenizer.get_vocab() == recognizer.tokenizer.get_vocab()
    assert processor.tokenizer.english_spelling_normalizer == spellings
    inputs = processor(features(), sampling_rate=16_000, return_tensors="np")
    ours = recognizer.features(features()).T.numpy()
    assert np.array_equal(inputs["input_features"][0], ours)


def test_a_tied_layer_may_be_there_under_either_name_or_both(directory):
    expected = logits(opened(directory).model, opened(directory))
    weights = load_file(directory / "model.safetensors")
    assert "proj_out.weight" not in weights
    both = weights | {"proj_out.weight": weights[EMBEDDINGS].clone()}
    other = {name: tensor for name, tensor in both.items() if name != EMBEDDINGS}
    for state in (both, other):
        save_file(state, directory / "model.safetensors", {"format": "pt"})
        recognizer = opened(directory)
        assert recognizer.fresh == frozenset()
        assert torch.equal(logits(recognizer.model, recognizer), expected)
        again = open_files(contents(directory))
        assert torch.equal(logits(again.model, again), expected)


def test_a_stored_one_needs_no_search_for_its_weights(directory, monkeypatch):
    # Which takes three times as long as all the rest of opening a model.
    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", None)
    assert open_files(contents(directory)).fresh == frozenset()


def test_files_of_the_hub_s_repositories_do_not_hinder(directory):
    """Half precision, filters among the settings, an index of weights not fetched."""
    weights = load_file(directory / "model.safetensors")
    half = {name: tensor.half() for name, tensor in weights.items()}
    save_file(half, directory / "model.safetensors", {"format": "pt"})
    shards = dict.fromkeys(weights, "model.fp32-00001-of-00002.safetensors")
    index = directory / "model.safetensors.index.fp32.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    filters = np.zeros((80, 201)).tolist()
    change(directory / "preprocessor_config.json", mel_filters=filters)
    recognizer = opened(directory)
    assert {p.dtype for p in recognizer.model.parameters()} == {torch.float32}
    assert recognizer.features(features()).std() > 0.01
    assert torch.equal(recognizer.model.get_parameter(QUERY), half[QUERY].float())


def test_a_directory_without_a_feature_extractor_gets_the_default_of_its_size(
    directory,
):
    (directory / "preprocessor_config.json").unlink()
    with pytest.raises(DataError, match=r"200 frames of 20 mel .* gives 3000 of 20"):
        opened(directory)  # that hears 30 s, as all do but this small one


def test_a_bare_config_with_tokenizer_opens_with_fresh_weights(directory):
    (directory / "model.safetensors").unlink()
    recognizer = opened(directory)
    assert {EMBEDDINGS, QUERY, "proj_out.weight"} <= recognizer.fresh
    with pytest.raises(DataError, match=r"no weights for .* cannot transcribe yet"):
        import_base(str(directory))


def test_one_missing_tensor_is_named(directory):
    change_weights(directory, **{QUERY: None})
    assert opened(directory).fresh == {QUERY}
    with pytest.raises(DataError, match=f"no weights for {QUERY}"):
        import_base(str(directory))
    with pytest.raises(DataError, match=f"damaged: it has no weights for {QUERY}"):
        open_files(contents(directory))
    change_weights(directory, **{EMBEDDINGS: None})
    with pytest.raises(DataError, match="no weights for"):
        import_base(str(directory))


def remove(*names):
    def spoil(directory):
        for name in names:
            (directory / name).unlink()

    return spoil


def split_tokenizer(directory):
    """Write the older form of a tokenizer, without its merges."""
    content = json.loads((directory / "tokenizer.json").read_text("utf-8"))
    vocabulary = json.dumps(content["model"]["vocab"])
    (directory / "vocab.json").write_text(vocabulary, "utf-8")
    (directory / "tokenizer.json").unlink()


def settings(**changes):
    return lambda directory: change(directory / "generation_config.json", **changes)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            remove("tokenizer.json", "tokenizer_config.json"),
            r"no tokenizer \(tokenizer.json or vocab.json and merges.txt\): put that",
        ),
        (split_tokenizer, r"has no tokenizer"),
        (
            remove("generation_config.json"),
            r"has no generation config \(generation_config.json\): put that of the mod",
        ),
        (
            lambda d: (d / "generation_config.json").write_text("{"),
            "'generation_config.json' in .* is damaged",
        ),
        (settings(no_timestamps_token_id=None), "<.notimestamps.> is token None in g"),
        (settings(decoder_start_token_id=3), "<.startoftranscript.> is token 3 in .*"),
        (settings(decoder_start_token_id=None), "<.startoftranscript.> is token None"),
        (settings(eos_token_id=None), "<.endoftext.> is token None"),
        (settings(prev_sot_token_id=[1]), r"<.startofprev.> is token \[1\]"),
        (settings(lang_to_id=None), "<.en.> is token None .* and 258 in the tokenizer"),
        (settings(lang_to_id={"<|fr|>": 260}), "<.fr.> is token 260 .* and None in"),
        (settings(lang_to_id=[1]), "cannot be opened as a model"),
        (settings(task_to_id=None), "<.transcribe.> is token None"),
        (settings(task_to_id={"sing": 261}), "<.sing.> is token 261 in .* take both"),
        (settings(suppress_tokens=[1, 266]), "has 266 outputs, .* a token 266"),
        (settings(begin_suppress_tokens=[-1]), "has 266 outputs, .* a token -1"),
        (settings(suppress_tokens=["a"]), "has 266 outputs, .* a token 'a'"),
        (settings(suppress_tokens=[1] * 1_001), "1001 values of suppress_tokens"),
        (settings(num_beams=10**6), "num_beams = 1000000; 100 is the most"),
        (
            lambda d: change(d / "preprocessor_config.json", feature_size=80),
            "takes 200 frames of 20 mel bands, its feature extractor gives 200 of 80",
        ),
        (
            lambda d: change(d / "preprocessor_config.json", sampling_rate=20_000),
            "of 16000 Hz audio, its feature extractor gives input_features of 20000",
        ),
        (
            lambda d: change(d / "config.json", max_source_positions=50),
            "is of shape .* in the weights",
        ),
        (
            lambda d: change(d / "config.json", quantization_config={"bits": 8}),
            "quantized weights, in a format of its own",
        ),
    ],
)
def test_what_is_missing_or_does_not_fit_is_said(spoil, message, directory):
    spoil(directory)
    with pytest.raises((DataError, NotSupportedError), match=message):
        opened(directory)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(directory):
    content = json.loads((directory / "tokenizer.json").read_text("utf-8"))
    more = {**content["added_tokens"][-1], "id": 266, "content": "<|more|>"}
    content["added_tokens"].append(more)
    (directory / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    with pytest.raises(DataError, match=r"has 266 outputs, its tokenizer .* token 266"):
        opened(directory)


def test_a_config_that_lacks_the_token_before_a_prompt_gets_it(directory):
    change(directory / "generation_config.json", prev_sot_token_id=None)
    recognizer = opened(directory)
    recognizer.save(directory)
    saved = json.loads((directory / "generation_config.json").read_text("utf-8"))
    tokens = recognizer.tokenizer.get_vocab()
    assert saved["prev_sot_token_id"] == tokens["<|startofprev|>"]


# Weights in int8


def test_weights_in_int8_are_widened_by_their_rows_scales(directory):
    weights = load_file(directory / "model.safetensors")
    state = dict(quantized(weights))
    save_file(state, directory / "model.safetensors", {"format": "pt"})
    assert {state[name].dtype for name in (QUERY, EMBEDDINGS)} == {torch.int8}
    for recognizer in (opened(directory), open_files(contents(directory))):
        assert recognizer.fresh == frozenset()
        for name, tensor in weights.items():
            found = recognizer.model.get_parameter(name)
            assert found.dtype == torch.float32
            if f"{name}_scale" in state:
                assert ((found - tensor).abs() <= state[f"{name}_scale"] * 0.501).all()
                assert not torch.equal(found, tensor)
            else:
                assert torch.equal(found, tensor)


@pytest.mark.parametrize(
    "scale",
    [
        None,
        torch.ones(4),
        torch.ones(4, 2),
        torch.ones(1, 3),
        torch.ones(4, 1, 1),
        torch.ones(4, 1, dtype=torch.int32),
        torch.tensor([[1.0], [2.0], [float("nan")], [1.0]]),
        torch.tensor([[1.0], [2.0], [float("inf")], [1.0]]),
        torch.tensor([[1.0], [2.0], [3e38], [1.0]]),  # infinite with what it scales
    ],
    ids=lambda scale: (
        "none" if scale is None else f"{tuple(scale.shape)}-{scale.max()}"
    ),
)
def test_int8_without_a_scale_for_each_row_is_refused(scale):
    state = {"w": torch.ones(4, 3, dtype=torch.int8)}
    if scale is not None:
        state["w_scale"] = scale
    with pytest.raises(DataError, match=r"there: the weights w(_scale)? (are|hold)"):
        check(state, "there")


def test_a_scale_may_be_of_16_bits_and_of_a_kernel():
    kernel = torch.arange(-128, 128).to(torch.int8).reshape(4, 8, 8)
    scale = torch.tensor([0.5, 1, 2, -4]).half().reshape(4, 1, 1)
    state = {"w": kernel, "w_scale": scale, "other_scale": torch.ones(2)}
    check(state, "there")
    found = widened(state)
    assert found.keys() == {"w", "other_scale"}
    assert torch.equal(found["w"], kernel.float() * scale.float())


# Statements


def test_statements_import_export_and_describe_it(directory, tmp_path, connection):
    connection.execute("IMPORT MODEL w FROM ?", (str(directory),))
    told = dict(connection.execute("DESCRIBE MODEL w"))
    assert told["architecture"] == "WhisperForConditionalGeneration"
    assert told["parameters"] == opened(directory).model.num_parameters()
    connection.execute("EXPORT MODEL w TO ?", (str(tmp_path / "out"),))
    model = AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path / "out").eval()
    recognizer = opened(directory)
    assert torch.equal(logits(model, recognizer), logits(recognizer.model, recognizer))
    (directory / "generation_config.json").unlink()
    with pytest.raises(thanosql.DataError, match="has no generation config"):
        connection.execute("IMPORT MODEL x FROM ?", (str(directory),))
