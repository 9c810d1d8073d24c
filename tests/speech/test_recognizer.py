"""What the interface of a family carries: a seq2seq draft, heard and trained.

The draft is no part of the package. It stands for the families that are not CTC: its
windows do not overlap, its scores are tokens that a decoder wrote, its loss is cross
entropy. If it goes through the same transcription and the same loop, they can.
"""

import json

import pytest
import torch
from tones import spoken, tones
from torch.nn.utils.rnn import pad_sequence
from toys import config
from transformers import (
    Wav2Vec2CTCTokenizer,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from thanosql.speech.decoding.decoding import decode
from thanosql.speech.recognizers.recognizer import Loss, Recognizer
from thanosql.speech.results import Hypothesis
from thanosql.speech.sound.audio import SAMPLE_RATE
from thanosql.speech.sound.windows import Layout
from thanosql.speech.training.examination import examine
from thanosql.speech.training.train import train
from thanosql.speech.transcription import transcribe

SECONDS, MOST = 2, 12  # of a window; tokens


class Joined:
    """The texts of a recording's windows, one behind the other."""

    def __init__(self, spelling):
        self.spelling, self.tokens = spelling, []

    def start(self):
        return Joined(self.spelling)

    def feed(self, scores):
        self.tokens += scores.tolist()

    def finish(self):
        return Hypothesis(self.spelling.decode(self.tokens))


class Draft(Recognizer):
    """Whisper, as plain as can be."""

    stride = 320
    eos = 20

    def features(self, waveform):
        mels = self.feature_extractor(waveform, sampling_rate=SAMPLE_RATE)
        return torch.from_numpy(mels["input_features"][0].T)

    def windows(self, chunk_seconds):
        length = SECONDS * SAMPLE_RATE
        return Layout(length, 0, length, self.stride)

    @property
    def decoding(self):
        return Joined(self.spelling)

    def scores(self, batch, decoding):
        mels = torch.stack([each.T for each in batch]).to(self.device)
        written = self.model.generate(mels, max_new_tokens=MOST, do_sample=False)
        rows = [row[row < self.eos] for row in written.cpu()]
        return [row if len(row) else torch.zeros(0, dtype=torch.long) for row in rows]

    def loss(self, batch, targets, generator=None):
        mels = torch.stack([each.T for each in batch])
        rows = [torch.tensor([*row, self.eos]) for row in targets]
        labels = pad_sequence(rows, batch_first=True, padding_value=-100)
        return Loss(self.model(mels, labels=labels).loss, torch.ones(()))

    def assess(self, batch, targets, decoding):
        loss = self.loss(batch, targets).mean
        return loss, decode(decoding, self.scores(batch, decoding))

    def misfit(self, targets, length, seconds):
        if len(targets) >= MOST:
            return f"text too long for the model: {len(targets)} tokens of {MOST - 1}"
        return ""

    def try_out(self):
        self.recognize([self.features([0.0] * SAMPLE_RATE)], self.decoding)


@pytest.fixture
def draft(tmp_path):
    vocabulary = tmp_path / "vocab.json"
    letters = ["[PAD]", "[UNK]", "|", *"abcd"]
    vocabulary.write_text(json.dumps({t: i for i, t in enumerate(letters)}))
    tokenizer = Wav2Vec2CTCTokenizer(
        str(vocabulary), unk_token="[UNK]", pad_token="[PAD]", bos_token=None,
        eos_token=None,
    )  # fmt: skip
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(
        WhisperConfig(
            vocab_size=22,
            num_mel_bins=20,
            d_model=32,
            encoder_layers=1,
            decoder_layers=1,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_source_positions=100,
            max_target_positions=32,
            pad_token_id=0,
            bos_token_id=21,
            eos_token_id=20,
            decoder_start_token_id=21,
        )
    )
    extractor = WhisperFeatureExtractor(feature_size=20, chunk_length=SECONDS)
    return Draft(model.eval(), tokenizer, extractor, frozenset())


def texts(recognizer, audio, **options):
    return [
        each.text
        for batch in transcribe(recognizer, audio, device="cpu", **options)
        for each in batch
    ]


def test_another_family_goes_through_transcription_window_by_window(draft):
    draft.try_out()
    audio = [tones(letters * 4) for letters in ("abcd", "dcba", "bb", "acca")]
    one_by_one = texts(draft, audio, batch_size=1)
    assert texts(draft, audio, batch_size=3) == one_by_one
    assert texts(draft, audio[::-1], batch_size=5) == one_by_one[::-1]
    with torch.no_grad():
        halves = [draft.features(w) for w in _windows(audio[0])]
        joined = draft.decoding.start()
        for scores in draft.scores(halves, draft.decoding):
            joined.feed(scores)
    assert len(halves) == 2
    assert joined.finish().text == one_by_one[0]


def test_another_family_is_trained_by_the_same_loop(draft):
    rows = spoken(24)
    utterances = examine(draft, rows, None).utterances
    assert len(utterances) == 24
    epochs = [
        *train(
            draft, rows, utterances[4:], utterances[:4],
            config(epochs=25, learning_rate=5e-3), None,
        )
    ]  # fmt: skip
    assert epochs[-1].train_loss < 0.6 * epochs[0].train_loss
    assert epochs[-1].validation_loss < epochs[0].validation_loss
    assert all(epoch.cer >= 0 for epoch in epochs)


def test_another_family_says_what_it_cannot_be_trained_on(draft):
    (bad,) = examine(draft, [(tones("a" * 12), "abcd" * 3)], None).bad
    assert bad.reason == "text too long for the model: 12 tokens of 11"


def _windows(value):
    from thanosql.speech.sound.audio import load

    waveform = load(value, None)
    length = SECONDS * SAMPLE_RATE
    return [waveform[i : i + length] for i in range(0, len(waveform), length)]
