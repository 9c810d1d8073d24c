"""Where the text of a long recording is recognized."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np

from thanosql.speech.decoding.anchors import cuts

BLANK, SPACE = 0, 1


def a_text(words, seed=0):
    rng = random.Random(seed)
    return [
        [rng.randrange(2, 28) for _ in range(rng.randint(1, 9))] for _ in range(words)
    ]


def spoken(words):
    """Return a path that reads as the words, and the frame at which each begins."""
    path, begins = [BLANK], []
    for word in words:
        begins.append(len(path))
        for token in word:
            path += [token, BLANK]
        path.append(SPACE)
    return np.array(path), begins


def letters(words):
    return sum(map(len, words))


def found(words, path):
    return cuts(words, letters(words), path, {BLANK, SPACE})


def test_cuts_are_where_words_begin_and_go_forward():
    words = a_text(200)
    path, begins = spoken(words)
    places = found(words, path)
    assert len(places) > 100
    # Half-way between the last frame of the word before and the first of this one.
    assert all(begins[c.word] - 3 <= c.frame <= begins[c.word] for c in places)
    assert all(a.frame < b.frame and a.word < b.word for a, b in pairwise(places))


def test_a_text_that_comes_twice_is_no_place_to_cut():
    words = a_text(40)
    path, _ = spoken(words + words)
    assert found(words, path) == []


def test_misheard_stretches_have_no_cuts_and_shift_none():
    words = a_text(300)
    others = a_text(60, seed=1)
    path, begins = spoken(words[:100] + others + words[160:])
    places = found(words, path)
    assert len(places) > 150
    assert not any(100 < c.word <= 160 for c in places)
    assert all(abs(c.frame - begins[c.word]) <= 3 for c in places)


def test_words_out_of_order_do_not_lead_astray():
    words = a_text(300)
    moved = words[:100] + words[280:] + words[100:280]
    path, _ = spoken(moved)
    places = found(words, path)
    assert len(places) > 150
    assert all(c.word < 281 for c in places)


def test_nothing_that_is_recognized_gives_no_cut():
    words = a_text(20)
    assert found(words, np.zeros(500, int)) == []
    assert found([], np.zeros(500, int)) == []
