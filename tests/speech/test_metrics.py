"""Word and character errors, one batch after the other."""

from __future__ import annotations

import pytest

from thanosql.speech.metrics import (
    EditCounts,
    character_error_rate,
    character_errors,
    word_error_rate,
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
    assert word_error_rate(["a", "b c d"], ["x", "b c d"]) == pytest.approx(1 / 4)
    assert character_error_rate(["a", "bcd"], ["x", "bcd"]) == pytest.approx(1 / 4)


def test_what_is_heard_in_silence_is_inserted():
    assert word_errors([""], ["two words"]) == EditCounts(insertions=2)
    assert word_errors(["", "one"], ["two words", "one"]).rate == pytest.approx(2.0)


def test_without_reference_words_there_is_no_rate():
    assert word_error_rate([], []) is None
    assert word_error_rate(["", " "], ["", "word"]) is None
    assert character_error_rate([""], [""]) is None


def test_an_empty_hypothesis_deletes_everything():
    assert word_error_rate(["one two"], [""]) == pytest.approx(1.0)


def test_strings_are_compared_as_given():
    assert word_error_rate(["Word"], ["word"]) == pytest.approx(1.0)
    assert word_error_rate(["two  words "], ["two words"]) == pytest.approx(0.0)
