"""The best path through CTC's trellis is the one that trying all paths finds."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thanosql.speech.decoding.trellis import Costs, Tokens, best_path

BLANK, SPACE, A, B = range(4)
COSTS = Costs(speech=1.0, leave_out=4.0, token=3.0)


def scores_of_all_paths(ratios, tokens, costs):
    """Yield the score of each path, by the rules as the docstrings have them."""
    words = tokens.words
    before = np.cumsum([0, *map(len, words)])
    last = len(words)

    def left_out(begin, end):
        if begin == end:
            return 0.0
        return costs.leave_out + costs.token * int(before[end] - before[begin])

    def gap(frame, number):
        silence = max(ratios[frame][column] for column in tokens.silence)
        return max(silence, 0.0 if number in tokens.wild else -costs.speech)

    def follow(state, frame):
        kind, word, place = state
        if frame == len(ratios):
            if kind == "gap":
                yield -left_out(word, last)
            elif kind == "token" and word == last - 1 and place == len(words[word]) - 1:
                yield 0.0
            return
        following = []
        if kind == "gap":
            for after in range(word, last + 1):
                cost = left_out(word, after)
                following.append((("gap", after, 0), gap(frame, after) - cost))
                if after < last:
                    score = ratios[frame][words[after][0]] - cost
                    following.append((("token", after, 0), score))
        else:
            spelled = words[word]
            if kind == "token":
                following.append((state, ratios[frame][spelled[place]]))
            if place + 1 < len(spelled):
                blank = ratios[frame][tokens.silence[0]]
                following.append((("blank", word, place), blank))
                if kind == "blank" or spelled[place + 1] != spelled[place]:
                    score = ratios[frame][spelled[place + 1]]
                    following.append((("token", word, place + 1), score))
            else:
                following.append((("gap", word + 1, 0), gap(frame, word + 1)))
                if word + 1 < last and words[word + 1][0] != spelled[place]:
                    score = ratios[frame][words[word + 1][0]]
                    following.append((("token", word + 1, 0), score))
        for each, score in following:
            for rest in follow(each, frame + 1):
                yield float(score) + rest

    yield from follow(("gap", 0, 0), 0)


@settings(max_examples=150, deadline=None)
@given(
    frames=st.integers(1, 5),
    words=st.lists(st.lists(st.integers(A, B), min_size=1, max_size=2), max_size=3),
    wild=st.frozensets(st.integers(0, 3)),
    seed=st.integers(0, 2**16),
    costs=st.builds(Costs, *[st.floats(0, 5)] * 3),
)
def test_no_path_is_better_and_the_words_are_those_of_the_path(
    frames, words, wild, seed, costs
):
    rng = np.random.default_rng(seed)
    ratios = -rng.exponential(2, (frames, 4)).astype(np.float32)
    tokens = Tokens(words, (BLANK, SPACE), wild.intersection(range(len(words) + 1)))
    spans, score = best_path(ratios, tokens, costs)
    assert score == pytest.approx(
        max(scores_of_all_paths(ratios, tokens, costs)), abs=1e-4
    )
    # With the words that the path leaves out given up, it costs that much less.
    said = [word for word, found in zip(words, spans, strict=True) if found]
    flat = [span for found in spans if found for span in found]
    assert [len(found) for found in spans if found] == [len(word) for word in said]
    assert all(span.begin < span.end for span in flat)
    assert all(a.end <= b.begin for a, b in pairwise(flat))
    assert not flat or (flat[0].begin >= 0 and flat[-1].end <= frames)


def certain(path):
    """Return log-ratios of a model that is sure of each frame's token."""
    ratios = np.full((len(path), 4), -10.0, np.float32)
    ratios[range(len(path)), path] = 0.0
    return ratios


def test_a_word_that_is_not_said_is_left_out_and_the_others_stay_in_place():
    path = [BLANK, A, A, BLANK, B, SPACE, B, BLANK]
    tokens = Tokens([[A, B], [A, A, A], [B]], (BLANK, SPACE))
    spans, score = best_path(certain(path), tokens, COSTS)
    assert spans == [[(1, 3), (4, 5)], None, [(6, 7)]]
    assert score == -(COSTS.leave_out + 3 * COSTS.token)


def test_speech_that_is_not_in_the_text_is_passed_over():
    path = [A, BLANK, B, A, B, A, BLANK, B, B]
    spans, score = best_path(certain(path), Tokens([[A], [B]], (BLANK,)), COSTS)
    assert spans == [[(0, 1)], [(7, 9)]]
    assert score == -4 * COSTS.speech


def test_speech_in_place_of_a_word_that_cannot_be_spelled_costs_nothing():
    path = [A, BLANK, B, A, B, A, BLANK, B, B]
    tokens = Tokens([[A], [B]], (BLANK,), frozenset({1}))
    assert best_path(certain(path), tokens, COSTS)[1] == 0.0


def test_equal_tokens_of_two_words_need_a_frame_between_them():
    tokens = Tokens([[A], [A]], (BLANK,))
    spans, _ = best_path(certain([A, A, BLANK, A]), tokens, COSTS)
    assert spans == [[(0, 2)], [(3, 4)]]


def test_a_text_without_words_passes_over_all_frames():
    assert best_path(certain([A, BLANK]), Tokens([], (BLANK,)), COSTS) == ([], -1.0)
