"""Whisper: the same texts and losses as transformers' own, whatever the batch."""

import io
from contextlib import closing, suppress

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tones import spoken, tones
from toys import config, draws, transcriptions, whisper
from transformers import (
    AutoFeatureExtractor,
    AutoTokenizer,
    WhisperForConditionalGeneration,
)

from thanosql.errors import DataError, OptionError, TrainingError
from thanosql.speech.decoding.decoding import WHOLE, Request
from thanosql.speech.decoding.windows_text import WindowText, WindowTexts
from thanosql.speech.recognizers import families
from thanosql.speech.recognizers import whisper as module
from thanosql.speech.recognizers.whisper_teaching import attend_across
from thanosql.speech.sound.audio import load
from thanosql.speech.training.batches import row_features
from thanosql.speech.training.conditions import gradient_checkpointing, seeded
from thanosql.speech.training.examination import examine
from thanosql.speech.training.train import train

LANGUAGES = ("en", "ko", "de")
AUDIO = [audio for audio, _ in spoken(9)]


def opened(directory):
    return families.recognizer(
        WhisperForConditionalGeneration.from_pretrained(directory).eval(),
        AutoTokenizer.from_pretrained(directory),
        AutoFeatureExtractor.from_pretrained(directory),
    )


@pytest.fixture(scope="module")
def english(tmp_path_factory):
    return opened(whisper(tmp_path_factory.mktemp("english")))


@pytest.fixture(scope="module")
def polyglot(tmp_path_factory):
    return opened(whisper(tmp_path_factory.mktemp("polyglot"), LANGUAGES))


def features(recognizer, audio=AUDIO):
    return [recognizer.features(load(each, None)) for each in audio]


@torch.no_grad()
def written(recognizer, batch, **request):
    decoding = recognizer.decoding(Request(**request))
    return [each.text for each in recognizer.scores(batch, decoding)]


@torch.no_grad()
def generated(recognizer, batch, **options):
    model, tokenizer = recognizer.model, recognizer.tokenizer
    texts = []
    for each in batch:
        (tokens,) = model.generate(each.T[None], **options)
        texts.append(tokenizer.decode(tokens, skip_special_tokens=True).strip())
    return texts


@pytest.fixture
def no_second_hearing(monkeypatch):
    """Let a text that repeats itself be: random weights write little else."""
    monkeypatch.setattr(module, "TEMPERATURES", ())


@pytest.mark.usefixtures("no_second_hearing")
def test_texts_are_those_of_transformers_generate(english):
    batch = features(english)
    found = written(english, batch)
    assert found == generated(english, batch)
    assert len({*found}) > 3


@pytest.mark.usefixtures("no_second_hearing")
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("task", ["transcribe", "translate"])
def test_texts_in_a_language_are_those_of_generate(polyglot, language, task):
    batch = features(polyglot, AUDIO[:4])
    found = written(polyglot, batch, language=language, task=task)
    assert found == generated(polyglot, batch, language=language, task=task)


@pytest.mark.usefixtures("no_second_hearing")
def test_the_language_found_is_the_one_that_transformers_finds(polyglot):
    batch = features(polyglot)
    with torch.no_grad():
        heard = polyglot.scores(batch, polyglot.decoding())
        ids = polyglot.model.detect_language(torch.stack([x.T for x in batch]))
    names = polyglot.tokenizer.convert_ids_to_tokens(ids)
    assert [f"<|{each.language}|>" for each in heard] == names
    assert all(1 / 3 <= each.language_probability <= 1 for each in heard)
    # transformers writes no task unless one is asked for; OpenAI's own always does.
    theirs = generated(polyglot, batch, task="transcribe")
    assert [each.text for each in heard] == theirs


@pytest.mark.usefixtures("no_second_hearing")
def test_a_text_does_not_depend_on_its_batch(english):
    batch = features(english)
    one_by_one = [written(english, [each])[0] for each in batch]
    assert written(english, batch) == one_by_one
    assert written(english, batch[::-1]) == one_by_one[::-1]
    for beams in (2, 4):
        one_by_one = [written(english, [x], beam_size=beams)[0] for x in batch]
        assert written(english, batch, beam_size=beams) == one_by_one


