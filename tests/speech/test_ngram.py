import gzip
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thanosql.errors import DataError, TrainingError
from thanosql.speech.ngram import arpa, counting, files
from thanosql.speech.ngram.building import build
from thanosql.speech.ngram.kneser_ney import FALLBACK, discounts
from thanosql.speech.ngram.model import open_model
from thanosql.speech.words import words_of

VERSES = [
    "the cat sat on the mat",
    "the dog sat on the log",
    "a cat and a dog",
    "the cat and the dog sat",
    "on the mat the cat sat",
]


@pytest.fixture
def make(tmp_path):
    """Return a function that builds a model: its files, by name."""
    made = iter(range(10_000))

    def make(texts, order=3, prune=(0,), validation=0.0):
        folder = tmp_path / str(next(made))
        folder.mkdir()
        thresholds = [*prune, *prune[-1:] * order][:order]
        build(
            texts,
            folder,
            order=order,
            prune=thresholds,
            validation=validation,
            text_col="text",
        )
        return content(folder)

    return make


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def probability(model, before, word):
    state = model.start()
    for each in before:
        _, state = model.score(state, each)
    return math.exp(model.end(state) if word is None else model.score(state, word)[0])


texts = st.lists(
    st.lists(st.sampled_from("abcde"), min_size=1, max_size=6).map(" ".join),
    min_size=1,
    max_size=12,
)
prunings = st.sampled_from([(0,), (0, 0, 1), (0, 1), (0, 0, 1, 2), (0, 3)])
orders = st.integers(1, 5)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return lambda: tmp_path_factory.mktemp("model")


def written(folder, texts, order, prune):
    thresholds = [*prune, *prune[-1:] * order][:order]
    build(texts, folder, order=order, prune=thresholds, validation=0, text_col="text")
    return content(folder)


@settings(max_examples=60, deadline=None)
@given(texts, orders, prunings, st.lists(st.sampled_from("abcdez"), max_size=4))
def test_probabilities_sum_to_one_after_any_words(folders, texts, order, prune, before):
    model = open_model(written(folders(), texts, order, prune))
    following = [*model.words, "unheard of", None]
    total = sum(probability(model, before, word) for word in following)
    assert total == pytest.approx(1, abs=1e-5)


class Naive:
    """The formulas of Chen & Goodman, by dictionaries and recursion."""

    def __init__(self, texts, order, prune):
        self.order = order
        self.counts = [Counter() for _ in range(order)]
        for text in texts:
            words = ["<s>", *text.split(), "</s>"]
            for length in range(1, order + 1):
                for i in range(len(words) - length + 1):
                    self.counts[length - 1][tuple(words[i : i + length])] += 1
        self.order = max(n for n in range(1, order + 1) if self.counts[n - 1])
        self.prune = [*prune, *prune[-1:] * order]
        del self.counts[0]["<s>",]
        self.adjusted = []
        for length in range(1, self.order + 1):
            own = self.counts[length - 1]
            if length < self.order:
                left = Counter(ngram[1:] for ngram in self.counts[length])
                own = {g: c if g[0] == "<s>" else left[g] for g, c in own.items()}
            self.adjusted.append(own)
        self.taken = [
            discounts(np.array(list(each.values()))).tolist() for each in self.adjusted
        ]
        self.following = [defaultdict(list) for _ in range(self.order)]
        for length, each in enumerate(self.adjusted):
            for ngram in each:
                self.following[length][ngram[:-1]].append(ngram)
        self.vocabulary = len(self.adjusted[0]) + 1  # and <unk>

    def probability(self, before, word):
        before = ("<s>", *before)[-(self.order - 1) :] if self.order > 1 else ()
        while before and before not in self.following[len(before)]:
            before = before[1:]
        return self._after(tuple(before), word)

    def _after(self, before, word):
        length = len(before)
        shorter = self._after(before[1:], word) if length else 1 / self.vocabulary
        ngrams = self.following[length].get(before, [])
        if not ngrams:
            return shorter
        adjusted, total, left, own = self.adjusted[length], 0, 0.0, 0.0
        for ngram in ngrams:
            count = adjusted[ngram]
            total += count
            is_out = length and self.counts[length][ngram] <= self.prune[length]
            taken = count if is_out else self.taken[length][min(count, 3)]
            left += taken
            if ngram[-1] == word:
                own = count - taken
        return own / total + left / total * shorter


