"""Speech is found where it is, by silero-vad's own probabilities, and nowhere else."""

from __future__ import annotations

from importlib import resources

import apsw
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thanosql.catalog import sample
from thanosql.catalog.sample import words
from thanosql.speech.sound import voice
from thanosql.speech.sound.audio import SAMPLE_RATE, load
from thanosql.speech.sound.voice import FRAME, listen

# silero-vad 6.2.3 on `noisy()` below, by its own package and onnxruntime 1.32.0:
#     model = load_silero_vad(onnx=True)
#     model.audio_forward(torch.from_numpy(noisy()), 16_000)
# The noise is there so that the probabilities take all values.
BY_THE_ORIGINAL = (
    "0.01816 0.01435 0.02511 0.24087 0.93264 0.83913 0.81837 0.76746 0.7868  0.70372 "
    "0.86725 0.94695 0.96991 0.97007 0.95922 0.95631 0.97042 0.96142 0.96127 0.95293 "
    "0.95104 0.93367 0.92361 0.86371 0.75295 0.57089 0.39259 0.3014  0.48719 0.57696 "
    "0.45949 0.46236 0.50377 0.38877 0.35477 0.2764  0.21399 0.17541 0.18459"
)


def noisy():
    """Return 1.24 s of a quiet voice in white noise."""
    (clip,) = sample_clips("text = 'wake me tonight at two'")
    noise = np.random.default_rng(0).normal(0, 0.01, len(clip))
    return (0.05 * clip + noise).astype(np.float32)


def sample_clips(condition):
    connection = apsw.Connection(":memory:")
    sample.copy_into(connection)
    return [
        load(audio, None)
        for (audio,) in connection.execute(
            f"SELECT audio FROM commands_test WHERE {condition}"
        )
    ]


def found(waveform):
    """Return the probability of speech in each frame, and whether there is any."""
    heard = [*listen([waveform.astype(np.float32)])]
    return (
        np.concatenate([each.probability for each in heard]),
        np.concatenate([each.speech for each in heard]),
    )


def silence(seconds):
    return np.zeros(int(seconds * SAMPLE_RATE), np.float32)


def test_the_probabilities_are_those_of_silero_vad():
    expected = np.array(BY_THE_ORIGINAL.split(), np.float32)
    np.testing.assert_allclose(found(noisy())[0], expected, atol=1e-4)


@torch.no_grad()
def test_blocks_give_what_all_frames_at_once_give():
    waveform = np.concatenate([noisy(), load(words.say("yes no stop"), None)] * 8)
    assert len(waveform) > 2 * voice._BLOCK * FRAME
    padded = np.pad(waveform, (voice._CONTEXT, -len(waveform) % FRAME))
    frames = torch.from_numpy(padded).unfold(0, voice._CONTEXT + FRAME, FRAME)
    whole, _ = voice._voice()(frames, None)
    np.testing.assert_allclose(found(waveform)[0], whole.numpy(), atol=1e-5)