def test_what_is_drawn_again_does_not_depend_on_the_batch(english):
    batch = features(english)
    with torch.no_grad():
        heard = english.scores(batch, english.decoding())
        alone = [english.scores([x], english.decoding())[0] for x in batch]
    assert any(each.again for each in heard)
    assert [each.text for each in heard] == [each.text for each in alone]


@pytest.mark.usefixtures("no_second_hearing")
def test_a_beam_finds_what_is_likelier_than_the_greedy_text(english):
    batch = features(english)
    with torch.no_grad():
        greedy = english.scores(batch, english.decoding())
        beam = english.scores(batch, english.decoding(Request(beam_size=5)))

    def mean(heard):
        return heard.log_probability / heard.tokens

    gains = [mean(b) - mean(g) for b, g in zip(beam, greedy, strict=True)]
    assert sum(gains) > 0
    assert [b.text for b in beam] != [g.text for g in greedy]


@pytest.mark.usefixtures("no_second_hearing")
def test_a_prompt_changes_the_text_as_it_does_in_generate(english):
    batch = features(english, AUDIO[:3])
    prompt = english.tokenizer.get_prompt_ids("so to say", return_tensors="pt")
    found = written(english, batch, prompt="so  to say ")
    assert found == generated(english, batch, prompt_ids=prompt)
    assert found != written(english, batch)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"language": "de"}, "the model knows English only, not language 'de'"),
        ({"task": "translate"}, "knows English only, so it cannot translate"),
        ({"prompt": "long " * 20}, r"prompt has \d+ tokens; the model takes 22 at"),
    ],
)
def test_an_english_model_refuses_what_it_cannot(english, request_, message):
    with pytest.raises(OptionError, match=message):
        english.decoding(Request(**request_))
    for harmless in ("en", "English", "auto"):
        english.decoding(Request(language=harmless, task="transcribe"))


def test_a_language_is_given_by_code_or_name(polyglot):
    by_code = polyglot.decoding(Request(language="ko"))
    assert polyglot.decoding(Request(language="Korean")) == by_code
    assert polyglot.decoding(Request(language="auto")).language is None
    with pytest.raises(OptionError, match=r"no language 'french'.*it knows de, en, ko"):
        polyglot.decoding(Request(language="french"))
    with pytest.raises(OptionError, match="did you mean 'german'"):
        polyglot.decoding(Request(language="germa"))


def test_a_generation_config_says_the_language_and_task(tmp_path):
    recognizer = opened(whisper(tmp_path, LANGUAGES))
    own = recognizer.model.generation_config
    tokens = recognizer.tokenizer.convert_tokens_to_ids
    own.forced_decoder_ids = [[1, tokens("<|de|>")], [2, tokens("<|translate|>")]]
    assert recognizer.decoding() == recognizer.decoding(
        Request(language="de", task="translate")
    )
    own.language, own.task = "korean", "transcribe"
    assert recognizer.decoding().language == tokens("<|ko|>")
    assert recognizer.decoding().task == tokens("<|transcribe|>")
    own.num_beams = 3
    assert recognizer.decoding().beam_size == 3
    assert recognizer.decoding(Request(beam_size=1)).beam_size == 1


@pytest.mark.usefixtures("no_second_hearing")
def test_penalties_of_the_generation_config_are_kept(tmp_path):
    recognizer = opened(whisper(tmp_path))
    batch = features(recognizer, AUDIO[:4])
    plain = written(recognizer, batch)
    own = recognizer.model.generation_config
    own.repetition_penalty, own.no_repeat_ngram_size = 1.3, 2
    recognizer = families.recognizer(
        recognizer.model, recognizer.tokenizer, recognizer.feature_extractor
    )
    found = written(recognizer, batch)
    assert found == generated(recognizer, batch)
    assert found != plain


