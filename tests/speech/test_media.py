"""What FFmpeg decodes for us, where PyAV is installed: whole, or an error."""

from __future__ import annotations

import io
import random
import sys
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile

import thanosql
from thanosql.errors import AudioError
from thanosql.speech.sound.audio import load, original_rate

sys.path.insert(0, str(Path(__file__).parents[1] / "hardening"))
from damage import damaged

av = pytest.importorskip("av", reason="the extra [media] is not installed")

KINDS = {
    "a.m4a": ("ipod", "aac", 48_000),
    "b.mp4": ("mp4", "aac", 44_100),
    "c.webm": ("webm", "libopus", 48_000),
    "d.mkv": ("matroska", "flac", 16_000),
    "e.mov": ("mov", "pcm_s16le", 16_000),
    "f.aac": ("adts", "aac", 48_000),
    "g.amr": ("amr", "libopencore_amrnb", 8_000),
    "h.3gp": ("3gp", "aac", 48_000),
    "i.m4a": ("ipod", "alac", 44_100),
}
EXACT = ("d.mkv", "e.mov")
# An .aac or .amr is a row of frames, and says nowhere how many.
TOLD = [name for name in KINDS if name not in ("f.aac", "g.amr")]


def voice(rate: int, seconds: float = 3.0) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 0.1, int(rate * seconds))
    width = rate // 700
    return (np.convolve(noise, np.hanning(width), "same") / 3).astype(np.float32)


@cache
def recorded(name: str) -> bytes:
    container, codec, rate = KINDS[name]
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(voice(rate)[None], "flt", "mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        context = stream.codec_context
        convert = av.AudioResampler(
            context.format, "mono", rate, context.frame_size or None
        )
        for part in (*convert.resample(frame), *convert.resample(None)):
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    return file.getvalue()


@pytest.mark.parametrize("name", KINDS)
def test_what_ffmpeg_decodes_has_length_rate_and_sound(name, tmp_path):
    content, rate = recorded(name), KINDS[name][2]
    found = load(content, None)
    assert len(found) == pytest.approx(48_000, abs=500)
    file = io.BytesIO()
    soundfile.write(file, voice(rate), rate, format="WAV", subtype="PCM_16")
    expected = load(file.getvalue(), None)
    if name in EXACT:
        assert np.abs(found - expected).max() < 2 / 32_768
    correlations = [
        np.corrcoef(found[lag : lag + 40_000], expected[:40_000])[0, 1]
        for lag in range(500)  # an .aac and .amr keep their encoder's delay
    ]
    # AMR is made for voices, and this is noise.
    assert max(correlations) > (0.4 if name == "g.amr" else 0.9)
    assert name in ("f.aac", "g.amr") or np.argmax(correlations) == 0
    assert original_rate(content, None) == rate
    (tmp_path / name).write_bytes(content)
    assert np.array_equal(load(name, tmp_path), found)


@pytest.mark.parametrize("name", TOLD)
def test_a_cut_file_is_an_error_or_is_heard_whole(name):
    content = recorded(name)
    expected = load(content, None)
    for place in (*range(1, len(content), len(content) // 30), len(content) - 1):
        try:
            found = load(content[:place], None)
        except AudioError:
            continue
        assert np.array_equal(found, expected), place
    with pytest.raises(AudioError, match="not whole"):
        load(content[: len(content) * 2 // 5], None)
    with pytest.raises(AudioError, match="more than one recording"):
        load(content + content, None)


def test_damage_is_heard_or_refused():
    generator = random.Random(3)
    outcomes = []
    for _ in range(300):
        name = generator.choice([*KINDS])
        _, spoiled = damaged(recorded(name), generator)
        try:
            outcomes.append(len(load(spoiled, None)) > 0)
        except AudioError:
            outcomes.append(False)
    assert 50 < sum(outcomes) < 250


def test_no_playlist_leads_ffmpeg_to_another_file():
    playlist = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"
    for content in (playlist, b"ffconcat version 1.0\nfile '/etc/passwd'\n"):
        with pytest.raises(AudioError, match="no audio that can be decoded"):
            load(content, None)


def test_copy_and_predict_take_the_same_files(calls, tmp_path):
    for name in KINDS:
        (tmp_path / name).write_bytes(recorded(name))
    calls.execute("COPY t FROM ?", (str(tmp_path),))
    found = calls.execute("SELECT name, seconds, sample_rate, channels FROM t")
    assert [(name, round(seconds, 1), *rest) for name, seconds, *rest in found] == [
        (name, 3.0, rate, 1) for name, (_, _, rate) in KINDS.items()
    ]
    assert len(calls.execute("PREDICT USING m AS SELECT audio FROM t").fetchall()) == 9


def test_a_video_gives_its_sound_and_one_without_is_an_error():
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        picture = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
        for number in range(10):
            picture.pts = number
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))
    with pytest.raises(thanosql.AudioError, match="has no sound"):
        load(file.getvalue(), None)
