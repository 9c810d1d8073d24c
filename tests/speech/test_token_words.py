"""The tokens of a text to its words, and a window's times to the recording's."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import whisper
from transformers import AutoTokenizer

from thanosql.speech.decoding.subwords import Subwords
from thanosql.speech.decoding.token_words import in_recording, words_of
from thanosql.speech.recording import Span
from thanosql.speech.results import Word


@pytest.fixture(scope="module")
def spelling(tmp_path_factory):
    """Tokens are single bytes."""
    directory = whisper(tmp_path_factory.mktemp("words"))
    return Subwords(AutoTokenizer.from_pretrained(directory))


def words(spelling, ids, *, spaced=True):
    text = spelling.decode(ids)
    return text, [*words_of(text, spelling.ends(ids, text), spaced=spaced)]


@given(st.lists(st.integers(0, 263), max_size=40))
@settings(max_examples=300, deadline=None)
def test_the_words_of_any_tokens_are_those_of_the_text(spelling, ids):
    text, found = words(spelling, ids)
    assert [word.text for word in found] == text.split()
    for word in found:
        assert 0 <= word.spoken.start < word.spoken.stop <= len(ids)


@given(st.text("ab é한,.(\u3000", max_size=30))
@settings(max_examples=300, deadline=None)
def test_a_word_is_spelled_by_its_tokens(spelling, text):
    ids = spelling.encode(spelling.normalize(text).text)
    text, found = words(spelling, ids)
    ends = [0]
    for word in found:
        assert word.spoken.start >= ends[-1]
        ends.append(word.spoken.stop)
        spelled = spelling.decode([ids[token] for token in word.spoken])
        letters = "".join(each for each in word.text if each.isalnum())
        if letters:  # the tokens between the first and the last letter
            assert spelled in word.text
            assert (spelled[0], spelled[-1]) == (letters[0], letters[-1])


@given(st.text("東京はい。「」、?ก็ a", max_size=20))
@settings(max_examples=300, deadline=None)
def test_without_spaces_words_end_with_tokens_and_punctuation_stays(spelling, text):
    ids = spelling.encode(spelling.normalize(text).text)
    text, found = words(spelling, ids, spaced=False)
    assert "".join(word.text for word in found) == "".join(text.split())
    pieces = {piece[0] for piece in text.split()}
    for word in found:
        if word.text[0] in "。、」?็":  # only where nothing stands before it
            assert word.text[0] in pieces
        assert word.text[-1] != "「" or text.endswith("「") or "「 " in text


def test_characters_of_a_script_without_spaces_are_words(spelling):
    ids = spelling.encode("東京は「い」。")
    _, found = words(spelling, ids, spaced=False)
    assert [word.text for word in found] == ["東", "京", "は", "「い」。"]
    assert [len(word.spoken) for word in found[1:]] == [3, 3, 3]  # bytes of the letter


def test_a_token_of_two_words_is_of_both():
    found = [*words_of("one two", [7], spaced=True)]
    assert [word.spoken for word in found] == [range(1), range(1)]


def test_punctuation_is_not_spoken():
    #         "  a    ,   -    b   ."
    ends = [1, 2, 4, 6, 7]
    first, dash, last = words_of("a, - b.", ends, spaced=True)
    assert (first.text, first.spoken) == ("a,", range(1))
    assert (dash.text, dash.spoken) == ("-", range(2, 3))  # nothing else is there
    assert (last.text, last.spoken) == ("b.", range(3, 4))


def test_a_word_ends_with_the_piece_of_the_recording_that_it_begins_in():
    spans = [Span(0, 0, 16_000), Span(16_000, 80_000, 32_000)]

    def placed(start, end):
        word = in_recording(Word("a", start, end, 0.5), spans)
        assert (word.text, word.confidence) == ("a", 0.5)
        return word.start, word.end

    assert placed(0.2, 0.9) == (0.2, 0.9)
    assert placed(0.8, 1.3) == (0.8, 1.0)  # what lies between was left out
    assert placed(1.0, 1.5) == (5.0, 5.5)
    assert placed(2.5, 3.02) == (6.5, 7.0)  # the window ends in the middle of a frame
