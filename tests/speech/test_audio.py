"""Recordings of every kind as waveforms of 16 kHz, or an error that says why not."""

from __future__ import annotations

import csv
import io
import os
import sys
from fractions import Fraction
from pathlib import Path

import fsspec
import numpy as np
import pytest
import soundfile
import torch
import torchaudio

from thanosql.errors import AudioError
from thanosql.speech.sound.audio import SAMPLE_RATE, blocks, load, seconds

SPEECH = Path(__file__).parents[3] / "shared" / "speech"
FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "wav, 24 bits": ("WAV", "PCM_24"),
    "wav, float": ("WAV", "FLOAT"),
    "flac": ("FLAC", "PCM_16"),
    "ogg vorbis": ("OGG", "VORBIS"),
    "ogg opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}


def tone(rate: int, duration: float = 0.5, frequency: float = 440.0) -> np.ndarray:
    samples = np.arange(int(rate * duration))
    return np.sin(samples * (2 * np.pi * frequency / rate)).astype(np.float32) / 2


def encoded(waveform: np.ndarray, rate: int, kind: str = "wav") -> bytes:
    file = io.BytesIO()
    container, coding = FORMATS[kind]
    soundfile.write(file, waveform, rate, format=container, subtype=coding)
    return file.getvalue()


def pitch(waveform: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), 1 << 18))
    return float(spectrum.argmax() * SAMPLE_RATE / (1 << 18))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
def test_every_format_keeps_pitch_length_and_level(kind, rate, tmp_path):
    content = encoded(tone(rate), rate, kind)
    waveform = load(content, None)
    assert waveform.dtype == np.float32
    assert waveform.ndim == 1
    assert abs(len(waveform) - 8_000) <= 1
    assert pitch(waveform) == pytest.approx(440, abs=1)
    assert np.abs(waveform[2000:6000]).max() == pytest.approx(0.5, abs=0.05)
    path = tmp_path / "recording"  # told by content: the name says nothing
    path.write_bytes(content)
    assert np.array_equal(load(path, None), waveform)


@pytest.mark.parametrize("rate", [11_025, 22_050, 32_000, 44_100, 96_000, 192_000])
def test_every_usual_rate_becomes_16_khz(rate):
    waveform = load(encoded(tone(rate), rate), None)
    assert abs(len(waveform) - 8_000) <= 1
    assert pitch(waveform) == pytest.approx(440, abs=0.5)


@pytest.mark.parametrize("rate", [7_919, 15_999, 22_051, 44_101])
def test_a_rate_without_a_common_factor_needs_no_giant_filter(rate):
    waveform = load(encoded(tone(rate), rate), None)
    assert len(waveform) == pytest.approx(8_000, rel=0.0004)
    assert pitch(waveform) == pytest.approx(440, abs=0.5)


def test_what_16_khz_cannot_hold_is_filtered_out():
    waveform = load(encoded(tone(48_000, frequency=12_000), 48_000), None)
    assert np.abs(waveform[100:-100]).max() < 0.01


def test_channels_are_averaged():
    left, right = tone(16_000), tone(16_000, frequency=1_000)
    stereo = load(encoded(np.stack([left, right], axis=1), 16_000, "wav, float"), None)
    assert stereo == pytest.approx((left + right) / 2, abs=1e-6)
    six = np.repeat(left[:, None], 6, axis=1)
    assert load(encoded(six, 16_000, "wav, float"), None) == pytest.approx(left)


def test_16_khz_mono_is_not_touched():
    samples = tone(16_000)
    assert np.array_equal(load(encoded(samples, 16_000, "wav, float"), None), samples)
    assert seconds(samples) == 0.5


def test_bytes_of_any_type_are_a_blob():
    content = encoded(tone(16_000), 16_000)
    expected = load(content, None)
    for blob in (bytearray(content), memoryview(content)):
        assert np.array_equal(load(blob, None), expected)


