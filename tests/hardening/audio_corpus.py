"""Transcribe damaged recordings in this process; print what came of each as JSON.

    python audio_corpus.py MODEL_DIRECTORY SEED COUNT HOURS

COUNT recordings are damaged at random, after the constructed damages, among them one
of HOURS of silence, which takes ten seconds an hour. A line a case:
name, outcome ("heard" or an error's class), message, growth of memory.
"""

from __future__ import annotations

import io
import json
import os
import random
import resource
import struct
import sys
import tempfile
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import soundfile
import torch
from damage import bounded, damaged

import thanosql

GIB = 2**30
RATE = 16_000
NOISE = 0.1 * np.random.default_rng(0).normal(size=RATE // 2)
FORMATS = [
    ("WAV", "PCM_16"),
    ("WAV", "PCM_U8"),
    ("WAV", "FLOAT"),
    ("WAV", "IMA_ADPCM"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
    ("AIFF", "PCM_16"),
    ("CAF", "ALAC_16"),
    ("W64", "PCM_16"),
    ("AU", "PCM_16"),
]


def encoded(samples=NOISE, rate=RATE, form="WAV", subtype="PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    return file.getvalue()


def wav(**fields) -> bytes:
    """Return a WAV file with fields of its header changed."""
    values = {
        "riff": 36 + 16_000, "fmt": 16, "tag": 1, "channels": 1, "rate": RATE,
        "bytes": 2 * RATE, "align": 2, "bits": 16, "data": 16_000,
    } | fields  # fmt: skip
    return (
        struct.pack(
            "<4sI4s4sI", b"RIFF", values["riff"], b"WAVE", b"fmt ", values["fmt"]
        )
        + struct.pack("<HHI", values["tag"], values["channels"], values["rate"])
        + struct.pack("<IHH", values["bytes"], values["align"], values["bits"])
        + struct.pack("<4sI", b"data", values["data"])
        + (NOISE * 32_767).astype("<i2").tobytes()
    )


def hours_of_silence(path: Path, hours: int) -> None:
    """Write a recording of silence: an hour takes 70 KB."""
    with soundfile.SoundFile(path, "w", RATE, 1, "PCM_16", format="FLAC") as file:
        block = np.zeros(RATE * 60, dtype=np.int16)
        for _ in range(hours * 60):
            file.write(block)


def flac_claiming(samples: int) -> bytes:
    data = bytearray(encoded(form="FLAC"))
    # STREAMINFO: 36 bits of how many samples, behind 10 bytes and 28 bits.
    start = 8 + 13
    data[start] = (data[start] & 0xF0) | (samples >> 32 & 0x0F)
    data[start + 1 : start + 5] = (samples & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(data)


def loud(value: float) -> bytes:
    samples = NOISE.astype(np.float32)
    samples[100] = value
    return encoded(samples, subtype="FLOAT")


def recordings(folder: Path, hours: int) -> dict[str, object]:
    """Make the constructed damages; return what a row's audio is by their names."""
    os.mkfifo(folder / "fifo.wav")
    (folder / "directory.wav").mkdir()
    (folder / "zero.wav").symlink_to("/dev/zero")
    (folder / "loop.wav").symlink_to("loop.wav")
    (folder / "gone.wav").symlink_to("gone")
    (folder / "empty.wav").touch()
    (folder / "sparse.wav").touch()
    os.truncate(folder / "sparse.wav", 2**40)
    with (folder / "37_hours.wav").open("wb") as file:
        file.write(wav(data=2**32 - 100, riff=2**32 - 64))
        file.truncate(2**32)
    hours_of_silence(folder / "hours.flac", hours)
    (folder / "page.wav").write_text("<html><body>404</body></html>")
    files = sorted(folder.iterdir())
    return {
        **{path.name: str(path) for path in files},
        "/dev/zero": "/dev/zero",
        "/dev/stdin": "/dev/stdin",
        "/proc/self/mem": "/proc/self/mem",
        "/proc/self/maps": "/proc/self/maps",
        "NUL in the name": "a\0.wav",
        "a long name": "a" * 10_000,
        "a deep name": "a/" * 5_000,
        "an empty name": "",
        "spaces": "   ",
        "a user's home": "~nobody-of-that-name/a.wav",
        "file URL of a pipe": f"file://{folder}/fifo.wav",
        "file URL without a file": "file:///no/such.wav",
        "an unknown protocol": "evil://x/y.wav",
        "an unreachable host": "http://127.0.0.1:9/a.wav",
        "chained protocols": "zip://a.wav::file:///no/such.zip",
        "a number": 3,
        "a fraction": 0.5,
        "no value": None,
        "no bytes": b"",
        "one byte": b"R",
        "NUL bytes": bytes(100_000),
        "0xff bytes": b"\xff" * 100_000,
        "MP3 of nothing but sync": b"\xff\xfb\x90\x00" * 50_000,
        "an ID3 tag of 256 MB": b"ID3\x04\0\0\x7f\x7f\x7f\x7f" + bytes(100),
        "WAV: data of 4 GB": wav(data=2**32 - 1),
        "WAV: RIFF of nothing": wav(riff=0),
        "WAV: data of nothing": wav(data=0),
        "WAV: 0 channels": wav(channels=0),
        "WAV: 65 535 channels": wav(channels=65_535),
        "WAV: 0 Hz": wav(rate=0),
        "WAV: 1 Hz": wav(rate=1),
        "WAV: 1 MHz": wav(rate=10**6),
        "WAV: 4 GHz": wav(rate=2**32 - 1),
        "WAV: 0 bits": wav(bits=0, align=0),
        "WAV: 64 bits": wav(bits=64, align=8),
        "WAV: an unknown codec": wav(tag=0x1234),
        "WAV: fmt of 2 GB": wav(fmt=2**31),
        "FLAC: 2**35 samples": flac_claiming(2**35),
        "FLAC: 0 samples": flac_claiming(0),
        "FLAC: 1 sample": flac_claiming(1),
        "64 channels": encoded(np.tile(NOISE[:, None], 64)),
        "1 Hz": encoded(rate=1),
        "1 MHz": encoded(rate=10**6),
        "655 350 Hz": encoded(rate=655_350, form="FLAC"),
        "a prime rate": encoded(rate=15_991),
        "one sample": encoded(NOISE[:1]),
        "no sample": encoded(NOISE[:0]),
        "NaN": loud(float("nan")),
        "infinite": loud(float("inf")),
        "1e38": loud(1e38),
        "denormal": loud(1e-45),
        "stereo of opposite signs": encoded(np.stack([NOISE, -NOISE], 1)),
        "silence": encoded(np.zeros(RATE)),
    }


def main(model: Path, seed: int, count: int, hours: int) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    connection = thanosql.connect(":memory:")
    connection.execute("IMPORT MODEL m FROM ?", (str(model),))
    sql = "PREDICT USING m AS SELECT ? AS audio UNION ALL SELECT ?"
    whole = [encoded(form=form, subtype=subtype) for form, subtype in FORMATS]
    connection.execute(sql, (whole[0], whole[0])).fetchall()
    generator = random.Random(seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        cases = recordings(folder, hours)
        for number in range(count):
            which = generator.randrange(len(FORMATS))
            what, spoiled = damaged(whole[which], generator)
            path = folder / f"{number}.bin"
            path.write_bytes(spoiled)
            name = f"random {number}: {FORMATS[which]}: {what}"
            cases[name] = str(path) if number % 2 else spoiled
        for name, value in cases.items():
            result = {"name": name, "outcome": "heard", "message": ""}
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            try:
                with bounded(60, 3 * GIB):
                    connection.execute(sql, (whole[0], value)).fetchall()
            except thanosql.Error as error:
                result["outcome"] = type(error).__name__
                result["message"] = str(error)
            except BaseException as error:
                result["outcome"] = f"not PEP 249: {type(error).__name__}"
                result["message"] = str(error)[:500]
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
            result["grown_mib"] = grown // 1024
            sys.stdout.write(json.dumps(result) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
