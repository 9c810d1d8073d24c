"""Word and character errors, one batch after the other."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from thanosql.speech.metrics import (
    EditCounts,
    character_errors,
    confidence_interval,
    word_errors,
)


def test_edits_are_told_apart():
    counts = word_errors(["a b c d e f g h"], ["a c d e f x h i"])
    assert counts == EditCounts(hits=6, substitutions=1, deletions=1, insertions=1)
    assert counts.errors == 3
    assert counts.reference_length == 8
    assert counts.rate == pytest.approx(3 / 8)
    assert character_errors(["abcd"], ["abxde"]) == EditCounts(3, 1, 0, 1)


def test_batches_add_up_to_the_corpus():
    references = ["one two three", "four", "", "five six"]
    hypotheses = ["one three", "fore", "seven", "five six"]
    for errors in (word_errors, character_errors):
        by_batch = sum(
            (errors([r], [h]) for r, h in zip(references, hypotheses, strict=True)),
            EditCounts(),
        )
        assert by_batch == errors(references, hypotheses)


def test_a_rate_is_of_the_corpus_not_the_mean_of_its_rows():
    assert word_errors(["a", "b c d"], ["x", "b c d"]).rate == pytest.approx(1 / 4)
    assert character_errors(["a", "bcd"], ["x", "bcd"]).rate == pytest.approx(1 / 4)


def test_what_is_heard_in_silence_is_inserted():
    assert word_errors([""], ["two words"]) == EditCounts(insertions=2)
    assert word_errors(["", "one"], ["two words", "one"]).rate == pytest.approx(2.0)


def test_without_reference_words_there_is_no_rate():
    assert word_errors([], []).rate is None
    assert word_errors(["", " "], ["", "word"]).rate is None
    assert character_errors([""], [""]).rate is None


def test_an_empty_hypothesis_deletes_everything():
    assert word_errors(["one two"], [""]).rate == pytest.approx(1.0)


def test_strings_are_compared_as_given():
    assert word_errors(["Word"], ["word"]).rate == pytest.approx(1.0)
    assert word_errors(["two  words "], ["two words"]).rate == pytest.approx(0.0)


def test_the_interval_is_that_of_drawing_utterances_anew():
    random = np.random.default_rng(1)
    lengths = random.integers(5, 25, 200)
    errors = random.binomial(lengths, 0.2)
    drawn = random.integers(0, 200, (10_000, 200))
    rates = errors[drawn].sum(axis=1) / lengths[drawn].sum(axis=1)
    expected = np.percentile(rates, [2.5, 97.5])
    counted = Counter(zip(errors.tolist(), lengths.tolist(), strict=True))
    assert confidence_interval(counted) == pytest.approx(expected, abs=0.002)
    narrow = confidence_interval(counted, confidence=0.5)
    assert expected[0] < narrow[0] < narrow[1] < expected[1]


def test_there_is_no_interval_where_nothing_varies_or_nothing_is_said():
    assert confidence_interval({}) == (None, None)
    assert confidence_interval({(1, 4): 1}) == (None, None)
    assert confidence_interval({(3, 0): 5}) == (None, None)
    assert confidence_interval({(1, 4): 9}) == (0.25, 0.25)
