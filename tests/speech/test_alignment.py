"""Scores of windows in, the words of a text with their times out."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from test_anchors import a_text
from transformers import Wav2Vec2CTCTokenizer

from thanosql.speech.decoding import alignment
from thanosql.speech.decoding.alignment import Aligning
from thanosql.speech.decoding.best_path import TimedBestPath
from thanosql.speech.decoding.spelling import Spelling
from thanosql.speech.decoding.words import Grid
from thanosql.speech.recording import Span

# Frames of 20 ms.
GRID = Grid(320, 160)
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def aligning(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.json"
    tokens = ["<pad>", "|", *LETTERS, "<unk>", "<s>", "</s>"]
    path.write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    tokenizer = Wav2Vec2CTCTokenizer(str(path))
    return Aligning(Spelling(tokenizer, len(tokens)), 0, GRID, GRID)


def written(text):
    """Return the path of frames that reads as a text: a blank before each letter."""
    return [i for c in text for i in (0, 1 if c == " " else 2 + LETTERS.index(c))]


def logits(path, sure=8.0):
    found = torch.zeros(1, len(path), 31)
    found[0, range(len(path)), path] = sure
    return found


def aligned(aligning, path, text, windows=1):
    """Align a text with frames that are fed in so many windows."""
    aligner = aligning.start(tuple(text.split()))
    spans = (Span(0, 0, 320 * len(path)),)
    (scores,) = aligning.scores(logits(path), torch.tensor([len(path)]))
    ends = np.linspace(0, len(path), windows + 1).astype(int)
    for begin, end in pairwise(ends):
        aligner.feed(scores, slice(begin, end), spans)
    return aligner.finish().alignment


def times(found):
    return [(word.text, word.start, word.end) for word in found.words]


def test_a_text_that_is_what_the_model_writes_has_the_words_of_its_transcript(aligning):
    path = [*written("ab"), *[0] * 20, *written(" c"), *[0] * 10]
    found = aligned(aligning, path, "ab c")
    transcribing = TimedBestPath(aligning.spelling, 0, GRID, GRID)
    (scores,) = transcribing.scores(logits(path), torch.tensor([len(path)]))
    decoder = transcribing.start()
    decoder.feed(scores, slice(None), (Span(0, 0, 320 * len(path)),))
    for word, read in zip(found.words, decoder.finish().words, strict=True):
        assert (word.text, word.start) == (read.text, read.start)
        assert word.end == pytest.approx(read.end)
        assert word.confidence == pytest.approx(read.confidence, abs=1e-3)
    assert found.matches


@pytest.mark.parametrize("windows", [2, 7])
def test_windows_make_no_difference(aligning, windows):
    text = "one recording and its text"
    whole = aligned(aligning, written(text), text)
    assert aligned(aligning, written(text), text, windows) == whole


def test_words_are_shown_as_they_are_written(aligning):
    found = aligned(aligning, written("well done"), "«Well,\tDONE!»")
    assert [word.text for word in found.words] == ["«Well,", "DONE!»"]


def test_words_not_said_have_no_time_and_confidence_0(aligning):
    found = aligned(aligning, written("it is here"), "it is not yet here")
    assert [w.start is None for w in found.words] == [False, False, True, True, False]
    assert [w.confidence for w in found.words[2:4]] == [0.0, 0.0]
    said = aligned(aligning, written("it is here"), "it is here")
    assert times(found)[4] == times(said)[2]


def test_words_that_cannot_be_spelled_share_the_time_between_their_neighbours(aligning):
    path = written("in nineteen eightyfour we")
    found = aligned(aligning, path, "— in 19 84 we !")
    dash, in_, nineteen, eighty_four, we, mark = found.words
    assert (dash.start, dash.end) == (0.0, in_.start)
    assert nineteen.start == in_.end
    assert nineteen.end == eighty_four.start == pytest.approx((in_.end + we.start) / 2)
    assert eighty_four.end == we.start
    assert (mark.start, mark.end) == (we.end, pytest.approx(0.02 * len(path)))
    for word in (dash, nineteen, eighty_four, mark):
        assert word.confidence is None
    assert found.confidence > 0.98


def test_beside_a_word_that_is_not_said_they_have_no_time(aligning):
    found = aligned(aligning, [*written("in we"), *[0] * 20], "in elephantine 42 we")
    assert [(word.start is None, word.confidence) for word in found.words[1:3]] == [
        (True, 0.0),
        (True, None),
    ]


def test_a_text_of_another_recording_does_not_match(aligning):
    text = "the quick brown fox jumps over the lazy dog"
    found = aligned(aligning, written(text), "nobody said a single one of these words")
    assert not found.matches
    assert found.confidence < 0.3


def test_a_text_too_long_for_its_audio_is_refused(aligning):
    found = aligned(aligning, written("short"), "much too long a text for that")
    assert "too long for its audio: 23 tokens, and 10 frames" in found.error
    assert found.words == ()


@pytest.fixture
def small_parts(monkeypatch):
    """Have recordings be cut that are longer than a few words; count the parts."""
    monkeypatch.setattr(alignment, "_CELLS", 4_000)
    sizes = []
    path = alignment.best_path

    def counted(ratios, tokens, costs):
        sizes.append(len(ratios) * sum(map(len, tokens.words)))
        return path(ratios, tokens, costs)

    monkeypatch.setattr(alignment, "best_path", counted)
    return sizes


def a_long_text(words, seed=0):
    return [
        "".join(LETTERS[token - 2] for token in word) for word in a_text(words, seed)
    ]


def test_a_recording_cut_in_parts_has_the_words_where_the_whole_has_them(
    aligning, monkeypatch
):
    words = a_long_text(120)
    path = written(" ".join(words))
    wrong = np.random.default_rng(0).random(len(path)) < 0.03
    path = np.where(wrong, 5, path).tolist()  # some letters are misheard
    whole = aligned(aligning, path, " ".join(words))
    monkeypatch.setattr(alignment, "_CELLS", 4_000)
    assert aligned(aligning, path, " ".join(words)) == whole


def test_all_parts_are_small_where_the_text_is_recognized(aligning, small_parts):
    words = a_long_text(300)
    aligned(aligning, written(" ".join(words)), " ".join(words))
    assert len(small_parts) > 50
    assert max(small_parts) <= 4_000


def test_speech_without_text_and_text_without_speech_shift_no_other_word(
    aligning, small_parts
):
    said, unsaid, other = (a_long_text(n, seed=n) for n in (200, 40, 50))
    heard = [*said[:60], *other, *said[60:]]
    text = [*said[:130], *unsaid, *said[130:]]
    found = aligned(aligning, written(" ".join(heard)), " ".join(text))
    alone = aligned(aligning, written(" ".join(heard)), " ".join(heard))
    assert len(small_parts) > 20
    kept = [*found.words[:130], *found.words[170:]]
    expected = [*alone.words[:60], *alone.words[110:]]
    differing = sum(a.start != b.start for a, b in zip(kept, expected, strict=True))
    assert differing <= 2  # at the seams, where a letter may be either's
    assert sum(word.start is None for word in found.words[130:170]) >= 38


def test_what_is_not_recognized_is_cut_to_keep_memory_in_bounds(
    aligning, small_parts, monkeypatch
):
    monkeypatch.setattr(alignment, "_MOST_CELLS", 8_000)
    words = a_long_text(100)
    found = aligned(aligning, [0] * 3_000, " ".join(words))
    assert max(small_parts) <= 8_000
    assert len(found.words) == 100
    assert not any(word.confidence for word in found.words)


def test_scores_of_a_long_recording_go_to_a_file(aligning, monkeypatch):
    monkeypatch.setattr(alignment, "_IN_MEMORY", 100)
    text = "one recording and its text"
    found = aligned(aligning, written(text), text, windows=3)
    assert all(word.start is not None for word in found.words)
