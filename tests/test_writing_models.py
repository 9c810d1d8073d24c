"""A model that writes text by itself, used and trained by the same statements."""

import io
import json
from contextlib import closing

import numpy as np
import pytest
import soundfile
import torch
from tones import spoken, tones
from toys import whisper
from transformers import (
    AutoFeatureExtractor,
    AutoModelForSpeechSeq2Seq,
    AutoTokenizer,
)
from transformers.modeling_outputs import BaseModelOutput

import thanosql
from thanosql import errors
from thanosql.catalog.sample import words
from thanosql.speech.recognizers import families
from thanosql.speech.sound.audio import load

LANGUAGES = ("en", "ko")


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    return {
        "english": whisper(tmp_path_factory.mktemp("english")),
        "polyglot": whisper(tmp_path_factory.mktemp("polyglot"), LANGUAGES),
    }


@pytest.fixture
def imported(connection, directories):
    """Return the connection, with a Whisper of random weights for two seconds."""
    for name, directory in directories.items():
        connection.execute(f"IMPORT MODEL {name} FROM '{directory}'")
    return connection


def wav(waveform, rate=16_000):
    file = io.BytesIO()
    soundfile.write(file, waveform.astype(np.float32), rate, format="WAV")
    return file.getvalue()


def test_details_say_how_a_recording_was_heard(imported):
    cursor = imported.execute(
        "PREDICT USING english OPTIONS (details=True, vad=False) AS SELECT ? AS audio",
        (tones("ab" * 20),),
    )
    names = [column[0] for column in cursor.description]
    assert names == ["audio", "predicted", "details"]
    ((_, text, details),) = cursor.fetchall()
    found = json.loads(details)
    assert list(found) == [
        "language",
        "language_probability",
        "speech_seconds",
        "windows",
        "windows_heard_again",
        "repeats_itself",
        "compression_ratio",
        "token_probability",
    ]
    assert text
    assert found["windows"] == 4
    assert found["language"] == "en"
    assert found["speech_seconds"] is None
    assert 0 < found["token_probability"] < 1
    assert 0 <= found["windows_heard_again"] <= 4


def test_details_of_a_ctc_model_are_what_it_knows(connection):
    connection.execute("GET MODEL TinyEn")
    ((_, details, error), *_) = connection.execute(
        "SELECT predicted, details, error FROM (PREDICT USING TinyEn OPTIONS "
        "(details=True, vad=True, on_error='null') AS SELECT ? AS audio)",
        (tones("abc"),),
    ).fetchall()
    found = json.loads(details)
    assert found["language"] is None
    assert found["token_probability"] is None
    assert found["speech_seconds"] == 0
    assert found["windows"] == 0
    assert error is None


def test_a_bad_recording_has_no_details(imported):
    rows = imported.execute(
        "SELECT details, error FROM (PREDICT USING english OPTIONS (details=True, "
        "on_error='null') AS SELECT 'nowhere.wav' AS audio)"
    ).fetchall()
    assert rows[0][0] is None
    assert "nowhere.wav" in rows[0][1]


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("language='en'", "writes the language that it was trained on"),
        ("task='transcribe'", "cannot translate"),
        ("prompt='Mr. Quilter'", "scores every frame by itself"),
    ],
)
def test_a_ctc_model_refuses_options_of_others_with_a_reason(
    connection, option, reason
):
    connection.execute("GET MODEL TinyEn")
    name = option.partition("=")[0]
    for statement in ("PREDICT", "EVALUATE"):
        with pytest.raises(errors.OptionError, match=f"option {name} .*{reason}"):
            connection.execute(
                f"{statement} USING TinyEn OPTIONS ({option}) "
                "AS SELECT ? AS audio, 'a' AS text",
                (tones("a"),),
            ).fetchall()