@settings(max_examples=60, deadline=None)
@given(texts, orders, prunings, st.lists(st.sampled_from("abcdez"), max_size=4))
def test_probabilities_are_those_of_the_paper(folders, texts, order, prune, before):
    naive = Naive(texts, order, prune)
    model = open_model(written(folders(), texts, order, prune))
    for word in ("a", "b", "z", None):
        expected = naive.probability(before, word or "</s>")
        assert probability(model, before, word) == pytest.approx(expected, rel=1e-5)


def test_two_texts_have_the_probabilities_that_one_finds_by_hand(make):
    # Words follow: a on 1 other, b and c on 1, </s> on 2, so 5 in all. Too few for
    # discounts of their own: a half of what is there once, 1 of what is there twice.
    model = open_model(make(["a b", "a c"], order=2))
    left = (3 * 0.5 + 1) / 5 / 5  # for each of a, b, c, </s> and <unk>
    assert probability(model, ["?"], "a") == pytest.approx(0.5 / 5 + left)
    assert probability(model, ["?"], None) == pytest.approx(1 / 5 + left)
    assert probability(model, ["?"], "?") == pytest.approx(left)
    assert probability(model, [], "a") == pytest.approx(1 / 2 + 1 / 2 * 0.2)
    assert probability(model, ["a"], "b") == pytest.approx(0.5 / 2 + 1 / 2 * 0.2)
    assert probability(model, ["a"], "?") == pytest.approx(1 / 2 * left)
    assert probability(model, ["a", "b"], None) == pytest.approx(0.5 + 0.5 * 0.3)


def test_discounts_come_from_how_many_counts_are_small():
    counts = np.repeat([1, 2, 3, 4, 9], [60, 20, 10, 6, 4])
    share = 60 / (60 + 2 * 20)
    assert discounts(counts) == pytest.approx(
        [0, 1 - 2 * share * 20 / 60, 2 - 3 * share * 10 / 20, 3 - 4 * share * 6 / 10]
    )
    assert discounts(np.array([1, 1, 2, 2])).tolist() == [0, *FALLBACK]
    assert discounts(np.repeat([1, 2, 3], [2, 1, 9])).tolist() == [0, *FALLBACK]


@settings(max_examples=30, deadline=None)
@given(texts, orders, prunings, st.lists(st.sampled_from("abcdez"), max_size=6))
def test_an_arpa_file_gives_the_scores_of_the_model_it_was_written_from(
    folders, texts, order, prune, said
):
    stored = written(folders(), texts, order, prune)
    file = folders() / "lm.arpa"
    with file.open("wb") as opened:
        arpa.write(stored, opened)
    folder = folders()
    facts = arpa.read(file, folder)
    again = content(folder)
    model, other = open_model(stored), open_model(again)
    assert facts.ngrams == model.facts.ngrams
    assert again[files.NGRAMS] == stored[files.NGRAMS]
    assert model.log_probability(said) == other.log_probability(said)
    assert set(other.words) == set(model.words)


def test_states_are_equal_where_what_follows_is(make):
    model = open_model(make(VERSES))
    _, one = model.score(model.start(), "unheard")
    _, two = model.score(one, "of")
    assert one == two
    _, log = model.score(one, "log")
    assert log == model.score(model.start(), "log")[1]


def test_blocks_of_any_size_give_the_same_model(make, monkeypatch):
    whole = make(VERSES, order=4, prune=(0, 0, 1))
    for module in (files, counting, arpa):
        monkeypatch.setattr(module, "BLOCK", 7)
    assert make(VERSES, order=4, prune=(0, 0, 1)) == whole


