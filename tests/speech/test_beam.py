"""Beam search as recognizers use it: spelling, windows, and hotwords of recordings."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_prefix_search import Bigram
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import ParakeetTokenizer, Wav2Vec2CTCTokenizer

from thanosql.errors import DataError, OptionError
from thanosql.speech.decoding.beam import Beam
from thanosql.speech.decoding.best_path import BestPath, TimedBestPath
from thanosql.speech.decoding.decoding import WHOLE, Request, decode
from thanosql.speech.decoding.spelling import Spelling
from thanosql.speech.decoding.words import Grid
from thanosql.speech.recording import Span

STEP = 320
GRIDS = Grid(STEP, STEP // 2), Grid(1, 0)


class Words:
    """A language model to which all words it knows are equally likely."""

    def __init__(self, *words):
        self.words = words

    def start(self):
        return 0

    def score(self, state, word):
        return math.log(0.5 if word in self.words else 1e-4), 0

    def end(self, state):
        return 0.0


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    """Return a function that makes a spelling of characters; its blank is 0."""

    def make(letters, **settings):
        path = tmp_path_factory.mktemp("vocabulary") / "vocab.json"
        tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *letters]
        path.write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
        tokenizer = Wav2Vec2CTCTokenizer(str(path), **settings)
        return Spelling(tokenizer, len(tokens)), len(tokens)

    return make


@pytest.fixture(scope="module")
def pieces():
    words = ["<unk>", "▁ab", "▁", "a", "b", "▁ban", "an", "n", "<pad>"]
    tokenizer = Tokenizer(models.Unigram([(w, -1.0) for w in words], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    made = ParakeetTokenizer(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>"
    )
    return Spelling(made, len(words)), len(words)


def logits_of(*frames, tokens):
    """Return logits: of each frame the probabilities of some tokens, {token: share}."""
    logits = torch.full((1, len(frames), tokens), -20.0)
    for place, shares in enumerate(frames):
        for token, share in shares.items():
            logits[0, place, token] = math.log(share)
    return logits, torch.tensor([len(frames)])


def beam(vocabulary, blank=0, **request):
    spelling, outputs = vocabulary
    return Beam(spelling, blank, outputs, Request(**request), GRIDS)


def heard(decoding, logits, hotwords=()):
    decoder = decoding.start(hotwords)
    (scores,) = decoding.scores(*logits)
    decoder.feed(scores, WHOLE, ())
    return decoder.finish()


def test_a_model_that_writes_capitals_takes_names_and_words_in_any_case(vocabulary):
    made = vocabulary("ABC")
    a, b, c = 5, 6, 7
    logits = logits_of({a: 0.6, b: 0.4}, {c: 1.0}, tokens=made[1])
    assert heard(beam(made, beam_size=4), logits).text == "AC"
    assert heard(beam(made, hotwords=("bc",)), logits).text == "BC"
    assert heard(beam(made, language_model=Words("bc")), logits).text == "BC"


def test_word_pieces_end_words_where_the_next_begins(pieces):
    ab, a, ban, an = 1, 3, 5, 6
    logits = logits_of(
        {ab: 1.0}, {8: 0.9, a: 0.1}, {ban: 1.0}, {an: 0.4, 8: 0.6}, tokens=pieces[1]
    )
    assert heard(beam(pieces, 8, beam_size=4), logits).text == "ab ban"
    model = Words("ab", "banan")
    assert heard(beam(pieces, 8, language_model=model), logits).text == "ab banan"
    named = heard(beam(pieces, 8, hotwords=("aba banan",)), logits)
    assert named.text == "aba banan"


def test_special_tokens_write_nothing(vocabulary):
    made = vocabulary("AB")
    a, b = 5, 6
    logits = logits_of({1: 1.0}, {a: 1.0}, {3: 1.0}, {a: 1.0}, {b: 1.0}, tokens=made[1])
    assert heard(beam(made, beam_size=4), logits).text == "AAB"


def test_each_recording_has_its_own_hotwords(vocabulary):
    made = vocabulary("ABC")
    a, b, c = 5, 6, 7
    logits = logits_of({a: 0.5, b: 0.3, c: 0.2}, {a: 1.0}, tokens=made[1])
    decoding = beam(made, own_hotwords=True, hotword_weight=2.0)
    texts = [heard(decoding, logits, names).text for names in ((), ("ba",), ("CA",))]
    assert texts == ["A", "BA", "CA"]  # two of a letter in a row are one
    both = beam(made, hotwords=("ba",), own_hotwords=True, hotword_weight=2.0)
    assert heard(both, logits, ("ab",)).text == "BA"


def test_alternatives_are_the_likeliest_texts_with_their_shares(vocabulary):
    made = vocabulary("AB")
    a, b, space = 5, 6, 4
    logits = logits_of({a: 0.5, b: 0.3, 0: 0.2}, {0: 0.9, space: 0.1}, tokens=made[1])
    found = heard(beam(made, alternatives=3), logits)
    assert [each.text for each in found.alternatives] == ["A", "B", ""]
    shares = [each.confidence for each in found.alternatives]
    assert shares == pytest.approx([0.5, 0.3, 0.2], abs=1e-4)
    assert found.text == "A"
    assert len(heard(beam(made, alternatives=2), logits).alternatives) == 2


def test_the_best_path_comes_beside_where_it_is_wanted(vocabulary):
    made = vocabulary("AB")
    a, b = 5, 6
    logits = logits_of({a: 0.6, b: 0.4}, tokens=made[1])
    found = heard(beam(made, hotwords=("b",), best_path=True), logits)
    assert (found.text, found.best_path) == ("B", "A")
    assert heard(beam(made, hotwords=("b",)), logits).best_path is None


@pytest.mark.parametrize("name", ["ДА", "A7", "  , "])
def test_a_hotword_that_cannot_be_spelled_is_named(vocabulary, name):
    made = vocabulary("AB")
    with pytest.raises(OptionError, match=f"cannot spell the hotword {name!r}"):
        beam(made, hotwords=("ab", name))
    with pytest.raises(DataError, match=f"cannot spell the hotword {name!r}"):
        beam(made, own_hotwords=True).start((name,))


def test_punctuation_of_a_hotword_is_left_out(vocabulary):
    made = vocabulary("AB")
    a, b, space = 5, 6, 4
    logits = logits_of({a: 0.6, b: 0.4}, {space: 1.0}, {b: 1.0}, tokens=made[1])
    assert heard(beam(made, hotwords=("B. b!",)), logits).text == "B B"


def test_a_language_model_of_another_alphabet_is_refused(vocabulary):
    made = vocabulary("AB")
    with pytest.raises(OptionError, match="alphabet"):
        beam(made, language_model=Words("да", "нет"))
    beam(made, language_model=Words("да", "ab"))


def test_a_vocabulary_without_spaces_takes_hotwords_but_no_language_model(tmp_path):
    path = tmp_path / "vocab.json"
    tokens = ["<pad>", "<unk>", *"東西京"]
    path.write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    made = Spelling(Wav2Vec2CTCTokenizer(str(path)), len(tokens)), len(tokens)
    logits = logits_of({2: 0.45, 3: 0.55}, {4: 1.0}, tokens=made[1])
    assert heard(beam(made, beam_size=4), logits).text == "西京"
    assert heard(beam(made, hotwords=("東京",)), logits).text == "東京"
    with pytest.raises(OptionError, match="no space"):
        beam(made, language_model=Words("東京"))


@st.composite
def random_logits(draw, tokens):
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    frames = draw(st.integers(2, 60))
    scale = draw(st.sampled_from([1.0, 3.0, 8.0]))
    return torch.randn(1, frames, tokens, generator=generator) * scale


@settings(max_examples=60, deadline=None)
@given(random_logits(tokens=8), st.integers(1, 59))
def test_windows_are_one_recording(vocabulary, logits, cut):
    decoding = beam(vocabulary("abn"), language_model=Bigram(), words=True)
    frames = logits.shape[1]
    cut = min(cut, frames - 1)
    context = min(2, cut)
    spans = lambda begin, count: (Span(0, begin * STEP, count * STEP),)  # noqa: E731
    decoder = decoding.start()
    (scores,) = decoding.scores(logits, torch.tensor([frames]))
    decoder.feed(scores, WHOLE, spans(0, frames))
    whole = decoder.finish()
    decoder = decoding.start()
    (first,) = decoding.scores(logits[:, :cut], torch.tensor([cut]))
    (second,) = decoding.scores(
        logits[:, cut - context :], torch.tensor([frames - cut + context])
    )
    decoder.feed(first, slice(0, cut), spans(0, cut))
    decoder.feed(second, slice(context, None), spans(cut - context, frames))
    assert decoder.finish().text == whole.text
    assert [word.text for word in whole.words] == whole.text.split()


@settings(max_examples=60, deadline=None)
@given(random_logits(tokens=8))
def test_a_padded_batch_reads_as_one_by_one(vocabulary, logits):
    decoding = beam(vocabulary("abn"), language_model=Bigram(), hotwords=("nab",))
    frames = logits.shape[1]
    batch = torch.zeros(2, frames + 7, 8)
    batch[0, :frames], batch[1, : frames // 2] = logits[0], logits[0, : frames // 2]
    lengths = torch.tensor([frames, frames // 2])
    together = decode(decoding, decoding.scores(batch, lengths))
    alone = [
        decode(decoding, decoding.scores(logits[:, :n], torch.tensor([n])))[0]
        for n in lengths.tolist()
    ]
    assert together == alone


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 7), min_size=1, max_size=40))
def test_sure_frames_are_timed_as_on_the_best_path(vocabulary, path):
    spelling, outputs = vocabulary("abn")
    logits = torch.zeros(1, len(path), outputs)
    logits[0, range(len(path)), path] = 30.0
    lengths = torch.tensor([len(path)])
    kept = [0 if token < 4 else token for token in path]  # special tokens: blanks
    plain = torch.zeros_like(logits)
    plain[0, range(len(path)), kept] = 30.0
    timed = TimedBestPath(spelling, 0, *GRIDS)
    (expected,) = decode(timed, timed.scores(plain, lengths))
    decoding = beam((spelling, outputs), beam_size=4, words=True)
    (found,) = decode(decoding, decoding.scores(logits, lengths))
    assert found.text == expected.text
    for one, other in zip(found.words, expected.words, strict=True):
        assert one.text == other.text
        assert (one.start, one.end) == pytest.approx((other.start, other.end), abs=0.05)
        assert one.confidence == pytest.approx(other.confidence, abs=1e-3)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 7), min_size=1, max_size=40))
def test_a_beam_of_one_reads_sure_frames_as_the_best_path(vocabulary, path):
    spelling, outputs = vocabulary("abn")
    logits = torch.zeros(1, len(path), outputs)
    logits[0, range(len(path)), path] = 30.0
    lengths = torch.tensor([len(path)])
    decoding = beam((spelling, outputs), beam_size=1)
    best = BestPath(spelling, 0)
    (found,) = decode(decoding, decoding.scores(logits, lengths))
    (expected,) = decode(best, best.scores(logits, lengths))
    assert found.text == expected.text
