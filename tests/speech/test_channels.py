"""Channels are heard alone or mixed; different speech in them is noticed."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from thanosql.errors import AudioError
from thanosql.speech.sound.audio import blocks, channels, load
from thanosql.speech.sound.channels import Levels

RATE = 16_000


def encoded(samples, rate=RATE, container="WAV"):
    file = io.BytesIO()
    subtype = "FLOAT" if container == "WAV" else None
    soundfile.write(file, samples, rate, format=container, subtype=subtype)
    return file.getvalue()


@given(
    st.lists(st.integers(1, 70_000), min_size=1, max_size=3),
    st.integers(1, 4),
    st.sampled_from([8_000, 16_000, 44_100]),
)
@settings(max_examples=15, deadline=None)
def test_a_channel_alone_is_what_a_file_of_it_is(sizes, count, rate):
    rng = np.random.default_rng(len(sizes))
    samples = rng.normal(0, 0.1, (sum(sizes), count)).astype(np.float32)
    together = encoded(samples, rate)
    assert channels(together, None) == count
    for channel in range(1, count + 1):
        alone = encoded(samples[:, channel - 1], rate)
        assert np.array_equal(load(together, None, channel), load(alone, None))


@pytest.mark.parametrize(
    ("count", "has"), [(1, "one channel only"), (2, "2 channels"), (3, "3 channels")]
)
def test_a_channel_that_is_not_there_is_an_error(count, has):
    audio = encoded(np.zeros((RATE, count), np.float32))
    with pytest.raises(AudioError, match=f"has no channel 9; it has {has}"):
        load(audio, None, 9)


@pytest.mark.parametrize("audio", [None, "not_there.wav", b"", b"RIFF"])
def test_what_cannot_be_read_has_no_number_of_channels(audio):
    with pytest.raises(AudioError):
        channels(audio, None)


def voice(seed, turns, seconds=12.0, level=0.2):
    """Return a sound with speech's rhythm: syllables in turns of (begin, end)."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    pitch = 90 + 60 * seed % 120
    sound = sum(np.sin(2 * np.pi * pitch * k * time + k) / k for k in range(1, 12))
    syllables = np.clip(np.sin(2 * np.pi * (3.5 + seed % 2) * time + seed), 0, 1)
    speaks = np.zeros(len(time))
    for begin, end in turns:
        speaks[int(begin * RATE) : int(end * RATE)] = 1
    noise = rng.normal(0, 0.0005, len(time))
    return (level * sound * syllables * speaks / 3 + noise).astype(np.float32)


ASKS, ANSWERS = [(0.5, 3), (6, 8)], [(3.5, 5.5), (8.5, 11)]
ONE, OTHER = voice(1, ASKS), voice(2, ANSWERS)
HISS = np.random.default_rng(5).normal(0, 0.02, len(ONE)).astype(np.float32)
NOTHING = np.zeros_like(ONE)


def delayed(samples, seconds, gain=1.0):
    return gain * np.roll(samples, int(seconds * RATE))


def mixes_speech(*channels_, rate=RATE):
    levels = Levels()
    audio = encoded(np.stack(channels_, axis=1), rate)
    with_levels = np.concatenate([*blocks(audio, None, None, levels)])
    assert np.array_equal(with_levels, load(audio, None))
    return levels.tell_of_different_speech()


@pytest.mark.parametrize(
    "channels_",
    [
        (ONE, OTHER),
        (OTHER, ONE),
        (ONE, OTHER + delayed(ONE, 0.15, 0.05)),  # an echo on the line
        (ONE + HISS / 20, OTHER + HISS / 20),
        (ONE, NOTHING, OTHER),
        (ONE, voice(2, [(2.5, 5.5), (7.5, 11)])),  # now and then both speak
        (ONE, OTHER * 0.1),
    ],
    ids=["call", "other way", "echo", "noise", "three", "overlap", "far away"],
)
def test_a_speaker_a_channel_is_different_speech(channels_):
    assert mixes_speech(*channels_)
    assert mixes_speech(*(each[::2] for each in channels_), rate=RATE // 2)


def room(samples, seed):
    """Return a sound as a microphone in a room hears it, with noise of its own."""
    rng = np.random.default_rng(seed)
    echo = rng.normal(0, 1, 3_200) * np.exp(-np.arange(3_200) / 600)
    echo[: 40 + 30 * seed] = 0
    echo[40 + 30 * seed] = 6
    heard = np.convolve(samples, echo / 8)[: len(samples)]
    return (heard + rng.normal(0, 0.001, len(samples))).astype(np.float32)


def chord(notes, seed):
    """Return music: notes of half a second, each louder on the left or the right."""
    rng = np.random.default_rng(seed)
    time = np.arange(RATE // 2) / RATE
    left, right = [], []
    for _ in range(notes):
        note = np.sin(2 * np.pi * rng.choice([220, 277, 330, 440]) * time)
        note *= np.exp(-3 * time)
        share = rng.uniform(0.25, 0.75)
        left.append(share * note)
        right.append((1 - share) * note)
    return [np.concatenate(each).astype(np.float32) for each in (left, right)]


TALK = np.clip(ONE + OTHER, -1, 1)


@pytest.mark.parametrize(
    "channels_",
    [
        (ONE,),
        (ONE, ONE),
        (ONE, -ONE),
        (ONE, NOTHING),
        (ONE, HISS),  # a dead line
        (HISS, NOTHING),
        (ONE, delayed(ONE, 0.02)),
        (ONE, delayed(ONE, 0.4, 0.5)),
        (ONE, delayed(ONE, 0.2, 0.05)),
        (TALK, 0.3 * TALK),
        (room(TALK, 1), room(TALK, 2)),
        (room(ONE, 1) + room(OTHER, 3) / 2, room(ONE, 2) / 2 + room(OTHER, 4)),
        chord(24, 7),
        (ONE, np.where(np.arange(len(ONE)) % 48_000 < 200, 0.5, 0)),
    ],
    ids=[
        *("mono", "same", "inverted", "silent", "hiss", "no speech", "late", "later"),
        *("echo", "weaker", "room", "two in a room", "music", "clicks"),
    ],
)
def test_no_other_channels_are(channels_):
    assert not mixes_speech(*[np.asarray(each, np.float32) for each in channels_])


def test_samples_without_end_are_no_speech():
    levels = Levels()
    loud = np.full((RATE, 2), 1e30, np.float32) * np.array([1, -1], np.float32)
    assert len([*levels.watched([loud, loud], RATE)]) == 2
    assert not levels.tell_of_different_speech()
    assert not Levels().tell_of_different_speech()


def test_a_recording_shorter_than_a_frame_is_no_different_speech():
    levels = Levels()
    assert len([*levels.watched([np.ones((RATE // 50, 2), np.float32)], RATE)]) == 1
    assert not levels.tell_of_different_speech()
