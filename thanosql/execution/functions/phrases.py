"""The SQL function `find_phrase`: words and a phrase in, its places out."""

from __future__ import annotations

import json
import re
import unicodedata

from thanosql.errors import DataError, ProgrammingError
from thanosql.execution.functions.words import is_unspaced, spoken

_ASCII_WORDS = re.compile("[a-z0-9]+")


def find_phrase(words: object, phrase: object) -> str | None:
    """Return where a phrase is said, as JSON: `{"start", "end"}` of each place.

    Compared are the letters and digits, in Unicode's normal form (NFC), without case.
    All else parts words, as it does in FTS5: "don't" is two of them. Letters of scripts
    without spaces count one by one, so that it does not matter how a transcript cuts
    them into words. A place has the times of the words that it touches; places may
    overlap. None if an argument is None.

    Raises DataError for words that are not PREDICT's, ProgrammingError for a phrase
    without a letter or digit.
    """
    if words is None or phrase is None:
        return None
    if not isinstance(phrase, str):
        message = f"find_phrase: the phrase is a text, not {type(phrase).__name__}"
        raise DataError(message)
    wanted = _units(phrase)
    if not wanted:
        message = f"find_phrase: the phrase {phrase!r} has no letter and no digit"
        raise ProgrammingError(message)
    said = [
        (unit, word)
        for word in spoken("find_phrase", words)
        for unit in _units(word.text)
    ]
    units = [unit for unit, _ in said]
    places = []
    for begin in range(len(units) - len(wanted) + 1):
        if units[begin : begin + len(wanted)] == wanted:
            found = said[begin : begin + len(wanted)]
            places.append({"start": found[0][1].start, "end": found[-1][1].end})
    return json.dumps(places)


def _units(text: str) -> list[str]:
    """Return what is compared: words, or the letters of a script without spaces."""
    if text.isascii():  # many times as fast
        return _ASCII_WORDS.findall(text.lower())
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    units: list[str] = []
    parted = True
    for character in folded:
        kind = unicodedata.category(character)[0]
        if kind == "M":  # belongs to the letter before it
            if not parted:
                units[-1] += character
        elif kind not in "LN":
            parted = True
        elif parted or is_unspaced(character) or is_unspaced(units[-1][0]):
            units.append(character)
            parted = False
        else:
            units[-1] += character
    return units