def test_paths_are_found_where_they_should_be(tmp_path, monkeypatch):
    (tmp_path / "clips").mkdir()
    path = tmp_path / "clips" / "a b%20é.wav"
    path.write_bytes(encoded(tone(16_000), 16_000))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for value, root in [
        (str(path), None),
        (path, None),
        (str(path), tmp_path),
        (path.name, path.parent),
        (path.name, Path("clips")),
        (f"clips/{path.name}", None),
        (f"~/clips/{path.name}", None),
        (path.as_uri(), None),
        (path.as_uri().replace("file:///", "FILE://localhost/"), None),
    ]:
        assert len(load(value, root)) == 8_000


@pytest.mark.skipif(sys.platform != "linux", reason="other systems forbid such names")
def test_a_name_that_is_not_utf_8_opens(tmp_path):
    name = os.fsdecode(b"caf\xe9.wav")
    (tmp_path / name).write_bytes(encoded(tone(16_000), 16_000))
    assert len(load(name, tmp_path)) == 8_000
    with pytest.raises(AudioError, match="No such file"):
        load(name + "x", tmp_path)


def test_a_url_opens_through_fsspec(tmp_path):
    content = encoded(tone(16_000), 16_000, "flac")
    with fsspec.open("memory://clips/a.flac", "wb") as file:
        file.write(content)
    assert len(load("memory://clips/a.flac", None)) == 8_000
    chained = f"simplecache::{(tmp_path / 'a.flac').as_uri()}"
    (tmp_path / "a.flac").write_bytes(content)
    assert len(load(chained, None)) == 8_000


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("memory://clips/none.wav", "FileNotFoundError"),
        ("nosuch://clips/a.wav", "Protocol not known: nosuch"),
        ("file:///nowhere/a%20b.wav", "'/nowhere/a b.wav': No such file"),
    ],
)
def test_a_url_that_cannot_be_read_says_why(url, reason):
    with pytest.raises(AudioError, match=reason):
        load(url, None)


@pytest.mark.parametrize(
    ("url", "way_out"),
    [
        ("https://host/a.wav", r"; pip install 'fsspec\[http\]'"),
        ("simplecache::s3://bucket/a.wav", r"; pip install 'fsspec\[s3\]'"),
        ("gs://bucket/a.wav", r"; pip install 'fsspec\[gs\]'"),
        ("webhdfs://host/a.wav", "no library"),  # which no extra of fsspec's brings
    ],
)
def test_a_url_whose_library_is_missing_says_how_to_install_it(
    monkeypatch, url, way_out
):
    def opened(*_arguments):  # as fsspec does, wherever these libraries are not
        message = "no library"
        raise ImportError(message)

    monkeypatch.setattr(fsspec, "open", opened)
    with pytest.raises(AudioError, match=rf"{way_out}$"):
        load(url, None)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        (b"", "'bad.wav' is empty: it has no bytes"),
        (
            b"hello, this is text\n" * 50,
            "'bad.wav' .*no audio .*Format not recogn.*ffmp",
        ),
        (encoded(tone(16_000)[:0], 16_000), "'bad.wav' has no samples"),
        (encoded(tone(16_000), 16_000)[:44], "'bad.wav' has no samples"),
        (encoded(tone(16_000), 16_000, "ogg opus")[:200], "'bad.wav' is not whole"),
        (encoded(tone(16_000), 16_000, "mp3")[:100], "'bad.wav' is not whole"),
        (encoded(tone(16_000), 16_000, "flac")[:3000], "'bad.wav' is not whole"),
        (encoded(tone(500), 500), "'bad.wav' has 500 samples a second, too few"),
        (
            encoded(np.full(99, np.nan, np.float32), 16_000, "wav, float"),
            "'bad.wav' has samples that are no numbers",
        ),
        (
            encoded(np.full((99, 2), [1, np.inf], np.float32), 16_000, "wav, float"),
            "'bad.wav' has samples that are no numbers",
        ),
    ],
)
def test_a_bad_file_is_named_with_the_reason(content, reason, tmp_path):
    if content is not None:
        (tmp_path / "bad.wav").write_bytes(content)
    with pytest.raises(AudioError, match=reason):
        load("bad.wav", tmp_path)
    if content is not None:
        with pytest.raises(AudioError, match=reason.replace("'bad.wav'", "the BLOB")):
            load(content, None)


