"""A path, a URL or an encoded file in; its waveform out: mono, 16 kHz, float32.

load("a.flac", None)            relative to the working directory
load("a.flac", Path("clips"))   relative to another
load("s3://bucket/a.mp3", None) any URL fsspec opens
load(blob, None)                the bytes of an encoded file

`blocks` takes the same and gives the waveform piece by piece, so that an hour of it
need never be in memory; `load` joins these very pieces.
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import closing, contextmanager
from fractions import Fraction
from functools import lru_cache
from importlib import metadata
from io import BytesIO
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING, cast
from urllib.parse import urlsplit
from urllib.request import url2pathname

import fsspec
import numpy as np
import soundfile
import torch
import torchaudio

from thanosql.errors import AudioError
from thanosql.speech.sound.files import check_url, open_file

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
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
_UNKNOWN = 2**62  # samples; libsndfile says 2**63 - 1 where a header says none
_BLOCK = 2**16  # samples of each channel that are decoded at a time
_IN_MEMORY = 2**25  # bytes of a download; beyond, it goes to a temporary file
# fsspec chains protocols: simplecache::s3://bucket/a.wav. One letter is a drive.
_URL = re.compile(r"[a-z][a-z0-9+.-]+(::[a-z][a-z0-9+.-]*)*://", re.IGNORECASE)


def load(value: object, root: Path | None) -> NDArray[np.float32]:
    """Return the waveform of a recording: (samples,), mono, 16 kHz, -1..1.

    value: a path (str or PathLike; relative to `root`, else to the working directory),
    a URL, or the bytes of an encoded file (wav, flac, ogg, mp3: what libsndfile reads,
    told by content, not by name). Channels are averaged.

    Raises AudioError that names the file and what is wrong with it.
    """
    with closing(blocks(value, root)) as pieces:
        return np.concatenate([*pieces])


def blocks(
    value: object, root: Path | None
) -> Generator[NDArray[np.float32], None, None]:
    """Yield the waveform that `load` returns, piece by piece, each (samples,).

    The file is read onwards as pieces are asked for, whatever length it claims, and
    closed behind the last one or with the generator. Raises what `load` raises, once
    the reading has come to it.
    """
    with _opened(value, root) as (file, size, name):
        if size == 0:
            message = f"{name} is empty: it has no bytes"
            raise AudioError(message)
        try:
            with _Onwards(file, closefd=False) as decoder:
                _check_rate(decoder.samplerate, name)
                yield from _resampled(_decoded(decoder, name), decoder.samplerate)
        except soundfile.LibsndfileError as error:
            reason = error.error_string.strip(" .")
            message = (
                f"{name} is not whole, or no audio that can be decoded (libsndfile: "
                f"{reason}); wav, flac, ogg and mp3 can, others after: ffmpeg -i FILE "
                "FILE.flac"
            )
            raise AudioError(message) from error


def original_rate(value: object, root: Path | None) -> int:
    """Return the samples a second that a recording has of itself; raises as `load`."""
    with _opened(value, root) as (file, _, _), _Onwards(file, closefd=False) as decoder:
        return int(decoder.samplerate)


def seconds(waveform: NDArray[np.float32]) -> float:
    """Return the duration of a waveform of 16 kHz."""
    return len(waveform) / SAMPLE_RATE


@contextmanager
def _opened(
    value: object, root: Path | None
) -> Iterator[tuple[IO[bytes] | int, int, str]]:
    """Open a recording: what libsndfile reads, its bytes, its name for errors."""
    if isinstance(value, bytes | bytearray | memoryview):
        yield BytesIO(value), memoryview(value).nbytes, "the BLOB"
        return
    if isinstance(value, str) and _URL.match(value):
        if not value.lower().startswith("file://"):
            check_url(value, root)
            with _downloaded(value) as file:
                size = file.tell()
                file.seek(0)
                yield file, size, repr(value)
            return
        value = url2pathname(urlsplit(value).path)
    if isinstance(value, str | os.PathLike):
        with open_file(value, root) as file:
            # libsndfile gets the descriptor: it reads faster than through Python, and
            # no name has to be encoded for it.
            size = os.fstat(file.fileno()).st_size
            yield file.fileno(), size, repr(os.fsdecode(value))
        return
    what = "NULL" if value is None else f"{type(value).__name__} {value!r:.40}"
    message = f"the audio is {what}; a path, a URL or a BLOB is expected"
    raise AudioError(message)


@contextmanager
def _downloaded(url: str) -> Iterator[IO[bytes]]:
    """Open a copy of what a URL gives: not every protocol can read from the middle."""
    with SpooledTemporaryFile(max_size=_IN_MEMORY) as copy:
        try:
            with fsspec.open(url, "rb") as file:
                shutil.copyfileobj(file, copy, 2**20)
        except Exception as error:
            # Each protocol's package raises its own.
            reason = f"{type(error).__name__}: {error}" if str(error) else repr(error)
            message = f"cannot read {url!r}: {reason}"
            if isinstance(error, ImportError):
                message += _way_to_read(url)
            raise AudioError(message) from error
        yield cast("IO[bytes]", copy)


def _way_to_read(url: str) -> str:
    """Return the command that installs what fsspec lacks for a URL, if it has one."""
    protocol = url.partition("://")[0].rpartition("::")[2]
    extra = {"https": "http", "s3a": "s3"}.get(protocol, protocol)
    if extra not in (metadata.metadata("fsspec").get_all("Provides-Extra") or ()):
        return ""
    return f"; pip install 'fsspec[{extra}]'"


class _Onwards(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is only ever read onwards.

    soundfile seeks behind what it has read, after each read; in an MP3 that loses what
    the decoder keeps for the next frame, and some samples with it.
    """

    def seekable(self) -> bool:
        return False


