"""Prefix beam search against the sum over all alignments, one by one."""

from __future__ import annotations

import itertools
import math
import statistics
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thanosql.speech.decoding import forced_path, prefix_search
from thanosql.speech.decoding.best_path import collapse
from thanosql.speech.decoding.forced_path import ForcedPath
from thanosql.speech.decoding.frames import LEAST_LIKELY, likely
from thanosql.speech.decoding.fusion import Fusion, Lexicon, Weights
from thanosql.speech.decoding.hotwords import Hotwords
from thanosql.speech.decoding.prefix_search import PrefixBeamSearch

BLANK, SPACE = 0, 1
LETTERS = ("", " ", "a", "b", "n")
WRITTEN = torch.tensor([bool(letters) for letters in LETTERS])
ENOUGH = 4000  # more than there are texts
WEIGHTS = Weights(language_model=0.7, word=0.4, unknown_letter=-1.1)


class Bigram:
    """A language model of three words, whose state is the word before."""

    words = ("a", "ab", "ban")

    def start(self):
        return "<s>"

    def score(self, state, word):
        chance = {"a": 0.5, "ab": 0.2, "ban": 0.1}.get(word, 0.01)
        return math.log(chance * (0.5 if word == state else 1.0)), word

    def end(self, state):
        return math.log({"a": 0.3, "<s>": 0.05}.get(state, 0.2))


def fusion(model=None, names=(), hotword_weight=1.5, weights=WEIGHTS):
    return Fusion(
        LETTERS,
        weights,
        language_model=model,
        lexicon=Lexicon(model.words if model else (), str),
        hotwords=Hotwords(names, hotword_weight, " "),
        names=Lexicon([word for name in names for word in name.split()], str),
    )


def frames_of(log_probs):
    return likely(log_probs[None], torch.tensor([len(log_probs)]), WRITTEN)[0]


def search(log_probs, fusion, beam_size):
    found = PrefixBeamSearch(fusion, beam_size, SPACE)
    found.advance(frames_of(log_probs))
    return found.texts()


def text_of(tokens):
    return " ".join("".join(LETTERS[token] for token in tokens).split())


def everything(log_probs, fusion):
    """Return the texts of a search that drops none, however far behind."""
    with mock.patch.object(prefix_search, "_FAR_BEHIND", 1e-250):
        return search(log_probs, fusion, ENOUGH)


def shares(texts):
    """Return the probability of each text among those found."""
    sums = {}
    for tokens, score in texts:
        text = text_of(tokens)
        sums[text] = sums.get(text, 0.0) + math.exp(score)
    total = sum(sums.values())
    return {text: each / total for text, each in sums.items()}


def brute_force(log_probs, gain):
    """Return the same over all alignments; gain: what is added for a text, in nats."""
    likely_enough = (log_probs >= LEAST_LIKELY).tolist()
    sums = {}
    for path in itertools.product(range(len(LETTERS)), repeat=len(log_probs)):
        if all(
            likely_enough[t][token] or token == BLANK for t, token in enumerate(path)
        ):
            score = sum(float(log_probs[t, token]) for t, token in enumerate(path))
            text = text_of(collapse(torch.tensor(path), BLANK))
            sums[text] = sums.get(text, 0.0) + math.exp(score)
    gained = {text: each * math.exp(gain(text)) for text, each in sums.items()}
    total = sum(gained.values())
    return {text: each / total for text, each in gained.items()}


def gain_of(text, model=None, names=(), hotword_weight=1.5):
    """Return what a text gains, computed of the whole text."""
    words = text.split()
    gain = WEIGHTS.word * len(words)
    known = {word for name in names for word in name.split()}
    if model is not None:
        state, total = model.start(), 0.0
        for word in words:
            score, state = model.score(state, word)
            total += score
            if word not in model.words and not any(k.startswith(word) for k in known):
                total += WEIGHTS.unknown_letter * len(word)
        gain += WEIGHTS.language_model * (total + model.end(state))
    for name in names:
        parts = name.split()
        for place in range(len(words)):
            if words[place : place + len(parts)] == parts:
                gain += hotword_weight * sum(map(len, parts))
    return gain


@st.composite
def log_probs(draw, most=5):
    seed = draw(st.integers(0, 2**32 - 1))
    frames = draw(st.integers(1, most))
    sharpness = draw(st.sampled_from([0.3, 1.0, 2.0]))
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, sharpness, (frames, len(LETTERS)))
    return torch.log_softmax(torch.tensor(logits, dtype=torch.float32), -1)


def agree(log_probs, fusion, gain):
    """Compare a search with the sum over all alignments."""
    expected = brute_force(log_probs, gain)
    found = shares(everything(log_probs, fusion))
    assert max(found, key=found.get) == max(expected, key=expected.get)
    assert found == pytest.approx({t: expected[t] for t in found}, rel=1e-3, abs=1e-5)
    assert sum(expected[text] for text in found) == pytest.approx(1.0, abs=1e-3)
    # Only what is far behind is lost.
    kept = shares(search(log_probs, fusion, ENOUGH))
    assert sum(expected[text] for text in kept) == pytest.approx(1.0, abs=1e-3)


@settings(max_examples=60, deadline=None)
@given(log_probs())
def test_a_wide_beam_finds_the_sum_over_all_alignments(log_probs):
    agree(log_probs, fusion(), gain_of)


@settings(max_examples=60, deadline=None)
@given(log_probs())
def test_a_language_model_weighs_every_text_as_a_whole(log_probs):
    model = Bigram()
    agree(log_probs, fusion(model), lambda text: gain_of(text, model))


