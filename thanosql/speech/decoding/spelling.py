"""Transcripts in, token ids of a model's vocabulary out, and the way back.

All text is in Unicode NFC. `Spelling.normalize` returns a transcript as a model without
errors would write it, so that references and hypotheses can be compared.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from thanosql.errors import DataError
from thanosql.speech.words import APOSTROPHES, UNSPACED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from transformers import PreTrainedTokenizerBase

BLANK = "[PAD]"
UNKNOWN = "[UNK]"
WORD_DELIMITER = "|"

# Characters that part words although `str.isspace` is False: Thai and Khmer write a
# zero-width space between words; a byte order mark is left where files were joined.
_SPACES = frozenset("\u200b\ufeff\u3164\uffa0")
# Signs that are part of a word and do not split it: don't, col·lecció, צה״ל.
_WITHIN_WORDS = frozenset(["'", *map(chr, APOSTROPHES), *"·‧׳״"])  # noqa: RUF001
# A separator inside a number ("1,000.5") or a quote in a Hebrew abbreviation (צה"ל).
_BETWEEN = re.compile(r"(?<=\d)[.,．，٫٬](?=\d)|(?<=[א-ת])\"(?=[א-ת])")  # noqa: RUF001
_IS_UNSPACED = re.compile(f"[{UNSPACED}]")
_BOTH_UNSPACED = re.compile(f"[{UNSPACED}]{{2}}")
# How word pieces begin that have a space before them: SentencePiece, byte-level BPE.
_WORD_BEGINS = ("▁", "Ġ")
# Tokens that are no text: <s>, </s>, <unk>, [PAD], [UNK].
_BRACKETED = re.compile(r"<.+>|\[.+\]", re.DOTALL)

# Compatibility jamo, the letters on a Korean keyboard, in the order by which Unicode
# numbers the syllables.
_INITIALS = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ"
_VOWELS = "ㅏㅐㅑㅒㅓㅔㅕㅖㅗㅘㅙㅚㅛㅜㅝㅞㅟㅠㅡㅢㅣ"
_FINALS = ["", *"ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ"]
# Compound letters that some vocabularies spell as two letters: finals, then vowels.
_PAIRS = {
    letter: pair
    for letters, pairs in (
        (
            "ㄳㄵㄶㄺㄻㄼㄽㄾㄿㅀㅄ",
            "ㄱㅅ ㄴㅈ ㄴㅎ ㄹㄱ ㄹㅁ ㄹㅂ ㄹㅅ ㄹㅌ ㄹㅍ ㄹㅎ ㅂㅅ",
        ),
        ("ㅘㅙㅚㅝㅞㅟㅢ", "ㅗㅏ ㅗㅐ ㅗㅣ ㅜㅓ ㅜㅔ ㅜㅣ ㅡㅣ"),
    )
    for letter, pair in zip(letters, pairs.split(), strict=True)
}
_JOINED = {pair: letter for letter, pair in _PAIRS.items()}
_SYLLABLE = re.compile(
    "(?P<initial>[{initials}])(?P<vowel>{vowel_pairs}|[{vowels}])"
    "(?:(?P<final>{final_pairs}|[{finals}])(?![{vowels}]))?".format(
        initials=_INITIALS,
        vowels=_VOWELS,
        finals="".join(_FINALS),
        vowel_pairs="|".join(_PAIRS[vowel] for vowel in _VOWELS if vowel in _PAIRS),
        final_pairs="|".join(_PAIRS[final] for final in _FINALS if final in _PAIRS),
    )
)


@dataclass(frozen=True, slots=True)
class Normalized:
    """A transcript as a model can spell it."""

    text: str
    dropped: Counter[str] = field(default_factory=Counter)
    "The characters that were left out, and how often each was."


class Spelling:
    """Converts text to the token ids of a model, and ids to text.

    A vocabulary of single characters is looked up here; any other (word pieces) is
    left to the tokenizer itself.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, outputs: int) -> None:
        """Read the vocabulary of a tokenizer. outputs: the tokens the model scores."""
        self._tokenizer = tokenizer
        special = set(tokenizer.all_special_tokens)
        delimiter = getattr(tokenizer, "word_delimiter_token", None)
        tokens = {
            token: index
            for token, index in tokenizer.get_vocab().items()
            if token not in special and not _BRACKETED.fullmatch(token)
        }
        self._delimiter = delimiter
        self._unknown = tokenizer.unk_token_id
        self._special = {
            index
            for token, index in tokenizer.get_vocab().items()
            if token not in tokens and token != delimiter
        }
        self.ids = frozenset(tokens.values()) - {self._unknown}
        "Ids of the tokens that are text, without the word delimiter."
        self._ids: dict[str, int] | None = None
        if delimiter is not None and all(len(token) == 1 for token in tokens):
            self._ids = {t: i for t, i in tokens.items() if t != delimiter}
            # If the vocabulary has no delimiter (Japanese), the tokenizer adds one
            # beyond the model's outputs.
            if tokenizer.get_vocab().get(delimiter, outputs) < outputs:
                self._ids[" "] = tokenizer.get_vocab()[delimiter]
        self.delimiter = None if self._ids is None else self._ids.get(" ")
        "The id of the token that is written between words, if there is one."
        self._spelled: dict[str, str | None] = {}
        cases = {
            case
            for letter in set("".join(tokens))
            for case in (letter.islower() and "lower", letter.isupper() and "upper")
            if case and self._spells(letter)
        }
        self._case = cases.pop() if len(cases) == 1 else ""
        self._writes_lower = bool(getattr(tokenizer, "do_lower_case", False))
        if self._writes_lower and self._ids is not None:
            # Wav2Vec2CTCTokenizer looks up upper case and writes lower case.
            self._case = "upper"

    def normalize(self, text: str) -> Normalized:
        """Return `text` as the model can spell it, and what had to be left out.

        Case, apostrophes and the form of Hangul become those of the vocabulary; white
        space becomes single spaces. A letter that the vocabulary lacks becomes its base
        letter (é becomes e) or is dropped; digits, punctuation and symbols that it
        lacks are dropped. What is dropped is counted.

        A dropped digit, punctuation mark or symbol splits words, as a space does:
        "and,then" becomes two words. Exceptions, which do not split: letters and their
        marks, apostrophes ("don't" becomes "dont"), invisible formatting (soft hyphens,
        joiners, marks of direction), a separator inside a number, and punctuation
        between letters of a script without spaces.
        """
        dropped: Counter[str] = Counter()
        letters = "".join(self._letters(text, dropped))
        return Normalized(self.written(letters), dropped)

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the target ids of a normalized text, without blanks."""
        letters = "".join(self._letters(text, Counter()))
        if self._ids is not None:
            return tuple(self._ids[letter] for letter in letters)
        ids = self._tokenizer(letters, add_special_tokens=False)["input_ids"]
        return tuple(i for i in ids if i != self._unknown)

    def letters(self, text: str) -> str:
        """Return a normalized text in the vocabulary's own letters, such as jamo.

        What the vocabulary cannot spell is left out.
        """
        if self._ids is not None and self._ids.keys() >= set(text):
            return text
        return "".join(self._letters(text, Counter()))

    @cached_property
    def tokens(self) -> dict[int, str]:
        """The letters of each token that is text, with a space where it parts words."""
        if self._ids is not None:
            return {index: letter for letter, index in self._ids.items()}
        tokenizer: Any = self._tokenizer
        names = {index: tokenizer.convert_ids_to_tokens(index) for index in self.ids}
        if self._delimiter is not None:
            names[tokenizer.convert_tokens_to_ids(self._delimiter)] = " "
        return {
            index: re.sub("|".join(_WORD_BEGINS), " ", name)
            for index, name in names.items()
        }

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of token ids whose repeats are merged and blanks removed.

        It is what transformers' tokenizer returns, but with single spaces: the model
        may emit two delimiters with a blank between them.
        """
        spoken = [index for index in ids if index not in self._special]
        # Repeats are merged already, so "ll" is two letters and must stay so.
        text = self._tokenizer.decode(spoken, group_tokens=False)
        return " ".join(self.written(str(text)).split())

    def begins_word(self, token: int) -> bool:
        """Return whether a token parts what follows from the word before it."""
        name = str(self._tokenizer.convert_ids_to_tokens(token))
        return name == self._delimiter or name.startswith(_WORD_BEGINS)

    def written(self, letters: str) -> str:
        """Return spelled letters as readable text: jamo composed into syllables."""
        text = compose_jamo(unicodedata.normalize("NFC", letters))
        return _lower(text) if self._writes_lower else text

    def _letters(self, text: str, dropped: Counter[str]) -> Iterator[str]:
        """Yield the spelled characters of `text`, with spaces between its words."""
        text = compose_jamo(unicodedata.normalize("NFC", text))
        if self._case:
            text = _lower(text) if self._case == "lower" else text.upper()
        has_spaces = self._spells(" ")
        before = ""  # the last character that was spelled
        # Whether a space, or a dropped character that splits words, came since then.
        is_space = is_parted = False
        for i, character in enumerate(text):
            if character.isspace() or character in _SPACES:
                is_space = True
                continue
            spelled = self._spell(character)
            if spelled is None:
                dropped[character] += 1
                is_parted = is_parted or _parts_words(text, i)
                continue
            if is_parted and not _BOTH_UNSPACED.fullmatch(before + character):
                is_space = True
            if is_space and before and has_spaces:
                yield " "
            yield spelled
            before, is_space, is_parted = character, False, False

    def _spell(self, character: str) -> str | None:
        """Return how the vocabulary spells a character; None if it cannot."""
        if character not in self._spelled:
            self._spelled[character] = next(
                (
                    candidate
                    for candidate in _candidates(character)
                    if candidate and all(self._spells(letter) for letter in candidate)
                ),
                None,
            )
        return self._spelled[character]

    def _spells(self, letter: str) -> bool:
        if self._ids is not None:
            return letter in self._ids
        if letter == " ":
            return True
        ids = self._tokenizer(letter, add_special_tokens=False)["input_ids"]
        return bool(ids) and self._unknown not in ids