def test_texts_are_compared_without_case_and_punctuation(make):
    model = open_model(make(["The CAT, sat!", "«Don`t» stop", "Ça va?"]))
    assert set(model.words) == {"the", "cat", "sat", "don't", "stop", "ça", "va"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Well-known A.M. 3,000 'tis the dogs'", "well known am 3000 tis the dogs"),
        ("Straße ΣΊΣΥΦΟΣ", "straße σίσυφος"),
        ("İstanbul\u2019da", "istanbul'da"),
        ("don't  stop\n", "don't stop"),
        ("' -- …", ""),
        ("ﬁne e\u0301te\u0301", "ﬁne été"),
    ],
)
def test_words_are_brought_to_one_form(text, words):
    assert words_of(text) == words.split()
    assert words_of(" ".join(words_of(text))) == words_of(text)


@given(st.text())
def test_the_form_of_words_is_final(text):
    once = words_of(text)
    assert words_of(" ".join(once)) == once


def test_held_out_texts_are_in_the_stored_model_too(make):
    texts = [f"{a} {b}" for a in "abcdefgh" for b in "ijklmnop"]
    with_share = open_model(make(texts, validation=0.5))
    assert with_share.facts.perplexity > 1
    assert 0 <= with_share.facts.unknown < 1
    assert with_share.facts.sentences == 64
    assert set(with_share.words) == set("abcdefghijklmnop")
    assert open_model(make(texts)).facts.perplexity is None


