"""TinyEn, the base in the package: whatever weights it has, these hold."""

import json
import tomllib
from pathlib import Path

import make_speech
import numpy as np
import pack
import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers.utils import logging

from thanosql.catalog.bases import BASES, LEARNING_RATE
from thanosql.speech.opening.opening import open_base
from thanosql.speech.sound.audio import load

ROOT = Path(__file__).parents[2]
TINY = BASES["TinyEn"]
FOLDER = TINY.directory


@pytest.fixture
def sentences(connection):
    """Return a connection with the sample's tables and TinyEn stored as it is."""
    connection.execute("GET DATASET sample")
    connection.execute("GET MODEL TinyEn")
    return connection


@pytest.fixture
def quiet():
    logging.disable_progress_bar()
    yield
    logging.enable_progress_bar()


def no_texts():
    raise AssertionError


def test_it_takes_at_most_twelve_megabytes():
    assert 1_000_000 < TINY.bytes <= 12_000_000


def test_it_opens_without_a_network_in_32_bits():
    recognizer = open_base("tinyen", no_texts)
    assert {p.dtype for p in recognizer.model.parameters()} == {torch.float32}
    assert recognizer.model.num_parameters() == pytest.approx(TINY.parameters, rel=0.01)
    spelled = recognizer.spelling.normalize("It's an OX, zebra & quick fjord").text
    assert spelled == "it's an ox zebra quick fjord"


def test_its_matrices_lie_in_16_bits_and_are_opened_to_the_same_values():
    state = load_file(FOLDER / "model.safetensors")
    assert {t.dtype for t in state.values() if t.dim() > 1} == {torch.float16}
    opened = open_base("TinyEn", no_texts).model.state_dict()
    assert opened.keys() == state.keys()
    assert all(
        torch.equal(opened[name], state[name].to(t.dtype)) for name, t in opened.items()
    )


def test_transformers_opens_it_and_reads_the_same(sentences, quiet):
    processor = transformers.AutoProcessor.from_pretrained(FOLDER)
    model = transformers.AutoModelForCTC.from_pretrained(FOLDER).eval()
    assert model.dtype == torch.float32
    (audio, ours) = sentences.execute(
        "SELECT audio, predicted FROM (PREDICT USING TinyEn OPTIONS (precision='fp32') "
        "AS SELECT audio FROM commands_test LIMIT 1)"
    ).fetchone()
    waveform = load(audio, None)
    inputs = processor(waveform, sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**inputs).logits
    (theirs,) = processor.batch_decode(logits.argmax(-1))
    assert theirs.split() == ours.split()


def test_it_hears_english_as_it_ships(sentences):
    cer = sentences.execute(
        "SELECT cer FROM (EVALUATE USING TinyEn AS SELECT audio, text "
        "FROM commands_test)"
    ).fetchone()[0]
    assert cer < 0.6  # untrained it would be 1; the docs say what it is


def test_its_learning_rate_is_the_default_for_what_comes_from_it(
    thanosql_trained, thanosql_base
):
    assert TINY.learning_rate != LEARNING_RATE
    train = (
        "OPTIONS (max_steps=1, batch_size=2, validation=0 {}) "
        "AS SELECT audio, text FROM spoken LIMIT 2"
    )
    for statement in (
        "FIT MODEL further USING tiny",
        "BUILD MODEL anew USING tiny",
        "BUILD MODEL again USING further",
        f"BUILD MODEL bare USING '{thanosql_base}'",
    ):
        thanosql_trained.execute(f"{statement} {train.format('')}")
    thanosql_trained.execute(
        f"FIT MODEL said USING tiny {train.format(', learning_rate=1e-7')}"
    )
    used = {
        name: thanosql_trained.execute(
            f"SELECT value FROM (DESCRIBE MODEL {name}) "
            "WHERE property = 'option learning_rate'"
        ).fetchone()[0]
        for name in ("tiny", "further", "anew", "again", "bare", "said")
    }
    ours = TINY.learning_rate
    assert used == {
        "tiny": ours, "further": ours, "anew": ours, "again": ours,
        "bare": LEARNING_RATE, "said": 1e-7,
    }  # fmt: skip
    highest = thanosql_trained.execute(
        "SELECT max(e.learning_rate) FROM thanosql_epochs AS e "
        "JOIN thanosql_runs AS r ON r.id = e.run_id WHERE r.model_name = 'tiny'"
    ).fetchone()[0]
    assert 0 < highest <= ours


def test_models_named_in_a_circle_have_a_default_too(thanosql_trained):
    thanosql_trained.execute("UPDATE thanosql_models SET base = 'tiny'")
    thanosql_trained.commit()
    thanosql_trained.execute(
        "FIT MODEL tiny USING tiny OPTIONS (max_steps=1, validation=0) "
        "AS SELECT audio, text FROM spoken LIMIT 2"
    )
    assert thanosql_trained.execute(
        "SELECT value FROM (DESCRIBE MODEL tiny) "
        "WHERE property = 'option learning_rate'"
    ).fetchone() == (LEARNING_RATE,)


