"""The bonus of hotwords, against looking for them in the whole text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thanosql.speech.decoding.hotwords import Hotwords


def bonus(hotwords, text):
    state, total = hotwords.start, 0.0
    for letter in f"{text} ":
        state, gain = hotwords.step(state, letter)
        total += gain
    return total + hotwords.end(state)


@given(
    st.lists(st.sampled_from(["a", "ab", "b", "abc", "cab"]), max_size=8),
    st.sampled_from([("ab",), ("a b", "ab"), ("abc a", "cab"), ("a ab abc", "b")]),
)
def test_every_place_of_a_name_counts_its_letters(words, names):
    expected = 0.0
    for name in names:
        parts = name.split()
        places = range(len(words) - len(parts) + 1)
        found = sum(words[p : p + len(parts)] == parts for p in places)
        expected += 2.0 * found * sum(map(len, parts))
    assert bonus(Hotwords(names, 2.0, " "), " ".join(words)) == pytest.approx(expected)


def test_what_a_name_brings_it_brings_letter_by_letter():
    hotwords = Hotwords(["new york"], 1.0, " ")
    state, gains = hotwords.start, []
    for letter in "new york ":
        state, gain = hotwords.step(state, letter)
        gains.append(gain)
    assert gains == [1, 1, 1, 0, 1, 1, 1, 1, 0]


@pytest.mark.parametrize("text", ["newt", "anew york", "new jersey", "new yor", "new"])
def test_a_name_that_is_not_completed_gives_everything_back(text):
    assert bonus(Hotwords(["new york"], 1.0, " "), text) == 0


def test_a_name_within_a_longer_one_does_not_count_twice():
    hotwords = Hotwords(["new", "new york"], 1.0, " ")
    assert bonus(hotwords, "new york") == 7
    assert bonus(hotwords, "new jersey") == 3
    assert bonus(hotwords, "new new york") == 10


def test_without_spaces_names_are_found_anywhere():
    hotwords = Hotwords(["東京"], 1.0, "")
    assert bonus(hotwords, "今東京") == 2
    assert bonus(hotwords, "東大") == 0
