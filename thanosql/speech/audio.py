"""A path, a URL or an encoded file in; its waveform out: mono, 16 kHz, float32.

load("a.flac", None)            relative to the working directory
load("a.flac", Path("clips"))   relative to another
load("s3://bucket/a.mp3", None) any URL fsspec opens
load(blob, None)                the bytes of an encoded file
"""

from __future__ import annotations

import os
import re
from fractions import Fraction
from io import BytesIO
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit
from urllib.request import url2pathname

import fsspec
import numpy as np
import soundfile
import torch
import torchaudio

from thanosql.errors import AudioError
from thanosql.speech.place import check_url, open_file

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SAMPLE_RATE = 16_000  # Hz; what every base is trained on

LONGEST = 12 * 3_600  # seconds of a recording; a few KB can decode to gigabytes

_LOWEST_RATE = 1_000  # Hz; below, a header is more likely wrong than the recording so
_HIGHEST_RATE = 1_000_000  # Hz; the filter between two rates is as wide as their ratio
# Two rates without a common factor would need a filter of gigabytes (44101 Hz). Their
# ratio is rounded to one of whole numbers up to this: at most wrong by 0.03 % (close to
# 16 kHz), for most rates by less than a millionth, and by nothing for all usual ones.
_LARGEST_DENOMINATOR = 2_000
# fsspec chains protocols: simplecache::s3://bucket/a.wav. One letter is a drive.
_URL = re.compile(r"[a-z][a-z0-9+.-]+(::[a-z][a-z0-9+.-]*)*://", re.IGNORECASE)


def load(value: object, root: Path | None) -> NDArray[np.float32]:
    """Return the waveform of a recording: (samples,), mono, 16 kHz, -1..1.

    value: a path (str or PathLike; relative to `root`, else to the working directory),
    a URL, or the bytes of an encoded file (wav, flac, ogg, mp3: what libsndfile reads,
    told by content, not by name). Channels are averaged.

    Raises AudioError that names the file and what is wrong with it.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return _decode(BytesIO(value), "the BLOB", size=memoryview(value).nbytes)
    if isinstance(value, str) and _URL.match(value):
        if not value.lower().startswith("file://"):
            check_url(value, root)
            return _load_url(value)
        value = url2pathname(urlsplit(value).path)
    if isinstance(value, str | os.PathLike):
        return _load_path(value, root)
    what = "NULL" if value is None else f"{type(value).__name__} {value!r:.40}"
    message = f"the audio is {what}; a path, a URL or a BLOB is expected"
    raise AudioError(message)


def seconds(waveform: NDArray[np.float32]) -> float:
    """Return the duration of a waveform of 16 kHz."""
    return len(waveform) / SAMPLE_RATE


def _load_path(value: str | os.PathLike[str], root: Path | None) -> NDArray[np.float32]:
    with open_file(value, root) as file:
        # libsndfile gets the descriptor: it reads faster than through Python, and no
        # name has to be encoded for it.
        size = os.fstat(file.fileno()).st_size
        return _decode(file.fileno(), repr(os.fsdecode(value)), size=size)


def _load_url(url: str) -> NDArray[np.float32]:
    try:
        with fsspec.open(url, "rb") as file:
            content = cast("bytes", file.read())
    except Exception as error:
        # Each protocol's package raises its own; ImportError says which one to install.
        reason = f"{type(error).__name__}: {error}" if str(error) else repr(error)
        message = f"cannot read {url!r}: {reason}"
        raise AudioError(message) from error
    return _decode(BytesIO(content), repr(url), size=len(content))


def _decode(file: BytesIO | int, name: str, size: int) -> NDArray[np.float32]:
    """Decode an open file; `size` bytes long, `name` says which in an error."""
    if size == 0:
        message = f"{name} is empty: it has no bytes"
        raise AudioError(message)
    try:
        with soundfile.SoundFile(file, closefd=False) as decoder:
            rate = decoder.samplerate
            _check_rate(rate, name)
            if decoder.frames > LONGEST * rate:
                message = f"{name} is longer than {LONGEST // 3_600} hours; cut it"
                raise AudioError(message)
            samples = decoder.read(dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip(" .")
        message = (
            f"{name} is not whole, or no audio that can be decoded (libsndfile: "
            f"{reason}); wav, flac, ogg and mp3 can, others after: ffmpeg -i FILE "
            "FILE.flac"
        )
        raise AudioError(message) from error
    if len(samples) == 0:
        message = f"{name} has no samples"
        raise AudioError(message)
    waveform = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
    if not np.isfinite(waveform).all():
        message = f"{name} has samples that are no numbers (NaN or infinite)"
        raise AudioError(message)
    return _resample(np.ascontiguousarray(waveform), rate)


def _check_rate(rate: int, name: str) -> None:
    if not _LOWEST_RATE <= rate <= _HIGHEST_RATE:
        amount = "few" if rate < _LOWEST_RATE else "many"
        message = f"{name} has {rate} samples a second, too {amount} for speech"
        raise AudioError(message)


def _resample(waveform: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    if rate == SAMPLE_RATE:
        return waveform
    ratio = Fraction(rate, SAMPLE_RATE).limit_denominator(_LARGEST_DENOMINATOR)
    resampled = torchaudio.functional.resample(
        torch.from_numpy(waveform), ratio.numerator, ratio.denominator
    )
    return cast("NDArray[np.float32]", resampled.numpy())
