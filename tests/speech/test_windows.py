"""Recordings heard in windows read as if they were heard whole."""

from __future__ import annotations

import io
from itertools import pairwise

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tones import spoken, tones
from toys import CONFIGS, config, parakeet, transcriptions

from thanosql.errors import AudioError, OptionError
from thanosql.speech.metrics import character_errors
from thanosql.speech.opening.opening import open_base
from thanosql.speech.recognizers.ctc import CTCRecognizer
from thanosql.speech.sound import windows
from thanosql.speech.sound.audio import SAMPLE_RATE, load
from thanosql.speech.sound.windows import Layout
from thanosql.speech.training import train
from thanosql.speech.training.examination import examine


@given(
    samples=st.integers(1, 3_000),
    piece=st.integers(1, 700),
    context=st.integers(1, 4),
    step=st.integers(1, 12),
    more=st.integers(0, 30),
)
@settings(max_examples=200, deadline=None)
def test_every_frame_comes_from_one_window(samples, piece, context, step, more):
    stride = 10
    plan = Layout((2 * context + step) * stride + more, context * 10, step * 10, stride)
    waveform = np.arange(samples, dtype=np.float32)
    pieces = (waveform[i : i + piece] for i in range(0, samples, piece))
    heard = [*plan.cut(pieces)]
    # A frame here is the number of the sample it begins with.
    kept = np.concatenate([each.waveform[::stride][each.frames] for each in heard])
    assert np.array_equal(kept, waveform[::stride])
    assert max(len(each.waveform) for each in heard) <= plan.length
    assert [each.last for each in heard] == [False] * (len(heard) - 1) + [True]
    assert heard[-1].seconds == samples / SAMPLE_RATE
    assert (len(heard) == 1) == (samples <= plan.length)
    for one, two in pairwise(heard):
        assert two.seconds > one.seconds


def opened(name, directory):
    torch.manual_seed(0)
    CONFIGS[name]().save_pretrained(directory)
    return open_base(str(directory), lambda: ["abcd"])


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_joined_frames_are_as_many_as_the_whole_has(name, tmp_path):
    recognizer = opened(name, tmp_path)
    rng = np.random.default_rng(0)
    waveform = rng.normal(0, 0.1, int(5.3 * SAMPLE_RATE)).astype(np.float32)
    for chunk, samples in [(2.0, len(waveform)), (2.01, 70_003), (3.3, 80_320)]:
        plan = recognizer.windows(chunk)
        heard = [*plan.cut([waveform[:samples]])]
        assert len(heard) > 1
        _, whole = recognizer.logits([recognizer.features(waveform[:samples])])
        logits, lengths = recognizer.logits(
            [recognizer.features(each.waveform) for each in heard]
        )
        kept = [
            row[:length][each.frames]
            for row, length, each in zip(logits, lengths, heard, strict=True)
        ]
        assert sum(map(len, kept)) == whole[0]


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_a_windows_frames_lie_where_those_of_the_whole_do(name, tmp_path):
    recognizer = opened(name, tmp_path)
    stride = recognizer.stride
    rng = np.random.default_rng(0)
    # Loud and silent by turns, which any model hears, at no regular intervals.
    loud = np.repeat(rng.integers(0, 2, 60), rng.integers(1_000, 4_000, 60))
    waveform = (loud * rng.normal(0, 0.3, len(loud))).astype(np.float32)
    begin = 20 * windows._TOGETHER * stride // 4
    begin -= begin % (windows._TOGETHER * stride)

    def heard(samples):
        logits, _ = recognizer.logits([recognizer.features(samples)])
        return logits[0] - logits[0].mean(0)

    whole, part = heard(waveform), heard(waveform[begin:])
    frames = begin // stride
    assert len(whole) == frames + len(part)
    inner = slice(8, len(part) - 8)
    distance = {
        shift: float((part[inner] - whole[frames:][shift:][inner]).abs().mean())
        for shift in range(-4, 5)
        if len(whole[frames:][shift:][inner]) == len(part[inner])
    }
    assert min(distance, key=distance.get) == 0


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """Return a model that learned to read tones, words of two to four letters."""
    torch.manual_seed(0)
    recognizer = parakeet(tmp_path_factory.mktemp("reader"))
    rows = [
        (tones(word, seed=i), word)
        for i, word in enumerate(
            "".join(np.random.default_rng(i).choice(list("abcd"), size=4 + i % 12))
            for i in range(48)
        )
    ]
    utterances = examine(recognizer, rows, None).utterances
    wanted = config(epochs=14, batch_size=8, learning_rate=1e-2)
    for _ in train.train(recognizer, rows, utterances, (), wanted, None):
        pass
    return recognizer


