"""Adapters: every family computes with the sums, and the base stays as it is."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tones import tones
from toys import KINDS, TRANSDUCER_KINDS, WRITERS, config, whisper, write_config

from thanosql import errors
from thanosql.speech import sharing
from thanosql.speech.decoding.decoding import Request
from thanosql.speech.fitting import Material
from thanosql.speech.opening import adapters
from thanosql.speech.opening.opening import open_base
from thanosql.speech.recognizers import adapter, quantization
from thanosql.speech.sound.audio import load
from thanosql.speech.training import train, utterances
from thanosql.speech.training.examination import examine

FAMILIES = [*KINDS, *TRANSDUCER_KINDS, *WRITERS]
ROWS = [(tones(text, seed=i), text) for i, text in enumerate(("abc", "bad", "dab"))]


def opened(kind, directory):
    """Return the recognizer of a model of a kind, the same at each call."""
    if kind in WRITERS:
        return open_base(str(WRITERS[kind](directory / kind)), list)
    torch.manual_seed(3)
    return open_base(str(write_config(directory / kind, kind)), lambda: ["abcd"])


def adapted(recognizer, rank=3):
    """Give a recognizer an adapter as a training has one, and return it."""
    recognizer.adapter = adapter.add(
        recognizer.model, adapter.projections(recognizer.model), rank
    )
    return recognizer.adapter


def loss(recognizer, *, gradient=False):
    with torch.set_grad_enabled(gradient):
        batch = [recognizer.features(load(audio, None)) for audio, _ in ROWS]
        targets = [recognizer.targets(text) for _, text in ROWS]
        return recognizer.loss(batch, targets).mean


def files_of(recognizer, directory):
    """Return what a stored adapter's files say, after they were written and read."""
    directory.mkdir()
    adapters.save(recognizer, directory, "base", "0" * 64)
    return adapters.read_directory(directory)


@pytest.mark.parametrize("kind", FAMILIES)
def test_workers_get_the_base_and_the_adapter_as_they_are(kind, tmp_path):
    recognizer = opened(kind, tmp_path)
    adapted(recognizer).apply()
    state = recognizer.model.state_dict()
    for name, tensor in state.items():
        if name.endswith("lora_B"):
            tensor.normal_()
    none = utterances.Utterances()
    material = Material(recognizer, Request(), None, [], [], "cpu", none, none, {})
    plan = sharing.plan(material, config(), None)
    there = sharing.opened(plan, sharing.packed(material))
    found = there.model.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)
    trained = {n for n, p in there.model.named_parameters() if p.requires_grad}
    assert trained == {n for n in state if n.endswith(("lora_A", "lora_B"))}


@pytest.mark.parametrize("kind", FAMILIES)
def test_each_kind_trains_an_adapter_and_leaves_its_base_as_it_is(kind, tmp_path):
    recognizer, base = opened(kind, tmp_path), opened(kind, tmp_path)
    made = adapted(recognizer)
    trained = [
        name for name, p in recognizer.model.named_parameters() if p.requires_grad
    ]
    assert len(trained) == 2 * len(made.layers) > 0
    assert all(name.endswith(("lora_A", "lora_B")) for name in trained)
    before = loss(base)
    made.apply()
    assert torch.equal(loss(recognizer), before)  # B is zero

    optimizer = torch.optim.SGD(
        [p for p in recognizer.model.parameters() if p.requires_grad], lr=0.5
    )
    for _ in range(2):  # A moves only once B is not zero
        made.apply()
        loss(recognizer, gradient=True).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        made.apply()
    after = loss(recognizer)
    assert not torch.equal(after, before)
    state = recognizer.model.state_dict()
    for name, tensor in base.model.state_dict().items():
        assert torch.equal(state[name], tensor), name

    # As it is loaded: over a base that it shares its tensors with.
    over = adapters.over(base, files_of(recognizer, tmp_path / "adapter"))
    assert torch.allclose(loss(over), after, rtol=1e-5)
    assert torch.equal(loss(base), before)
    shared = {p.data_ptr() for p in base.model.parameters()}
    for name, parameter in over.model.named_parameters():
        layer = name.removesuffix(".weight")
        assert (parameter.data_ptr() in shared) == (layer not in made.layers), name


def trained(recognizer, **changes):
    examined = examine(recognizer, ROWS, None).utterances
    options = config(**{"adapter": 3, **changes})
    epochs = train.train(
        recognizer, ROWS, examined, utterances.Utterances(), options, None
    )
    try:
        return list(epochs)
    except train.TrainingError:  # a toy that has learned nothing yet
        return None


CHANGES = [
    (kind, changes)
    for kind in ("wav2vec2", "parakeet_ctc", "whisper")
    for changes in (
        {},
        {"precision": "bf16"},
        {"gradient_checkpointing": True},
        {"spec_augment": True},
    )
]


@pytest.mark.parametrize(
    ("kind", "changes"), [*CHANGES, ("whisper", {"freeze_encoder": True})], ids=str
)
def test_the_loop_moves_the_adapter_and_nothing_else(kind, changes, tmp_path):
    recognizer, base = opened(kind, tmp_path), opened(kind, tmp_path)
    adapted(recognizer)
    drawn = {n: p.clone() for n, p in recognizer.model.named_parameters()}
    trained(recognizer, **changes)
    state = recognizer.model.state_dict()
    for name, tensor in base.model.state_dict().items():  # batch norms' means, too
        assert torch.equal(state[name], tensor), name
    moved = {n for n, p in state.items() if n in drawn and not torch.equal(p, drawn[n])}
    wanted = {n for n in drawn if n.endswith("lora_B")}
    if "freeze_encoder" in changes:
        wanted = {name for name in wanted if not recognizer.encodes(name)}
    assert wanted <= moved <= {n for n in drawn if "lora_" in n}