def test_windows_of_a_translation_are_joined_by_a_space(polyglot):
    def joined(language, task):
        decoder = polyglot.decoding(Request(language, task)).start()
        for text in ("one", "", "two"):
            decoder.feed(WindowText(text, -1.0, 2, language), WHOLE, ())
        return decoder.finish().text

    assert joined("ko", "transcribe") == "one two"
    decoder = WindowTexts()
    for text in ("하나", "둘"):
        decoder.feed(WindowText(text, -1.0, 2, "ja"), WHOLE, ())
    assert decoder.finish().text == "하나둘"
    decoder = WindowTexts("en")
    for text in ("one", "two"):
        decoder.feed(WindowText(text, -1.0, 2, "ja"), WHOLE, ())
    assert decoder.finish().text == "one two"
    assert joined("ko", "translate") == "one two"


def test_a_config_that_says_nonsense_of_its_language_is_refused(tmp_path):
    recognizer = opened(whisper(tmp_path, LANGUAGES))
    recognizer.model.generation_config.language = "klingon"
    with pytest.raises(DataError, match=r"config\.json is wrong: .*klingon"):
        recognizer.check("here")


def test_a_model_of_several_languages_is_told_which_to_be_trained_in(tmp_path):
    recognizer = opened(whisper(tmp_path, LANGUAGES))
    with pytest.raises(OptionError, match="say which one the texts are in"):
        recognizer.adopt(Request())
    recognizer.adopt(Request(language="german", task="translate"))
    own = recognizer.model.generation_config
    assert (own.language, own.task) == ("de", "translate")
    recognizer.adopt(Request())  # it has one now


def labelled(recognizer, targets):
    """Return the tokens given and wanted, as transformers' forward takes them."""
    start = recognizer.tokenizer.convert_tokens_to_ids(
        ["<|startoftranscript|>", "<|notimestamps|>"]
    )
    end = recognizer.tokenizer.convert_tokens_to_ids("<|endoftext|>")
    labels = torch.full((len(targets), 1 + max(map(len, targets)) + 1), -100)
    given = torch.full_like(labels, end)
    for i, target in enumerate(targets):
        labels[i, 1 : len(target) + 2] = torch.tensor([*target, end])
        given[i, : len(target) + 2] = torch.tensor([*start, *target])
    return {"decoder_input_ids": given, "labels": labels}


TEXTS = ("some words", "a", "and more")


def test_the_loss_is_that_of_transformers(english):
    batch = features(english, AUDIO[:3])
    targets = [english.targets(text) for text in TEXTS]
    with torch.no_grad():
        theirs = english.model(
            torch.stack([x.T for x in batch]), **labelled(english, targets)
        ).loss
        ours = english.loss(batch, targets).mean
        assessed, _ = english.assess(batch, targets, english.decoding())
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(assessed, theirs)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("is_frozen", [True, False])
@pytest.mark.parametrize("heads", [2, 8])  # a text is short, and long, for so many
def test_gradients_are_those_of_transformers(tmp_path, heads, is_frozen, checkpointed):
    recognizer = opened(whisper(tmp_path, decoder_attention_heads=heads))
    model = recognizer.model.double().train()
    recognizer.encoder.requires_grad_(not is_frozen)
    batch = [each.double() for each in features(recognizer, AUDIO[:3])]
    targets = [recognizer.targets(text) for text in TEXTS]

    def gradients(loss):
        model.zero_grad()
        loss.backward()
        return {n: p.grad for n, p in model.named_parameters() if p.requires_grad}

    waves = torch.stack([x.T for x in batch])
    theirs = gradients(model(waves, **labelled(recognizer, targets)).loss)
    with gradient_checkpointing(model, checkpointed):
        ours = gradients(recognizer.loss(batch, targets).mean)
    assert ours.keys() == theirs.keys()
    largest = max(float(each.abs().max()) for each in theirs.values())
    # The loss itself is of single precision, and so is what comes back from it.
    for name, each in theirs.items():
        assert float((ours[name] - each).abs().max()) < 1e-6 * largest, name


