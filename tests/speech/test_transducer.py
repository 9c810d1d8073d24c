"""Transducers against transformers' own `generate`, alone, in batches, in windows."""

from __future__ import annotations

import json
from itertools import groupby, product
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tones import spoken
from toys import TRANSDUCERS, transducer, write_config

from thanosql import connect
from thanosql.errors import DataError, OptionError
from thanosql.speech.decoding.decoding import Request
from thanosql.speech.opening.opening import open_base
from thanosql.speech.recognizers import transducer_search
from thanosql.speech.recognizers.recognizer import quiet
from thanosql.speech.recognizers.transducer_search import GreedySearch, Lane

TEXTS = ["abcd", "Hello World"]


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    waveform = np.random.default_rng(seed).normal(0, 0.1, int(16_000 * seconds))
    return waveform.astype(np.float32)


def searched(recognizer, frames, pieces=1):
    """Return the emissions of each utterance, all searched together."""
    search = GreedySearch(recognizer.model)
    lanes = [Lane() for _ in frames]
    cut = [each.chunk(pieces) for each in frames]
    for number in range(pieces):
        for lane, parts in zip(lanes, cut, strict=True):
            if number < len(parts):
                lane.waiting.append(parts[number])
        search.run(lanes)
    return [lane.emissions for lane in lanes]


def places(emissions):
    return [(each.token, each.frame) for each in emissions]


@torch.no_grad()
def generated(recognizer, features):
    """Return what transformers writes, as (token, frame), and whether it got through.

    Without a limit at a frame it does not: there are durations of 0.
    """
    model = recognizer.model
    blank = model.config.blank_token_id
    durations = len(getattr(model.config, "durations", ()))
    with quiet():
        found = model.generate(
            input_features=features[None],
            attention_mask=torch.ones(1, len(features), dtype=torch.long),
            decoder_start_token_id=blank,
            max_new_tokens=20 * len(features),
            suppress_tokens=[model.config.vocab_size + i for i in range(durations)],
        )
    tokens = found.sequences[0].tolist()[1:]
    durations = found.durations[0].tolist()[1:]
    frame, written = 0, []
    for token, duration in zip(tokens, durations, strict=True):
        if token != blank:
            written.append((token, frame))
        frame += duration
    length = len(recognizer.encoded([features])[0])
    return written, frame >= length


def most_at_a_frame(written) -> int:
    runs = groupby(frame for _, frame in written)
    return max((len([*run]) for _, run in runs), default=0)


@given(
    kind=st.sampled_from([*TRANSDUCERS]),
    seed=st.integers(0, 10**6),
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=3),
    blank_bias=st.sampled_from([0.0, 3.0, 6.0, 10.0]),
)
@settings(max_examples=40, deadline=None)
@torch.no_grad()
def test_every_text_is_the_one_that_transformers_generates(
    kind, seed, lengths, blank_bias
):
    recognizer = transducer(kind, seed, blank_bias)
    generator = torch.Generator().manual_seed(seed)
    features = [torch.randn(n, 16, generator=generator) for n in lengths]
    together = searched(recognizer, recognizer.encoded(features))
    most = recognizer.model.config.max_symbols_per_step
    for each, emissions in zip(features, together, strict=True):
        theirs, is_whole = generated(recognizer, each)
        ours = places(emissions)
        if kind == "parakeet_tdt" and most_at_a_frame(theirs) >= most:
            # Of these transformers has no limit at a frame, and we have.
            assert most_at_a_frame(ours) == most
        elif is_whole:
            assert ours == theirs
        else:
            assert ours[: len(theirs)] == theirs


@pytest.mark.parametrize("kind", TRANSDUCERS)
def test_random_models_write_texts_worth_comparing(kind):
    """So that the test above says something: many tokens, blanks, several lengths."""
    texts = []
    for seed, blank_bias in product(range(6), (0.0, 3.0, 6.0, 10.0)):
        recognizer = transducer(kind, seed, blank_bias)
        torch.manual_seed(seed)
        with torch.no_grad():
            frames = recognizer.encoded([torch.randn(50, 16)])
        texts.append(places(searched(recognizer, frames)[0]))
    assert len({token for text in texts for token, _ in text}) >= 6
    assert len({tuple(text) for text in texts}) >= 9
    assert any(0 < most_at_a_frame(text) < 10 for text in texts)


