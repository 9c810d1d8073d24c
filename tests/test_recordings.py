"""On real recordings; skipped where they are not at hand."""

import io
import json
import subprocess
import sys

import jiwer
import numpy as np
import pytest
import soundfile

import thanosql


@pytest.fixture
def librispeech(connection, speech, base):
    connection.execute("CREATE TABLE clips (id INTEGER PRIMARY KEY, audio, text)")
    connection.executemany(
        "INSERT INTO clips (audio, text) VALUES (?, ?)", speech("librispeech")[:60]
    )
    connection.commit()
    connection.execute("IMPORT MODEL m FROM ?", (str(base),))
    return connection


@pytest.mark.thorough(seconds=30)
def test_no_transcript_depends_on_the_batch_size_or_the_order_of_rows(librispeech):
    found = []
    for order in ("id", "id DESC", "id * 7 % 61"):
        for size in (1, 5, 8, 16):
            rows = librispeech.execute(
                "PREDICT USING m OPTIONS (batch_size=?) "
                f"AS SELECT id, audio FROM clips ORDER BY {order}",
                (size,),
            )
            found.append({row[0]: row[2] for row in rows})
    assert len(set(found[0].values())) > 50
    assert all(each == found[0] for each in found)


def texts(connection, *recordings, options=""):
    connection.execute("CREATE TEMP TABLE IF NOT EXISTS heard (audio)")
    connection.execute("DELETE FROM heard")
    connection.executemany("INSERT INTO heard VALUES (?)", [(r,) for r in recordings])
    connection.commit()
    cursor = connection.execute(f"PREDICT USING m {options} AS SELECT audio FROM heard")
    return [row[1] for row in cursor]


@pytest.fixture
def two(connection, speech, base):
    """Return x and y, two recordings: (samples,) at 16 kHz; a model is named m."""
    connection.execute("IMPORT MODEL m FROM ?", (str(base),))
    paths = [path for path, _ in speech("librispeech")[:2]]
    return [soundfile.read(path, dtype="float32")[0] for path in paths]


def encoded(samples, container, coding):
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format=container, subtype=coding)
    return file.getvalue()