@pytest.mark.parametrize("option", ["language='en'", "task='translate'"])
def test_a_training_of_a_ctc_model_refuses_them_too(connection, option):
    with pytest.raises(errors.OptionError, match="a CTC model"):
        connection.execute(
            f"BUILD MODEL m USING TinyEn OPTIONS ({option}) "
            "AS SELECT ? AS audio, 'a' AS text",
            (tones("a"),),
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("language='de'", "the model has no language 'de'; it knows en, ko"),
        ("task='sing'", "option task takes"),
        ("beam_size=0", "option beam_size takes"),
        ("vad='maybe'", "option vad takes"),
        ("prompt=''", "option prompt takes"),
    ],
)
def test_a_wrong_value_is_named(imported, options, message):
    with pytest.raises(errors.OptionError, match=message):
        imported.execute(
            f"PREDICT USING polyglot OPTIONS ({options}) AS SELECT ? AS audio",
            (tones("a"),),
        ).fetchall()


@pytest.mark.parametrize("seconds", ["0.01", "1"])
def test_windows_in_which_nothing_can_be_understood_are_refused(imported, seconds):
    with pytest.raises(errors.OptionError, match=r"too little for the model.*2 is the"):
        imported.execute(
            f"PREDICT USING english OPTIONS (chunk_seconds={seconds}) "
            "AS SELECT ? AS audio",
            (tones("a"),),
        ).fetchall()


def test_an_english_model_says_that_it_cannot_translate(imported):
    with pytest.raises(errors.OptionError, match="English only, so it cannot trans"):
        imported.execute(
            "PREDICT USING english OPTIONS (task='translate') AS SELECT ? AS audio",
            (tones("a"),),
        ).fetchall()


def not_speech():
    """Yield kinds of sound in which nobody speaks, four seconds of each."""
    random = np.random.default_rng(0)
    time = np.arange(4 * 16_000) / 16_000
    yield "silence", np.zeros_like(time)
    yield "hum", 0.2 * np.sin(2 * np.pi * 50 * time)
    yield "noise", random.normal(0, 0.05, len(time))
    yield "a tone", 0.3 * np.sin(2 * np.pi * 1000 * time)
    room = np.convolve(random.normal(0, 1, len(time)), np.ones(64) / 64, "same")
    yield "a quiet room", 0.003 * room


@pytest.mark.parametrize(("name", "waveform"), [*not_speech()])
def test_nothing_is_written_where_nobody_speaks(imported, name, waveform):
    statement = "SELECT predicted FROM (PREDICT USING english {} AS SELECT ? AS audio)"
    audio = (wav(waveform),)
    assert imported.execute(statement.format(""), audio).fetchone() == ("",)
    heard_all = statement.format("OPTIONS (vad=False)")
    assert imported.execute(heard_all, audio).fetchone() != ("",)


def test_build_fit_and_evaluate_work_as_for_any_model(imported, directories):
    imported.execute("CREATE TABLE clips(audio, text)")
    imported.executemany("INSERT INTO clips VALUES (?, ?)", spoken(24))
    imported.commit()
    epochs = imported.execute(
        f"""BUILD MODEL mine USING '{directories["english"]}'
            OPTIONS (epochs=30, batch_size=4, learning_rate=5e-3, validation=0,
                     freeze_encoder=False)
            AS SELECT * FROM clips"""
    ).fetchall()
    assert len(epochs) == 30
    imported.execute(
        "FIT MODEL mine USING mine OPTIONS (epochs=1, validation=0, overwrite=True) "
        "AS SELECT * FROM clips"
    )
    with pytest.warns(errors.Warning, match="trained on"):
        cursor = imported.execute(
            "EVALUATE USING mine OPTIONS (vad=False) AS SELECT * FROM clips"
        )
    names = [column[0] for column in cursor.description]
    scores = dict(zip(names, cursor.fetchone(), strict=True))
    assert scores["rows"] == 24
    assert scores["cer"] < 0.5