@settings(max_examples=60, deadline=None)
@given(
    log_probs(),
    st.sampled_from([("b",), ("ab", "na"), ("a b",), ("ban", "b a")]),
    st.sampled_from([None, Bigram()]),
)
def test_hotwords_bring_their_bonus_where_they_are_complete(log_probs, names, model):
    agree(log_probs, fusion(model, names), lambda text: gain_of(text, model, names))


@settings(max_examples=100, deadline=None)
@given(log_probs(most=40), st.data())
def test_frames_may_come_in_pieces(log_probs, data):
    whole = PrefixBeamSearch(fusion(Bigram()), 8, SPACE)
    whole.advance(frames_of(log_probs))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(log_probs)), max_size=4)))
    pieces = PrefixBeamSearch(fusion(Bigram()), 8, SPACE)
    frames = frames_of(log_probs)
    for begin, end in itertools.pairwise([0, *cuts, len(log_probs)]):
        pieces.advance(frames[begin:end])
    assert pieces.texts() == whole.texts()


@settings(max_examples=100, deadline=None)
@given(log_probs(most=30))
def test_every_prefix_is_in_the_tree_once(log_probs):
    found = [tuple(tokens) for tokens, _ in search(log_probs, fusion(), 8)]
    assert len({*found}) == len(found)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=30), st.sampled_from([1, 4]))
def test_sure_frames_read_as_their_best_path(path, beam_size):
    logits = torch.zeros(len(path), len(LETTERS))
    logits[range(len(path)), path] = 20.0
    (tokens, _), *_ = search(torch.log_softmax(logits, -1), fusion(), beam_size)
    assert text_of(tokens) == text_of(collapse(torch.tensor(path), BLANK))


def test_memory_does_not_grow_with_the_frames():
    generator = torch.Generator().manual_seed(1)
    model = Bigram()
    found = PrefixBeamSearch(fusion(model), 8, SPACE)
    sizes = []
    for _ in range(40):
        logits = torch.randn(100, len(LETTERS), generator=generator) * 2
        found.advance(frames_of(torch.log_softmax(logits, -1)))
        waiting, size = [found._root], 0
        while waiting:
            node = waiting.pop()
            waiting += node.children.values()
            size += 1
        sizes.append(size)
    assert statistics.median(sizes) < 8 * 20  # of 4000 frames
    assert min(sizes[-10:]) < 8 * 20
    assert len(found.texts()[0][0]) > 1000


def test_what_a_fusion_remembers_is_bounded_and_changes_nothing(monkeypatch):
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(400, len(LETTERS), generator=generator) * 2
    log_probs = torch.log_softmax(logits, -1)
    expected = search(log_probs, fusion(Bigram(), ("ban a",)), 8)
    monkeypatch.setattr("thanosql.speech.decoding.fusion._REMEMBERED", 30)
    forgetful = fusion(Bigram(), ("ban a",))
    assert search(log_probs, forgetful, 8) == expected
    reached, waiting = set(), [forgetful.start]
    while waiting:
        state = waiting.pop()
        if id(state) not in reached:
            reached.add(id(state))
            waiting += [after for _, after in state.following.values()]
    assert len(reached) <= 31


def test_states_do_not_grow_with_a_text_that_has_no_spaces():
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(400, len(LETTERS), generator=generator) * 2
    logits[:, SPACE] = -100.0
    unspaced = fusion(names=("bana",))
    ((tokens, _), *_) = search(torch.log_softmax(logits, -1), unspaced, 8)
    assert len(tokens) > 100
    assert len(unspaced._states) < 20
    assert max(len(state.letters) for state in unspaced._states.values()) == 1


@settings(max_examples=100, deadline=None)
@given(log_probs(most=12), st.data())
def test_a_forced_path_reads_as_its_tokens_and_is_the_likeliest(log_probs, data):
    tokens, _ = data.draw(st.sampled_from(search(log_probs, fusion(), 20)))
    forced = ForcedPath(BLANK, SPACE)
    forced.feed(frames_of(log_probs))
    path, chances = forced.finish(tokens)
    assert collapse(torch.tensor(path), BLANK) == tokens
    assert len(chances) == len(path)
    if len(log_probs) <= 5:
        each = log_probs.exp().numpy().clip(min=math.exp(LEAST_LIKELY))

        def chance(path):
            total, before = 1.0, SPACE
            for frame, token in enumerate(path):
                total *= each[frame, token]
                # A second space writes nothing, as a blank.
                if token == BLANK and before == SPACE:
                    total *= 1 + each[frame, SPACE] / each[frame, BLANK]
                before = before if token == BLANK else token
            return total

        best = max(
            chance(other)
            for other in itertools.product(range(len(LETTERS)), repeat=len(path))
            if collapse(torch.tensor(other), BLANK) == tokens
        )
        assert chance(path.tolist()) == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize("enough", [5, 40])
def test_a_forced_path_may_be_found_piece_by_piece(monkeypatch, enough):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(300, len(LETTERS), generator=generator) * 4
    frames = frames_of(torch.log_softmax(logits, -1))
    found = PrefixBeamSearch(fusion(Bigram()), 8, SPACE)
    whole, pieces = ForcedPath(BLANK, SPACE), ForcedPath(BLANK, SPACE)
    whole.feed(frames)
    monkeypatch.setattr(forced_path, "_ENOUGH", enough)
    for begin in range(0, 300, 20):
        piece = frames[begin : begin + 20]
        found.advance(piece)
        pieces.feed(piece)
        pieces.tell(found.likeliest(), found.sure)
    assert len(pieces._path) > 1
    (tokens, _), *_ = found.texts()
    assert whole.finish(tokens)[0].tolist() == pieces.finish(tokens)[0].tolist()
