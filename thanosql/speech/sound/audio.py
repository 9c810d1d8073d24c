"""Decode audio: a path, a URL or an encoded file in; mono 16 kHz float32 out.

load("a.flac", None)            relative to the working directory
load("a.flac", Path("clips"))   relative to another folder
load("s3://bucket/a.mp3", None) any URL that fsspec opens
load(blob, None)                the bytes of an encoded file
load("call.wav", None, 2)       its second channel

`blocks` takes the same and yields the waveform piece by piece, so that an hour of it
need never be in memory. `load` joins these pieces.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from fractions import Fraction
from functools import lru_cache, reduce
from importlib import metadata
from io import BytesIO, FileIO
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
from thanosql.speech import recording
from thanosql.speech.recording import FileCopy
from thanosql.speech.sound import containers, media
from thanosql.speech.sound.files import check_url, open_file

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from thanosql.speech.sound.channels import Levels

SAMPLE_RATE = recording.SAMPLE_RATE

LONGEST = 12 * 3_600  # seconds of a recording; a few KB can decode to gigabytes

_LOWEST_RATE = 1_000  # Hz; a lower rate is more likely an error in the header
_HIGHEST_RATE = 1_000_000  # Hz; the filter between two rates is as wide as their ratio
# Two rates without a common factor (44101 Hz) would need a filter of gigabytes. So
# their ratio is rounded to a fraction with a denominator up to this. The error is at
# most 0.03 % (close to 16 kHz), less than a millionth for most rates, and 0 for all
# usual ones.
_LARGEST_DENOMINATOR = 2_000
_UNKNOWN = 2**62  # samples; libsndfile returns 2**63 - 1 if a header has no number
_UNRECOGNISED = 1  # libsndfile's error code for a format that it does not know
_BLOCK = 2**16  # samples of each channel that are decoded at a time
_CANCELLED = 0.25  # of two channels' energy; if their sum has less, they cancel
_IN_MEMORY = 2**25  # bytes; a larger copy goes to a temporary file
# fsspec chains protocols: simplecache::s3://bucket/a.wav. A single letter is not a
# protocol but a drive on Windows.
_URL = re.compile(r"[a-z][a-z0-9+.-]+(::[a-z][a-z0-9+.-]*)*://", re.IGNORECASE)


def load(
    value: object, root: Path | None, channel: int | None = None
) -> NDArray[np.float32]:
    """Return the waveform of a recording: (samples,), mono, 16 kHz, -1..1.

    value: a path (str or PathLike; relative to `root`, else to the working directory),
    a URL, or the bytes of an encoded file. The format is found by content, not by name.
    channel: the one that is heard, from 1. If None, channels are averaged; if two
    cancel each other, one is inverted first.

    Raises AudioError that names the file and what is wrong with it; also if the file is
    incomplete, has a second recording after the first, or lacks the channel.
    """
    with closing(blocks(value, root, channel)) as pieces:
        return np.concatenate([*pieces])


def blocks(
    value: object,
    root: Path | None,
    channel: int | None = None,
    levels: Levels | None = None,
) -> Generator[NDArray[np.float32], None, None]:
    """Yield the waveform that `load` returns, piece by piece, each (samples,).

    The file is read as pieces are asked for, and closed after the last one or with the
    generator. levels: is told of all channels' samples on the way. Raises what `load`
    raises, when the reading reaches the fault.
    """
    with _samples(value, root) as (name, rate, samples):
        _check_rate(rate, name)
        if channel is not None:
            samples = _alone(samples, channel, name)
        elif levels is not None:
            samples = levels.watched(samples, rate)
        yield from _resampled(_mono(samples, rate, name), rate)


def channels(value: object, root: Path | None) -> int:
    """Return how many channels a recording has; raises as `load`."""
    with _samples(value, root) as (name, _, samples):
        for piece in samples:
            return int(piece.shape[1])
        raise _no_samples(name)


def copied(value: str, root: Path | None) -> FileCopy:
    """Return a copy of the file at a path or URL; raises as `load`."""
    with _opened(value, root) as (file, name):
        try:
            return FileCopy(file.read(), name)
        except OSError as error:
            message = f"cannot read {name}: {error.strerror or error}"
            raise AudioError(message) from error


def original_rate(value: object, root: Path | None) -> int:
    """Return the sample rate of a recording's file, in Hz; raises as `load`."""
    with _samples(value, root) as (_, rate, _):
        return rate


def seconds(waveform: NDArray[np.float32]) -> float:
    """Return the duration of a waveform at 16 kHz."""
    return len(waveform) / SAMPLE_RATE


_Samples = Iterator["NDArray[np.float32]"]
"""The samples of all channels, piece by piece, each (samples, channels)."""


