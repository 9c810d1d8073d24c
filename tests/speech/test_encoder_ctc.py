"""A CTC head on the encoder of a model that writes, from SQL to another program."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file
from tones import spoken
from toys import SMALL, TRANSDUCER_KINDS, WRITERS, write_config
from transformers import ParakeetForCTC

from thanosql import connect
from thanosql.errors import DatabaseError, DataError, NotSupportedError, OptionError
from thanosql.speech.opening import encoders
from thanosql.speech.opening.opening import open_base, open_encoder
from thanosql.speech.recognizers.modeling_encoder_ctc import EncoderForCTC, encode
from thanosql.speech.recognizers.recognizer import quiet
from thanosql.speech.training.conditions import frozen
from thanosql.speech.training.examination import examine
from thanosql.speech.training.loop import trained_state
from thanosql.speech.training.train import train
from thanosql.speech.training.utterances import Utterances
from thanosql.statements import BuildOptions

TEXTS = ["abcd", "dcba a"]
# Of kinds whose decoders are not run: toys has no model of them.
ENCODERS = {
    "canary": {
        "encoder_config": {
            "model_type": "parakeet_encoder",
            **SMALL,
            "subsampling_conv_channels": 8,
        }
    },
    "speech_to_text": {
        "d_model": 16,
        "encoder_layers": 1,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "conv_channels": 16,
    },
}


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whisper")
    WRITERS["whisper"](directory, init_std=0.6)
    return directory


def opened(directory):
    torch.manual_seed(0)
    return open_base(str(directory), lambda: TEXTS, ctc=True)


def noises(*seconds):
    rng = np.random.default_rng(0)
    return [rng.normal(0, 0.1, round(16_000 * s)).astype(np.float32) for s in seconds]


@pytest.mark.parametrize("kind", WRITERS)
def test_an_utterance_is_scored_as_it_is_alone(kind, tmp_path):
    WRITERS[kind](tmp_path)
    recognizer = opened(tmp_path)
    batch = [recognizer.features(each) for each in noises(0.7, 1.9, 1.234)]
    with torch.no_grad():
        together, lengths = recognizer.logits(batch)
        for row, length, each in zip(together, lengths.tolist(), batch, strict=True):
            alone, (frames,) = recognizer.logits([each])
            assert length == frames == recognizer.frames(len(each))
            assert torch.allclose(row[:length], alone[0], atol=1e-5)


def test_padding_is_masked_exactly_where_whisper_is_padded(whisper):
    recognizer = opened(whisper)
    batch = [recognizer.features(each) for each in noises(0.7, 1.9, 1.23)]
    padded = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True).transpose(1, 2)
    # What is in the padding has no influence.
    for row, each in zip(padded, batch, strict=True):
        row[:, len(each) :] = 7.0
    lengths = torch.tensor([len(each) for each in batch])
    with torch.no_grad():
        together = encode(recognizer.model.encoder, padded, lengths)
        for row, each in zip(together, batch, strict=True):
            alone = encode(recognizer.model.encoder, each.T[None])[0]
            assert torch.allclose(row[: len(alone)], alone, atol=1e-5)


def test_the_encoder_is_that_of_the_model(whisper):
    whole = open_base(str(whisper), lambda: pytest.fail("has a vocabulary"))
    theirs = whole.model.model.encoder.state_dict()
    recognizer = opened(whisper)
    ours = recognizer.model.encoder.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert recognizer.fresh == {"lm_head.weight", "lm_head.bias"}


@pytest.mark.parametrize("kind", sorted(encoders.TAKEN))
def test_every_kind_that_is_listed_gives_its_encoder(kind, tmp_path):
    if kind in WRITERS:
        WRITERS[kind](tmp_path)
    elif kind in TRANSDUCER_KINDS:
        write_config(tmp_path, kind)
    else:
        settings = {"model_type": kind, **ENCODERS[kind]}
        (tmp_path / "config.json").write_text(json.dumps(settings))
    recognizer = opened(tmp_path)
    is_parakeets = kind.startswith(("parakeet", "canary"))
    known = ParakeetForCTC if is_parakeets else EncoderForCTC
    assert type(recognizer.model) is known
    batch = [recognizer.features(each) for each in noises(0.7, 1.9)]
    with torch.no_grad():
        together, lengths = recognizer.logits(batch)
        alone, _ = recognizer.logits(batch[:1])
    assert lengths.tolist() == [recognizer.frames(len(each)) for each in batch]
    assert torch.allclose(together[0, : lengths[0]], alone[0], atol=1e-5)


@pytest.mark.parametrize("kind", ["whisper", "parakeet_tdt"])
def test_kept_frames_of_a_frozen_encoder_are_scored_alike(kind, tmp_path):
    if kind in WRITERS:
        WRITERS[kind](tmp_path)
    else:
        recognizer = open_base(str(write_config(tmp_path / "bare", kind)), lambda: "a")
        recognizer.save(tmp_path)
    recognizer = opened(tmp_path)
    assert recognizer.head_first
    batch = [recognizer.features(each) for each in noises(0.7, 1.9)]
    assert all(map(torch.equal, recognizer.frozen(batch), batch))
    with frozen(recognizer, feature_encoder=True, encoder=True):
        kept = recognizer.frozen(batch)
    assert not any(each.requires_grad for each in kept)
    assert recognizer.fresh == {
        name for name, _ in recognizer.model.named_parameters() if "head" in name
    }
    with torch.no_grad():
        expected, lengths = recognizer.logits(batch)
        for inputs in (kept, [kept[0], batch[1]]):
            found, frames = recognizer.logits(inputs)
            assert torch.equal(frames, lengths)
            assert torch.allclose(found, expected, atol=1e-5)


def test_an_encoder_without_weights_is_not_kept_from_learning(tmp_path):
    assert not opened(write_config(tmp_path, "parakeet_tdt")).head_first


@pytest.mark.parametrize("kind", ["canary", "speech_to_text"])
def test_the_weights_of_a_decoder_that_is_not_run_are_left_out(kind, tmp_path):
    decoder = {"decoder_layers": 1, "decoder_ffn_dim": 32, "decoder_attention_heads": 2}
    if kind == "canary":
        sizes = {**SMALL, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 20}
        decoder = {"decoder_config": sizes, "vocab_size": 20}
    settings = {**ENCODERS[kind], **decoder}
    config = transformers.AutoConfig.for_model(kind, **settings)
    torch.manual_seed(0)
    whole = transformers.AutoModelForSpeechSeq2Seq.from_config(config)
    with quiet():
        whole.save_pretrained(tmp_path)
    recognizer = opened(tmp_path)
    assert all("head" in name for name in recognizer.fresh)
    theirs = whole.model.encoder.state_dict()
    for name, tensor in recognizer.model.encoder.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name


def test_a_recording_too_short_for_a_frame_has_none(tmp_path):
    WRITERS["moonshine"](tmp_path)
    recognizer = opened(tmp_path)
    long = recognizer.features(noises(0.7)[0])
    with torch.no_grad():
        _, lengths = recognizer.logits([torch.zeros(500), long])
    assert lengths.tolist() == [0, recognizer.frames(len(long))]


def changed(whisper, directory, **settings):
    """Copy a directory, with other settings in its config."""
    shutil.copytree(whisper, directory, dirs_exist_ok=True)
    config = json.loads((directory / "config.json").read_text("utf-8"))
    (directory / "config.json").write_text(json.dumps({**config, **settings}))
    return directory


def test_a_base_in_16_bits_is_widened(whisper, tmp_path):
    recognizer = opened(changed(whisper, tmp_path, dtype="float16"))
    assert {p.dtype for p in recognizer.model.parameters()} == {torch.float32}


def test_a_config_in_a_config_names_no_code_and_no_other_kind(whisper, tmp_path):
    opened(whisper).save(tmp_path / "made")
    made = tmp_path / "made"
    inner = json.loads((made / "config.json").read_text("utf-8"))["encoder_config"]
    kernel = {**inner, "attn_implementation": "somebody/kernel"}
    recognizer = opened(changed(made, tmp_path / "a", encoder_config=kernel))
    names = recognizer.model.config.encoder_config._attn_implementation
    assert names in (None, "sdpa", "eager")
    for other in ({"model_type": "bert"}, {}, None, "whisper"):
        with pytest.raises(NotSupportedError, match="holds an encoder of type"):
            opened(changed(made, tmp_path / "b", encoder_config=other))


def test_weights_without_an_encoder_are_an_error(whisper, tmp_path):
    changed(whisper, tmp_path)
    save_file({"odd.weight": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(DataError, match=r"no weights of an encoder.*'odd.weight'"):
        opened(tmp_path)


def test_a_stored_models_encoder_is_the_same_each_time_it_is_opened(whisper):
    files = {p.name: memoryview(p.read_bytes()) for p in whisper.iterdir()}

    def config():
        torch.manual_seed(0)
        return open_encoder(files, lambda: TEXTS).model.config.to_json_string()

    assert config() == config()
    assert "/" not in config()


def test_a_model_without_such_an_encoder_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "voxtral"}')
    with pytest.raises(DatabaseError, match="not run here"):
        opened(tmp_path)


def test_the_head_learns_before_the_first_epoch(whisper):
    rows = spoken(24)
    options = BuildOptions(batch_size=8, epochs=1, learning_rate=1e-4)
    stages = []

    def first_loss(head_first):
        recognizer = opened(whisper)
        before = trained_state(recognizer.model)
        utterances = examine(recognizer, rows, None).utterances
        (first,) = train(
            recognizer,
            rows,
            utterances,
            Utterances(),
            options,
            None,
            lambda stage, *_, **__: stages.append(stage),
            head_first=head_first,
        )
        moved = recognizer.model.state_dict()
        assert not torch.equal(
            moved["encoder.conv1.weight"], before["encoder.conv1.weight"]
        )
        return first.train_loss

    assert first_loss(head_first=False) - first_loss(head_first=True) > 0.5
    assert stages.count("train the head") == 402  # 134 epochs of 3 steps


class TestFromSQL:
    @pytest.fixture
    def connection(self, whisper):
        with connect(":memory:") as connection:
            connection.execute("CREATE TABLE clips (audio BLOB, text TEXT)")
            connection.executemany("INSERT INTO clips VALUES (?, ?)", spoken(24))
            connection.commit()
            yield connection

    def build(self, connection, base, options=""):
        return connection.execute(
            f"BUILD MODEL reader USING '{base}' OPTIONS (objective='ctc', epochs=12, "
            f"batch_size=4, learning_rate=5e-3, validation=0 {options}) "
            "AS SELECT audio, text FROM clips"
        ).fetchall()

    def test_it_is_built_predicts_with_times_and_is_exported(
        self, connection, whisper, tmp_path
    ):
        self.build(connection, whisper)
        facts = {row[0]: row[1] for row in connection.execute("DESCRIBE MODEL reader")}
        assert facts["architecture"] == "EncoderForCTC"
        texts = self.predicted(connection, "reader", 4)
        assert any(text for text, _ in texts)
        assert texts == self.predicted(connection, "reader", 1)
        connection.execute(f"EXPORT MODEL reader TO '{tmp_path}'")
        connection.execute(f"IMPORT MODEL again FROM '{tmp_path}'")
        assert texts == self.predicted(connection, "again", 2)

    @pytest.mark.thorough(seconds=60)
    def test_it_opens_without_thanosql(self, connection, whisper, tmp_path):
        """By the file beside the weights."""
        self.build(connection, whisper)
        connection.execute(f"EXPORT MODEL reader TO '{tmp_path}'")
        program = (
            "import sys; sys.modules['thanosql'] = None\n"
            "import torch, transformers\n"
            f"model = transformers.AutoModelForCTC.from_pretrained({str(tmp_path)!r}, "
            "trust_remote_code=True).eval()\n"
            "mels = torch.randn(2, model.config.encoder_config.num_mel_bins, 200, "
            "generator=torch.Generator().manual_seed(0))\n"
            "mask = torch.ones(2, 200, dtype=torch.long); mask[1, 120:] = 0\n"
            "with torch.no_grad():\n"
            "    logits = model(input_features=mels, attention_mask=mask).logits\n"
            "    alone = model(input_features=mels[1:, :, :120]).logits\n"
            "assert torch.equal(logits[1, :60], alone[0]), 'padding counts'\n"
            "print(type(model).__module__.split('.')[0], tuple(logits.shape[:2]))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False
        )
        assert done.stdout.strip() == "transformers_modules (2, 100)", done.stderr

    def predicted(self, connection, model, batch_size):
        return connection.execute(
            f"SELECT predicted, words FROM (PREDICT USING {model} OPTIONS "
            f"(words=TRUE, batch_size={batch_size}) AS SELECT audio FROM clips)"
        ).fetchall()

    def test_it_is_built_from_a_stored_model_too(self, connection, whisper):
        connection.execute(f"IMPORT MODEL writer FROM '{whisper}'")
        assert self.build(connection, "writer")

    def test_another_objective_than_the_models_is_refused(self, connection, whisper):
        connection.execute(f"IMPORT MODEL writer FROM '{whisper}'")
        with pytest.raises(OptionError, match="BUILD MODEL"):
            connection.execute(
                "FIT MODEL w2 USING writer OPTIONS (objective='ctc') "
                "AS SELECT audio, text FROM clips"
            )
        with pytest.raises(OptionError, match="trained by 'seq2seq'"):
            connection.execute(
                "BUILD MODEL w2 USING writer OPTIONS (objective='transducer') "
                "AS SELECT audio, text FROM clips"
            )

    def test_an_adapter_of_layers_yet_to_come_is_refused(self, connection, whisper):
        with pytest.raises(OptionError, match=r"adapter: with objective='ctc'"):
            self.build(connection, whisper, ", adapter=TRUE")
        assert connection.execute("LIST MODELS").fetchall() == []
