"""A text in, the text by which EVALUATE compares it out.

Reference and hypothesis go through the same one, so that a model which writes case and
punctuation is not blamed for what nobody speaks. What a model can spell at all is the
matter of `decoding.spelling`.
"""

from __future__ import annotations

import json
import unicodedata
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

from thanosql.errors import DataError
from thanosql.speech.words import APOSTROPHES, words_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def basic(text: str) -> str:
    """Return the words of `text`, without case and punctuation, in any language.

    Letters are case-folded, which makes ``ß`` ``ss``; letters keep their accents and
    other marks; full-width forms become ASCII's. An apostrophe within a word stays, as
    one sign for all that people type; other punctuation and symbols part words, as
    white space does. Exceptions: full stops between single letters ("a.m." is "am"),
    commas that group digits ("3,000" is "3000"), and marks between letters of scripts
    without spaces go without a trace; decimals stay ("3.5"). Numbers in digits and in
    words differ.

    transformers' BasicTextNormalizer (Radford et al., "Robust Speech Recognition via
    Large-Scale Weak Supervision", 2022, appendix C) has the same end, but takes marks
    from letters, which Hindi and Thai are not readable without, parts "don't", "3.5"
    and "a.m.", and leaves out what stands in brackets.
    """
    return " ".join(words_of(text, str.casefold))


def english(text: str) -> str:
    """Return `text` as transformers' EnglishTextNormalizer has it.

    It writes numbers in digits, contractions and titles in full, and British spellings
    as American ones, and leaves out "uh" and the like (the same paper, appendix C). It
    knows the ASCII apostrophe only, so all others become that one first.

    Raises DataError for a number of thousands of digits.
    """
    text = unicodedata.normalize("NFC", text).translate(APOSTROPHES)
    try:
        return " ".join(_english()(text).split())
    except ValueError:  # Python makes no whole number of more than 4300 digits
        message = "a number has too many digits for normalize='english'; use 'basic'"
        raise DataError(message) from None


@cache
def _english() -> EnglishTextNormalizer:
    table = resources.files("thanosql") / "catalog/whisper_tiny_en/normalizer.json"
    spellings = json.loads(table.read_text(encoding="utf-8"))
    return EnglishTextNormalizer(spellings)  # type: ignore[no-untyped-call]


def none(text: str) -> str:
    """Return `text` as it is: case and punctuation count."""
    return text


NORMALIZERS: Mapping[str, Callable[[str], str]] = {
    "basic": basic,
    "english": english,
    "none": none,
}
"""What the option `normalize` may name."""
