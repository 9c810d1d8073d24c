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
from thanosql.speech.sound import containers, media
from thanosql.speech.sound.files import check_url, open_file

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
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
_UNRECOGNISED = 1  # libsndfile's number for a format that it does not know
_BLOCK = 2**16  # samples of each channel that are decoded at a time
_CANCELLED = 0.25  # of two channels' energy; a sum that has less is no mix of them
_IN_MEMORY = 2**25  # bytes of a download; beyond, it goes to a temporary file
# fsspec chains protocols: simplecache::s3://bucket/a.wav. One letter is a drive.
_URL = re.compile(r"[a-z][a-z0-9+.-]+(::[a-z][a-z0-9+.-]*)*://", re.IGNORECASE)


def load(value: object, root: Path | None) -> NDArray[np.float32]:
    """Return the waveform of a recording: (samples,), mono, 16 kHz, -1..1.

    value: a path (str or PathLike; relative to `root`, else to the working directory),
    a URL, or the bytes of an encoded file (told by content, not by name). Channels are
    averaged, of two that cancel one with the opposite sign.

    Raises AudioError that names the file and what is wrong with it; also where it is
    not whole, or holds a second recording behind the first.
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
    with _samples(value, root) as (name, rate, samples):
        _check_rate(rate, name)
        yield from _resampled(_mono(samples, rate, name), rate)


def original_rate(value: object, root: Path | None) -> int:
    """Return the samples a second that a recording has of itself; raises as `load`."""
    with _samples(value, root) as (_, rate, _):
        return rate


def seconds(waveform: NDArray[np.float32]) -> float:
    """Return the duration of a waveform of 16 kHz."""
    return len(waveform) / SAMPLE_RATE


_Samples = Iterator["NDArray[np.float32]"]
"""Of all channels, piece by piece, each (samples, channels)."""


@contextmanager
def _samples(value: object, root: Path | None) -> Iterator[tuple[str, int, _Samples]]:
    """Open a recording: its name for errors, its rate, its samples."""
    with ExitStack() as stack:
        file, name = stack.enter_context(_opened(value, root))
        try:
            size = file.seek(0, os.SEEK_END)
            promise = containers.check(file, size, name)
        except OSError as error:  # of /proc/self/mem, or of a disk
            message = f"cannot read {name}: {error.strerror or error}"
            raise AudioError(message) from error
        if size == 0:
            message = f"{name} is empty: it has no bytes"
            raise AudioError(message)
        if promise.head:
            file.seek(promise.replaced)
            file = stack.enter_context(_with_head(promise.head, file))
        try:
            # libsndfile gets the descriptor: it reads faster than through Python, and
            # no name has to be encoded for it.
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
    """Open a recording: its file (FileIO if it is on disk), its name for errors."""
    if isinstance(value, bytes | bytearray | memoryview):
        yield BytesIO(value), "the BLOB"
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
    """Open a copy of what is left of a file, with `head` before it."""
    with SpooledTemporaryFile(max_size=_IN_MEMORY) as copy:
        copy.write(head)
        shutil.copyfileobj(file, copy, 2**20)
        copy.seek(0)
        yield cast("IO[bytes]", copy)


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


def _decoded(decoder: _Onwards, promised: int | None, name: str) -> _Samples:
    """Yield the samples of an open file; raise AudioError if they are not all.

    promised: how many there are at least, where libsndfile does not know.
    """
    if promised is None and decoder.frames < _UNKNOWN:
        promised = decoder.frames
    if (promised or 0) > LONGEST * decoder.samplerate:
        raise _too_long(name)
    # libFLAC notices what lies behind the last sample only when asked for more.
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
        if read > most:  # whatever its header says
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
        message = f"{name} has no samples"
        raise AudioError(message)


def _mean(piece: NDArray[np.float32]) -> NDArray[np.float32]:
    # Column by column: NumPy's mean over the short axis takes forty times as long.
    return (
        piece[:, 0] if piece.shape[1] == 1 else reduce(np.add, piece.T) / len(piece.T)
    )


def _too_long(name: str) -> AudioError:
    return AudioError(f"{name} is longer than {LONGEST // 3_600} hours; cut it")


def _signs(
    piece: NDArray[np.float32], rate: int, signs: NDArray[np.float32] | None
) -> NDArray[np.float32] | None:
    """Return by what each channel is multiplied, so that none cancels another.

    piece: (samples, channels). signs: those of the piece before; they are kept for as
    long as no two channels cancel. None is 1 for all, as for any ordinary recording.

    A microphone of opposite polarity gives (x, -x), whose mean is silence. Compared are
    the differences over half a millisecond, in which a constant offset weighs nothing
    and the mains' hum little, and over two: at one of these a voice that reaches one
    microphone later than the other may cancel, at both it does not.
    """
    cancelling = ~np.eye(piece.shape[1], dtype=bool)
    for part_of_second in (2_000, 500):
        step = max(1, rate // part_of_second)
        if len(piece) <= step:
            return signs
        change = piece[step:] - piece[:-step]
        if signs is not None:
            change *= signs
        with np.errstate(all="ignore"):  # of 1e19 and more, squares are infinite
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