@contextmanager
def _samples(value: object, root: Path | None) -> Iterator[tuple[str, int, _Samples]]:
    """Open a recording: yields its name for errors, its rate, its samples."""
    with ExitStack() as stack:
        file, name = stack.enter_context(_opened(value, root))
        try:
            size = file.seek(0, os.SEEK_END)
            promise = containers.check(file, size, name)
        except OSError as error:  # a disk error, or a file such as /proc/self/mem
            message = f"cannot read {name}: {error.strerror or error}"
            raise AudioError(message) from error
        if size == 0:
            message = f"{name} is empty: it has no bytes"
            raise AudioError(message)
        if promise.head:
            file.seek(promise.replaced)
            file = stack.enter_context(_with_head(promise.head, file))
        try:
            # libsndfile gets the descriptor: that is faster than reads through Python,
            # and the name need not be encoded.
            source = file.fileno() if isinstance(file, FileIO) else file
            decoder = stack.enter_context(_Onwards(source, closefd=False))
        except soundfile.LibsndfileError as error:
            if error.code != _UNRECOGNISED or not media.is_installed():
                raise _undecodable(name, error) from error
            file.seek(0)
            yield name, *stack.enter_context(media.opened(file, name))
        else:
            if decoder.format not in containers.FORMATS:
                message = (
                    f"{name} is a {decoder.format} file, of which cannot be told "
                    "whether it is whole; make it another: ffmpeg -i FILE FILE.flac"
                )
                raise AudioError(message)
            yield name, decoder.samplerate, _decoded(decoder, promise.samples, name)


def _undecodable(name: str, error: soundfile.LibsndfileError) -> AudioError:
    reason = error.error_string.strip(" .")
    return AudioError(
        f"{name} is not whole, or no audio that can be decoded (libsndfile: {reason}); "
        f"wav, flac, ogg and mp3 can; {'' if media.is_installed() else media.WAY_OUT}"
        "others can after: ffmpeg -i FILE FILE.flac"
    )


@contextmanager
def _opened(value: object, root: Path | None) -> Iterator[tuple[IO[bytes], str]]:
    """Open a recording: yields its file (FileIO if on disk) and its name for errors."""
    if isinstance(value, bytes | bytearray | memoryview):
        yield BytesIO(value), "the BLOB"
        return
    if isinstance(value, FileCopy):
        yield BytesIO(value.content), value.name
        return
    if isinstance(value, str) and _URL.match(value):
        if not value.lower().startswith("file://"):
            check_url(value, root)
            with _downloaded(value) as copy:
                yield copy, repr(value)
            return
        value = url2pathname(urlsplit(value).path)
    if isinstance(value, str | os.PathLike):
        with open_file(value, root) as file:
            yield cast("IO[bytes]", file), repr(os.fsdecode(value))
        return
    what = "NULL" if value is None else f"{type(value).__name__} {value!r:.40}"
    message = f"the audio is {what}; a path, a URL or a BLOB is expected"
    raise AudioError(message)


@contextmanager
def _with_head(head: bytes, file: IO[bytes]) -> Iterator[IO[bytes]]:
    """Open a copy of the rest of a file, with `head` before it."""
    with SpooledTemporaryFile(max_size=_IN_MEMORY) as copy:
        copy.write(head)
        shutil.copyfileobj(file, copy, 2**20)
        copy.seek(0)
        yield cast("IO[bytes]", copy)


@contextmanager
def _downloaded(url: str) -> Iterator[IO[bytes]]:
    """Open a copy of a URL's content, since not every protocol can seek."""
    with SpooledTemporaryFile(max_size=_IN_MEMORY) as copy:
        try:
            with fsspec.open(url, "rb") as file:
                shutil.copyfileobj(file, copy, 2**20)
        except Exception as error:
            # Each protocol's package raises errors of its own.
            reason = f"{type(error).__name__}: {error}" if str(error) else repr(error)
            message = f"cannot read {url!r}: {reason}"
            if isinstance(error, ImportError):
                message += _way_to_read(url)
            raise AudioError(message) from error
        yield cast("IO[bytes]", copy)


def _way_to_read(url: str) -> str:
    """Return the command that installs a URL's protocol for fsspec; "" if none does."""
    protocol = url.partition("://")[0].rpartition("::")[2]
    extra = {"https": "http", "s3a": "s3"}.get(protocol, protocol)
    if extra not in (metadata.metadata("fsspec").get_all("Provides-Extra") or ()):
        return ""
    return f"; pip install 'fsspec[{extra}]'"


class _Onwards(soundfile.SoundFile):  # type: ignore[misc]
    """A sound file that is only read forward.

    soundfile seeks after each read. In an MP3 that loses the decoder's state for the
    next frame, and some samples with it; so this file says that it cannot seek.
    """

    def seekable(self) -> bool:
        return False


