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

import regex
from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

from thanosql.errors import DataError
from thanosql.speech.decoding.spelling import APOSTROPHES, UNSPACED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# Full-width signs of East Asian text, to those of ASCII; Hangul fillers, which are
# letters to Unicode, to spaces.
_FORMS = {0xFF01 + i: 0x21 + i for i in range(94)} | dict.fromkeys((0x3164, 0xFFA0), 32)
# Soft hyphens, joiners, marks of direction. The zero-width space and the byte order
# mark part words.
_INVISIBLE = regex.compile(r"[\p{Cf}--\u200b\ufeff]", regex.V1)
# The folded case of a dotted capital I is an i with a combining dot.
_DOTTED = regex.compile("i\u0307+")
# The commas of 3,000 and of 1,00,000.
_GROUPING = regex.compile(r"(?<=\d)[,٬](?=(?:\d\d[,٬])*\d{3}(?!\d))")
# Single letters with full stops between them: a.m., U.S.A.
_INITIALS = regex.compile(r"\b(?:\p{L}\.)+\p{L}\b")
# What parts no word: the dot of col·lecció, the signs of צה״ל, and any mark between
# letters of scripts that put no space between words.
_WITHIN_WORDS = regex.compile(
    r"(?<=[\p{L}\p{M}])[·‧׳״](?=\p{L})|(?<=[א-ת])\"(?=[א-ת])"  # noqa: RUF001 - meant
    rf"|(?<=[{UNSPACED}])[\p{{P}}\p{{S}}]+(?=[{UNSPACED}])"
)
# Letters and numbers with their marks; between them an apostrophe, or between digits
# what parts the decimals.
_SIGNS = r"(?:[\p{L}\p{N}]\p{M}*)+"
_WORD = regex.compile(rf"{_SIGNS}(?:(?:'|(?<=\d)[.,٫](?=\d)){_SIGNS})*")  # noqa: RUF001


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
    text = _INVISIBLE.sub("", unicodedata.normalize("NFC", text).translate(_FORMS))
    text = unicodedata.normalize("NFC", _DOTTED.sub("i", text.casefold()))
    text = text.translate(APOSTROPHES)
    text = _GROUPING.sub("", text)
    text = _INITIALS.sub(lambda found: found[0].replace(".", ""), text)
    return " ".join(_WORD.findall(_WITHIN_WORDS.sub("", text)))


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
