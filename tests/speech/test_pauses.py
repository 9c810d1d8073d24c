"""Windows lose nothing but long pauses, end in pauses, and say where they are from."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thanosql.catalog.sample import words
from thanosql.speech.sound import pauses
from thanosql.speech.sound.audio import SAMPLE_RATE, load
from thanosql.speech.sound.pauses import AtPauses, WithSpeech
from thanosql.speech.sound.voice import FRAME, listen
from thanosql.speech.sound.windows import Layout

SECONDS = 6.0  # of a window here


def said(text, seed=0):
    return load(words.say(text, seed=seed), None)


def silence(seconds):
    samples = int(seconds * SAMPLE_RATE)
    noise = np.random.default_rng(samples).normal(0, 1e-4, samples)
    return noise.astype(np.float32)


def split(waveform, joints):
    return np.split(waveform, sorted(each % len(waveform) for each in joints))


def speech_of(waveform):
    """Return for each sample whether it is in a frame with speech."""
    found = np.concatenate([each.speech for each in listen([waveform])])
    return np.repeat(found, FRAME)[: len(waveform)]


def sources(windows):
    """Return for each sample of all windows where it is in the recording."""
    spans = [span for window in windows for span in window.spans]
    return np.concatenate(
        [np.arange(each.source, each.source + each.samples) for each in spans]
        or [np.arange(0)]
    )


def same(one, other):
    return np.array_equal(one.waveform, other.waveform) and all(
        getattr(one, name) == getattr(other, name)
        for name in ("frames", "seconds", "last", "spans", "speech_seconds")
    )


texts = st.lists(st.sampled_from(words.vocabulary()), max_size=6).map(" ".join)
gaps = st.floats(0, 3)
recordings = st.lists(st.tuples(gaps, texts), min_size=1, max_size=5).map(
    lambda parts: np.concatenate(
        [
            silence(0.1),
            *(each for gap, text in parts for each in (silence(gap), said(text))),
        ]
    )
)
joints = st.lists(st.integers(0, 30 * SAMPLE_RATE), max_size=6)


@given(waveform=recordings, joints=joints)
@settings(max_examples=40, deadline=None)
def test_windows_lose_nothing_but_the_middle_of_long_pauses(waveform, joints):
    windows = [*AtPauses(SECONDS).cut(split(waveform, joints))]

    # Each sample is where its window says, and none is twice in a window or in two.
    place = sources(windows)
    assert np.array_equal(
        np.concatenate([each.waveform for each in windows]), waveform[place]
    )
    assert (np.diff(place) > 0).all()
    for window in windows:
        ends = [span.begin + span.samples for span in window.spans]
        assert [span.begin for span in window.spans] == [0, *ends][: len(ends)]
        assert ends[-1:] == [len(window.waveform)][: len(ends)]

    # What is left out is amid pauses of more than two seconds.
    speech = speech_of(waveform)
    kept = np.zeros(len(waveform), bool)
    kept[place] = True
    edges = np.flatnonzero(np.diff(speech, prepend=True, append=True))
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        long = -(-(end - begin) // FRAME) > pauses._LONGEST
        assert kept[begin:end].all() == (not long)
        if long and begin:
            assert kept[begin : begin + pauses._KEPT * FRAME].all()
        if long and end < len(waveform):
            assert kept[end - pauses._KEPT * FRAME : end].all()
    assert kept[speech].all()

    assert max(len(each.waveform) for each in windows) <= SECONDS * SAMPLE_RATE
    assert [each.last for each in windows] == [False] * (len(windows) - 1) + [True]
    assert windows[-1].seconds == len(waveform) / SAMPLE_RATE
    assert all(one.seconds < two.seconds for one, two in pairwise(windows))
    assert sum(each.speech_seconds for each in windows) == pytest.approx(
        speech.sum() / SAMPLE_RATE
    )
    assert not any(each.silent for each in windows[:-1])


@given(waveform=recordings, joints=joints, vad=st.booleans())
@settings(max_examples=25, deadline=None)
def test_how_a_waveform_is_split_makes_no_difference(waveform, joints, vad):
    cutting = AtPauses(SECONDS, vad=vad)
    whole = [*cutting.cut([waveform])]
    pieces = [*cutting.cut(split(waveform, joints))]
    assert len(pieces) == len(whole)
    assert all(map(same, pieces, whole))


def test_a_recording_that_fits_is_one_window_to_the_bit():
    waveform = np.concatenate(
        [silence(1.5), said("yes"), silence(1.8), said("no"), silence(1.4)]
    )
    waveform = np.concatenate([waveform, said("stop go " * 40)])[: 30 * SAMPLE_RATE]
    assert len(waveform) == 30 * SAMPLE_RATE
    (window,) = AtPauses().cut([waveform])
    assert np.array_equal(window.waveform, waveform)
    assert window.spans == ((0, 0, len(waveform)),)
    assert window.frames == slice(0, None)
    longer = np.append(waveform, np.float32(0))
    assert len([*AtPauses().cut([longer])]) == 2


def test_two_parts_with_a_long_pause_between_are_one_window():
    one, two = said("turn the light on"), said("and the music off")
    waveform = np.concatenate([silence(9), one, silence(20), two, silence(8)])
    (window,) = AtPauses().cut([waveform])
    assert len(window.spans) == 2
    assert window.seconds == pytest.approx(37 + (len(one) + len(two)) / SAMPLE_RATE)
    assert len(window.waveform) / SAMPLE_RATE < window.seconds - 32
    place = sources([window])
    for begin, part in [(9, one), (29 + len(one) / SAMPLE_RATE, two)]:
        first = round(begin * SAMPLE_RATE)
        assert np.isin(np.arange(first, first + len(part)), place).all()


@pytest.mark.parametrize("seconds", [0.01, 1, 3, 50])
def test_where_nobody_speaks_there_is_one_window_that_says_so(seconds):
    (window,) = AtPauses().cut([silence(seconds)])
    assert window.silent
    assert window.last
    assert window.seconds == seconds
    assert len(window.waveform) == (len(silence(seconds)) if seconds < 2 else 0)


def test_windows_end_in_pauses():
    parts = [
        [said("open the kitchen door please", seed), silence(0.5)] for seed in range(20)
    ]
    waveform = np.concatenate([each for part in parts for each in part])
    # A part takes less than four seconds, the last third of a window. `ends` are those
    # of the half seconds of silence.
    ends = np.cumsum([sum(map(len, part)) for part in parts])
    for cutting in (AtPauses(12), AtPauses(12, vad=False)):
        windows = [*cutting.cut([waveform])]
        assert len(windows) > 4
        for window in windows[:-1]:
            cut = round(window.seconds * SAMPLE_RATE)
            before = ends[np.searchsorted(ends, cut)] - cut
            assert 0 < before < 0.6 * SAMPLE_RATE
            assert len(window.waveform) > 7.9 * SAMPLE_RATE


@given(waveform=recordings)
@settings(max_examples=20, deadline=None)
def test_without_looking_for_speech_nothing_is_left_out(waveform):
    windows = [*AtPauses(SECONDS, vad=False).cut([waveform])]
    assert np.array_equal(sources(windows), np.arange(len(waveform)))
    assert max(len(each.waveform) for each in windows) <= SECONDS * SAMPLE_RATE
    assert {each.speech_seconds for each in windows} == {None}
    assert not any(each.silent for each in windows)


@given(waveform=recordings, joints=joints)
@settings(max_examples=20, deadline=None)
def test_a_layouts_windows_stay_as_they_are_and_tell_of_speech(waveform, joints):
    layout = Layout(2 * SAMPLE_RATE, 5_120, 20_480, 320)
    windows = [*WithSpeech(layout).cut(split(waveform, joints))]
    speech = speech_of(waveform)
    for window, plain in zip(windows, layout.cut([waveform]), strict=True):
        assert np.array_equal(window.waveform, plain.waveform)
        assert window.spans == plain.spans
        assert (window.frames, window.last) == (plain.frames, plain.last)
        ((_, begin, samples),) = window.spans
        assert not (window.silent and speech[begin : begin + samples].any())
    told = sum(each.speech_seconds for each in windows)
    # The recording's last frame may be shorter than it counts.
    assert told == pytest.approx(speech.sum() / SAMPLE_RATE, abs=FRAME / SAMPLE_RATE)
    assert all(each.silent for each in windows) == (not speech.any())


def test_windows_amid_a_long_pause_are_silent():
    layout = Layout(2 * SAMPLE_RATE, 5_120, 20_480, 320)
    waveform = np.concatenate([said("turn on"), silence(9), said("turn off")])
    silent = [each.silent for each in WithSpeech(layout).cut([waveform])]
    assert not silent[0]
    assert not silent[-1]
    assert sum(silent) >= 4


def test_what_is_held_does_not_grow_with_the_recording():
    part = [said("turn the kitchen light on", 0), silence(0.4), said("stop", 1)]
    talk = np.concatenate([*part * 8, silence(30)])

    def most(repetitions, cutting):
        pieces = (talk.copy() for _ in range(repetitions))
        tracemalloc.start()
        for _ in cutting.cut(pieces):
            pass
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    layout = Layout(30 * SAMPLE_RATE, 32_000, 416_000, 320)
    for cutting in (AtPauses(), AtPauses(vad=False), WithSpeech(layout)):
        most(1, cutting)  # what is loaded once
        assert most(9, cutting) < 1.1 * most(3, cutting)