def _decoded(decoder: _Onwards, promised: int | None, name: str) -> _Samples:
    """Yield the samples of an open file; raise AudioError if some are missing.

    promised: their least number; None if libsndfile knows it.
    """
    if promised is None and decoder.frames < _UNKNOWN:
        promised = decoder.frames
    if (promised or 0) > LONGEST * decoder.samplerate:
        raise _too_long(name)
    # libFLAC checks what follows the last sample only if it is asked for more.
    at_once = _BLOCK + (decoder.frames % _BLOCK == 0)
    read = 0
    try:
        while len(samples := decoder.read(at_once, dtype="float32", always_2d=True)):
            read += len(samples)
            yield samples
    except soundfile.LibsndfileError as error:
        raise _undecodable(name, error) from error
    if promised is not None and read < promised:
        message = (
            f"{name} is not whole: it is cut, or damaged; {read} of {promised} samples "
            "can be decoded"
        )
        raise AudioError(message)


def _mono(samples: _Samples, rate: int, name: str) -> _Samples:
    """Yield the waveform of a recording, channels averaged, at its own rate."""
    read, most = 0, LONGEST * rate
    signs: NDArray[np.float32] | None = None
    for piece in samples:
        read += len(piece)
        if read > most:  # the header may have given a shorter length, or none
            raise _too_long(name)
        mono = _mean(piece)
        if not np.isfinite(mono).all():
            message = f"{name} has samples that are no numbers (NaN or infinite)"
            raise AudioError(message)
        if piece.shape[1] > 1:
            signs = _signs(piece, rate, signs)
            if signs is not None:
                mono = _mean(piece * signs)
        yield mono
    if not read:
        raise _no_samples(name)


def _alone(samples: _Samples, channel: int, name: str) -> _Samples:
    """Yield the samples of one channel, each (samples, 1)."""
    for piece in samples:
        if channel > (count := piece.shape[1]):
            has = f"{count} channels" if count > 1 else "one channel only"
            message = f"{name} has no channel {channel}; it has {has}"
            raise AudioError(message)
        yield piece[:, channel - 1 : channel]


def _no_samples(name: str) -> AudioError:
    return AudioError(f"{name} has no samples")


def _mean(piece: NDArray[np.float32]) -> NDArray[np.float32]:
    # By columns, since NumPy's mean over the short axis takes forty times as long.
    return (
        piece[:, 0] if piece.shape[1] == 1 else reduce(np.add, piece.T) / len(piece.T)
    )


def _too_long(name: str) -> AudioError:
    return AudioError(f"{name} is longer than {LONGEST // 3_600} hours; cut it")


def _signs(
    piece: NDArray[np.float32], rate: int, signs: NDArray[np.float32] | None
) -> NDArray[np.float32] | None:
    """Return a factor for each channel, 1 or -1, so that none cancels another.

    piece: (samples, channels). signs: the factors of the piece before; they are kept as
    long as no two channels cancel. None means 1 for all, as in ordinary recordings.

    A microphone of opposite polarity gives (x, -x), whose mean is silence. The channels
    are compared by their changes over 0.5 ms and over 2 ms. In a change, a constant
    offset counts nothing and the hum of the mains little. A voice that reaches one
    microphone later than the other may cancel in one of the two, but not in both.
    """
    cancelling = ~np.eye(piece.shape[1], dtype=bool)
    for part_of_second in (2_000, 500):
        step = max(1, rate // part_of_second)
        if len(piece) <= step:
            return signs
        change = piece[step:] - piece[:-step]
        if signs is not None:
            change *= signs
        with np.errstate(all="ignore"):  # the squares of 1e19 and more are infinite
            products = change.T @ change
            both = np.diag(products)[:, None] + np.diag(products)
            cancelling &= both + 2 * products < _CANCELLED * both
        if not cancelling.any():
            return signs
    turned = np.ones(piece.shape[1], np.float32)
    for channel in range(1, len(turned)):
        if (cancelling[channel, :channel] & (turned[:channel] > 0)).any():
            turned[channel] = -1
    return turned if signs is None else turned * signs


def _check_rate(rate: int, name: str) -> None:
    if not _LOWEST_RATE <= rate <= _HIGHEST_RATE:
        amount = "few" if rate < _LOWEST_RATE else "many"
        message = f"{name} has {rate} samples a second, too {amount} for speech"
        raise AudioError(message)


def _resampled(
    pieces: Iterable[NDArray[np.float32]], rate: int
) -> Iterator[NDArray[np.float32]]:
    """Yield a waveform at 16 kHz, given piece by piece at another rate.

    The filter is a few samples wide. So each piece is resampled with a margin on either
    side, and the results of the margins are dropped. The rest is the same as if the
    whole recording were resampled at once.
    """
    ratio = Fraction(rate, SAMPLE_RATE).limit_denominator(_LARGEST_DENOMINATOR)
    if ratio == 1:
        yield from pieces
        return
    taken, given = ratio.numerator, ratio.denominator  # `taken` samples become `given`
    resample = _resampler(taken, given)
    margin = (resample.width // taken + 2) * taken
    held: NDArray[np.float32] = np.empty(0, np.float32)
    lead = 0  # samples at the start of `held` that are only a margin
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