def test_it_is_listed_with_what_is_known_of_it(connection):
    rows = connection.execute("SELECT * FROM (LIST BASES) WHERE name = 'TinyEn'")
    names = [column[0] for column in rows.description]
    tiny = dict(zip(names, rows.fetchone(), strict=True))
    assert tiny["bytes"] == TINY.bytes
    assert "LibriSpeech" in tiny["data"]
    told = dict(connection.execute("DESCRIBE BASE tinyen"))
    assert told["learning_rate"] == TINY.learning_rate
    assert dict(connection.execute("DESCRIBE BASE Wav2Vec2En"))["bytes"] is None


def test_the_error_rate_that_is_listed_is_the_one_measured():
    path = ROOT / "benchmarks/results/tiny_en.json"
    if TINY.wer is None:
        assert not path.exists(), "write the measured WER into thanosql/bases.py"
        return
    measured = json.loads(path.read_text(encoding="utf-8"))["measurements"]
    unseen = measured["as it ships: unseen LibriSpeech speakers"]
    assert pytest.approx(unseen["wer"], abs=0.005) == TINY.wer


def test_its_licences_come_with_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert "thanosql/catalog/NOTICE" in project["license-files"]
    notice = (FOLDER.parent / "NOTICE").read_text(encoding="utf-8")
    for name in ("hibari-tts", "Kokoro-82M", "flite", "espeak-ng", "LibriSpeech"):
        assert name in notice


def test_packing_halves_the_matrices_and_leaves_the_rest(tmp_path):
    recognizer = open_base("ParakeetTiny", lambda: ["abc"])
    recognizer.save(tmp_path / "exported")
    size = pack.pack(tmp_path / "exported", tmp_path / "packed")
    whole = (tmp_path / "exported" / "model.safetensors").stat().st_size
    assert 0.5 * whole < size < 0.55 * whole
    packed = open_base(str(tmp_path / "packed"), no_texts)
    assert packed.tokenizer.get_vocab() == recognizer.tokenizer.get_vocab()
    for name, tensor in recognizer.model.state_dict().items():
        other = packed.model.state_dict()[name]
        if tensor.dim() > 1:
            assert torch.equal(other, tensor.half().float())
        else:
            assert torch.equal(other, tensor)


def test_what_is_packed_is_the_average_of_what_was_exported(tmp_path):
    folders = [tmp_path / name for name in ("one", "other", "average")]
    states = []
    for folder in folders[:2]:
        recognizer = open_base("ParakeetTiny", lambda: ["abc"])
        recognizer.save(folder)
        states.append(recognizer.model.state_dict())
    folders[2].mkdir()
    pack.average(folders[:2], folders[2])
    average = open_base(str(folders[2]), no_texts).model.state_dict()
    one, other = states
    assert any(not torch.equal(one[name], other[name]) for name in one)
    for name, tensor in average.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, (one[name] + other[name]) / 2)
        else:
            assert torch.equal(tensor, one[name])


def test_packing_refuses_what_16_bits_cannot_hold(tmp_path):
    recognizer = open_base("ParakeetTiny", lambda: ["abc"])
    recognizer.model.state_dict()["ctc_head.weight"][0] = 1e6
    recognizer.save(tmp_path / "exported")
    with pytest.raises(ValueError, match=r"ctc_head.weight is beyond"):
        pack.pack(tmp_path / "exported", tmp_path / "packed")


def test_packing_compares_transcripts_row_by_row(calls, tmp_path):
    calls.execute("EXPORT MODEL m TO ?", (str(tmp_path / "m"),))
    calls.commit()
    database = calls.apsw.filename
    texts = pack.transcripts(
        Path(database), "SELECT audio FROM calls", tmp_path / "m", tmp_path / "m"
    )
    assert len(texts) == 8
    assert all(before == after for before, after in texts)


@pytest.mark.parametrize(
    ("sentence", "parts"),
    [
        ("He came, and left.", ["He came, and left."]),
        ("Too short.", []),
        ("In 1851 he came again.", []),
        ("LOUD AND CLEAR AGAIN", []),
        (
            "one two three four five six seven eight nine ten eleven twelve, "
            "one two three four five six seven eight nine ten eleven twelve thirteen",
            [
                "one two three four five six seven eight nine ten eleven twelve,",
                "one two three four five six seven eight nine ten eleven twelve "
                "thirteen",
            ],
        ),
    ],
)
def test_sentences_are_cut_where_a_voice_takes_breath(sentence, parts):
    assert list(make_speech._parts(sentence)) == parts


def test_a_transcript_is_letters_and_apostrophes():
    given = "'Twas the night--John's, I say: 'go!'"
    assert make_speech.normalized(given) == "twas the night john's i say go"


def test_a_recording_is_cut_to_what_is_heard():
    from voices import SAMPLE_RATE, Spoken, trimmed

    waveform = np.zeros(3 * SAMPLE_RATE, np.float32)
    waveform[SAMPLE_RATE : 2 * SAMPLE_RATE] = 0.1
    kept = trimmed(Spoken(waveform, SAMPLE_RATE, "nobody"), margin=0.1)
    assert len(kept) == pytest.approx(1.2 * SAMPLE_RATE, abs=2)
    assert abs(kept).max() == pytest.approx(0.7)
    silence = Spoken(np.zeros(100, np.float32), SAMPLE_RATE, "nobody")
    assert len(trimmed(silence, margin=0.1)) == 100
