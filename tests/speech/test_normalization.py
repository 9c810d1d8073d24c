"""What does not count when texts are compared, and what does."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thanosql.errors import DataError
from thanosql.speech.metrics import character_errors, word_errors
from thanosql.speech.normalization import NORMALIZERS, basic, english

WORDS = ["don't", "o'clock", "élan", "naïve", "straße", "año", "привет", "λόγος", "3.5"]
WORDS += ["안녕하세요", "हिन्दी", "ไม่ได้", "עִבְרִית", "عَرَبِيّ", "đường", "mp3", "40"]


@given(st.text())
def test_basic_leaves_what_it_has_written_as_it_is(text):
    assert basic(basic(text)) == basic(text)


@given(st.lists(st.sampled_from(WORDS), min_size=1), st.data())
def test_case_and_punctuation_are_no_errors(words, data):
    def variant():
        """Return the words in any case, with any signs before and after each."""
        case = st.sampled_from([str, str.upper, str.title, str.swapcase])
        signs = st.text(" \n\u200b\u00ad.,;:!?¿…-\N{EM DASH}“”«»()[]*♪。", max_size=3)
        cased = [data.draw(case)(word) for word in words]
        parted = [f"{each}{data.draw(signs)} {data.draw(signs)}" for each in cased]
        form = data.draw(st.sampled_from(["NFC", "NFD"]))
        return unicodedata.normalize(form, data.draw(signs) + "".join(parted))

    reference, hypothesis = basic(variant()), basic(variant())
    for errors in (word_errors, character_errors):
        assert errors([reference], [hypothesis]).errors == 0
    assert len(reference.split()) == len(words)


@given(st.lists(st.from_regex(r"[a-z]+('[a-z]+)?", fullmatch=True)))
def test_what_a_model_without_case_and_punctuation_writes_is_its_words(words):
    assert basic(" ".join(words)) == " ".join(words)
    assert basic(" ".join(words).upper()) == " ".join(words)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don’t, DON'T; don`t", "don't don't don't"),  # noqa: RUF001 - meant
        ("the dogs' tails, ’twas 'so'", "the dogs tails twas so"),  # noqa: RUF001
        ("well-known, and/or; so...then — AT&T", "well known and or so then at t"),
        ("3,000 people, 1,234,567.5 and 1,00,000", "3000 people 1234567.5 and 100000"),
        ("3.5, 3,5 and 1,2", "3.5 3,5 and 1,2"),
        ("$5, 5 %; 12:30", "5 5 12 30"),
        ("at 5 a.m. in the U.S.A., J.R.R. Tolkien", "at 5 am in the usa jrr tolkien"),
        ("[laughter] (so they say)", "laughter so they say"),
        ("Straße STRASSE", "strasse strasse"),
        ("İstanbul i\u0307stanbul", "istanbul istanbul"),
        ("３，０００ ＡＢＣ！", "3000 abc"),  # noqa: RUF001
        ("col·lecció, צה״ל", "collecció צהל"),
        ("今日は、晴れ。", "今日は晴れ"),
        ("co\u00adoperate می\u200cروم", "cooperate میروم"),
        ("I ❤️ you 👩‍👩‍👧", "i you"),
        ("«¿Qué?»", "qué"),
        ("...", ""),
    ],
)
def test_basic_takes_case_and_punctuation_away(text, expected):
    assert basic(text) == expected


@pytest.mark.parametrize(
    "text",
    ["안녕하세요 한국어", "हिन्दी में", "ไม่ได้ น้ำ", "தமிழ்", "عَرَبِيّ", "tiếng việt", "မြန်မာ"],
)
def test_letters_keep_their_marks(text):
    assert basic(text) == text
    assert basic(unicodedata.normalize("NFD", text)) == text


@pytest.mark.parametrize(
    ("reference", "hypothesis"),
    [
        ("Mr. Quilter", "mister quilter"),
        ("Don’t you think it’s 12?", "do not you think it is twelve"),  # noqa: RUF001
        ("$3.50 for 20%", "three dollars and fifty cents for twenty percent"),
        ("the colour of, uh, honour", "The color of honor."),
        ("Twenty-one THOUSAND", "21,000"),
    ],
)
def test_english_reads_two_ways_of_writing_as_one(reference, hypothesis):
    assert english(reference) == english(hypothesis)
    assert basic(reference) != basic(hypothesis)


def test_a_number_of_thousands_of_digits_is_an_error_of_english_alone():
    digits = "9" * 5000
    with pytest.raises(DataError, match="too many digits for normalize='english'"):
        english(digits)
    assert basic(digits) == digits


@given(st.text(), st.sampled_from([*NORMALIZERS.values()]))
def test_any_text_can_be_normalized(text, normalize):
    assert isinstance(normalize(text), str)


def test_a_long_list_of_numbers_is_read_once():
    # Read to its end from each comma, this one would take minutes.
    numbers = ",".join(["11"] * 30_000)
    assert basic(numbers) == numbers
    assert basic("1,00,00,000 and 1,000,000") == "10000000 and 1000000"
