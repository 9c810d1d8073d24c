"""Recordings of every kind as waveforms of 16 kHz, or an error that says why not."""

from __future__ import annotations

import csv
import io
import os
import random
import struct
import sys
from fractions import Fraction
from functools import cache
from pathlib import Path

import fsspec
import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st

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
            "'bad.wav' .*no audio .*(Format not recogn|Invalid data)",
        ),
        (encoded(tone(16_000)[:0], 16_000), "'bad.wav' has no samples"),
        (
            encoded(tone(16_000), 16_000)[:44],
            "'bad.wav' is not whole: it is cut, 16000",
        ),
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


# Whole, or an error

CONTAINERS = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "NIST", "FLAC", "OGG")
KINDS = [
    (name, coding)
    for name in (*CONTAINERS, "MP3")
    for coding in soundfile.available_subtypes(name)
]


def speechlike(count: int = 20_480, seed: int = 0) -> np.ndarray:
    """Return noise with pauses: a variable bit rate varies on it."""
    generator = np.random.default_rng(seed)
    loud = np.repeat(generator.random(count // 1_000 + 1) > 0.4, 1_000)[:count]
    return (generator.normal(0, 0.1, count) * loud).astype(np.float32)


@cache
def recorded(container: str, coding: str, channels: int = 1) -> bytes:
    file = io.BytesIO()
    samples = np.tile(speechlike()[:, None], channels)
    try:
        soundfile.write(file, samples, 16_000, format=container, subtype=coding)
    except soundfile.LibsndfileError as error:
        pytest.skip(f"libsndfile does not write it: {error}")
    return file.getvalue()


def whole_or_error(content: bytes) -> np.ndarray | None:
    try:
        return load(content, None)
    except AudioError:
        return None


@pytest.mark.parametrize(("container", "coding"), KINDS)
def test_a_cut_recording_is_an_error_or_is_heard_whole(container, coding):
    content = recorded(container, coding)
    expected = load(content, None)
    places = {int(len(content) * part / 24) for part in range(24)}
    for place in places | {len(content) - 1, len(content) * 2 // 5}:
        found = whole_or_error(content[:place])
        assert found is None or np.array_equal(found, expected), place
    with pytest.raises(AudioError, match="not whole"):
        load(content[: len(content) * 2 // 5], None)


@given(st.sampled_from(sorted(FORMATS)), st.floats(0, 1, exclude_max=True))
@settings(max_examples=150, deadline=None)
def test_wherever_it_is_cut_no_recording_is_heard_in_part(kind, part):
    content = recorded(*FORMATS[kind])
    found = whole_or_error(content[: int(len(content) * part)])
    assert found is None or np.array_equal(found, load(content, None))


def test_a_cut_file_is_told_wherever_it_lies(tmp_path):
    content = recorded("WAV", "PCM_16")[:9_000]
    (tmp_path / "a.wav").write_bytes(content)
    with fsspec.open("memory://clips/cut.wav", "wb") as file:
        file.write(content)
    for value in (content, tmp_path / "a.wav", "memory://clips/cut.wav"):
        with pytest.raises(AudioError, match="it is cut, 32004 of the bytes"):
            load(value, None)


@pytest.mark.parametrize(("container", "coding"), KINDS)
def test_two_recordings_in_one_file_are_both_heard_or_an_error(container, coding):
    content = recorded(container, coding)
    found = whole_or_error(content + content)
    # An AU of G.72x, W64 and NIST have no end that libsndfile keeps to.
    assert found is None or len(found) >= 2 * 20_480


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("count", [65_536, 131_072])
def test_two_flac_files_in_one_are_an_error_whatever_their_length(count, channels):
    file = io.BytesIO()
    samples = np.tile(speechlike(count)[:, None], channels)
    soundfile.write(file, samples, 16_000, format="FLAC")
    assert len(load(file.getvalue(), None)) == count
    with pytest.raises(AudioError, match="not whole"):
        load(file.getvalue() * 2, None)


@pytest.mark.parametrize("kind", ["ogg vorbis", "ogg opus", "mp3", "wav"])
def test_the_error_says_that_recordings_are_joined(kind):
    first, second = recorded(*FORMATS[kind]), encoded(tone(16_000), 16_000, kind)
    with pytest.raises(AudioError, match=r"more than one recording.*ffmpeg"):
        load(first + second, None)


@pytest.mark.parametrize("first", sorted(FORMATS.keys() - {"mp3"}))
@pytest.mark.parametrize("second", ["wav", "flac", "ogg vorbis"])
def test_a_recording_of_another_kind_behind_the_first_is_told(first, second):
    behind = encoded(tone(16_000), 16_000, second)
    with pytest.raises(AudioError, match=r"more than one recording|not whole"):
        load(encoded(tone(16_000), 16_000, first) + behind, None)


@pytest.mark.parametrize("tags", [b"", b"TAG" + b"x" * 125])
def test_mp3_files_with_tags_are_whole_and_told_apart(tags):
    plain = recorded("MP3", "MPEG_LAYER_III")
    tagged = b"ID3\4\0\0\0\0\1\0" + bytes(128) + plain + tags
    assert np.array_equal(load(tagged, None), load(plain, None))
    with pytest.raises(AudioError, match="more than one recording"):
        load(tagged + tagged, None)
    with pytest.raises(AudioError, match="not whole"):
        load(tagged[: len(tagged) // 2], None)


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_an_mp3_without_an_info_header_is_heard_to_its_end(mode, rate):
    file = io.BytesIO()
    samples = speechlike(rate * 3)
    soundfile.write(
        file, samples, rate, format="MP3", bitrate_mode=mode, compression_level=0.4
    )
    content = file.getvalue()
    expected = load(content, None)
    start = content.find(content[:2], 4)  # behind the frame that holds the header
    bare = content[start:]
    found = load(bare, None)
    delay = len(found) - len(expected)
    assert 0 <= delay < 0.1 * SAMPLE_RATE  # of encoder and decoder, not told any more
    lags = [
        np.abs(found[lag : lag + 40_000] - expected[:40_000]).mean()
        for lag in range(delay + 1)
    ]
    assert min(lags) < 0.3 * np.abs(expected).mean()  # 1 and more elsewhere
    assert len(load(bare + bare, None)) > 2 * len(expected)
    with pytest.raises(AudioError, match="not whole"):
        load(bare[:-1], None)


@pytest.mark.parametrize(
    "length", [0, 0xFFFFFFFF, 0x7FFFF000, 0x7FFFFFFF, 0x80000000, 2**32 - 45]
)
@pytest.mark.parametrize("riff", [0, 0xFFFFFFFF])
def test_a_wav_written_to_a_pipe_is_read_to_its_end(length, riff, tmp_path):
    content = bytearray(recorded("WAV", "PCM_16"))
    expected = load(bytes(content), None)
    content[4:8], content[40:44] = struct.pack("<I", riff), struct.pack("<I", length)
    assert np.array_equal(load(bytes(content), None), expected)
    (tmp_path / "a.wav").write_bytes(content)
    assert np.array_equal(load(tmp_path / "a.wav", None), expected)


def test_other_containers_of_unknown_length_are_read_to_their_end():
    sound = bytearray(recorded("AU", "PCM_16"))
    sound[8:12] = b"\xff" * 4
    assert len(load(bytes(sound), None)) == 20_480
    sound = bytearray(recorded("AIFF", "PCM_16"))
    place = sound.find(b"SSND")
    sound[4:8] = sound[place + 4 : place + 8] = bytes(4)
    assert len(load(bytes(sound), None)) == 20_480


@pytest.mark.parametrize(
    "behind",
    [
        b"LIST" + struct.pack("<I", 4) + b"INFO",
        b"LIST" + struct.pack("<I", 400) + b"INFO",  # cut, but not of the sound
        bytes(1_000),
        b"\0",
        b"TAG" + b"x" * 125,
    ],
)
@pytest.mark.parametrize("kind", ["wav", "wav, float", "ogg opus", "mp3"])
def test_what_lies_behind_a_recording_and_is_none_does_no_harm(kind, behind):
    content = recorded(*FORMATS[kind])
    assert np.array_equal(load(content + behind, None), load(content, None))


def test_a_wav_with_no_samples_but_with_notes_has_none():
    content = (
        encoded(tone(16_000)[:0], 16_000) + b"LIST" + struct.pack("<I4s", 4, b"INFO")
    )
    with pytest.raises(AudioError, match="no samples"):
        load(content, None)


@pytest.mark.parametrize("kind", ["ogg vorbis", "ogg opus"])
def test_a_damaged_page_of_an_ogg_is_an_error(kind):
    content = recorded(*FORMATS[kind])
    generator = random.Random(0)
    for _ in range(40):
        spoiled = bytearray(content)
        spoiled[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        with pytest.raises(AudioError):
            load(bytes(spoiled), None)


def test_an_ogg_whose_end_is_not_marked_says_how_to_mark_it():
    content = recorded("OGG", "OPUS")
    last = content.rfind(b"OggS")
    for cut in (content[:last], content[: content.rfind(b"OggS", 0, last)]):
        with pytest.raises(AudioError, match=r"not whole.*ffmpeg -i FILE -c copy"):
            load(cut, None)


def test_a_container_whose_end_is_not_known_is_refused_by_name():
    file = io.BytesIO()
    soundfile.write(file, tone(16_000), 16_000, format="IRCAM", subtype="PCM_16")
    with pytest.raises(AudioError, match="is a IRCAM file, of which cannot be told"):
        load(file.getvalue(), None)


# Channels


def stereo(*channels: np.ndarray) -> np.ndarray:
    samples = np.stack(channels, axis=1).astype(np.float32)
    return load(encoded(samples, 16_000, "wav, float"), None)


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one, other)[0, 1])


@pytest.mark.parametrize("level", [1, 0.9, 0.7])
def test_channels_of_opposite_sign_do_not_cancel(level):
    voice = speechlike(100_000)
    assert stereo(voice, -level * voice) == pytest.approx(
        voice * (1 + level) / 2, abs=1e-6
    )


def voices(count: int) -> np.ndarray:
    """Return noise whose spectrum is speech's: most of it from 100 to 1000 Hz."""
    return np.convolve(speechlike(count), np.hanning(24), "same").astype(np.float32)


@pytest.mark.parametrize("decibels", [40, 20, 10])
def test_a_microphone_of_opposite_polarity_adds_to_the_other(decibels):
    generator = np.random.default_rng(1)
    voice = voices(200_000)
    noise = generator.normal(0, voice.std() * 10 ** (-decibels / 20), (2, len(voice)))
    found = stereo(voice + noise[0], -voice + noise[1])
    assert abs(correlation(found, voice)) > 0.95


def test_of_more_channels_those_that_cancel_are_turned():
    one, other = speechlike(90_000), speechlike(90_000, seed=1)
    silence = np.zeros_like(one)
    assert stereo(one, -one, silence) == pytest.approx(one * 2 / 3, abs=1e-6)
    for channels in (
        (one, -one, other),
        (one, other, -one, -other),
        (one, 4 * other, -one),
    ):
        found = stereo(*channels)
        assert abs(correlation(found, one)) > 0.2
        assert abs(correlation(found, other)) > 0.2


def test_channels_that_cancel_in_one_stretch_only_do_not_there():
    one, other = speechlike(150_000), speechlike(150_000, seed=1)
    found = stereo(np.concatenate([one, other]), np.concatenate([-one, other]))
    assert correlation(found[:120_000], one[:120_000]) > 0.99
    assert abs(correlation(found[200_000:], other[50_000:])) > 0.99


@given(st.integers(1, 200), st.floats(0.05, 1.0), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_ordinary_channels_are_averaged_to_the_bit(delay, level, seed):
    voice, other = voices(70_000), speechlike(70_000, seed=seed + 1)
    offset = np.float32(0.2)
    hum = np.sin(np.arange(70_000) * (2 * np.pi * 50 / 16_000)).astype(np.float32)
    later = np.concatenate([np.zeros(delay, np.float32), voice[:-delay]])
    for left, right in (
        (voice, level * voice),
        (voice, np.zeros_like(voice)),
        (voice, other),
        (voice, later),
        (voice + offset, level * voice - offset),
        (voice + 0.1 * hum, voice - 0.1 * hum),
    ):
        pair = np.stack([left, right], axis=1).astype(np.float32)
        assert np.array_equal(stereo(left, right), pair.mean(axis=1))
