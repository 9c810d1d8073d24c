"""Attention to times: the best of all paths, with nobody speaking in pauses."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from thanosql.speech.decoding import attention_path
from thanosql.speech.decoding.attention_path import sounding, spoken_frames

GAINS = st.integers(-8, 8).map(float)


@st.composite
def problems(draw):
    tokens, frames = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    attention = draw(arrays(float, (tokens, frames), elements=GAINS))
    begins = draw(arrays(bool, tokens))
    begins[0] = True
    after_pause = draw(arrays(bool, frames))
    after_pause[0] = False
    return attention, begins, after_pause


def gain(path, attention, begins, after_pause):
    """Return what a path has gained, as the module has it, frame by frame."""
    tokens, frames = attention.shape
    total, following = 0.0, 0
    for token in range(tokens):
        first, last = path.first[token], path.last[token]
        assert first <= last
        if first > following:  # what lies between is of no word
            assert begins[token]
            assert after_pause[first]
            assert not following or after_pause[following]
            total += attention_path._UNREAD * (first - following)
        else:
            assert first in ({following} if not token else {following, following - 1})
        total += attention[token, first : last + 1].sum()
        within = after_pause[first + 1 : last + 1].sum()
        if not begins[token] and after_pause[first] and first == following:
            within += 1
        total += attention_path._OVER_PAUSE * within
        following = last + 1
    if following < frames:
        assert after_pause[following]
        total += attention_path._UNREAD * (frames - following)
    return total


def best(attention, begins, after_pause):
    """Return the most that any path gains: all are tried, a frame at a time."""
    tokens, frames = attention.shape
    unread, over = attention_path._UNREAD, attention_path._OVER_PAUSE

    def on(token, frame, skipping):
        """Return what is gained from a place on, itself included."""
        here = unread if skipping else attention[token, frame]
        ways = [0.0] if frame == frames - 1 and token == tokens - 1 else []
        ends = token + 1 == tokens or begins[token + 1]
        if frame + 1 < frames:
            pause = after_pause[frame + 1]
            if skipping:
                ways.append(on(token, frame + 1, True))
                if pause and token + 1 < tokens:
                    ways.append(on(token + 1, frame + 1, False))
            else:
                ways.append(on(token, frame + 1, False) + over * pause)
                if token + 1 < tokens:
                    cost = 0.0 if begins[token + 1] else over * pause
                    ways.append(on(token + 1, frame + 1, False) + cost)
                if ends and pause:
                    ways.append(on(token, frame + 1, True))
        if not skipping and token + 1 < tokens:
            ways.append(on(token + 1, frame, False))
        return here + max(ways, default=-np.inf)

    return max(on(0, 0, False), on(-1, 0, True) if begins[0] else -np.inf)


@given(problems())
@settings(max_examples=300, deadline=None)
def test_no_path_gains_more(problem):
    path = attention_path._best_path(*problem)
    np.testing.assert_allclose(gain(path, *problem), best(*problem))


@given(problems())
@settings(max_examples=200, deadline=None)
def test_words_follow_one_another_and_none_is_without_a_frame(problem):
    attention, begins, _ = problem
    sizes = np.diff([*np.flatnonzero(begins), len(attention)])
    sound = np.ones(attention.shape[1], bool)
    found = spoken_frames(attention, sizes, sound)
    assert len(found) == len(sizes)
    assert all(0 <= first < end <= len(sound) for first, end in found)
    assert sorted(found) == found


def listening(*parts, frames):
    """Return attention of 4 to each token's frames and -1 to all others."""
    attention = np.full((len(parts), frames), -1.0)
    for row, (first, end) in enumerate(parts):
        attention[row, first:end] = 4.0
    return attention


def sound(*pauses, frames):
    found = np.ones(frames, bool)
    for first, end in pauses:
        found[first:end] = False
    return found


def test_a_word_beside_a_pause_begins_and_ends_with_the_sound():
    # The second word is listened to late, and the first one into the pause.
    attention = listening((12, 35), (58, 70), frames=100)
    found = spoken_frames(
        attention, [1, 1], sound((0, 10), (30, 50), (80, 100), frames=100)
    )
    assert found == [(10, 30), (50, 80)]


def test_in_speech_a_word_begins_before_it_is_listened_to():
    attention = listening((0, 40), (40, 90), frames=90)
    found = spoken_frames(attention, [1, 1], sound(frames=90))
    assert found == [(0, 37), (37, 90)]


def test_what_no_word_is_of_is_left_out_between_pauses():
    # A cough at 40: nobody listens to it.
    attention = listening((0, 20), (60, 90), frames=90)
    pauses = sound((20, 38), (45, 60), frames=90)
    assert spoken_frames(attention, [1, 1], pauses) == [(0, 20), (60, 90)]


def test_where_all_is_silent_the_attention_alone_tells():
    attention = listening((0, 4), (4, 9), frames=9)
    found = spoken_frames(attention, [1, 1], sound((0, 9), frames=9))
    assert found == [(0, 1), (1, 9)]


@given(arrays(float, st.integers(1, 60), elements=st.floats(-120, 40)))
def test_levels_of_any_number_are_told_apart(levels):
    assert sounding(levels).shape == levels.shape


def test_pauses_are_found_and_the_closures_of_consonants_are_not():
    levels = np.random.default_rng(0).normal(-20, 3, 300)
    levels[:40] = levels[280:] = -70  # before the speech, and behind it
    levels[100:110] = -70
    levels[150:190] = -70
    (silent,) = np.nonzero(~sounding(levels))
    expected = [*range(40), *range(150, 190), *range(280, 300)]
    assert len({*silent} ^ {*expected}) <= 12  # two levels at each edge


def test_a_pause_is_found_in_noise():
    levels = np.random.default_rng(0).normal(-20, 4, 300)
    levels[150:190] = np.random.default_rng(1).normal(-38, 1, 40)
    (silent,) = np.nonzero(~sounding(levels))
    assert len({*silent} ^ {*range(150, 190)}) <= 4