def test_a_damaged_store_is_told_from_a_sound_one(make):
    stored = make(VERSES)
    for name, good in stored.items():
        for bad in (b"", b"\xff" * len(good), good[: len(good) // 2]):
            with pytest.raises(DataError, match="files of the language model"):
                open_model(stored | {name: bad})
    # Every place of the n-grams: refused, or a model that answers.
    for place in range(8, len(stored[files.NGRAMS]), 3):
        bad = bytearray(stored[files.NGRAMS])
        bad[place] ^= 0xFF
        try:
            model = open_model(stored | {files.NGRAMS: bad})
        except DataError:
            continue
        model.log_probability(["the", "cat", "sat", "unheard"])


HEAD = "\\data\\\nngram 1=4\nngram 2=2\n\n"
WORDS = "\\1-grams:\n-1\t<unk>\n-99\t<s>\t-0.3\n-0.5\t</s>\n-0.4\tHello\t-0.2\n\n"
PAIRS = "\\2-grams:\n-0.2\t<s> Hello\n-0.1\tHello </s>\n\n\\end\\\n"


def read(tmp_path, text):
    file = tmp_path / "some.arpa"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    folder = tmp_path / "read"
    folder.mkdir()
    arpa.read(file, folder)
    return open_model(content(folder))


def test_an_arpa_file_of_others_is_read_with_its_capitals(tmp_path):
    model = read(tmp_path, f"made by hand\n\n{HEAD}{WORDS}{PAIRS}")
    assert set(model.words) == {"Hello", "hello"}
    assert probability(model, [], "hello") == pytest.approx(10**-0.2)
    assert probability(model, ["hello"], None) == pytest.approx(10**-0.1)
    assert probability(model, ["hello"], "you") == pytest.approx(10**-1.2)


def test_an_arpa_file_may_be_compressed_and_lack_the_unknown_word(tmp_path):
    file = tmp_path / "lm.arpa.gz"
    text = HEAD.replace("1=4", "1=3") + WORDS.replace("-1\t<unk>\n", "") + PAIRS
    file.write_bytes(gzip.compress(text.encode()))
    folder = tmp_path / "read"
    folder.mkdir()
    assert arpa.read(file, folder).ngrams == (4, 2)
    model = open_model(content(folder))
    assert model.score(model.start(), "you")[0] == pytest.approx(-100.3 * math.log(10))
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"lm\.arpa\.gz is damaged"):
        arpa.read(file, folder)


def test_a_suffix_that_an_arpa_file_lacks_is_skipped(tmp_path):
    # "b c" follows "a", and is no 2-gram itself: what comes after is told by "c".
    text = (
        "\\data\\\nngram 1=6\nngram 2=2\nngram 3=1\n\\1-grams:\n-1 <unk>\n-99 <s>\n"
        "-0.5 </s>\n-0.4 a -0.1\n-0.6 b -0.2\n-0.7 c -0.3\n\\2-grams:\n-0.2 a b -0.4\n"
        "-0.3 c a\n\\3-grams:\n-0.1 a b c\n\\end\\\n"
    )
    model = read(tmp_path, text)
    assert probability(model, "ab", "c") == pytest.approx(10**-0.1)
    assert probability(model, "abc", "a") == pytest.approx(10**-0.3)
    assert probability(model, "abc", "b") == pytest.approx(10**-0.9)
    assert probability(model, "ab", "b") == pytest.approx(10**-1.2)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", r"line \d+: the file ends and had no \\data"),
        ("\\data\\\n\\1-grams:\n", "line 2: ngram 1=... is expected"),
        ("\\data\\\nngram 2=1\n", "line 2: the number of 1-grams is expected"),
        (HEAD + "\\2-grams:\n", r"line 5: \\1-grams: is expected"),
        (HEAD + WORDS.replace("-0.4", "x"), "line 9: a probability and 1 words"),
        (HEAD + WORDS.replace("-0.4", "0.4"), "line 9: .*logarithms are finite"),
        (HEAD + WORDS.replace("-0.4", "nan"), "line 9: .*logarithms are finite"),
        (HEAD + WORDS.replace("-0.4", "-inf"), "line 9: .*logarithms are finite"),
        (HEAD + WORDS.replace("Hello", "</s>"), "line 9: .*there twice"),
        (HEAD + WORDS.replace("<s>", "you"), "the 1-grams lack <s>"),
        (HEAD + WORDS.replace("-1\t<unk>\n", "") + PAIRS, "only 3 are there"),
        (HEAD.replace("1=4", "1=3") + WORDS, "3 1-grams are announced, and more"),
        (HEAD + WORDS + PAIRS.replace("o </s>", "a </s>"), "line 13: .*among the 1-g"),
        (HEAD + WORDS + PAIRS.replace("<s> Hello", "Hello </s>"), "there twice"),
        (HEAD + WORDS + PAIRS.replace("\\end\\\n", ""), "line 15: .*the file's end"),
        (HEAD + WORDS + PAIRS[:35], "line 13: a probability and 2 words"),
        ((HEAD + WORDS).encode().replace(b"Hello", b"\xff"), "line 9: .*not UTF-8"),
        (HEAD.replace("=2", "=2\nngram 3=1") + WORDS, "line 12: "),
    ],
)
def test_a_damaged_arpa_file_is_refused_by_line(tmp_path, text, told):
    with pytest.raises(DataError, match=told):
        read(tmp_path, text)


def test_an_ngram_without_its_beginning_is_refused(tmp_path):
    text = (
        HEAD.replace("=2", "=2\nngram 3=1")
        + WORDS
        + PAIRS.replace("\\end\\\n", "\\3-grams:\n-1 Hello Hello </s>\n\\end\\\n")
    )
    with pytest.raises(DataError, match="line 17: the 3-gram goes on from 2 words"):
        read(tmp_path, text)


def test_values_that_are_no_texts_are_listed_by_row(make):
    with pytest.raises(TrainingError) as caught:
        make(["fine", None, 7, b"x"])
    assert str(caught.value).splitlines() == [
        "3 of 4 rows of the query cannot be used; correct them, or leave them out in "
        "its WHERE",
        "  row 2: text is NULL",
        "  row 3: text is a number, not text",
        "  row 4: text is bytes, not text",
    ]
    with pytest.raises(TrainingError, match="and 90 more"):
        make([None] * 100)
    with pytest.raises(TrainingError, match="no rows"):
        make([])
    with pytest.raises(TrainingError, match="none of the texts in column text"):
        make(["", "..."])
