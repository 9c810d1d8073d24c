"""A text in, its words out, in the one form in which words are compared.

Language models count these words, a search asks for them, and EVALUATE's `basic`
compares them.
"""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

import regex

if TYPE_CHECKING:
    from collections.abc import Callable

# Signs that people type for an apostrophe.
APOSTROPHES = dict.fromkeys(map(ord, "‘’ʼ＇´`"), "'")  # noqa: RUF001 - meant
# Letters of scripts that put no space between words, so that a dropped mark between two
# of them becomes no space either: Thai and Lao, Burmese, Khmer, kana, Han.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff"
    "\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U0003ffff"
)

# Full-width signs of East Asian text, to those of ASCII; Hangul fillers, which are
# letters to Unicode, to spaces.
_FORMS = {0xFF01 + i: 0x21 + i for i in range(94)} | dict.fromkeys((0x3164, 0xFFA0), 32)
# Soft hyphens, joiners, marks of direction. The zero-width space and the byte order
# mark part words.
_INVISIBLE = regex.compile(r"[\p{Cf}--\u200b\ufeff]", regex.V1)
# The lower and the folded case of a dotted capital I is an i with a combining dot.
_DOTTED = regex.compile("i\u0307+")
# The commas of 3,000 and of 1,00,000; within bounds, or a long list of numbers such as
# 11,12,13 is read to its end from each comma.
_GROUPING = regex.compile(r"(?<=\d)[,٬](?=(?:\d\d[,٬]){0,9}\d{3}(?!\d))")
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
# Texts of which nothing is to be changed: ASCII's lower case, apostrophes in words.
_PLAIN = regex.compile(r"[a-z]+(?:'[a-z]+)*(?:\s+[a-z]+(?:'[a-z]+)*)*")


def words_of(text: str, case: Callable[[str], str] = str.lower) -> list[str]:
    """Return the words of `text`, in lower case and without punctuation, in NFC.

    Letters keep their accents and other marks; full-width forms become ASCII's. An
    apostrophe within a word stays, as one sign for all that people type; other
    punctuation and symbols part words, as white space does. Exceptions: full stops
    between single letters ("a.m." is "am"), commas that group digits ("3,000" is
    "3000"), and marks between letters of scripts without spaces go without a trace;
    decimals stay ("3.5"). case: what is done to letters.
    """
    lower = case(text)
    if _PLAIN.fullmatch(lower):  # most of what is counted: 5 times as fast
        return lower.split()
    text = _INVISIBLE.sub("", unicodedata.normalize("NFC", text).translate(_FORMS))
    text = unicodedata.normalize("NFC", _DOTTED.sub("i", case(text)))
    text = text.translate(APOSTROPHES)
    text = _GROUPING.sub("", text)
    text = _INITIALS.sub(lambda found: found[0].replace(".", ""), text)
    words: list[str] = _WORD.findall(_WITHIN_WORDS.sub("", text))
    return words