def vocabulary(texts: Iterable[str]) -> dict[str, int]:
    """Return a character vocabulary for transcripts: token -> id.

    The blank is 0, then the unknown token and the word delimiter; then, by code point,
    all letters in lower case, marks, digits and the apostrophe. Hangul is spelled in
    conjoining jamo: some tens of them spell every syllable, also those that the texts
    do not have.

    Raises DataError if the texts have no letter.
    """
    letters: set[str] = set()
    for text in texts:
        composed = compose_jamo(unicodedata.normalize("NFC", text))
        letters.update(_lower(composed.translate(APOSTROPHES)))
    alphabet: set[str] = set()
    for letter in letters - _SPACES:
        if _is_syllable(letter):
            alphabet.update(unicodedata.normalize("NFD", letter))
        elif letter == "'" or letter.isdecimal() or _is_letter_or_mark(letter):
            alphabet.add(letter)
    if not alphabet - {"'"}:
        message = (
            "no vocabulary can be made: the texts hold no letter; check that the text "
            "column is the transcript"
        )
        raise DataError(message)
    tokens = [BLANK, UNKNOWN, WORD_DELIMITER, *sorted(alphabet)]
    return {token: index for index, token in enumerate(tokens)}


def compose_jamo(text: str) -> str:
    """Return `text` with its compatibility jamo composed into Hangul syllables.

    A consonant before a vowel begins the next syllable. Jamo that form no syllable stay
    as they are.
    """
    return _SYLLABLE.sub(_composed, text)