def test_a_missing_file_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(
        AudioError,
        match=rf"'a\.wav' .*\(in .*{tmp_path.name}\).* start in audio_root$",
    ):
        load("a.wav", tmp_path)
    with pytest.raises(
        AudioError, match="start in the working directory, unless audio_root names an"
    ):
        load("a.wav", None)
    with pytest.raises(AudioError, match=r"No such file or directory$"):
        load(str(tmp_path / "a.wav"), None)


def test_a_directory_is_no_recording(tmp_path):
    with pytest.raises(AudioError, match=r"cannot read .*[Dd]irectory|denied"):
        load(tmp_path, None)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "the audio is NULL"),
        (5, "the audio is int 5; a path, a URL or a BLOB is expected"),
        (2.5, "the audio is float 2.5"),
        ("", "the audio is an empty path"),
        ("a\0b.wav", "null"),
        ("~nobody-of-this-name/a.wav", "home directory|No such file"),
    ],
)
def test_a_value_that_is_no_recording_says_what_it_is(value, reason):
    with pytest.raises(AudioError, match=reason):
        load(value, None)


@pytest.mark.skipif(not SPEECH.exists(), reason="the recordings are not here")
def test_real_recordings_last_as_long_as_their_manifest_says():
    with (SPEECH / "misc" / "manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    # One of each container, rate and channel count.
    kinds = {(r["format"], r["sample_rate"], r["channels"]): r for r in rows}
    assert len(kinds) > 8
    for row in kinds.values():
        waveform = load(row["audio"], SPEECH / "misc")
        assert seconds(waveform) == pytest.approx(float(row["seconds"]), abs=0.05)
        assert 0.001 < np.abs(waveform).max() < 1.5


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 44_101, 48_000])
def test_resampling_by_pieces_is_resampling_the_whole(rate):
    waveform = np.random.default_rng(0).normal(0, 0.1, rate * 5 + 17)
    content = encoded(waveform, rate, "wav, float")
    ratio = Fraction(rate, SAMPLE_RATE).limit_denominator(2_000)
    whole = torchaudio.functional.resample(
        torch.from_numpy(waveform.astype(np.float32)),
        ratio.numerator,
        ratio.denominator,
    )
    pieces = [*blocks(content, None)]
    assert len(pieces) > 1
    joined = np.concatenate(pieces)
    assert len(joined) == len(whole)
    assert np.abs(joined - whole.numpy()).max() < 1e-6


@pytest.mark.parametrize("kind", FORMATS)
def test_decoding_by_pieces_is_decoding_the_whole(kind):
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000 * 9)
    content = encoded(noise, 16_000, kind)
    whole, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    pieces = [*blocks(content, None)]
    assert len(pieces) > 1
    joined = np.concatenate(pieces)
    assert len(joined) == len(whole)
    assert np.abs(joined - whole).max() < 1e-6


def test_a_file_is_read_no_further_than_asked(tmp_path):
    content = encoded(tone(16_000, 60), 16_000, "wav")
    path = tmp_path / "broken.wav"
    samples = np.zeros(16_000 * 60, np.float32)
    samples[-1] = np.nan
    path.write_bytes(encoded(samples, 16_000, "wav, float"))
    pieces = blocks(path, None)
    assert len(next(pieces)) < 16_000 * 5
    pieces.close()
    with pytest.raises(AudioError, match="no numbers"):
        load(path, None)
    assert len(load(content, None)) == 16_000 * 60


def test_a_header_that_claims_hours_costs_no_memory():
    content = bytearray(encoded(tone(16_000), 16_000))
    content[4:8] = content[40:44] = (2**32 - 100).to_bytes(4, "little")
    assert len(load(bytes(content), None)) == 8_000
