"""Whisper's words: when each was said, by the heads that tell, whatever the batch."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tones import spoken
from toys import transcriptions, whisper
from transformers import (
    AutoFeatureExtractor,
    AutoTokenizer,
    WhisperForConditionalGeneration,
)

import thanosql
from thanosql.speech.decoding.decoding import Request
from thanosql.speech.opening.opening import open_base
from thanosql.speech.recognizers import families, whisper_words
from thanosql.speech.recognizers.whisper_decoder import WhisperSteps
from thanosql.speech.sound.audio import load

AUDIO = [audio for audio, _ in spoken(16)]
WORDS = Request(words=True)
TINY_EN = Path(thanosql.__file__).parent / "catalog/whisper_tiny_en"


def opened(directory):
    return families.recognizer(
        WhisperForConditionalGeneration.from_pretrained(
            directory, attn_implementation="eager"
        ).eval(),
        AutoTokenizer.from_pretrained(directory),
        AutoFeatureExtractor.from_pretrained(directory),
    )


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return opened(whisper(tmp_path_factory.mktemp("toy")))


@pytest.fixture(scope="module")
def tiny_en():
    return open_base(str(TINY_EN), list)


def heard(recognizer, audio, batch_size=16, request=WORDS, vad=False, **options):
    options |= {"batch_size": batch_size, "device": "cpu", "vad": vad}
    batches = transcriptions(recognizer, audio, request=request, **options)
    return [each for batch in batches for each in batch]


def test_words_are_those_of_the_text_in_order(toy):
    found = heard(toy, AUDIO)
    assert sum(len(each.words) for each in found) > 12
    for each in found:
        assert [word.text for word in each.words] == each.text.split()
        times = [(word.start, word.end) for word in each.words]
        assert sorted(times) == times
        for word in each.words:
            assert 0 <= word.start <= word.end <= each.seconds
            assert 0 <= word.confidence <= 1
        mean = np.mean([word.confidence for word in each.words] or [1.0])
        assert each.confidence == pytest.approx(mean)


def test_nothing_changes_for_who_asks_for_no_words(toy):
    asked, not_asked = heard(toy, AUDIO), heard(toy, AUDIO, request=Request())
    assert [each.text for each in asked] == [each.text for each in not_asked]
    assert [each.details for each in asked] == [each.details for each in not_asked]
    assert {(each.words, each.confidence) for each in not_asked} == {((), None)}


@pytest.mark.parametrize("beams", [1, 3])
def test_words_do_not_depend_on_the_batch(toy, beams):
    request = Request(words=True, beam_size=beams)
    alone = heard(toy, AUDIO, 1, request)
    for batch_size in (5, 16):
        together = heard(toy, AUDIO, batch_size, request)
        for one, other in zip(alone, together, strict=True):
            for mine, theirs in zip(one.words, other.words, strict=True):
                assert (mine.text, mine.start) == (theirs.text, theirs.start)
                assert mine.end == theirs.end
                assert mine.confidence == pytest.approx(theirs.confidence, abs=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_words_are_timed_in_any_number_format(tiny_en, readings, precision):
    audio = [blob(silence(0.5), readings[0])]
    (found,) = heard(tiny_en, audio, precision=precision)
    assert [word.text for word in found.words] == found.text.split()
    assert found.words[0].start == pytest.approx(0.5, abs=0.08)


@torch.no_grad()
def test_attention_and_logits_are_those_of_transformers(toy):
    batch = [toy.features(load(audio, None)) for audio in AUDIO[:2]]
    frames = toy.encoded(batch)
    tokens = torch.tensor([[257, 263, *range(60, 70)], [257, 263, *range(80, 90)]])
    theirs = toy.model(
        encoder_outputs=(torch.stack(frames),),
        decoder_input_ids=tokens,
        output_attentions=True,
    )
    steps = WhisperSteps(toy.model, frames)
    for utterance in (1, 0):
        asked, logits = steps.follow(utterance, tokens[utterance])
        torch.testing.assert_close(logits, theirs.logits[utterance])
        for layer in (0, 1):
            found = steps.attention(utterance, layer, asked[layer][[1, 0]], [1, 0], 100)
            expected = theirs.cross_attentions[layer][utterance]
            torch.testing.assert_close(found, expected.flip(0))
            some = steps.attention(utterance, layer, asked[layer], [0, 1], 30)
            shares = expected[:, :, :30] / expected[:, :, :30].sum(-1, keepdim=True)
            torch.testing.assert_close(some, shares)


def test_the_heads_are_those_that_the_config_names():
    config = WhisperForConditionalGeneration.from_pretrained(TINY_EN).generation_config
    found = whisper_words.alignment_heads(config, layers=4, heads=6)
    assert found == {1: [0], 2: [0, 5], 3: [0, 1, 2, 3, 4]}  # OpenAI's table
    config.alignment_heads = None
    assert whisper_words.alignment_heads(config, 4, 2) == {2: [0, 1], 3: [0, 1]}


def test_what_a_window_is_filled_up_with_is_not_listened_to(tiny_en):
    noise = np.random.default_rng(0).normal(0, 0.1, 480_000).astype(np.float32)
    for samples, frames in ((1_600, 5), (16_000, 50), (480_000, 1_500)):
        count = whisper_words.heard_frames(tiny_en.features(noise[:samples]))
        assert frames <= count <= frames + 2
    assert whisper_words.heard_frames(tiny_en.features(np.zeros(99, np.float32))) == 1


def blob(*parts):
    file = io.BytesIO()
    soundfile.write(file, np.concatenate(parts), 16_000, format="WAV")
    return file.getvalue()


def silence(seconds):
    return np.zeros(round(16_000 * seconds), np.float32)


@pytest.fixture(scope="module")
def readings():
    """Return two short readings of people, cut to where they are loud."""
    with thanosql.connect(":memory:") as connection:
        connection.execute("GET DATASET readings")
        rows = connection.execute(
            "SELECT audio FROM readings_people ORDER BY seconds LIMIT 2"
        ).fetchall()
    cut = []
    for (audio,) in rows:
        waveform = load(audio, None)
        (loud,) = np.nonzero(abs(waveform) > 0.1 * abs(waveform).max())
        cut.append(waveform[loud[0] : loud[-1]])
    return cut


@pytest.mark.parametrize(("pause", "vad"), [(0.4, False), (0.4, "auto"), (5.0, "auto")])
def test_words_beside_a_pause_are_where_it_begins_and_ends(
    tiny_en, readings, pause, vad
):
    first, second = readings
    audio = blob(silence(0.5), first, silence(pause), second, silence(0.5))
    (found,) = heard(tiny_en, [audio], vad=vad)
    assert [word.text for word in found.words] == found.text.split()
    begin = 0.5 + len(first) / 16_000
    end = begin + pause
    before = [word for word in found.words if word.start < (begin + end) / 2]
    after = found.words[len(before) :]
    assert len(before) > 2
    assert len(after) > 2
    assert before[0].start == pytest.approx(0.5, abs=0.08)
    assert before[-1].end == pytest.approx(begin, abs=0.2)
    assert after[0].start == pytest.approx(end, abs=0.08)
    assert after[-1].end == pytest.approx(end + len(second) / 16_000, abs=0.2)
    assert np.mean([word.confidence for word in found.words]) > 0.5


def test_silence_has_no_words(tiny_en):
    (found,) = heard(tiny_en, [blob(silence(3))], vad="auto")
    assert (found.text, found.words, found.confidence) == ("", (), 1.0)
