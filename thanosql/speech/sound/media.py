"""Decode with FFmpeg what libsndfile cannot read: m4a, mp4, webm, mkv, aac, amr.

FFmpeg comes with PyAV, the extra [media]. Only these containers are allowed: FFmpeg can
read many more, among them playlists that name other files.
"""

from __future__ import annotations

from contextlib import contextmanager
from importlib.util import find_spec
from itertools import chain
from typing import IO, TYPE_CHECKING, Any

from thanosql.errors import AudioError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

SUFFIXES = (
    *(".m4a", ".m4b", ".m4r", ".mp4", ".m4v", ".mov", ".qta", ".3gp", ".3g2"),
    *(".aac", ".amr", ".awb", ".webm", ".weba", ".mkv", ".mka"),
)
"""Suffixes of files in these containers."""

_AT_ONCE = 2**16  # samples of each channel; a frame has a thousand
WAY_OUT = "pip install 'thanosql-local[media]' for m4a, webm and the like; "

_DEMUXERS = "mov,matroska,aac,amr"  # formats in which a cut or damage is noticed
# Makes a damaged packet an error; FFmpeg would skip it.
_STRICT = {"err_detect": "crccheck+bitstream+buffer+explode"}


def is_installed() -> bool:
    """Return whether PyAV is installed, without importing it."""
    try:
        return find_spec("av") is not None
    except ValueError:  # the module is loaded without a spec
        return False


@contextmanager
def opened(file: IO[bytes], name: str) -> Iterator[tuple[int, Iterator[Any]]]:
    """Open a file's sound: yields its rate and its samples.

    The samples come piece by piece, (samples, channels). Raises AudioError, here or
    while they are read, if FFmpeg finds a fault.
    """
    with _container(file, name) as (container, stream):
        frames = container.decode(stream)
        first = next(frames, None)
        if first is None:
            message = f"{name} has no samples"
            raise AudioError(message)
        # The frame's rate, not the stream's: AAC may double it only in its frames.
        yield first.sample_rate, _floats(chain([first], frames), name)


def described(file: IO[bytes], name: str) -> tuple[float, int, int, str]:
    """Return the facts of the header: seconds, rate, channels, codec."""
    with _container(file, name) as (container, stream):
        seconds = (
            float(stream.duration * stream.time_base)
            if stream.duration is not None
            else (container.duration or 0) / 1_000_000
        )
        return seconds, stream.sample_rate, stream.channels, stream.codec_context.name


@contextmanager
def _container(file: IO[bytes], name: str) -> Iterator[tuple[Any, Any]]:
    """Open a file: yields its container and the audio stream that FFmpeg finds best."""
    import av  # 0.1 s, and 100 MB of libraries: only if there is such a file

    options = _STRICT | {"format_whitelist": _DEMUXERS}
    try:
        with av.open(file, options=options, metadata_errors="ignore") as container:
            stream = container.streams.best("audio")
            if stream is None:
                message = f"{name} has no sound"
                raise AudioError(message)
            stream.codec_context.options = dict(_STRICT)
            yield container, stream
    except av.FFmpegError as error:
        message = (
            f"{name} is not whole, or no audio that can be decoded (FFmpeg: "
            f"{error.strerror})"
        )
        raise AudioError(message) from error


def _floats(frames: Iterator[Any], name: str) -> Iterator[NDArray[np.float32]]:
    import numpy as np  # here, since plain SQL imports this module too
    from av import AudioResampler

    convert = AudioResampler(format="fltp")
    layout = None
    held: list[Any] = []  # (channels, samples) each
    for frame in frames:
        layout = layout or (frame.sample_rate, frame.layout.name)
        if frame.is_corrupt or layout != (frame.sample_rate, frame.layout.name):
            what = "is damaged" if frame.is_corrupt else "has another rate or layout"
            message = (
                f"{name} is not whole: what stands at {frame.time or 0:.1f} s {what}"
            )
            raise AudioError(message)
        held += [each.to_ndarray() for each in convert.resample(frame)]
        if sum(each.shape[1] for each in held) >= _AT_ONCE:
            yield np.concatenate(held, axis=1).T
            held.clear()
    if held:
        yield np.concatenate(held, axis=1).T