def _decoded(decoder: _Onwards, name: str) -> Iterator[NDArray[np.float32]]:
    """Yield the samples of an open file, channels averaged, at its own rate."""
    read, most = 0, LONGEST * decoder.samplerate
    while len(samples := decoder.read(_BLOCK, dtype="float32", always_2d=True)):
        read += len(samples)
        # What a header claims may be wrong, or far too much, or unknown.
        if read > most or most < decoder.frames < _UNKNOWN:
            message = f"{name} is longer than {LONGEST // 3_600} hours; cut it"
            raise AudioError(message)
        mono = samples[:, 0] if samples.shape[1] == 1 else samples.mean(axis=1)
        if not np.isfinite(mono).all():
            message = f"{name} has samples that are no numbers (NaN or infinite)"
            raise AudioError(message)
        yield mono
    if not read:
        message = f"{name} has no samples"
        raise AudioError(message)


def _check_rate(rate: int, name: str) -> None:
    if not _LOWEST_RATE <= rate <= _HIGHEST_RATE:
        amount = "few" if rate < _LOWEST_RATE else "many"
        message = f"{name} has {rate} samples a second, too {amount} for speech"
        raise AudioError(message)


def _resampled(
    pieces: Iterable[NDArray[np.float32]], rate: int
) -> Iterator[NDArray[np.float32]]:
    """Yield a waveform at 16 kHz, given piece by piece at another rate.

    The filter is as wide as a few samples, so a piece is resampled together with a
    margin to either side, whose own results are dropped: what is left is what
    resampling the whole at once would give.
    """
    ratio = Fraction(rate, SAMPLE_RATE).limit_denominator(_LARGEST_DENOMINATOR)
    if ratio == 1:
        yield from pieces
        return
    taken, given = ratio.numerator, ratio.denominator  # samples, each time round
    resample = _resampler(taken, given)
    margin = (resample.width // taken + 2) * taken
    held: NDArray[np.float32] = np.empty(0, np.float32)
    lead = 0  # samples of `held` that are there only as a margin
    for piece in pieces:
        held = np.concatenate([held, piece])
        due = lead + max(0, len(held) - lead - margin) // taken * taken
        if due > lead:
            result = resample(torch.from_numpy(held[: due + margin])).numpy()
            yield result[lead // taken * given : due // taken * given]
            start = max(0, due - margin)
            held, lead = held[start:], due - start
    yield resample(torch.from_numpy(held)).numpy()[lead // taken * given :]


@lru_cache(maxsize=4)  # the filter of an odd rate takes some 30 MB
def _resampler(taken: int, given: int) -> torchaudio.transforms.Resample:
    return torchaudio.transforms.Resample(taken, given, dtype=torch.float32)
