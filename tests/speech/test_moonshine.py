"""Moonshine: the same texts and losses as transformers' own, whatever the batch."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tones import spoken, tones
from toys import config, draws, moonshine, transcriptions

from thanosql.errors import DataError, NotSupportedError, OptionError
from thanosql.speech.decoding.decoding import Request
from thanosql.speech.opening.opening import open_base
from thanosql.speech.recognizers.moonshine import MoonshineSteps
from thanosql.speech.recognizers.quantization import Int8Linear
from thanosql.speech.sound.audio import load
from thanosql.speech.training.conditions import gradient_checkpointing
from thanosql.speech.training.examination import examine
from thanosql.speech.training.train import train

AUDIO = [audio for audio, _ in spoken(7)]
TEXTS = ["abba", "c", "dead cab"]


def no_texts():
    pytest.fail("its vocabulary is its own")


def opened(directory, **settings):
    return open_base(str(moonshine(directory, **settings)), no_texts)


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory):
    return opened(tmp_path_factory.mktemp("moonshine"), initializer_range=0.4)


def features(recognizer, audio=AUDIO):
    return [recognizer.features(load(each, None)) for each in audio]


@torch.no_grad()
def written(recognizer, batch, **request):
    return recognizer.scores(batch, recognizer.decoding(Request(**request)))


@torch.no_grad()
def generated(recognizer, heard):
    (ids,) = recognizer.model.generate(input_values=heard[None])
    return ids.tolist()


@given(seed=st.integers(0, 10**6), samples=st.integers(1, 40_000))
@settings(max_examples=25, deadline=None)
def test_a_text_is_the_one_that_transformers_generates(recognizer, seed, samples):
    noise = np.random.default_rng(seed).normal(0, 0.3, samples).astype(np.float32)
    heard = recognizer.features(noise)
    ids = generated(recognizer, heard)
    (found,) = written(recognizer, [heard])
    assert found.text == recognizer.spelling.decode(ids)
    assert found.tokens == len(ids) - 1  # the end too, without the beginning


@pytest.mark.parametrize("settings_", [{"max_new_tokens": 7}, {"max_length": 9}])
def test_what_its_generation_config_says_holds_for_its_texts(tmp_path, settings_):
    recognizer = opened(tmp_path, initializer_range=0.4)
    generation = recognizer.model.generation_config
    generation.update(max_length=None, no_repeat_ngram_size=2, repetition_penalty=1.5)
    generation.update(**settings_)
    batch = features(recognizer)
    found = [each.text for each in written(recognizer, batch)]
    theirs = [generated(recognizer, each) for each in batch]
    assert found == [recognizer.spelling.decode(ids) for ids in theirs]
    assert max(len(ids) for ids in theirs) < 10


def test_a_text_does_not_depend_on_its_batch(recognizer):
    batch = features(recognizer)
    for beams in (1, 3):
        alone = [written(recognizer, [x], beam_size=beams)[0] for x in batch]
        assert written(recognizer, batch, beam_size=beams) == alone
        assert written(recognizer, batch[::-1], beam_size=beams) == alone[::-1]
        assert len({each.text for each in alone}) > 1


def test_log_probabilities_are_those_of_the_model_run_anew(recognizer):
    batch = features(recognizer, AUDIO[:3])
    for each, found in zip(batch, written(recognizer, batch), strict=True):
        ids = torch.tensor([generated(recognizer, each)])
        with torch.no_grad():
            logits = recognizer.model(
                input_values=each[None], decoder_input_ids=ids[:, :-1]
            ).logits[0]
        never = recognizer.model.generation_config.suppress_tokens
        logits[:, never] = -torch.inf
        chosen = logits.log_softmax(-1).gather(1, ids[0, 1:, None]).sum()
        assert found.log_probability == pytest.approx(float(chosen), rel=1e-4)


def test_a_beam_finds_what_is_likelier_than_the_greedy_text(recognizer):
    batch = features(recognizer)

    def mean(found):
        return sum(each.log_probability / each.tokens for each in found)

    assert mean(written(recognizer, batch, beam_size=4)) > mean(
        written(recognizer, batch)
    )
    own = recognizer.model.generation_config
    own.num_beams, before = 3, own.num_beams
    try:
        assert recognizer.decoding().beam_size == 3
        assert recognizer.decoding(Request(beam_size=1)).beam_size == 1
    finally:
        own.num_beams = before


def test_hypotheses_go_on_from_what_each_has_written(recognizer):
    """As if each had been written anew, whichever were chosen before."""
    with torch.no_grad():
        (frames,) = recognizer.encoded(features(recognizer, AUDIO[:1]))
        steps = MoonshineSteps(recognizer.model, frames)
        steps.advance(torch.tensor([[1]]))
        steps.select([0, 0, 0])
        steps.advance(torch.tensor([[260], [261], [262]]))
        steps.select([2, 0])
        found = steps.advance(torch.tensor([[263], [264]]))
        for row, said in zip(found, ([1, 262, 263], [1, 260, 264]), strict=True):
            anew = MoonshineSteps(recognizer.model, frames)
            expected = anew.advance(torch.tensor([said]))[0]
            torch.testing.assert_close(row, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_the_loss_and_its_gradients_are_those_of_transformers(recognizer, checkpointed):
    batch = features(recognizer, AUDIO[:3])
    targets = [recognizer.targets(text) for text in TEXTS]
    model = recognizer.model

    def gradients(loss):
        model.zero_grad()
        loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters()}

    model.train()
    with gradient_checkpointing(model, checkpointed):
        loss = recognizer.loss(batch, targets).mean
        found = gradients(loss)
    model.eval()
    counts = [len(ids) + 1 for ids in targets]  # and the end
    theirs = sum(
        count * model(input_values=x[None], labels=torch.tensor([[*ids, 2]])).loss
        for x, ids, count in zip(batch, targets, counts, strict=True)
    ) / sum(counts)
    torch.testing.assert_close(loss, theirs)
    expected = gradients(theirs)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-3)
    with torch.no_grad():
        mean, texts = recognizer.assess(batch, targets, recognizer.decoding())
    torch.testing.assert_close(mean, loss.detach())
    assert [x.text for x in texts] == [x.text for x in written(recognizer, batch)]


def test_frames_of_a_frozen_encoder_stand_for_the_features(tmp_path):
    recognizer = opened(tmp_path)
    batch = features(recognizer, AUDIO[:3])
    assert recognizer.frozen(batch)[0] is batch[0]
    for name, parameter in recognizer.model.named_parameters():
        parameter.requires_grad_(not recognizer.encodes(name))
    frames = recognizer.frozen(batch)
    assert [each.shape[1] for each in frames] == [32, 32, 32]
    targets = [recognizer.targets(text) for text in TEXTS]
    mixed = [frames[0], batch[1], frames[2]]  # the cache has not room for all
    assert torch.equal(
        recognizer.loss(mixed, targets).mean, recognizer.loss(batch, targets).mean
    )


def test_spec_augment_follows_the_draws_and_leaves_no_trace(tmp_path):
    recognizer = opened(tmp_path)
    batch = features(recognizer, AUDIO[:2])
    targets = [recognizer.targets(text) for text in TEXTS[:2]]
    recognizer.model.train()
    plain = recognizer.loss(batch, targets).mean
    masks = {"mask_time_prob": 0.5, "mask_time_length": 3, "mask_time_min_masks": 2}
    recognizer.model.config.update({**masks, "apply_spec_augment": True})

    def loss(seed):
        return recognizer.loss(batch, targets, draws(seed, 2)).mean

    def gradient(seed):
        recognizer.model.zero_grad()
        loss(seed).backward()
        return recognizer.model.model.encoder.conv2.weight.grad.clone()

    assert loss(0) != plain
    assert loss(0) == loss(0) != loss(1)
    expected = gradient(0)
    with gradient_checkpointing(recognizer.model, enabled=True):
        torch.testing.assert_close(gradient(0), expected)
    recognizer.model.eval()
    assert recognizer.loss(batch, targets).mean == plain
    recognizer.model.train()
    recognizer.model.config.apply_spec_augment = False
    assert recognizer.loss(batch, targets).mean == plain


def test_it_learns_to_read_by_the_same_loop(tmp_path):
    recognizer = opened(tmp_path, initializer_range=0.1)
    rows = spoken(24)
    utterances = examine(recognizer, rows, None).utterances
    options = config(epochs=40, learning_rate=4e-3, freeze_encoder=False)
    epochs = [*train(recognizer, rows, utterances, utterances[:0], options, None)]
    assert epochs[-1].train_loss < 0.1 * epochs[0].train_loss
    audio = [audio for audio, _ in rows]
    (heard,) = transcriptions(recognizer, audio, batch_size=24, device="cpu", vad=False)
    pairs = zip(heard, rows, strict=True)
    assert sum(each.text == text for each, (_, text) in pairs) > 16


def test_a_long_recording_is_read_in_windows_of_30_s_at_most(recognizer):
    said = " ".join(["abcd"] * 90)  # 72 s
    audio = load(tones(said), None)
    windows = [*recognizer.windows(60, vad=False).cut([audio])]
    lengths = [len(window.waveform) / 16_000 for window in windows]
    assert len(lengths) > 2
    assert max(lengths) <= 30
    (found,) = [
        each
        for batch in transcriptions(
            recognizer, [tones(said)], batch_size=2, device="cpu", vad=False
        )
        for each in batch
    ]
    parts = written(
        recognizer, [recognizer.features(window.waveform) for window in windows]
    )
    assert found.text == " ".join(part.text for part in parts)
    with pytest.raises(OptionError, match="5 is the least"):
        recognizer.windows(3)


@given(st.text(max_size=40))
@settings(max_examples=100, deadline=None)
def test_any_text_can_be_written(recognizer, text):
    spelling = recognizer.spelling
    wanted = spelling.normalize(text)
    # The mark that stands for a space in its vocabulary is read as one.
    expected = " ".join(wanted.text.replace("\u2581", " ").split())
    found = " ".join(spelling.decode(spelling.encode(wanted.text)).split())
    assert found == expected


def test_a_text_begins_with_one_space_and_no_special_token(recognizer):
    vocabulary = recognizer.tokenizer.get_vocab()
    assert recognizer.targets("a  b") == tuple(vocabulary[x] for x in "\u2581a\u2581b")


@pytest.mark.parametrize(
    "request_",
    [
        Request(language="en"),
        Request(task="translate"),
        Request(prompt="so"),
        Request(words=True),
        Request(alternatives=3),
        Request(hotwords=("Anna",)),
        Request(own_hotwords=True),
        Request(hotword_weight=2.0),
        Request(lm_weight=0.5),
        Request(word_bonus=0.5),
        Request(align=True),
    ],
)
def test_what_it_cannot_do_is_refused_with_the_reason(recognizer, request_):
    with pytest.raises(OptionError, match="Moonshine"):
        recognizer.decoding(request_)


def test_texts_and_recordings_that_are_too_long_are_bad_rows(recognizer):
    assert recognizer.misfit([260] * 38, 16_000, 1.0) == ""
    assert "at most 38" in recognizer.misfit([260] * 39, 16_000, 1.0)
    assert "at most 30 s" in recognizer.misfit([260], 500_000, 31.0)


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        ("generation_config.json", {"decoder_start_token_id": 900}, "first token"),
        ("generation_config.json", {"eos_token_id": 900}, "its end is token 900"),
        ("preprocessor_config.json", {"sampling_rate": 8_000}, "8000 Hz"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(tmp_path, file, changes, said):
    moonshine(tmp_path)
    content = json.loads((tmp_path / file).read_text())
    (tmp_path / file).write_text(json.dumps(content | changes))
    with pytest.raises((DataError, NotSupportedError), match=said):
        open_base(str(tmp_path), no_texts)


@pytest.mark.parametrize("file", ["tokenizer.json", "preprocessor_config.json"])
def test_a_directory_that_lacks_a_part_names_it(tmp_path, file):
    moonshine(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(DataError, match=file):
        open_base(str(tmp_path), no_texts)


def test_in_int8_the_encoder_alone_is_rounded_and_the_batch_does_not_count(tmp_path):
    recognizer = opened(tmp_path, hidden_size=256, intermediate_size=512)
    rounded = recognizer.int8
    names = [n for n, m in rounded.model.named_modules() if isinstance(m, Int8Linear)]
    assert names
    assert all(recognizer.encodes(name) for name in names)
    batch = features(recognizer)
    alone = [written(rounded, [each])[0] for each in batch]
    assert written(rounded, batch) == alone