def is_unspaced(letter: str) -> bool:
    """Return whether a letter is of a script that puts no space between words."""
    return _IS_UNSPACED.fullmatch(letter) is not None


def _composed(match: re.Match[str]) -> str:
    initial, vowel, final = match["initial"], match["vowel"], match["final"] or ""
    index = _INITIALS.index(initial) * len(_VOWELS)
    index = (index + _VOWELS.index(_JOINED.get(vowel, vowel))) * len(_FINALS)
    return chr(0xAC00 + index + _FINALS.index(_JOINED.get(final, final)))


def _candidates(character: str) -> Iterator[str]:
    """Yield the ways to spell a character, the closest first."""
    yield character
    if ord(character) in APOSTROPHES or character == "'":
        yield from ("'", "’")  # noqa: RUF001 - the apostrophe some vocabularies have
    yield from (character.lower(), character.upper(), character.casefold())
    yield unicodedata.normalize("NFD", character)  # letter and marks; conjoining jamo
    if _is_syllable(character):
        syllable = ord(character) - 0xAC00
        initial, rest = divmod(syllable, len(_VOWELS) * len(_FINALS))
        vowel, final = divmod(rest, len(_FINALS))
        consonant, vowels, rest = _INITIALS[initial], _VOWELS[vowel], _FINALS[final]
        yield consonant + vowels + rest
        yield consonant + vowels + _PAIRS.get(rest, rest)
        yield consonant + _PAIRS.get(vowels, vowels) + _PAIRS.get(rest, rest)
    if character.isdecimal() or _is_letter_or_mark(character):
        parts = unicodedata.normalize("NFKD", character)
        base = "".join(c for c in parts if not unicodedata.category(c).startswith("M"))
        yield from (base, base.lower(), base.upper())


def _is_syllable(character: str) -> bool:
    return "가" <= character <= "힣"


def _is_letter_or_mark(character: str) -> bool:
    return unicodedata.category(character)[0] in "LM"


def _parts_words(text: str, i: int) -> bool:
    """Return whether the dropped character ``text[i]`` splits the word it is in."""
    category = unicodedata.category(text[i])
    if category[0] in "LM" or category == "Cf" or text[i] in _WITHIN_WORDS:
        return False
    return _BETWEEN.match(text, i) is None


def _lower(text: str) -> str:
    # Python's lower case of a dotted capital I is an i with a combining dot.
    return text.lower().replace("i\u0307", "i")
