"""Transcripts as vocabularies spell them."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import ParakeetTokenizer, Wav2Vec2CTCTokenizer

from thanosql.errors import DataError
from thanosql.speech.decoding.spelling import Spelling, compose_jamo, vocabulary

ENGLISH = "'abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def spell(tmp_path_factory):
    """Return a function that makes the spelling of some letters."""

    def spell(letters: str, delimiter: str = "|", **settings: object) -> Spelling:
        tokens = ["<pad>", "<s>", "</s>", "<unk>", *delimiter, *letters]
        path = tmp_path_factory.mktemp("vocabulary") / "vocab.json"
        path.write_text(json.dumps({t: i for i, t in enumerate(tokens)}), "utf-8")
        return Spelling(Wav2Vec2CTCTokenizer(str(path), **settings), len(tokens))

    return spell


@pytest.fixture(scope="module")
def pieces():
    """Return a spelling by word pieces, as Parakeet has it."""
    words = ["▁the", "▁cat", "s", "▁s", "▁", *ENGLISH]
    scores = [(word, -float(i)) for i, word in enumerate(["<unk>", *words, "<pad>"])]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=0))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return Spelling(
        ParakeetTokenizer(
            tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>"
        ),
        len(scores),
    )


@pytest.mark.parametrize(
    ("letters", "text", "expected", "dropped"),
    [
        (ENGLISH, "Hello,  World!\n", "hello world", ",!"),
        (ENGLISH.upper(), "Hello, World!", "HELLO WORLD", ",!"),
        (ENGLISH, "don’t ‘tis o`clock", "don't 'tis o'clock", ""),  # noqa: RUF001
        ("abcdnot’", "Don't", "don’t", ""),  # noqa: RUF001
        ("abcdnot", "Don't", "dont", "'"),
        (ENGLISH, "well-known and/or so—then", "well known and or so then", "-/—"),
        (ENGLISH + "-", "well-known", "well-known", ""),
        (ENGLISH, "and,blad she's held\u200bher", "and blad she's held her", ","),
        (ENGLISH, "end.Next U.S. wait...what", "end next u s wait what", "......"),
        (ENGLISH, "a\u3000b\u00a0c\u2009d\ufeffe\u3164f", "a b c d e f", ""),
        (
            ENGLISH,
            "co\u00adop na\u200dive a\u200cb x\u2060y l\u200fr",
            "coop naive ab xy lr",
            "\u00ad\u200d\u200c\u2060\u200f",
        ),
        (
            ENGLISH,
            "h2o at&t a\u2212b snake_case",
            "h o at t a b snake case",
            "2&\u2212_",
        ),
        (ENGLISH, "kjære a世b", "kjre ab", "æ世"),
        (ENGLISH, "col·lecció", "colleccio", "·"),
        (ENGLISH + "0123456789", "1,000.5 10:30 a,1", "10005 10 30 a 1", ",.:,"),
        (
            "今日は晴れ한글",
            "今日は、晴れ。 한,글 今\u200b日",
            "今日は晴れ 한 글 今 日",
            "、。,",
        ),
        ("צהלבית", 'צה"ל צה״ל בי־ת', "צהל צהל בי ת", '"״־'),
        (ENGLISH, "3.14 is pi", "is pi", "3.14"),
        (ENGLISH + "0123456789", "3.14 is pi", "314 is pi", "."),
        (ENGLISH, "Café, naïve Ångström", "cafe naive angstrom", ","),
        (ENGLISH + "éï", "Cafe\u0301 naïve", "café naïve", ""),
        (ENGLISH + "\u0301", "café", "café", ""),  # marks as letters of their own
        (ENGLISH.upper(), "Straße", "STRASSE", ""),
        (ENGLISH, "Straße", "strasse", ""),
        (ENGLISH + "ß", "Straße GROẞ", "straße groß", ""),
        (ENGLISH, "ＡＢＣ ﬁn", "abc fin", ""),  # noqa: RUF001
        (ENGLISH, "½ x² | [UNK] <s>", "x unk s", "½²|[]<>"),
        (ENGLISH, "wörld 世界", "world", "世界"),
        ("ıiastnbul", "İstanbul", "istanbul", ""),  # noqa: RUF001
        ("aAbB", "Abba ABBA", "Abba ABBA", ""),
        ("αβγςσοδ", "ΔΟΣ", "δος", ""),  # a final sigma
        (ENGLISH, "", "", ""),
        (ENGLISH, "?!", "", "?!"),
    ],
)
def test_a_text_becomes_what_the_vocabulary_spells(
    letters, text, expected, dropped, spell
):
    spelling = spell(letters)
    normalized = spelling.normalize(text)
    assert normalized.text == expected
    assert normalized.dropped == Counter(dropped)
    assert spelling.decode(spelling.encode(expected)) == expected


english_words = st.text(ENGLISH[1:], min_size=1, max_size=5)
# What a vocabulary of English letters spells nothing of, by whether it parts words.
parting = st.one_of(
    st.characters(categories=["P", "S", "Z", "N", "Cc", "Cn", "Co"]).filter(
        # Normalized, since U+0387 becomes the middle dot.
        lambda c: unicodedata.normalize("NFKC", c) not in "'‘’＇´`·‧׳״"  # noqa: RUF001
    ),
    st.sampled_from("\u200b\ufeff\u3164\uffa0\t\n\x85"),
)
binding = st.one_of(
    st.characters(categories=["Cf"]).filter(lambda c: c not in "\u200b\ufeff"),
    st.characters(categories=["M"]),
    st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF),
)


@settings(max_examples=300, deadline=None)
@given(words=st.lists(english_words, min_size=1, max_size=3), data=st.data())
def test_what_is_dropped_between_letters_parts_words_unless_it_belongs_to_one(
    words, data, spell
):
    spelling = spell(ENGLISH[1:])
    text = words[0]
    for word in words[1:]:
        left, right = (data.draw(st.text(binding, max_size=2)) for _ in range(2))
        text += (
            left + data.draw(st.text(parting, min_size=1, max_size=2)) + right + word
        )
    assert spelling.normalize(text).text == " ".join(words)
    bound = "".join(data.draw(st.text(binding, max_size=2)) + word for word in words)
    assert spelling.normalize(bound).text == "".join(words)


def test_the_word_delimiter_stands_between_words_only(spell):
    spelling = spell("ab")
    a, b = spelling.encode("a"), spelling.encode("b")
    assert spelling.encode("  a   b ") == (*a, 4, *b)


def test_a_vocabulary_without_delimiter_joins_words(spell):
    spelling = spell("今日は晴れ", delimiter="")
    assert spelling.normalize("今日は 晴れ。").text == "今日は晴れ"
    assert len(spelling.encode("今日は 晴れ")) == 5


def test_a_tokenizer_that_writes_lower_case_is_followed(spell):
    spelling = spell(ENGLISH.upper(), do_lower_case=True)
    assert spelling.normalize("Don’t stop").text == "don't stop"  # noqa: RUF001
    assert spelling.decode(spelling.encode("don't stop")) == "don't stop"


HANGUL = "값이 없다 외국 괜찮아 ㅋㅋ"


def decomposed(text: str) -> str:
    return "".join(dict.fromkeys(unicodedata.normalize("NFD", text)))


@pytest.mark.parametrize(
    "letters",
    [
        "값이없다외국괜찮아ㅋ",  # syllables
        decomposed("값이없다외국괜찮아") + "\u110f",  # conjoining jamo
        "ㄱㅏㅄㅇㅣㅓㄷㅚㅜㄱㅙㄴㅊㄶㅋ",  # compatibility jamo
        "ㄱㅏㅂㅅㅇㅣㅓㄷㅗㅜㄱㅐㄴㅊㅎㅋ",  # ... with no letter for a pair
    ],
)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_hangul_is_spelled_as_the_vocabulary_has_it(letters, form, spell):
    spelling = spell(letters)
    normalized = spelling.normalize(unicodedata.normalize(form, HANGUL))
    assert not normalized.dropped
    assert normalized.text in (HANGUL, HANGUL.replace("ㅋ", "\u110f"))
    ids = spelling.encode(normalized.text)
    assert spelling.decode(ids) == normalized.text


def test_every_syllable_survives_its_jamo():
    initials, vowels = "ㄱㄲㄴㅇㅎ", "ㅏㅘㅢㅣ"
    typed = "".join(
        i + v + f for i in initials for v in vowels for f in ("", "ㄳ", "ㄴ")
    )
    assert len(compose_jamo(typed)) == 5 * 4 * 3
    assert compose_jamo("ㅎㅏㄴㄱㅡㄹ ㅇㅏㄱㅣ ㅋㅋㅋ") == "한글 아기 ㅋㅋㅋ"


def test_a_new_vocabulary_holds_what_speech_has():
    tokens = vocabulary(["Don’t STOP, 2 cafés!", "naïve"])  # noqa: RUF001
    assert [*tokens] == ["[PAD]", "[UNK]", "|", *"'2acdefnopstvéï"]
    assert [*tokens.values()] == [*range(len(tokens))]


def test_a_new_vocabulary_does_not_depend_on_the_order_of_texts():
    assert vocabulary(["abc", "déf"]) == vocabulary(["de\u0301f", "CBA"])


def test_a_new_vocabulary_spells_hangul_by_jamo():
    tokens = vocabulary(["한글", "글한"])
    assert [*tokens][3:] == sorted({*unicodedata.normalize("NFD", "한글")})


@pytest.mark.parametrize("texts", [[], ["", "12"][:1], ["?!", "'"]])
def test_texts_without_letters_make_no_vocabulary(texts):
    with pytest.raises(DataError, match="hold no letter"):
        vocabulary(texts)


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=30))
def test_what_is_normalized_is_what_decoding_writes(text, spell):
    for letters in (ENGLISH, "ABC ÉÀ", "ㄱㅏㄴㄷ", "ᄀᆨᅡ", "aé\u0301가"):
        spelling = spell(letters.replace(" ", ""))
        normalized = spelling.normalize(text).text
        assert spelling.decode(spelling.encode(normalized)) == normalized
        assert spelling.normalize(normalized).text == normalized


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(categories=["L", "M", "Nd", "Zs"]), max_size=20))
def test_a_vocabulary_spells_the_texts_it_was_made_from(text, spell):
    try:
        tokens = vocabulary([text])
    except DataError:
        return
    letters = [token for token in tokens if len(token) == 1 and token != "|"]
    assert not spell("".join(letters)).normalize(text).dropped


def test_word_pieces_are_left_to_the_tokenizer(pieces):
    normalized = pieces.normalize("The CATS — don’t, über 7")  # noqa: RUF001
    assert normalized.text == "the cats don't uber"
    assert normalized.dropped == Counter("—,7")
    ids = pieces.encode(normalized.text)
    assert len(ids) < len(normalized.text.replace(" ", ""))
    assert pieces.decode(ids) == normalized.text


def test_word_pieces_that_spell_everything_drop_nothing():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = {token: i for i, token in enumerate(["<pad>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(tokens, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    spelling = Spelling(
        ParakeetTokenizer(
            tokenizer_object=tokenizer, pad_token="<pad>", unk_token=None
        ),
        len(tokens),
    )
    text = "The café, 7 “世界”"
    assert spelling.normalize(text).text == text
    assert spelling.decode(spelling.encode(text)) == text