def test_a_model_of_several_languages_is_trained_in_one(
    imported, directories, tmp_path
):
    imported.execute("CREATE TABLE clips(audio, text)")
    imported.executemany("INSERT INTO clips VALUES (?, ?)", spoken(12))
    imported.commit()
    statement = f"""BUILD MODEL mine USING '{directories["polyglot"]}'
                    OPTIONS (epochs=4, learning_rate=1e-3, language=?)
                    AS SELECT * FROM clips"""
    with pytest.raises(errors.OptionError, match="say which one the texts are in"):
        imported.execute(statement, (None,))
    imported.execute(statement, ("Korean",))
    imported.execute(f"EXPORT MODEL mine TO '{tmp_path / 'exported'}'")
    written = json.loads((tmp_path / "exported/generation_config.json").read_text())
    assert (written["language"], written["task"]) == ("ko", "transcribe")
    told = imported.execute(
        "SELECT value FROM (DESCRIBE MODEL mine) "
        "WHERE property IN ('option language', 'option task')"
    ).fetchall()
    assert told == [("ko",), ("transcribe",)]
    ((details,),) = imported.execute(
        "SELECT details FROM (PREDICT USING mine OPTIONS (details=True, vad=False) "
        "AS SELECT audio FROM clips LIMIT 1)"
    ).fetchall()
    found = json.loads(details)
    assert (found["language"], found["language_probability"]) == ("ko", None)


def test_a_window_that_a_model_is_trained_on_goes_where_it_goes(
    imported, directories, tmp_path
):
    imported.execute("CREATE TABLE clips(audio, text)")
    imported.executemany("INSERT INTO clips VALUES (?, ?)", spoken(6))
    imported.commit()
    imported.execute(
        f"""BUILD MODEL mine USING '{directories["english"]}'
            OPTIONS (epochs=1, validation=0, window='short') AS SELECT * FROM clips"""
    )
    imported.execute(
        "FIT MODEL mine USING mine OPTIONS (epochs=1, validation=0) "
        "AS SELECT * FROM clips"
    )
    told = "SELECT value FROM (DESCRIBE MODEL mine) WHERE property = 'option window'"
    assert imported.execute(told).fetchone() == ("short",)
    exported = tmp_path / "exported"
    imported.execute(f"EXPORT MODEL mine TO '{exported}'")
    assert json.loads((exported / "config.json").read_text())["audio_window"] == "short"
    AutoModelForSpeechSeq2Seq.from_pretrained(exported)
    imported.execute(f"IMPORT MODEL again FROM '{exported}'")
    texts = [
        imported.execute(
            f"SELECT predicted FROM (PREDICT USING {name} OPTIONS (vad=False) "
            "AS SELECT audio FROM clips)"
        ).fetchall()
        for name in ("mine", "again")
    ]
    assert texts[0] == texts[1]


def test_a_window_is_refused_by_a_model_that_needs_none(connection, base):
    connection.execute("CREATE TABLE clips(audio, text)")
    connection.executemany("INSERT INTO clips VALUES (?, ?)", spoken(6))
    connection.commit()
    with pytest.raises(errors.OptionError, match="option window is for a model that"):
        connection.execute(
            f"BUILD MODEL m USING '{base}' OPTIONS (window='short') "
            "AS SELECT * FROM clips"
        )


# The model that comes with the package


