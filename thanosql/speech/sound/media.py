"""What libsndfile cannot read, decoded by FFmpeg: m4a, mp4, webm, mkv, aac, amr.

FFmpeg comes with PyAV, the extra [media]. No more of it is used than these containers:
its list is long, and has playlists that name other files.
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
"""What the names of such files end in."""

_AT_ONCE = 2**16  # samples of each channel; a frame has a thousand
WAY_OUT = "pip install 'thanosql-local[media]' for m4a, webm and the like; "

_DEMUXERS = "mov,matroska,aac,amr"  # of which a cut, or damage, is noticed
# A packet that is damaged is an error, and not left out.
_STRICT = {"err_detect": "crccheck+bitstream+buffer+explode"}


def is_installed() -> bool:
    """Return whether PyAV is; nothing is imported."""
    try:
        return find_spec("av") is not None
    except ValueError:  # it is among the modules, as None
        return False


@contextmanager
def opened(file: IO[bytes], name: str) -> Iterator[tuple[int, Iterator[Any]]]:
    """Open a file's sound: its rate, its samples piece by piece, (samples, channels).

    Raises AudioError, here or from the samples, where FFmpeg finds a fault.
    """
    with _container(file, name) as (container, stream):
        frames = container.decode(stream)
        first = next(frames, None)
        if first is None:
            message = f"{name} has no samples"
            raise AudioError(message)
        # Not the stream's rate: AAC may tell only in its frames that it has twice that.
        yield first.sample_rate, _floats(chain([first], frames), name)


def described(file: IO[bytes], name: str) -> tuple[float, int, int, str]:
    """Return what the header says: seconds, rate, channels, the codec."""
    with _container(file, name) as (container, stream):
        seconds = (
            float(stream.duration * stream.time_base)
            if stream.duration is not None
            else (container.duration or 0) / 1_000_000
        )
        return seconds, stream.sample_rate, stream.channels, stream.codec_context.name


@contextmanager
def _container(file: IO[bytes], name: str) -> Iterator[tuple[Any, Any]]:
    """Open a file, and of its sounds the one that FFmpeg takes for the best."""
    import av  # 0.1 s, and 100 MB of libraries: only where there is such a file

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
    import numpy as np  # not for plain SQL, which imports this module
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
