"""Words are those of the text, with the times at which they were spoken."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tones import SECONDS_A_LETTER, tones
from toys import CONFIGS, config, parakeet, transcriptions
from transformers import ParakeetTokenizer, Wav2Vec2CTCTokenizer

from thanosql.speech.decoding.best_path import BestPath, TimedBestPath
from thanosql.speech.decoding.decoding import Request, decode
from thanosql.speech.decoding.quiet import pauses
from thanosql.speech.decoding.spelling import Spelling
from thanosql.speech.decoding.words import Grid, Timeline, split_words
from thanosql.speech.opening.opening import open_base
from thanosql.speech.recording import Span
from thanosql.speech.sound.audio import SAMPLE_RATE, load
from thanosql.speech.sound.voice import listen
from thanosql.speech.training import train
from thanosql.speech.training.examination import examine

GRID = Grid(640, 0)
JAMO = [*"ㄱㄴㅎㅏㅣㄹ"]  # compatibility jamo, as Korean models spell
CONJOINING = ["\u1112", "\u1161", "\u11ab", "\u1100"]
VOCABULARIES = {
    "characters": ["<pad>", "<unk>", "|", "'", *"ABΣΔς"],
    "jamo": ["<pad>", "<unk>", "|", *JAMO],
    "conjoining jamo": ["<pad>", "<unk>", "|", *CONJOINING],
    "no spaces": ["<pad>", "<unk>", *"我们はー字กิ", "a"],
    "marks": ["<pad>", "<unk>", "|", "\u0301", "e", ".", "'"],
}


def characters(tokens, directory, **settings):
    path = directory / "vocab.json"
    path.write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    special = {"pad_token": "<pad>", "bos_token": None, "eos_token": None}
    return Wav2Vec2CTCTokenizer(str(path), **special, **settings)


def pieces(*_):
    words = ["<unk>", "▁ab", "▁", "a", "b▁l", "我们", "<pad>"]
    tokenizer = Tokenizer(models.Unigram([(w, -1.0) for w in words], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return ParakeetTokenizer(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>"
    )


@pytest.fixture(scope="module")
def spellings(tmp_path_factory):
    """Return a spelling and a blank for each kind of vocabulary."""
    tokenizers = {
        name: characters(tokens, tmp_path_factory.mktemp("vocabulary"))
        for name, tokens in VOCABULARIES.items()
    }
    tokenizers["lower case"] = characters(
        VOCABULARIES["characters"], tmp_path_factory.mktemp("lower"), do_lower_case=True
    )
    tokenizers["cleaned up"] = characters(
        VOCABULARIES["marks"],
        tmp_path_factory.mktemp("cleaned"),
        clean_up_tokenization_spaces=True,
    )
    tokenizers["pieces"] = pieces()
    return {
        name: (Spelling(tokenizer, len(tokenizer)), tokenizer.pad_token_id)
        for name, tokenizer in tokenizers.items()
    }


def unspaced(text):
    return "".join(text.split())


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_words_are_those_of_the_text_in_order_and_without_overlap(data, spellings):
    name = data.draw(st.sampled_from([*spellings]))
    spelling, blank = spellings[name]
    size = 7 if name == "pieces" else len(VOCABULARIES.get(name, "123456789"))
    if name in ("lower case", "cleaned up"):
        size = 7
    tokens = st.lists(st.integers(0, size - 1), max_size=12)
    paths = data.draw(st.lists(tokens, min_size=1, max_size=3))
    timed = TimedBestPath(spelling, blank, GRID, GRID).start()
    plain = BestPath(spelling, blank).start()
    begin = 0
    for path in paths:
        if path:
            logits = torch.zeros(1, len(path), size)
            logits[0, range(len(path)), path] = 5.0
            span = Span(0, begin, len(path) * GRID.step)
            lengths = torch.tensor([len(path)])
            for decoder, kind in ((timed, TimedBestPath), (plain, BestPath)):
                arguments = (spelling, blank, GRID, GRID)
                decoding = kind(*arguments[: 4 if kind is TimedBestPath else 2])
                (scores,) = decoding.scores(logits, lengths)
                decoder.feed(scores, slice(None), (span,))
        else:
            timed.silence()
            plain.silence()
        begin += max(1, len(path)) * GRID.step
    found = timed.finish()
    assert found.text == plain.finish().text
    words = [word.text for word in found.words]
    assert words == split_words(found.text)
    if name not in ("no spaces", "pieces"):
        assert words == found.text.split()
    assert "".join(words) == unspaced(found.text)
    assert all(0 <= word.start <= word.end for word in found.words)
    assert all(one.end <= other.start for one, other in pairwise(found.words))
    assert all(0 < word.confidence <= 1 for word in found.words)
    assert 0 < found.confidence <= 1
    assert not found.words or found.words[-1].end <= begin / SAMPLE_RATE


@given(st.text("ab ',.é", max_size=20))
def test_words_stand_between_spaces(text):
    assert split_words(text) == text.split()


def test_a_script_without_spaces_has_a_word_a_letter():
    assert split_words("我们用 GPT4 吧") == ["我", "们", "用", "GPT4", "吧"]
    assert split_words("ab字cd") == ["ab", "字", "cd"]
    assert split_words("กินข้าว") == ["กิ", "น", "ข้", "า", "ว"]  # marks stay
    assert split_words("한국어는 띄어 쓴다") == ["한국어는", "띄어", "쓴다"]


def test_nothing_more_is_computed_where_no_words_are_asked_for(tmp_path):
    recognizer = parakeet(tmp_path)
    assert isinstance(recognizer.decoding(), BestPath)
    (found,) = next(transcriptions(recognizer, [tones("ab")], batch_size=1))
    assert found.words == ()
    assert found.confidence is None


def test_a_decoder_without_windows_times_from_the_beginning(tmp_path):
    recognizer = parakeet(tmp_path)
    decoding = recognizer.decoding(Request(words=True))
    features = [recognizer.features(load(tones("abab"), None))]
    with torch.no_grad():
        scores = recognizer.scores(features, decoding)
    (found,) = decode(decoding, scores)
    assert found.words
    assert 0 <= found.words[0].start <= found.words[-1].end <= 4 * SECONDS_A_LETTER


@given(
    windows=st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1),
    context=st.integers(0, 3),
)
def test_a_frame_of_any_window_has_its_time_in_the_recording(windows, context):
    timeline = Timeline(Grid(640, 200))
    frame = begin = 0
    for frames, is_heard in windows:
        if is_heard:
            left = context if begin else 0
            samples = (left + frames + context) * 640
            span = Span(0, (begin - left) * 640, samples)
            timeline.feed(frames, slice(left, left + frames), (span,))
            for place in range(frames):
                expected = ((begin + place) * 640 + 200) / SAMPLE_RATE
                assert timeline.second(frame + place) == expected
            frame += frames
        else:
            timeline.silence()
            frame += 1
        begin += max(frames, context)


def test_the_samples_of_a_window_may_come_from_several_places():
    timeline = Timeline(Grid(1_600, 800))
    spans = Span(0, 16_000, 3_200), Span(3_200, 80_000, 3_200)
    timeline.feed(4, slice(None), spans)
    found = [timeline.second(frame) for frame in range(4)]
    assert found == pytest.approx([1.05, 1.15, 5.05, 5.15])


def test_a_pause_over_a_joint_is_one():
    timeline = Timeline(GRID)
    timeline.feed(10, slice(0, 10), (Span(0, 0, 8_000),), [(5_000, 7_900)])
    timeline.feed(8, slice(2, 10), (Span(0, 5_120, 8_000),), [(0, 3_000)])
    assert timeline.pauses == [(5_000 / SAMPLE_RATE, 8_120 / SAMPLE_RATE)]


@pytest.mark.parametrize("kind", ["samples", "log-mels"])
@pytest.mark.parametrize("gap", [0.12, 0.4])
def test_pauses_are_found_in_features_of_either_kind(kind, gap):
    rng = np.random.default_rng(0)
    loud = rng.normal(0, 0.2, 8_000)
    quiet = rng.normal(0, 0.002, int(gap * SAMPLE_RATE))
    waveform = torch.from_numpy(np.concatenate([loud, quiet, loud])).float()
    features, grid = waveform, Grid(1, 0)
    if kind == "log-mels":
        grid = Grid(160, 80)
        power = waveform.unfold(0, 160, 160).square().mean(1)
        features = power.log()[:, None].expand(-1, 16)
    letters = torch.tensor([2, 5, len(waveform) // 640 - 3])
    ((begin, end),) = pauses(features, letters, grid, GRID)
    assert begin == pytest.approx(8_000, abs=480)
    assert end == pytest.approx(8_000 + len(quiet), abs=480)
    assert pauses(features, letters[:0], grid, GRID) == []


@pytest.mark.parametrize("name", CONFIGS)
def test_frames_lie_within_the_recording_for_every_architecture(name, tmp_path):
    torch.manual_seed(0)
    CONFIGS[name]().save_pretrained(tmp_path)
    recognizer = open_base(str(tmp_path), lambda: ["abcd"])
    seconds = 5
    features = recognizer.features(np.zeros(seconds * SAMPLE_RATE, np.float32) + 0.1)
    for grid, count in (
        (recognizer.feature_grid, len(features)),
        (recognizer.frame_grid, recognizer.frames(len(features))),
    ):
        last = grid.middle + (count - 1) * grid.step
        assert -grid.step <= grid.middle <= SAMPLE_RATE / 10
        assert abs(seconds * SAMPLE_RATE - last - grid.middle) <= 2 * grid.step


def phrase(seed, words=4):
    rng = np.random.default_rng(seed)
    parts = ["".join(rng.choice([*"abcd"], size=2 + i % 3)) for i in range(words)]
    return " ".join(parts)


def truth(text):
    """Return when each word of `tones(text)` begins and ends."""
    end = -1
    for word in text.split():
        begin, end = end + 1, end + 1 + len(word)
        yield begin * SECONDS_A_LETTER, end * SECONDS_A_LETTER


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """Return a model that learned to read words of tones, with pauses between."""
    torch.manual_seed(0)
    recognizer = parakeet(tmp_path_factory.mktemp("reader"))
    rows = [(tones(phrase(i), seed=i), phrase(i)) for i in range(48)]
    utterances = examine(recognizer, rows, None).utterances
    wanted = config(epochs=16, batch_size=8, learning_rate=1e-2)
    for _ in train.train(recognizer, rows, utterances, (), wanted, None):
        pass
    return recognizer


def heard(recognizer, audio, **options):
    settings = {"batch_size": 4, "request": Request(words=True)} | options
    batches = transcriptions(recognizer, audio, **settings)
    return [each for batch in batches for each in batch]


LONG = [phrase(seed, words=30) for seed in (100, 101)]


def test_words_have_the_times_at_which_they_were_spoken(reader):
    texts = [phrase(seed) for seed in range(200, 230)]
    found = heard(reader, [tones(text, seed=9) for text in texts])
    off = [
        abs(word.start - begin)
        for text, each in zip(texts, found, strict=True)
        if each.text == text
        for word, (begin, _) in zip(each.words, truth(text), strict=True)
    ]
    assert len(off) > 60
    assert np.mean(np.array(off) <= 0.08) >= 0.95


def assert_same_words(one, two):
    assert one.text == two.text
    assert [w.text for w in one.words] == [w.text for w in two.words]
    times = [[(w.start, w.end) for w in each.words] for each in (one, two)]
    assert np.allclose(*times, atol=0.0005)
    confidences = [[w.confidence for w in each.words] for each in (one, two)]
    assert np.allclose(*confidences, atol=1e-4)
    assert one.confidence == pytest.approx(two.confidence, abs=1e-4)


def test_words_do_not_depend_on_the_batch(reader):
    audio = [tones(phrase(i, 1 + i % 6), seed=i) for i in range(12)]
    alone = [heard(reader, [each], batch_size=1)[0] for each in audio]
    for batch_size in (2, 5, 64):
        for one, two in zip(
            alone, heard(reader, audio, batch_size=batch_size), strict=True
        ):
            assert_same_words(one, two)


@pytest.mark.parametrize("chunk", [2.5, 4, 7.3])
def test_joined_windows_give_times_of_the_whole_recording(reader, chunk):
    audio = [tones(text, seed=3) for text in LONG]
    whole = heard(reader, audio)
    windows = heard(reader, audio, chunk_seconds=chunk)
    for one, two, text in zip(whole, windows, LONG, strict=True):
        assert one.text == two.text == text
        pairs = zip(one.words, two.words, strict=True)
        off = np.array([abs(a.start - b.start) for a, b in pairs])
        assert np.mean(off < 0.05) >= 0.9  # a frame is 40 ms
        assert max(off) < 0.1


def test_windows_that_are_not_heard_count(reader, monkeypatch):
    # The voice detector hears no speech in tones: here it is told what is loud.
    def by_loudness(pieces):
        for block in listen(pieces):
            frames = np.array_split(block.waveform, len(block.speech))
            loud = np.array([each.std() > 0.02 for each in frames])
            yield replace(block, speech=loud)

    monkeypatch.setattr("thanosql.speech.sound.pauses.listen", by_loudness)
    spoken = load(tones("ab cd", seed=1), None)
    silence = np.zeros(20 * SAMPLE_RATE, np.float32)
    file = io.BytesIO()
    samples = np.concatenate([silence, spoken, silence, spoken, silence])
    soundfile.write(file, samples, SAMPLE_RATE, format="WAV")
    (found,) = heard(reader, [file.getvalue()], chunk_seconds=3, vad=True)
    assert found.details.windows < 12  # of some forty
    begins = [20, 20.48, 40.8, 41.28]
    assert [word.text for word in found.words] == ["ab", "cd", "ab", "cd"]
    assert np.allclose([word.start for word in found.words], begins, atol=0.08)