@given(
    kind=st.sampled_from([*TRANSDUCERS]),
    seed=st.integers(0, 10**6),
    pieces=st.integers(2, 6),
)
@settings(max_examples=25, deadline=None)
@torch.no_grad()
def test_the_state_runs_through_from_piece_to_piece(kind, seed, pieces):
    recognizer = transducer(kind, seed, blank_bias=1.0)
    generator = torch.Generator().manual_seed(seed)
    features = [torch.randn(n, 16, generator=generator) for n in (90, 31, 60)]
    frames = recognizer.encoded(features)
    whole = searched(recognizer, frames)
    for one, other in zip(whole, searched(recognizer, frames, pieces), strict=True):
        assert places(one) == places(other)


@pytest.mark.parametrize("kind", TRANSDUCERS)
@torch.no_grad()
def test_steps_that_nobody_looks_at_change_nothing(kind, monkeypatch):
    """As on a GPU, which is not waited for after each step."""
    recognizer = transducer(kind, 3, blank_bias=1.0)
    frames = recognizer.encoded([torch.randn(n, 16) for n in (40, 90, 5)])
    expected = searched(recognizer, frames)
    monkeypatch.setattr(transducer_search, "_looks_often", lambda device: False)
    for one, other in zip(expected, searched(recognizer, frames), strict=True):
        assert places(one) == places(other)
        assert [each.duration for each in one] == [each.duration for each in other]


@pytest.mark.parametrize("kind", TRANSDUCERS)
@torch.no_grad()
def test_log_probabilities_are_those_of_the_model_run_anew(kind):
    recognizer = transducer(kind, 5, blank_bias=1.0)
    model = recognizer.model
    (frames,) = recognizer.encoded([torch.randn(60, 16)])
    (emissions,) = searched(recognizer, [frames])
    blank = model.config.blank_token_id
    assert emissions
    given_before = torch.tensor([[blank, *(each.token for each in emissions)]])
    outputs = model.decoder(given_before)[0]
    for output, each in zip(outputs, emissions, strict=False):
        scores = model.joint(output, frames[each.frame])[: model.config.vocab_size]
        expected = scores.log_softmax(-1)[each.token]
        assert each.log_probability == pytest.approx(float(expected), abs=1e-4)