def test_a_training_ends_with_the_sums_of_its_last_weights(tmp_path):
    recognizer = opened("parakeet_ctc", tmp_path)
    adapted(recognizer)
    trained(recognizer)
    over = adapters.over(
        opened("parakeet_ctc", tmp_path), files_of(recognizer, tmp_path / "adapter")
    )
    assert torch.allclose(loss(recognizer), loss(over), rtol=1e-6)


def test_an_adapter_goes_on_where_it_was(tmp_path):
    recognizer = opened("whisper", tmp_path)
    adapted(recognizer)
    trained(recognizer)
    files = files_of(recognizer, tmp_path / "adapter")
    again = opened("whisper", tmp_path)
    adapters.train_further(again, files)
    again.adapter.apply()
    assert torch.equal(loss(again), loss(recognizer))
    for name, pair in again.adapter.matrices().items():
        for ours, theirs in zip(pair, files.matrices[name], strict=True):
            assert torch.equal(ours, theirs)


def test_int8_rounds_the_sums_and_not_the_base(tmp_path, monkeypatch):
    monkeypatch.setattr(quantization, "LEAST_SIZE", 1)
    base = opened("wav2vec2", tmp_path)
    recognizer = opened("wav2vec2", tmp_path)
    for layer in adapted(recognizer).layers.values():
        torch.nn.init.normal_(layer.lora_B)
    over = adapters.over(base, files_of(recognizer, tmp_path / "adapter"))
    with torch.no_grad():
        assert not torch.allclose(loss(over.int8), loss(base.int8), rtol=1e-2)
        assert torch.allclose(loss(over.int8), loss(over), rtol=5e-2)


def test_the_language_and_window_of_the_texts_are_told_to_the_base(tmp_path):
    def multilingual():
        directory = tmp_path / "w"
        return open_base(str(whisper(directory, languages=("en", "ko"))), list)

    recognizer = multilingual()
    adapted(recognizer).told = adapter.Told("ko", "transcribe", "short")
    base = multilingual()
    over = adapters.over(base, files_of(recognizer, tmp_path / "adapter"))
    assert over.window == "short"
    assert base.window == "exact"
    assert over.decoding().language != base.decoding().language


@given(rank=st.integers(1, 12), alpha=st.floats(0.5, 64), seed=st.integers(0, 99))
def test_what_is_folded_in_is_what_was_computed_with(rank, alpha, seed):
    torch.manual_seed(seed)
    layer = torch.nn.Sequential(torch.nn.Linear(7, 5))
    weight = layer[0].weight.detach().clone()
    made = adapter.add(layer, ["0"], rank, alpha)
    torch.nn.init.normal_(layer[0].lora_B)
    made.apply()
    product = layer[0].lora_B @ layer[0].lora_A
    assert torch.allclose(layer[0].weight, weight + alpha / rank * product, atol=1e-4)
    other = torch.nn.Sequential(torch.nn.Linear(7, 5))
    other[0].weight.data.copy_(weight)
    adapter.fold_in(other, made.matrices(), made.scale)
    assert torch.equal(other[0].weight, layer[0].weight)


MORE_THAN_LORA = [
    ({"use_dora": True}, "only plain LoRA is run here"),
    ({"peft_type": "IA3"}, "only plain LoRA is run here"),
    ({"bias": "all"}, "only plain LoRA is run here"),
    ({"modules_to_save": ["lm_head"]}, "only plain LoRA is run here"),
    ({"rank_pattern": {"q_proj": 4}}, "only plain LoRA is run here"),
    ({"r": 5}, "of shapes"),
    ({"r": "3"}, "has r = '3'"),
    ({"lora_alpha": None}, "lora_alpha = None"),
    ({"base_model_name_or_path": 3}, "not a text"),
]


@pytest.mark.parametrize(("change", "message"), MORE_THAN_LORA, ids=str)
def test_what_is_no_plain_lora_is_refused(change, message, tmp_path):
    recognizer = opened("wav2vec2", tmp_path)
    adapted(recognizer)
    files_of(recognizer, tmp_path / "adapter")
    path = tmp_path / "adapter" / adapters.CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises((errors.NotSupportedError, errors.DataError), match=message):
        adapters.read_directory(tmp_path / "adapter")


def test_weights_that_are_only_a_pickle_are_refused(tmp_path):
    recognizer = opened("wav2vec2", tmp_path)
    adapted(recognizer)
    files_of(recognizer, tmp_path / "adapter")
    weights = tmp_path / "adapter" / adapters.WEIGHTS
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(errors.NotSupportedError, match=r"adapter_model\.bin.*run code"):
        adapters.read_directory(tmp_path / "adapter")


def test_an_adapter_of_another_model_is_refused(tmp_path):
    recognizer = opened("wav2vec2", tmp_path)
    adapted(recognizer)
    files = files_of(recognizer, tmp_path / "adapter")
    with pytest.raises(errors.DataError, match="its base is another model"):
        adapters.over(opened("parakeet_ctc", tmp_path), files)
    wider = write_config(tmp_path / "wider", "wav2vec2", hidden_size=32)
    with pytest.raises(errors.DataError, match="in the base it is of shape"):
        adapters.over(open_base(str(wider), lambda: ["abcd"]), files)