@pytest.mark.parametrize(
    ("container", "coding"),
    [
        ("WAV", "PCM_16"),
        ("FLAC", "PCM_16"),
        ("MP3", "MPEG_LAYER_III"),
        ("OGG", "OPUS"),
        ("OGG", "VORBIS"),
    ],
)
def test_a_recording_that_is_cut_or_joined_has_no_text(
    connection, two, container, coding
):
    content = encoded(np.concatenate(two), container, coding)
    joined = b"".join(encoded(each, container, coding) for each in two)
    cut = content[: len(content) * 2 // 5]
    found = texts(connection, content, cut, joined, options="OPTIONS (on_error='null')")
    assert found[0]
    assert found[1:] == [None, None]
    with pytest.raises(thanosql.AudioError, match=r"row 1: .* is not whole"):
        texts(connection, cut)


def test_channels_of_opposite_sign_have_the_text_of_one(connection, two):
    x, _ = two
    opposite = encoded(np.stack([x, -x], axis=1), "WAV", "FLOAT")
    alone, both = texts(connection, encoded(x, "WAV", "FLOAT"), opposite)
    assert alone == both != ""


def test_each_side_of_a_call_reads_exactly_as_it_does_alone(connection, two):
    # One asks for a while and then is silent; the other answers.
    asks, answers = two
    silence = [np.zeros(len(each), np.float32) for each in (answers, asks)]
    sides = [np.append(asks, silence[0]), np.append(silence[1], answers)]
    call = encoded(np.stack(sides, axis=1), "WAV", "FLOAT")
    alone = [encoded(each, "WAV", "FLOAT") for each in sides]
    with pytest.warns(thanosql.Warning, match="row 1: its channels hold different"):
        texts(connection, call)
    for options in ("", ", words=TRUE", ", chunk_seconds=3", ", vad=TRUE"):
        rows = connection.execute(
            f"PREDICT USING m OPTIONS (channel='each'{options}) "
            "AS SELECT 1, ? AS audio",
            (call,),
        ).fetchall()
        expected = [
            connection.execute(
                f"PREDICT USING m OPTIONS (channel=1{options}) AS SELECT ? AS audio",
                (each,),
            ).fetchone()[1:]
            for each in alone
        ]
        assert [row[2] for row in rows] == [1, 2]
        assert [row[3:] for row in rows] == expected
        assert len({row[3] for row in rows}) == 2


@pytest.mark.thorough(seconds=15)
def test_words_that_the_model_is_sure_of_are_wrong_less_often(connection, speech):
    connection.execute("GET MODEL TinyEn")
    connection.execute("CREATE TABLE clips (audio, text)")
    clips = speech("librispeech", "test")[:60]
    connection.executemany("INSERT INTO clips VALUES (?, ?)", clips)
    connection.commit()
    rows = connection.execute(
        "PREDICT USING TinyEn OPTIONS (words=TRUE) AS SELECT audio, text FROM clips"
    )
    right: dict[bool, list[bool]] = {True: [], False: []}
    for _, text, predicted, words, _ in rows:
        found = json.loads(words)
        assert " ".join(each["word"] for each in found) == predicted
        good = set()
        for chunk in jiwer.process_words(text, predicted).alignments[0]:
            if chunk.type == "equal":
                good.update(range(chunk.hyp_start_idx, chunk.hyp_end_idx))
        for number, each in enumerate(found):
            if each["confidence"] >= 0.9 or each["confidence"] < 0.5:
                right[each["confidence"] >= 0.9].append(number in good)
    assert min(map(len, right.values())) > 100
    assert np.mean(right[True]) > 0.8
    assert np.mean(right[False]) < 0.4


_PEAK = """
import resource, sys, thanosql
con = thanosql.connect(":memory:")
con.execute("IMPORT MODEL m FROM ?", (sys.argv[1],))
con.execute("CREATE TABLE clips (audio)")
paths = sys.argv[3:]
con.executemany(
    "INSERT INTO clips VALUES (?)",
    [(paths[i % len(paths)],) for i in range(int(sys.argv[2]))],
)
for row in con.execute("PREDICT USING m OPTIONS (batch_size=4) AS SELECT * FROM clips"):
    pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.thorough(seconds=30)
def test_memory_does_not_grow_with_the_number_of_rows(speech, base):
    paths = [path for path, _ in speech("librispeech")[:50]]
    peaks = [
        float(
            subprocess.run(
                [sys.executable, "-c", _PEAK, str(base), str(count), *paths],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for count in (50, 400)
    ]
    assert peaks[1] < 1.05 * peaks[0]


_MINUTES = """
import resource, sys, time, numpy, soundfile, thanosql
directory, path, minutes = sys.argv[1], sys.argv[2], int(sys.argv[3])
with soundfile.SoundFile(path, "w", 22_050, 1, format="FLAC") as file:
    for i in range(minutes):
        file.write(numpy.random.default_rng(i % 3).normal(0, 0.1, 60 * 22_050))
con = thanosql.connect(":memory:")
con.execute("IMPORT MODEL m FROM ?", (directory,))
(seconds,) = con.execute(
    "SELECT audio_seconds FROM (EVALUATE USING m OPTIONS (batch_size=2) "
    "AS SELECT ? AS audio, 'a' AS text)",
    (path,),
).fetchone()
assert seconds == minutes * 60
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


@pytest.mark.thorough(seconds=30)
def test_memory_does_not_grow_with_the_length_of_a_recording(base, tmp_path):
    peaks = [
        float(
            subprocess.run(
                [
                    sys.executable,
                    "-c",
                    _MINUTES,
                    base,
                    tmp_path / "a.flac",
                    str(minutes),
                ],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for minutes in (5, 20)
    ]
    assert peaks[1] < 1.05 * peaks[0]


@pytest.fixture
def small_wav2vec2(tmp_path):
    """Return a directory with nothing but the config of 1.3 million parameters."""
    config = {
        "model_type": "wav2vec2",
        "hidden_size": 144,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 576,
        "conv_dim": [64, 64, 96, 96, 128, 128, 144],
        "feat_extract_norm": "layer",
        "conv_bias": True,
        "do_stable_layer_norm": True,
        "num_conv_pos_embeddings": 32,
        "num_conv_pos_embedding_groups": 8,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def error_on_digits(connection, speech, base, options):
    """Train a base on spoken digits and return its WER on takes it never heard."""
    for split in ("train", "test"):
        connection.execute(f"CREATE TABLE digits_{split} (audio, text)")
        connection.executemany(
            f"INSERT INTO digits_{split} VALUES (?, ?)",
            speech("digits", split),
        )
    connection.commit()
    connection.execute(
        f"""
        BUILD MODEL digits USING '{base}'
        OPTIONS (batch_size=16, {options}) AS SELECT audio, text FROM digits_train
        """
    )
    (wer,) = connection.execute(
        "SELECT wer FROM (EVALUATE USING digits AS SELECT audio, text FROM digits_test)"
    ).fetchone()
    return wer


@pytest.mark.thorough(seconds=80)
def test_a_small_parakeet_learns_to_read_digits_from_nothing(connection, speech):
    options = "epochs=12, learning_rate=2e-3"
    assert error_on_digits(connection, speech, "ParakeetTiny", options) <= 0.12


@pytest.mark.thorough(seconds=60)
def test_the_base_in_the_package_learns_to_read_digits_by_default(connection, speech):
    assert error_on_digits(connection, speech, "TinyEn", "epochs=5") <= 0.12


@pytest.mark.thorough(seconds=240)
def test_a_small_wav2vec2_learns_to_read_digits_from_nothing(
    connection, speech, small_wav2vec2
):
    options = "epochs=24, learning_rate=1e-3, speed_perturbation=True"
    assert error_on_digits(connection, speech, small_wav2vec2, options) <= 0.25
