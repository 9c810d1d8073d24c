"""The vocoder that speaks Kokoro's voices for TinyEn's recipe, without Kokoro."""

import numpy as np
import pytest
import torch

from thanosql.tiny_en import make_speech
from thanosql.tiny_en.vocoder import (
    HOP,
    SAMPLE_RATE,
    Vocoder,
    distance,
    fitted,
    harmonics,
    speak,
)


def spectrum(waveform):
    return np.abs(np.fft.rfft(np.asarray(waveform))) / len(waveform)


@pytest.mark.parametrize("hertz", [80.0, 200.0, 400.0])
def test_harmonics_are_alike_at_every_multiple_of_the_pitch_and_of_power_one(hertz):
    seconds = 2
    wave = harmonics(torch.full((1, seconds * SAMPLE_RATE // HOP), hertz))[0].numpy()
    assert np.mean(wave**2) == pytest.approx(1.0, rel=0.05)
    found = spectrum(wave)
    multiples = np.arange(1, int(SAMPLE_RATE / 2 / hertz)) * int(hertz * seconds)
    assert found[multiples].std() < 0.05 * found[multiples].mean()
    between = multiples + int(hertz * seconds / 2)
    assert found[between[:-1]].max() < 0.02 * found[multiples].mean()


def test_what_it_says_has_a_frame_of_samples_for_each_frame_and_follows_the_seed():
    torch.manual_seed(0)
    vocoder = Vocoder(width=16, layers=1).eval()
    frames = np.random.default_rng(0).standard_normal((1, 512, 40), np.float32)
    pitch = np.full((1, 1, 40), 150, np.float32)
    style = np.zeros((1, 256), np.float32)

    def said(seed):
        return speak(vocoder, frames, pitch, style, np.random.default_rng(seed))

    assert said(1).shape == (40 * HOP,)
    assert np.array_equal(said(1), said(1))
    assert not np.array_equal(said(1), said(2))


def test_a_longer_tract_lowers_the_formants_and_leaves_the_pitch():
    vocoder = Vocoder(width=8, layers=1).eval()
    with torch.no_grad():
        vocoder.last.weight.zero_()
        bias = vocoder.last.bias.view(2, 2, -1)
        bias.fill_(-12.0)
        bias[:, 0, 45:56] = 0.0  # harmonics pass around bin 50: 2 kHz
    frames, style = torch.zeros(1, 512, 160), torch.zeros(1, 128)
    pitch, noise = torch.full((1, 160), 100.0), torch.zeros(1, 160 * HOP)
    bins = torch.arange(160 * HOP // 2 + 1) * SAMPLE_RATE / (160 * HOP)

    def centre(tract):
        with torch.inference_mode():
            found = spectrum(vocoder(frames, pitch, style, noise, 1.0, tract)[0])
        return float((found**2 * bins.numpy()).sum() / (found**2).sum()), found

    (plain, spoken), (longer, lower) = centre(1.0), centre(0.9)
    assert plain == pytest.approx(2000, rel=0.03)
    assert longer == pytest.approx(0.9 * plain, rel=0.03)
    hundred = int(100 * 160 * HOP / SAMPLE_RATE)  # Hz: all power is at its multiples
    for found in (spoken, lower):
        assert (found[::hundred] ** 2).sum() > 0.5 * (found**2).sum()


def test_fitting_brings_it_nearer_to_what_was_said():
    torch.manual_seed(1)
    pitch = torch.full((120,), 120.0)
    voice = harmonics(pitch[None])[0] * 0.05
    frames, style = torch.zeros(512, 120), torch.zeros(128)

    def off(vocoder):
        with torch.inference_mode():
            noise = torch.randn(1, 120 * HOP)
            said = vocoder(frames[None], pitch[None], style[None], noise)
        return float(distance(said, voice[None]))

    assert distance(voice[None], voice[None]) == 0
    pairs = [(voice, frames, pitch, style)]
    assert off(fitted(pairs, 12)) < 0.8 * off(fitted(pairs, 1))


def test_families_of_voices_read_sentences_of_their_own_until_vocoded_meets_them():
    texts = 1000
    first = {
        family: set(list(make_speech._numbers(family, texts))[:100])
        for family in (*make_speech.FAMILIES, "vocoded")
    }
    assert sum(map(len, first.values())) == len(set().union(*first.values()))
    assert set(make_speech._numbers("vocoded", texts)) == set(range(texts))