def texts(recognizer, audio, **options):
    return [
        each.text
        for batch in transcriptions(recognizer, audio, **{"batch_size": 4} | options)
        for each in batch
    ]


def long_words(count):
    """Return `count` recordings of 8 to 33 s, and what they say."""
    rng = np.random.default_rng(5)
    words = [
        "".join(rng.choice(list("abcd"), size=size))
        for size in rng.integers(50, 206, count)
    ]
    return [tones(word, seed=i) for i, word in enumerate(words)], words


def test_a_trained_model_reads_in_windows_what_it_reads_whole(reader):
    audio, words = long_words(8)
    whole = texts(reader, audio)
    assert character_errors(words, whole).rate < 0.05
    for chunk in (1.5, 3, 7.3):
        read = texts(reader, audio, chunk_seconds=chunk)
        assert character_errors(whole, read).rate < 0.01


def test_windows_share_batches_with_other_recordings_and_keep_the_order(reader):
    long, _ = long_words(3)
    short = [audio for audio, _ in spoken(7)]
    audio = [*short[:3], long[0], long[1], *short[3:6], long[2], short[6]]
    alone = [texts(reader, [each], chunk_seconds=4, batch_size=1)[0] for each in audio]
    for batch_size in (1, 2, 5, 64):
        options = {"chunk_seconds": 4, "batch_size": batch_size}
        assert texts(reader, audio, **options) == alone
    told = [
        each.seconds
        for batch in transcriptions(reader, audio, batch_size=4, chunk_seconds=4)
        for each in batch
    ]
    assert told == [len(load(each, None)) / SAMPLE_RATE for each in audio]


def test_a_batch_never_has_more_windows_than_its_size(reader, monkeypatch):
    sizes = []

    def counted(recognizer, batch, decoding):
        sizes.append(len(batch))
        return scores(recognizer, batch, decoding)

    scores = CTCRecognizer.scores
    monkeypatch.setattr(CTCRecognizer, "scores", counted)
    long, _ = long_words(2)
    texts(reader, long, chunk_seconds=2, batch_size=3)
    assert max(sizes) == 3
    assert sum(sizes) > 10


def test_a_recording_that_fits_is_heard_whole(reader):
    audio = [tones("abcd" * 5)]  # 3.2 s
    assert texts(reader, audio, chunk_seconds=3.2) == texts(reader, audio)
    exact = [*reader.windows(3.2).cut([load(audio[0], None)])]
    assert len(exact) == 1
    assert exact[0].frames == slice(0, None)


def test_windows_of_any_length_are_never_too_long(reader):
    audio = [tones("abcd")]
    assert texts(reader, audio, chunk_seconds=1e308) == texts(reader, audio)


def test_windows_too_small_for_the_model_are_refused(reader):
    with pytest.raises(OptionError, match=r"chunk_seconds=0.1 .* 0.64 is the least"):
        texts(reader, [tones("ab")], chunk_seconds=0.1)
    assert len(texts(reader, [tones("abcd" * 9)], chunk_seconds=0.64)) == 1


def test_what_breaks_off_in_a_later_window_names_its_row(reader):
    samples = load(tones("abcd" * 9), None).copy()
    samples[-1] = np.nan
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="WAV", subtype="FLOAT")
    audio = [tones("ab"), file.getvalue()]
    heard = transcriptions(reader, audio, batch_size=1, chunk_seconds=2)
    assert [each.text for each in next(heard)] == texts(reader, audio[:1])
    with pytest.raises(AudioError, match=r"^row 2: .*no numbers"):
        list(heard)


def test_a_file_is_closed_when_nobody_reads_on(reader, tmp_path):
    path = tmp_path / "long.wav"
    path.write_bytes(long_words(1)[0][0])
    heard = transcriptions(reader, [path, path], batch_size=1, chunk_seconds=2)
    heard.send(None)
    heard.close()  # a ResourceWarning would fail the test