@pytest.mark.parametrize(
    "kind", ["dropout", "activation_dropout", "attention_dropout", "decoder_layerdrop"]
)
def test_each_dropout_is_drawn_in_training_only(tmp_path, kind):
    recognizer = opened(whisper(tmp_path, **{kind: 0.5}))
    recognizer.encoder.requires_grad_(False)
    frames = recognizer.frozen(features(recognizer, AUDIO[:3]))
    targets = [recognizer.targets(text) for text in TEXTS]

    def loss(seed):
        with seeded(seed), torch.no_grad():
            return float(recognizer.loss(frames, targets).mean)

    plain = loss(0)
    assert loss(1) == plain
    recognizer.model.train()
    assert [loss(i) for i in range(8)] == [loss(i) for i in range(8)]
    assert len({loss(i) for i in range(8)}) > 1


def test_dropped_weights_of_frames_take_their_share_of_the_bias_along(tmp_path):
    recognizer = opened(whisper(tmp_path, attention_dropout=0.3))
    attention = recognizer.model.model.decoder.layers[0].encoder_attn.train()
    with torch.no_grad():
        attention.v_proj.weight.zero_()
        attention.v_proj.bias.fill_(1)
        attention.out_proj.weight.copy_(torch.eye(32))
        attention.out_proj.bias.zero_()
        inputs, frames = torch.randn(3, 7, 32), torch.randn(3, 100, 32)
        found = attend_across(attention, inputs, frames)
    # What transformers gives: the sum of the weights that are left, the same in a head.
    assert torch.equal(found[..., 0], found[..., 15])
    assert found.std() > 0.01
    assert abs(float(found.mean()) - 1) < 0.1


def test_frames_of_a_frozen_encoder_stand_for_the_features(tmp_path):
    recognizer = opened(whisper(tmp_path, dropout=0.1))
    batch = features(recognizer, AUDIO[:3])
    assert recognizer.frozen(batch)[0] is batch[0]
    recognizer.encoder.requires_grad_(False)
    recognizer.model.train()
    recognizer.encoder.eval()  # as a training has a frozen one
    frames = recognizer.frozen(batch)
    assert frames[0].shape == (100, 32)
    recognizer.model.eval()
    targets = [recognizer.targets(text) for text in ("ab", "c", "dd")]
    mixed = [frames[0], batch[1], frames[2]]  # the cache has not room for all
    assert torch.equal(
        recognizer.loss(mixed, targets).mean, recognizer.loss(batch, targets).mean
    )


@given(st.text(max_size=40))
@settings(max_examples=150, deadline=None)
def test_any_text_can_be_written(english, text):
    spelling = english.spelling
    wanted = spelling.normalize(text)
    assert not wanted.dropped
    assert spelling.decode(spelling.encode(wanted.text)) == wanted.text.strip()


def test_the_name_of_a_special_token_is_text(english):
    ids = english.spelling.encode("a <|notimestamps|> b")
    assert english.spelling.decode(ids) == "a <|notimestamps|> b"


def test_it_learns_to_read_by_the_same_loop(tmp_path):
    recognizer = opened(whisper(tmp_path, init_std=0.1))
    rows = spoken(24)
    utterances = examine(recognizer, rows, None).utterances
    options = config(epochs=30, learning_rate=4e-3, freeze_encoder=False)
    epochs = [*train(recognizer, rows, utterances, utterances[:0], options, None)]
    assert epochs[-1].train_loss < 0.1 * epochs[0].train_loss
    audio = [audio for audio, _ in rows]
    (heard,) = transcriptions(recognizer, audio, batch_size=24, device="cpu", vad=False)
    pairs = zip(heard, rows, strict=True)
    assert sum(each.text == text for each, (_, text) in pairs) > 16