@pytest.fixture(scope="module")
def tiny_en(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny_en") / "tiny_en.db"
    with closing(thanosql.connect(path)) as connection:
        connection.execute("GET MODEL WhisperTinyEn")
        connection.execute("GET DATASET readings")
        yield connection


def test_it_reads_people_offline(tiny_en):
    rows = tiny_en.execute(
        "EVALUATE USING WhisperTinyEn OPTIONS (per_row=True) "
        "AS SELECT * FROM readings_people"
    )
    names = [column[0] for column in rows.description]
    found = [dict(zip(names, row, strict=True)) for row in rows]
    assert len(found) == 5
    wrong = ("substitutions", "deletions", "insertions")
    errors_found = sum(row[name] for row in found for name in wrong)
    assert errors_found / sum(row["words"] for row in found) < 0.1
    # It writes as people write.
    assert any("." in row["predicted"] for row in found)
    assert any(row["predicted"] != row["predicted"].lower() for row in found)


def test_speech_nothing_for_20_seconds_and_speech_give_both_parts(tiny_en):
    random = np.random.default_rng(0)
    parts = []
    for text in ("turn on the kitchen lights", "play music in the garden"):
        known = [word for word in text.split() if word in words.vocabulary()]
        assert len(known) > 1
        waveform, _ = soundfile.read(io.BytesIO(words.say(" ".join(known))))
        parts.append((known, waveform))
    nothing = random.normal(0, 0.001, 20 * 16_000)
    audio = wav(np.concatenate([parts[0][1], nothing, parts[1][1]]))
    ((text, details),) = tiny_en.execute(
        "SELECT predicted, details FROM (PREDICT USING WhisperTinyEn "
        "OPTIONS (details=True) AS SELECT ? AS audio)",
        (audio,),
    ).fetchall()
    heard = text.lower()
    for known, _ in parts:
        assert sum(word in heard for word in known) >= len(known) - 1, heard
    assert 1 < json.loads(details)["speech_seconds"] < 10


@pytest.mark.thorough(seconds=150)
def test_on_real_recordings_texts_are_those_of_generate_whatever_the_batch(
    tiny_en, speech, tmp_path
):
    directory = tmp_path / "exported"
    tiny_en.execute(f"EXPORT MODEL WhisperTinyEn TO '{directory}'")
    model = AutoModelForSpeechSeq2Seq.from_pretrained(directory).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    recognizer = families.recognizer(
        model, tokenizer, AutoFeatureExtractor.from_pretrained(directory)
    )
    clips = speech("librispeech", "test")[:60]
    decoding = recognizer.decoding()
    with torch.inference_mode():
        features = [recognizer.features(load(path, None)) for path, _ in clips]
        frames = recognizer.encoded(features)

        def texts(batches):
            found = {}
            for batch in batches:
                heard = recognizer.scores([frames[i] for i in batch], decoding)
                found |= {i: each.text for i, each in zip(batch, heard, strict=True)}
            return found

        order = list(range(len(clips)))
        expected = texts([i] for i in order)
        for size in (5, 16):
            batches = [order[i : i + size] for i in range(0, len(order), size)]
            assert texts(batches) == expected
            assert texts(batch[::-1] for batch in batches) == expected
        for i, each in enumerate(frames):
            outputs = BaseModelOutput(last_hidden_state=each[None])
            (tokens,) = model.generate(encoder_outputs=outputs)
            text = tokenizer.decode(tokens, skip_special_tokens=True)
            assert text.strip() == expected[i]


@pytest.mark.thorough(seconds=120)
def test_a_recording_joined_from_clips_reads_as_well_as_its_clips(tiny_en, speech):
    clips = speech("librispeech", "test")[:30]
    joined = np.concatenate(
        [
            part
            for path, _ in clips
            for part in (load(path, None), np.zeros(8_000, np.float32))
        ]
    )
    tiny_en.execute("CREATE TEMP TABLE IF NOT EXISTS clips(audio, text)")
    tiny_en.executemany("INSERT INTO clips VALUES (?, ?)", clips)
    statement = "SELECT wer FROM (EVALUATE USING WhisperTinyEn {} AS {})"
    english = "OPTIONS (normalize='english')"
    ((apart,),) = tiny_en.execute(
        statement.format(english, "SELECT * FROM clips")
    ).fetchall()
    text = " ".join(text for _, text in clips)
    ((together,),) = tiny_en.execute(
        statement.format(english, "SELECT ? AS audio, ? AS text"), (wav(joined), text)
    ).fetchall()
    assert together - apart <= 0.01
