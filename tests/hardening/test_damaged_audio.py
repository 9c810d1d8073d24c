"""Damaged recordings: heard or refused by row and reason; audio_root as a jail."""

import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_corpus import FORMATS, encoded
from damage import damaged
from tones import tones

import thanosql
from thanosql.speech.sound import audio, containers

CORPUS = Path(__file__).with_name("audio_corpus.py")


@pytest.mark.thorough(seconds=60)
def test_every_damaged_recording_is_heard_or_refused(base):
    seed, count, hours = 2, 450, 1
    arguments = [str(base), str(seed), str(count), str(hours)]
    ran = subprocess.run(
        [sys.executable, str(CORPUS), *arguments],
        capture_output=True,
        text=True,
        timeout=500,
        stdin=subprocess.DEVNULL,
    )
    # A library may write lines of its own (tokenizers: "Ignored unknown kwarg").
    lines = (line for line in ran.stdout.splitlines() if line.startswith("{"))
    results = [*map(json.loads, lines)]
    assert ran.returncode == 0, (results[-1:], ran.stderr[-2000:])
    assert len(results) > count + 50
    odd = [
        each
        for each in results
        if each["outcome"] not in ("heard", "AudioError")
        or (each["outcome"] == "AudioError" and "row 2: " not in each["message"])
        or each["grown_mib"] > 2500
    ]
    assert odd == []
    assert sum(each["outcome"] == "heard" for each in results) > count / 3


def test_a_container_is_told_whole_or_not_whatever_its_bytes():
    generator = random.Random(7)
    whole = [encoded(form=form, subtype=subtype) for form, subtype in FORMATS]
    outcomes = set()
    for _ in range(3_000):
        _, spoiled = damaged(generator.choice(whole), generator)
        try:
            containers.check(io.BytesIO(spoiled), len(spoiled), "it")
            outcomes.add("")
        except thanosql.AudioError as error:
            outcomes.add(str(error)[:14])
    assert outcomes == {"", "it is not whol", "it is more tha"}


@pytest.fixture
def jail(_calls, tmp_path):
    """Return a connection whose audio_root is a folder beside one with a recording."""
    (tmp_path / "root" / "sub").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    for folder in ("root", "root/sub", "outside"):
        (tmp_path / folder / "a.wav").write_bytes(tones("abc"))
    (tmp_path / "root" / "link.wav").symlink_to(tmp_path / "outside" / "a.wav")
    (tmp_path / "root" / "folder").symlink_to(tmp_path / "outside")
    (tmp_path / "root" / "inner.wav").symlink_to("sub/a.wav")
    connection = thanosql.connect(_calls, audio_root=tmp_path / "root")
    yield connection
    connection.close()


def hear(connection, value):
    sql = "SELECT predicted FROM (PREDICT USING m AS SELECT ? AS audio)"
    return connection.execute(sql, (value,)).fetchall()


@pytest.mark.parametrize(
    "value",
    [
        "a.wav",
        "sub/../a.wav",
        "sub/a.wav",
        "inner.wav",
        "./a.wav",
        "{root}/a.wav",
        "file://{root}/sub/a.wav",
    ],
)
def test_what_lies_under_audio_root_is_heard(value, jail, tmp_path):
    heard = hear(jail, value.replace("{root}", str(tmp_path / "root")))
    assert heard == hear(jail, tones("abc"))


@pytest.mark.parametrize(
    "value",
    [
        "../outside/a.wav",
        "sub/../../outside/a.wav",
        "{outside}/a.wav",
        "link.wav",
        "folder/a.wav",
        "/dev/zero",
        "/etc/passwd",
        "~/a.wav",
        "..",
        "../root-/a.wav",
        "file://{outside}/a.wav",
        "FILE://{outside}/a.wav",
        "file:///etc/passwd",
        "file://{root}/..%2Foutside/a.wav",
        "sub/../folder/../../outside/a.wav",
    ],
)
def test_nothing_leads_out_of_audio_root(value, jail, tmp_path):
    value = value.replace("{outside}", str(tmp_path / "outside"))
    value = value.replace("{root}", str(tmp_path / "root"))
    with pytest.raises(thanosql.AudioError, match=r"row 1: .* leads out of audio_root"):
        hear(jail, value)


@pytest.mark.parametrize(
    "value",
    [
        "http://127.0.0.1:9/a.wav",
        "s3://bucket/a.wav",
        "local:///etc/passwd",
        "simplecache::file:///etc/passwd",
        "zip://a.wav::/etc/a.zip",
        "memory://a.wav",
    ],
)
def test_no_url_is_asked_for_under_audio_root(value, jail, monkeypatch):
    monkeypatch.setattr("fsspec.open", lambda *_, **__: pytest.fail("asked for"))
    with pytest.raises(thanosql.AudioError, match="is not under audio_root"):
        hear(jail, value)


def test_a_pipe_is_not_waited_for(calls, tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(thanosql.AudioError, match=r"row 1: .*it is not a file"):
        hear(calls, str(tmp_path / "pipe.wav"))


def test_a_recording_longer_than_the_limit_is_refused(calls):
    rate = 1_000  # Hz; the lowest there may be
    silence = np.zeros(rate * (audio.LONGEST + 1), np.int16)
    file = io.BytesIO()
    soundfile.write(file, silence, rate, format="FLAC")
    with pytest.raises(thanosql.AudioError, match="row 1: the BLOB is longer than 12 "):
        hear(calls, file.getvalue())