def test_slow_speech_beyond_the_window_is_trained_on_at_its_own_speed(english):
    audio, text = spoken(1)[0]
    waveform = np.tile(load(audio, None), 6)[:31_000]
    file = io.BytesIO()
    soundfile.write(file, waveform, 16_000, format="WAV")
    targets = english.targets(text)

    def made(speed):
        return row_features(english, 1, file.getvalue(), targets, None, speed)

    assert torch.equal(made(0.9), made(1.0))  # it would be 2.15 s long
    assert not torch.equal(made(1.1), made(1.0))


def test_spec_augment_of_the_config_masks_the_features(tmp_path):
    recognizer = opened(whisper(tmp_path, mask_time_prob=0.5, mask_feature_prob=0.5))
    batch = features(recognizer, AUDIO[:2])
    targets = [recognizer.targets(text) for text in ("ab", "cd")]
    recognizer.model.train()
    plain = recognizer.loss(batch, targets).mean
    recognizer.model.config.apply_spec_augment = True

    def loss(seed):
        return recognizer.loss(batch, targets, draws(seed, len(batch))).mean

    assert loss(0) != plain
    assert loss(0) == loss(0) != loss(1)
    recognizer.model.eval()
    assert recognizer.loss(batch, targets).mean == plain


def test_a_frozen_encoder_stays_as_it_is(tmp_path):
    recognizer = opened(whisper(tmp_path))
    before = {k: v.clone() for k, v in recognizer.model.state_dict().items()}
    rows = spoken(8)
    utterances = examine(recognizer, rows, None).utterances
    options = config(epochs=3)  # `auto`: the recordings are less than an hour
    with suppress(TrainingError):  # it has not learned to write yet
        [*train(recognizer, rows, utterances, utterances[:0], options, None)]
    moved = {
        name.split(".")[1]
        for name, tensor in recognizer.model.state_dict().items()
        if not torch.equal(tensor, before[name])
    }
    assert "decoder" in moved
    assert "encoder" not in moved
    assert all(p.requires_grad for p in recognizer.encoder.parameters() if p.ndim == 1)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_it_is_trained_and_heard_in_half_precision(tmp_path, precision):
    recognizer = opened(whisper(tmp_path))
    rows = spoken(12)
    utterances = examine(recognizer, rows, None).utterances
    options = config(epochs=6, precision=precision, freeze_encoder=False)
    epochs = [
        *train(recognizer, rows, utterances[2:], utterances[:2], options, None)
    ]  # fmt: skip
    assert epochs[-1].train_loss < epochs[0].train_loss
    (batch,) = transcriptions(
        recognizer,
        AUDIO[:3],
        batch_size=3,
        device="cpu",
        precision=precision,
        vad=False,  # tones are no speech
    )
    assert all(each.text for each in batch)


def test_rows_that_are_too_long_are_named(english):
    rows = [
        (tones("a" * 20), "ab"),
        (tones("ab"), "long " * 12),
        (tones("ab"), "ab"),
    ]
    first, second = examine(english, rows, None).bad
    assert first.row == 1
    assert first.reason == (
        "recording of 3.20 s: the model is trained on at most 2 s; cut it, and its "
        "text, into shorter ones"
    )
    assert second.row == 2
    assert second.reason == (
        "text of 60 tokens: the model writes at most 45; cut it, and its recording, "
        "into shorter ones"
    )


def test_features_are_those_of_the_extractor_for_any_length(english):
    for count in (1, 400, 31_999, 32_000):
        waveform = np.random.default_rng(0).normal(0, 0.1, count).astype(np.float32)
        found = english.features(waveform)
        theirs = english.feature_extractor(waveform, sampling_rate=16_000)
        assert found.shape == (200, 20)
        np.testing.assert_allclose(found.T, theirs["input_features"][0], atol=2e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_texts_on_a_gpu_are_those_of_a_cpu(tmp_path):
    recognizer = opened(whisper(tmp_path))

    def texts(**options):
        with closing(
            transcriptions(recognizer, AUDIO, batch_size=4, vad=False, **options)
        ) as batches:
            return [each.text for batch in batches for each in batch]

    assert texts(device="cuda", precision="fp32") == texts(device="cpu")
