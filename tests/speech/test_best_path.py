"""Best paths read as transformers reads them."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import ParakeetTokenizer, Wav2Vec2CTCTokenizer

from thanosql.speech.decoding.best_path import BestPath, collapse
from thanosql.speech.decoding.decoding import decode
from thanosql.speech.decoding.spelling import Spelling


def recognizer(tokenizer):
    """Return as much of a Recognizer as decoding needs."""
    return SimpleNamespace(
        spelling=Spelling(tokenizer, len(tokenizer)),
        blank=tokenizer.pad_token_id,
        tokenizer=tokenizer,
    )


@pytest.fixture(scope="module")
def characters(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.json"
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", "'", *"ABL"]
    path.write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    return recognizer(Wav2Vec2CTCTokenizer(str(path)))


@pytest.fixture(scope="module")
def pieces():
    words = ["<unk>", "▁ab", "▁", "a", "b", "l", "<pad>"]
    tokenizer = Tokenizer(models.Unigram([(w, -1.0) for w in words], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return recognizer(
        ParakeetTokenizer(
            tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>"
        )
    )


def path_logits(*paths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits whose best paths these are, padded with what must not count."""
    lengths = torch.tensor([len(path) for path in paths])
    logits = torch.zeros(len(paths), int(lengths.max()) + 3, 9)
    logits[..., 6] = 0.5
    for row, path in enumerate(paths):
        logits[row, range(len(path)), path] = 1.0
    return logits, lengths


def texts(logits, lengths, recognizer):
    decoding = BestPath(recognizer.spelling, recognizer.blank)
    scores = decoding.scores(logits, lengths)
    return [hypothesis.text for hypothesis in decode(decoding, scores)]


def test_repeats_merge_blanks_part_them_and_padding_does_not_count(characters):
    a, b, l, blank, space = 6, 7, 8, 0, 4  # noqa: E741
    logits, lengths = path_logits(
        [a, a, l, blank, l, l, space, space, b], [blank, blank], [], [space, a, space]
    )
    assert texts(logits, lengths, characters) == ["ALL B", "", "", "A"]


def test_special_tokens_are_not_written(characters):
    logits, lengths = path_logits([1, 6, 3, 7, 2])
    assert texts(logits, lengths, characters) == ["AB"]


def test_half_precision_logits_decode_too(characters):
    logits, lengths = path_logits([6, 7])
    assert texts(logits.bfloat16(), lengths, characters) == ["AB"]


@settings(max_examples=300, deadline=None)
@given(path=st.lists(st.sampled_from([0, 4, 5, 6, 7, 8]), max_size=30))
def test_characters_read_as_transformers_reads_them(path, characters):
    logits, lengths = path_logits(path)
    expected = characters.tokenizer.decode(path)
    # transformers leaves the spaces of two delimiters in a row.
    assert texts(logits, lengths, characters) == [" ".join(expected.split())]


@settings(max_examples=300, deadline=None)
@given(path=st.lists(st.integers(1, 6), max_size=30))
def test_word_pieces_read_as_transformers_reads_them(path, pieces):
    logits, lengths = path_logits(path)
    expected = pieces.tokenizer.decode(path)
    assert texts(logits, lengths, pieces) == [" ".join(expected.split())]


def test_a_path_collapses_to_its_labelling():
    # The example of Graves et al. 2006: B(a-ab-) = B(-aa--abb) = aab
    a, b, blank = 1, 2, 0
    assert collapse(torch.tensor([a, blank, a, b, blank]), blank) == [a, a, b]
    path = torch.tensor([blank, a, a, blank, blank, a, b, b])
    assert collapse(path, blank) == [a, a, b]


def test_jamo_are_composed(tmp_path):
    path = tmp_path / "vocab.json"
    tokens = ["<pad>", "<unk>", "|", "\u1112", "\u1161", "\u11ab", "\u1100"]
    path.write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    tokenizer = Wav2Vec2CTCTokenizer(str(path), bos_token=None, eos_token=None)
    logits, lengths = path_logits([3, 3, 4, 0, 5, 5, 2, 6, 4])
    assert texts(logits, lengths, recognizer(tokenizer)) == ["한 가"]