@given(
    kind=st.sampled_from([*TRANSDUCERS]),
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=4),
)
@settings(max_examples=25, deadline=None)
@torch.no_grad()
def test_neighbours_change_no_frame(kind, lengths):
    recognizer = transducer(kind, 1)
    torch.manual_seed(0)
    features = [torch.randn(n, 16) for n in lengths]
    padded = recognizer._padded(features)  # as on a GPU
    for row, other, each in zip(
        recognizer.encoded(features), padded, features, strict=True
    ):
        (alone,) = recognizer.encoded([each])
        torch.testing.assert_close(row, alone, atol=1e-5, rtol=0)
        torch.testing.assert_close(other, alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", TRANSDUCERS)
def test_each_kind_is_built_predicts_and_is_exported(kind, tmp_path):
    torch.manual_seed(0)
    recognizer = open_base(str(write_config(tmp_path / "bare", kind)), lambda: ["abcd"])
    with torch.no_grad():  # so that it writes, and what depends on what it hears
        recognizer.model.joint.head.weight *= 5
        recognizer.model.joint.head.bias[0] -= 2
        recognizer.model.encoder_projector.weight *= 5
    recognizer.save(tmp_path / "base")
    with connect(":memory:") as connection:
        connection.execute("CREATE TABLE clips (audio BLOB, text TEXT)")
        connection.executemany("INSERT INTO clips VALUES (?, ?)", spoken(6))
        connection.commit()
        connection.execute(
            f"BUILD MODEL reader USING '{tmp_path / 'base'}' OPTIONS (epochs=1, "
            "batch_size=4, learning_rate=1e-5) AS SELECT audio, text FROM clips"
        )
        texts = predicted(connection, "reader", batch_size=4)
        assert len({*texts}) > 1
        assert texts == predicted(connection, "reader", batch_size=1)
        connection.execute(f"EXPORT MODEL reader TO '{tmp_path / 'out'}'")
        connection.execute(f"IMPORT MODEL again FROM '{tmp_path / 'out'}'")
        assert texts == predicted(connection, "again", batch_size=3)
    elsewhere = open_elsewhere(tmp_path / "out", kind)
    heard = recognizer.features(noise(1.0))
    recognizer.model.load_state_dict(elsewhere.model.state_dict())
    written, _ = generated(recognizer, heard)
    with quiet():  # all that it must be told is in the directory
        found = elsewhere.model.generate(
            input_features=heard[None], max_new_tokens=20 * len(heard)
        )
    blank = elsewhere.model.config.blank_token_id
    tokens = [token for token in found.sequences[0].tolist() if token != blank]
    assert tokens == [token for token, _ in written]
    assert elsewhere.tokenizer.get_vocab() == recognizer.tokenizer.get_vocab()


def predicted(connection, model, batch_size):
    return [
        text
        for *_, text in connection.execute(
            f"PREDICT USING {model} OPTIONS (batch_size={batch_size}) "
            "AS SELECT audio FROM clips"
        )
    ]


def open_elsewhere(directory, kind):
    """Return what transformers' Auto classes make of a directory."""
    automatic = "AutoModelForTDT" if kind == "parakeet_tdt" else "AutoModelForRNNT"
    with quiet():
        return SimpleNamespace(
            model=getattr(transformers, automatic).from_pretrained(directory),
            tokenizer=transformers.AutoTokenizer.from_pretrained(directory),
        )


@pytest.mark.parametrize("kind", TRANSDUCERS)
def test_a_bare_config_gets_a_vocabulary_and_opens_again_as_it_was(kind, tmp_path):
    torch.manual_seed(1)
    recognizer = open_base(str(write_config(tmp_path / "bare", kind)), lambda: TEXTS)
    vocabulary = recognizer.tokenizer.get_vocab()
    config = recognizer.model.config
    assert config.vocab_size == len(vocabulary)
    assert config.blank_token_id == config.pad_token_id == vocabulary["[PAD]"] == 0
    assert recognizer.fresh == {name for name, _ in recognizer.model.named_parameters()}
    embedding = recognizer.model.decoder.embedding.weight.detach()
    assert 0.8 < float(embedding.std()) < 1.2
    recognizer.save(tmp_path / "model")
    again = open_base(str(tmp_path / "model"), lambda: pytest.fail("has a vocabulary"))
    assert not again.fresh
    for name, tensor in recognizer.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], tensor, msg=name)
    heard = [again.features(noise(1.0))]
    with torch.no_grad():
        torch.testing.assert_close(again.encoded(heard), recognizer.encoded(heard))


def test_parts_that_do_not_belong_together_are_refused(tmp_path):
    recognizer = open_base(
        str(write_config(tmp_path / "a", "parakeet_tdt")), lambda: TEXTS
    )
    recognizer.save(tmp_path / "model")
    config = json.loads((tmp_path / "model/config.json").read_text())
    for changes, said in (
        ({"blank_token_id": 500}, "do not belong together"),
        ({"blank_token_id": 5}, "is a token of text as well"),
        ({"durations": [0, 2, 4, 6, 8]}, "lack 1"),
        ({"max_symbols_per_step": 0}, "max_symbols_per_step"),
    ):
        (tmp_path / "model/config.json").write_text(json.dumps(config | changes))
        with pytest.raises(DataError, match=said):
            open_base(str(tmp_path / "model"), lambda: TEXTS)


@pytest.mark.parametrize(
    "request_",
    [
        Request(language="en"),
        Request(task="translate"),
        Request(prompt="so"),
        Request(beam_size=4),
        Request(alternatives=3),
        Request(alternatives=1),
        Request(hotwords=("Anna",)),
        Request(lm_weight=0.5),
        Request(word_bonus=0.5),
        Request(own_hotwords=True),
        Request(hotword_weight=2.0),
        Request(align=True),
    ],
)
def test_what_a_transducer_cannot_do_is_refused_with_the_reason(request_):
    recognizer = transducer("parakeet_tdt")
    with pytest.raises(OptionError, match="transducer"):
        recognizer.decoding(request_)


def test_a_beam_of_one_is_the_greedy_search(tmp_path):
    recognizer = open_base(str(write_config(tmp_path, "parakeet_rnnt")), lambda: TEXTS)
    features = [recognizer.features(noise(1.0))]
    (greedy,) = recognizer.recognize(features, recognizer.decoding())
    one = recognizer.decoding(Request(beam_size=1))
    assert recognizer.recognize(features, one) == [greedy]
