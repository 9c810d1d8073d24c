"""Recordings heard under other conditions: levels, lengths, what they are drawn by."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thanosql.speech.sound.augmentation import (
    CLEAN_SHARE,
    Acoustics,
    draw_acoustics,
    hear,
)

RATE = 16_000


def speech(samples, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


def decibels(signal, reference):
    return 10 * math.log10((signal**2).sum() / (reference**2).sum())


acoustics = st.builds(
    Acoustics,
    seed=st.integers(0, 2**62),
    reverberation=st.sampled_from([0.0, 0.1, 0.6]),
    direct=st.floats(0, 12),
    snr=st.none() | st.floats(8, 35),
    slope=st.floats(-6, 0),
    swell=st.sampled_from([0.0, 0.2, 4.0]),
    tilt=st.sampled_from([0.0, -3.0, 3.0]),
    band=st.sampled_from([None, (300.0, 3400.0), (0.0, 7000.0)]),
    clip=st.none() | st.floats(2, 10),
    gain=st.floats(-20, 0),
)


@settings(deadline=None, max_examples=60)
@given(acoustics, st.integers(0, 80_000))
def test_what_is_heard_is_as_long_finite_and_the_same_again(heard_under, samples):
    waveform = speech(samples)
    before = waveform.copy()
    heard = hear(waveform, heard_under)
    assert heard.shape == waveform.shape
    assert heard.dtype == np.float32
    assert np.isfinite(heard).all()
    assert (hear(waveform, heard_under) == heard).all()
    assert (waveform == before).all()


@settings(deadline=None, max_examples=30)
@given(acoustics, st.integers(1, 40_000))
def test_silence_stays_silent(heard_under, samples):
    assert not hear(np.zeros(samples, np.float32), heard_under).any()


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**62),
    st.floats(8, 35),
    st.floats(-6, 0),
    st.sampled_from([0.0, 0.5, 4.0]),
    st.integers(400, 80_000),
)
def test_noise_is_as_far_below_the_speech_as_drawn(seed, snr, slope, swell, samples):
    waveform = speech(samples)
    heard_under = Acoustics(seed=seed, snr=snr, slope=slope, swell=swell)
    noise = hear(waveform, heard_under) - waveform.astype(np.float64)
    assert decibels(waveform, noise) == pytest.approx(snr, abs=0.01)


@pytest.mark.parametrize("slope", [0.0, -3.0, -6.0])
def test_noise_falls_by_so_many_decibels_an_octave(slope):
    waveform = speech(20 * RATE)
    noise = hear(waveform, Acoustics(snr=8, slope=slope)) - waveform
    power = np.abs(np.fft.rfft(noise)) ** 2
    # Of 20 s, 20 bins are a hertz.
    octaves = [power[20 * f : 40 * f].mean() for f in (250, 500, 1000, 2000, 4000)]
    steps = np.diff(10 * np.log10(octaves))
    assert steps == pytest.approx([slope] * 4, abs=0.7)


def test_a_room_is_the_sound_itself_and_what_decays_after_it():
    click = np.zeros(3 * RATE, np.float32)
    click[RATE] = 1
    heard = hear(click, Acoustics(reverberation=0.5, direct=6))
    assert abs(heard[:RATE]).max() < 1e-4  # nothing before it
    assert heard[RATE] == pytest.approx(1, abs=1e-4)
    echoes = heard[RATE + 1 :]
    assert decibels(heard[RATE : RATE + 1], echoes) == pytest.approx(6, abs=0.1)
    # Over a fifth of the 0.5 s it falls by a fifth of the 60 dB.
    first, second = echoes[:1600], echoes[1600:3200]
    assert decibels(first, second) == pytest.approx(12, abs=1)
    assert abs(echoes[RATE // 2 + 10 :]).max() < 1e-4


def test_blocks_join_as_one_long_convolution_would():
    waveform = speech(100_003)
    heard_under = Acoustics(seed=3, reverberation=0.4)
    click = np.zeros(RATE, np.float32)
    click[0] = 1
    impulse = hear(click, heard_under)
    size = 2**17
    expected = np.fft.irfft(
        np.fft.rfft(waveform, size) * np.fft.rfft(impulse, size), size
    )[: len(waveform)]
    assert hear(waveform, heard_under) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("hertz", "heard_under", "change"),
    [
        (1000, Acoustics(tilt=3.0), 0),
        (4000, Acoustics(tilt=3.0), 6),
        (250, Acoustics(tilt=-3.0), 6),
        (1000, Acoustics(band=(300.0, 3400.0)), 0),
        (3400, Acoustics(band=(300.0, 3400.0)), -3),
        (6800, Acoustics(band=(300.0, 3400.0)), -48),
        (150, Acoustics(band=(0.0, 3400.0)), 0),
        (1000, Acoustics(gain=-20.0), -20),
    ],
)
def test_a_microphone_hears_tones_as_loud_as_its_response_says(
    hertz, heard_under, change
):
    tone = np.sin(2 * np.pi * hertz * np.arange(4 * RATE) / RATE).astype(np.float32)
    heard = hear(tone, heard_under)
    inside = slice(RATE, 3 * RATE)
    assert decibels(heard[inside], tone[inside]) == pytest.approx(change, abs=0.6)
    if change == 0:  # and not later
        assert heard[inside] == pytest.approx(tone[inside], abs=0.05)


def test_clipped_samples_are_cut_off_below_the_peak():
    waveform = speech(RATE)
    heard = hear(waveform, Acoustics(clip=6.0))
    limit = abs(waveform).max() * 10 ** (-6 / 20)
    assert heard == pytest.approx(waveform.clip(-limit, limit), abs=1e-6)


def test_acoustics_follow_seed_epoch_and_row():
    first = draw_acoustics(1, 2, 3)
    assert first is not None
    assert first == draw_acoustics(1, 2, 3)
    others = [draw_acoustics(*each) for each in ((0, 2, 3), (1, 3, 3), (1, 2, 4))]
    assert first not in others


def test_some_recordings_are_left_as_they_are_and_others_vary_in_everything():
    drawn = [draw_acoustics(0, 1, row) for row in range(1, 2001)]
    varied = [each for each in drawn if each is not None]
    assert 1 - len(varied) / len(drawn) == pytest.approx(CLEAN_SHARE, abs=0.03)
    for field in dataclasses.fields(Acoustics):
        assert len({getattr(each, field.name) for each in varied}) > 1
    noises = [each.snr for each in varied if each.snr is not None]
    assert 8 <= min(noises) < 9
    assert 34 < max(noises) <= 35


def test_the_global_random_numbers_are_left_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    hear(speech(RATE), Acoustics(snr=10, reverberation=0.3, swell=1.0))
    assert torch.equal(torch.rand(3), expected)