@given(
    joints=st.lists(st.integers(0, 20 * SAMPLE_RATE), max_size=9),
    samples=st.integers(1, 20 * SAMPLE_RATE),
)
@settings(max_examples=20, deadline=None)
def test_how_a_waveform_is_split_makes_no_difference(joints, samples):
    waveform = np.tile(noisy(), 17)[:samples]
    heard = [*listen(np.split(waveform, sorted(each % samples for each in joints)))]
    probability, speech = found(waveform)
    assert np.array_equal(np.concatenate([each.waveform for each in heard]), waveform)
    together = np.concatenate([each.probability for each in heard])
    assert np.array_equal(together, probability)
    assert np.array_equal(np.concatenate([each.speech for each in heard]), speech)
    assert len(speech) == -(-samples // FRAME)


def test_every_recording_of_the_sample_has_speech():
    assert all(found(clip)[1].any() for clip in sample_clips("true"))


def test_a_quiet_noisy_word_cut_out_of_its_recording_is_speech():
    random = np.random.default_rng(0)
    for word in words.vocabulary():
        clip = load(words.say(word), None)
        loud = np.flatnonzero(np.abs(clip) > 0.05)
        clip = 0.05 * clip[loud[0] : loud[-1]]
        clip += random.normal(0, 0.3 * clip.std(), len(clip)).astype(np.float32)
        assert found(clip)[1].any(), word


def test_speech_is_found_where_it_is():
    (clip,) = sample_clips("text = 'please turn the garden light on today'")
    _, speech = found(np.concatenate([silence(3), clip, silence(12), clip, silence(3)]))
    frames = np.flatnonzero(np.diff(speech, prepend=False, append=False))
    begin, end, second, last = frames * FRAME / SAMPLE_RATE
    seconds = len(clip) / SAMPLE_RATE
    for time, expected in [
        (begin, 3),
        (end, 3 + seconds),
        (second, 15 + seconds),
        (last, 15 + 2 * seconds),
    ]:
        assert time == pytest.approx(expected, abs=0.4)


def time(seconds=5.0):
    return np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE


def noise(slope):
    """Return five seconds of noise whose power falls by `slope` of its frequency."""
    spectrum = np.fft.rfft(np.random.default_rng(1).normal(size=len(time())))
    bins = np.arange(len(spectrum)).clip(100)  # flat below 20 Hz
    waveform = np.fft.irfft(spectrum * bins ** (-slope / 2))
    return 0.3 * waveform / waveform.std()


def room():
    """Return noise between 100 and 1,500 Hz, as a ventilator makes."""
    spectrum = np.fft.rfft(np.random.default_rng(2).normal(size=len(time())))
    frequency = np.fft.rfftfreq(len(time()), 1 / SAMPLE_RATE)
    waveform = np.fft.irfft(spectrum * ((frequency > 100) & (frequency < 1_500)))
    return 0.3 * waveform / waveform.std()


def harmonics(frequency):
    return sum(np.sin(2 * np.pi * frequency * n * time() + n) / n for n in range(1, 40))


def clicks():
    waveform = np.zeros(len(time()))
    waveform[np.random.default_rng(3).integers(0, len(waveform), 10)] = 1
    return waveform


NO_SPEECH = {
    "hum of 50 Hz": lambda: np.sin(2 * np.pi * 50 * time()),
    "hum of 60 Hz": lambda: np.sin(2 * np.pi * 60 * time()),
    "mains at 50 Hz": lambda: harmonics(50),
    "mains at 60 Hz": lambda: harmonics(60),
    "white noise": lambda: noise(0),
    "pink noise": lambda: noise(1),
    "brown noise": lambda: noise(2),
    "room tone": room,
    "tone of 200 Hz": lambda: np.sin(2 * np.pi * 200 * time()),
    "tone of 440 Hz": lambda: np.sin(2 * np.pi * 440 * time()),
    "tone of 3 kHz": lambda: np.sin(2 * np.pi * 3_000 * time()),
    "sweep": lambda: np.sin(2 * np.pi * (50 + 700 * time()) * time()),
    "beeps": lambda: np.sin(2 * np.pi * 1_000 * time()) * (time() % 1 < 0.2),
    "dial tone": lambda: sum(np.sin(2 * np.pi * f * time()) for f in (350, 440)) / 2,
    "clicks": clicks,
    "silence": lambda: silence(5),
    "an offset": lambda: np.ones(len(time())),
}


@pytest.mark.parametrize("kind", NO_SPEECH)
def test_no_speech_is_found_in(kind):
    sound = NO_SPEECH[kind]()
    for level in (0, -20, -40, -60, -80):  # dB
        waveform = (10 ** (level / 20) * sound).clip(-1, 1)
        assert not found(waveform)[1].any(), f"{level} dB"


def test_a_frame_now_and_then_is_no_speech():
    decision = voice._Decision()
    assert not any(map(decision, [0.9, *[0.1] * 5, 0.9, *[0.1] * 5, 0.9]))


def test_speech_begins_with_three_frames_and_outlasts_a_dip():
    decision = voice._Decision()
    assert [*map(decision, [0.5, 0.5, 0.5])] == [False, False, True]
    assert all(map(decision, [0.1, 0.1, 0.1, 0.35, 0.1, 0.1, 0.1]))
    assert not decision(0.1)


def test_what_cannot_be_told_is_heard():
    _, speech = found(np.full(SAMPLE_RATE * 2, 1e30, np.float32))
    assert speech.any()


def test_its_licence_comes_with_the_package():
    notice = resources.files("thanosql.catalog").joinpath("NOTICE").read_text("utf-8")
    assert "Copyright (c) 2020-present Silero Team" in notice


@pytest.mark.thorough(seconds=10)
@pytest.mark.parametrize("folder", ["librispeech", "librispeech_mp3", "digits", "misc"])
def test_no_recording_of_a_person_is_called_silent(speech, folder):
    clips = speech(folder)
    assert [path for path, _ in clips if not found(load(path, None))[1].any()] == []
