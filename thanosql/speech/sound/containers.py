"""Check an encoded file: the file in; AudioError if it is cut or has two recordings.

libsndfile reads a cut WAV as far as it goes, and only the first of two Ogg files joined
to one, both without an error. So the container's own structure is checked first: how
long it should be, how long the file is, and what follows.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from thanosql.errors import AudioError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

# Formats, by libsndfile's names, that are accepted. In the others that it can read
# (files of games and samplers) a cut would not be noticed.
FORMATS = frozenset(
    ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "NIST", "FLAC", "OGG", "MP3")
)

_AT_ONCE = 2**18  # bytes read at a time
_SEARCHED = 2**16  # bytes in which the next frame of an MP3 is searched for


@dataclass(frozen=True, slots=True)
class Promise:
    """Facts about a complete file that libsndfile does not find by itself."""

    samples: int | None = None
    "The least number of samples of each channel; None if libsndfile knows it."
    head: bytes = b""
    "To be read instead of the first `replaced` bytes; it has the right length."
    replaced: int = 0


def check(file: IO[bytes], size: int, name: str) -> Promise:
    """Check a file of `size` bytes, and return what libsndfile needs to know of it.

    WAV, AIFF, AU, CAF and NIST are checked by a few bytes of their headers; Ogg page by
    page, with checksums; MP3 by its Info header, or frame by frame if it has none. FLAC
    is left to its decoder, which notices a cut; so are unknown containers. The file is
    left at its beginning.

    name: the file's name for errors. Raises AudioError if the file is incomplete or is
    two recordings joined.
    """
    file.seek(0)
    start = file.read(12)
    try:
        for magic, looked_at in _CONTAINERS.items():
            if start.startswith(magic):
                return looked_at(file, size) or Promise()
        if start[4:8] in _BOXES:
            return _mp4(file, size)
        if start[:3] == b"ID3" or _frame(start) is not None:
            return _mp3(file, size)
        return Promise()
    except _NotWholeError as error:
        message = f"{name} {error}"
        raise AudioError(message) from None
    finally:
        file.seek(0)


class _NotWholeError(Exception):
    """A container is incomplete, or more than one recording; the message says how."""


def _cut(missing: int) -> _NotWholeError:
    return _NotWholeError(
        f"is not whole: it is cut, {missing} of the bytes that its header promises "
        "are missing"
    )


def _joined() -> _NotWholeError:
    return _NotWholeError(
        "is more than one recording, one behind the other, of which only the first "
        "would be heard; split it, or make it one: ffmpeg -i FILE FILE.flac"
    )


@dataclass(frozen=True, slots=True)
class _Chunks:
    """The layout of a file made of chunks, each with an id and a length."""

    head: struct.Struct  # an id and a length
    start: int  # the position of the first chunk
    data: bytes  # the beginning of the id of the chunk with the samples
    align: int = 2  # chunks begin at multiples of so many bytes
    counts_head: bool = False  # whether a length includes the id and itself

    def __call__(self, file: IO[bytes], size: int) -> Promise:
        file.seek(0)
        magic = file.read(4)
        at, found, long = self.start, False, 0
        while at + self.head.size <= size:
            file.seek(at)
            name, length = self.head.unpack(file.read(self.head.size))
            if found and name[:4] in _BEGINNINGS:
                raise _joined()
            if self.counts_head:
                length -= self.head.size
            if name == b"ds64":  # RF64: the length of `data` in 64 bits
                long = struct.unpack("<8xQ", file.read(16).ljust(16))[0]
            if name.startswith(self.data) and not found:
                if length == 0xFFFFFFFF and long:
                    length = long
                if magic == b"RIFF" and length == 0:
                    return _length_given(file, size, at)
                if _is_open(length):
                    return Promise()
                found = True
                _check_end(file, size, at + self.head.size + length)
            if length < 0:
                break
            at += self.head.size + length + -length % self.align
        return Promise()


def _length_given(file: IO[bytes], size: int, at: int) -> Promise:
    """Return a WAV's head with the length "to the end of the file" in place of 0.

    at: the position of the samples' chunk. If another chunk follows, 0 is right: the
    file has no samples, and its head stays.
    """
    file.seek(0)
    head, behind = file.read(at + 8), file.read(8)
    end = at + 16 + int.from_bytes(behind[4:], "little")
    if len(behind) < 8 or (behind[:4].isalnum() and end <= size + 1):
        return Promise()
    return Promise(head=head[:-4] + b"\xff" * 4, replaced=len(head))


def _is_open(length: int) -> bool:
    """Return whether a length means "to the end of the file".

    Programs that write to a pipe do not know the length. FFmpeg writes 2**32 - 1 or -1,
    SoX and eSpeak 0x7ffff000, arecord 2**31, others 0.
    """
    return (
        length <= 0
        or 0x7FFF0000 <= length <= 0x80001000
        or 0xFFFF0000 <= length <= 0xFFFFFFFF
        or length >= 2**62
    )


def _au(file: IO[bytes], size: int) -> None:
    file.seek(0)
    magic = file.read(4)
    start, length = struct.unpack(
        ">II" if magic == b".snd" else "<II", file.read(8).ljust(8, b"\0")
    )
    if not _is_open(length):
        _check_end(file, size, start + length)


def _nist(file: IO[bytes], size: int) -> None:
    file.seek(0)
    head = file.read(1024)
    start = re.match(rb"NIST_1A\s+(\d+)", head)
    found = dict(re.findall(rb"(\w+) -i (\d+)", head))
    count = int(found.get(b"sample_count", 0)) * int(found.get(b"channel_count", 1))
    if start is not None and count:
        # mu-law files lack sample_n_bytes.
        length = count * int(found.get(b"sample_n_bytes", 1))
        _check_end(file, size, int(start[1]) + length)


def _check_end(file: IO[bytes], size: int, end: int) -> None:
    """Raise if the file ends before `end`, or if another recording begins there."""
    if end > size:
        raise _cut(end - size)
    file.seek(end)
    behind = file.read(5)  # a padding byte may come first
    if behind[:4] in _BEGINNINGS or behind[1:] in _BEGINNINGS:
        raise _joined()


# Ogg


def _ogg(file: IO[bytes], size: int) -> None:
    file.seek(0)
    at, is_under_way = 0, False
    running: set[bytes] = set()
    while len(head := file.read(27)) == 27 and head.startswith(b"OggS"):
        flags, serial = head[5], head[14:18]
        lengths = file.read(head[26])
        body = file.read(sum(lengths))
        length = 27 + head[26] + sum(lengths)
        if at + length > size:
            raise _cut(at + length - size)
        if head[22:26] != _ogg_checksum(
            head[:22] + bytes(4) + head[26:], lengths, body
        ):
            message = f"is not whole: what stands at byte {at} is damaged"
            raise _NotWholeError(message)
        if flags & 2 and is_under_way:  # a stream begins after others have data
            raise _joined()
        is_under_way = is_under_way or not flags & 2
        running.add(serial)
        if flags & 4:
            running.discard(serial)
        at += length
    if not running:
        file.seek(at)
        if file.read(4) in _BEGINNINGS:
            raise _joined()
        file.seek(at)
        if any(b"OggS" in part for part in iter(lambda: file.read(_AT_ONCE), b"")):
            raise _joined()
        return
    if at < size:
        message = f"is not whole: it is cut, or damaged, at byte {at}"
    else:
        message = (
            "is not whole: it is cut, for its last page is not marked as the last. A "
            "few programs (Android's recorder, Telegram) leave the mark out; then set "
            "it: ffmpeg -i FILE -c copy NEW.ogg"
        )
    raise _NotWholeError(message)


_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ogg_checksum(*parts: bytes) -> bytes:
    """Return an Ogg page's checksum: zlib's CRC with the bits in reverse order."""
    mirrored = b"".join(parts).translate(_MIRRORED)
    found = zlib.crc32(mirrored, 0xFFFFFFFF) ^ 0xFFFFFFFF
    return found.to_bytes(4, "little").translate(_MIRRORED)[::-1]


# MP3


@dataclass(frozen=True, slots=True)
class _Frame:
    """A header of MPEG audio, layers I to III."""

    kind: tuple[int, int, int]  # version, layer, rate as written; constant in a file
    length: int  # bytes
    samples: int  # of each channel
    info: int  # the position in it of an Info header; 0 if it cannot have one


_KBITS: Mapping[tuple[bool, int], tuple[int, ...]] = {
    (True, 1): tuple(range(32, 449, 32)),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}  # by (is it MPEG-1?, layer)
_RATES = (44_100, 48_000, 32_000)  # Hz, of MPEG-1


def _frame(head: bytes) -> _Frame | None:
    """Return the facts of a frame's header; None if it is none, or of a free rate."""
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    kbits, rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or kbits in (0, 15) or rate == 3:
        return None
    is_first = version == 3
    hertz = _RATES[rate] // {3: 1, 2: 2, 0: 4}[version]
    bits = _KBITS[is_first, layer][kbits - 1] * 1000
    padding = head[2] >> 1 & 1
    samples = 384 if layer == 1 else 1152 if layer == 2 or is_first else 576
    if layer == 1:
        length = (12 * bits // hertz + padding) * 4
    else:
        length = samples // 8 * bits // hertz + padding
    is_mono = head[3] >> 6 == 3
    side = (17 if is_mono else 32) if is_first else (9 if is_mono else 17)
    return _Frame(
        (version, layer, rate), length, samples, 4 + side if layer == 3 else 0
    )


def _mp3(file: IO[bytes], size: int) -> Promise:
    window = _Window(file)
    start = _behind_tags(window, 0)
    if window[start : start + 4] == b"fLaC":
        return Promise()
    found = _search(window, start, size, None)
    if found is None:
        return Promise()  # libsndfile will refuse it
    start, first = found
    head = window[start : start + 200]
    frames, length = _promised(head, first)
    if frames and length:
        behind = sum(1 for _ in _frames(window, start + length, size, None))
        # Some programs do not count the Info header's own frame in the length, so one
        # frame may lie after it.
        if behind > 1:
            raise _joined()
        return Promise()
    count, shortest, longest = 0, first.length, 0
    for _, frame in _frames(window, start, size, first):
        count += 1
        shortest, longest = min(shortest, frame.length), max(longest, frame.length)
    if frames:  # an Info header counts the frames after itself
        if count > frames + 1:
            raise _joined()
        return Promise()
    # Without an Info header, libsndfile estimates the number of frames from the length
    # of the first, and reads no more. If all have that length, it is right to a frame.
    if longest - shortest <= 4:
        return Promise((count - 1) * first.samples)
    return Promise(head=_info_frame(head, first, count))


def _promised(head: bytes, first: _Frame) -> tuple[int, int]:
    """Return the frames and bytes that an Info, Xing or VBRI header counts, else 0."""
    if head[36:40] == b"VBRI":
        length, frames = struct.unpack(">II", head[46:54])
        return frames, length
    at = first.info
    if not at or head[at : at + 4] not in (b"Info", b"Xing"):
        return 0, 0
    (flags,) = struct.unpack(">I", head[at + 4 : at + 8])
    fields = struct.unpack(">II", head[at + 8 : at + 16])
    frames = fields[0] if flags & 1 else 0
    length = fields[flags & 1] if flags & 2 else 0
    return frames, length


def _info_frame(head: bytes, first: _Frame, count: int) -> bytes:
    """Return a frame with only an Info header, which says that `count` frames follow.

    Empty if no bit rate makes a frame long enough.
    """
    for kbits in range(1, 15):
        changed = bytes((0xFF, head[1] | 1, head[2] & 0x0C | kbits << 4, head[3]))
        frame = _frame(changed)
        if frame is not None and frame.length >= frame.info + 12:
            break
    else:
        return b""
    content = changed.ljust(first.info, b"\0") + struct.pack(">4sII", b"Xing", 1, count)
    return content.ljust(frame.length, b"\0")


def _frames(
    window: _Window, at: int, size: int, like: _Frame | None
) -> Iterator[tuple[int, _Frame]]:
    """Yield the position and the header of each frame from `at` on, skipping tags.

    like: a frame of the kind that all must have; None: the first one sets the kind.
    Raises if the last frame is cut, or if one is of another kind.
    """
    while at < size:
        at = _behind_tags(window, at)
        frame = _frame(window[at : at + 4])
        if frame is None or (like is not None and frame.kind != like.kind):
            found = _search(window, at, size, like)
            if found is None:
                return
            at, frame = found
        if like is None:
            # Anything may follow the frames of an Info header. So the first one counts
            # only if another frame follows it.
            if at + frame.length < size and not _leads_on(window, at, frame):
                return
            like = frame
        if at + frame.length > size:
            raise _cut(at + frame.length - size)
        yield at, frame
        at += frame.length


def _leads_on(window: _Window, at: int, frame: _Frame) -> bool:
    behind = _behind_tags(window, at + frame.length)
    following = _frame(window[behind : behind + 4])
    return following is not None and following.kind == frame.kind


def _search(
    window: _Window, at: int, size: int, like: _Frame | None
) -> tuple[int, _Frame] | None:
    """Return the next frame that another of its kind follows; None if there is none.

    Raises if it is of another kind than `like`.
    """
    content = window[at : at + _SEARCHED]
    place = content.find(b"\xff")
    while place >= 0:
        frame = _frame(content[place : place + 4])
        if frame is not None and _leads_on(window, at + place, frame):
            if like is not None and frame.kind != like.kind:
                raise _joined()
            return at + place, frame
        place = content.find(b"\xff", place + 1)
    return None


def _behind_tags(window: _Window, at: int) -> int:
    """Return the position after the tags (ID3, APE) that begin at `at`, if any."""
    while True:
        head = window[at : at + 32]
        if head.startswith(b"ID3") and len(head) >= 10:
            length = 0
            for byte in head[6:10]:
                length = length << 7 | byte & 0x7F
            at += 10 + length + (10 if head[5] & 0x10 else 0)
        elif head.startswith(b"TAG"):
            at += 128
        elif head.startswith(b"APETAGEX"):
            length = int.from_bytes(head[12:16], "little")
            at += length + (32 if head[23] & 0x20 else 0)
            if not head[23] & 0x20:  # a footer: its length counts the bytes before it
                at += 32 - length
        else:
            return at


# Containers that may also hold video; FFmpeg decodes them


def _mp4(file: IO[bytes], size: int) -> Promise:
    at, begun = 0, False
    while at + 16 <= size:
        file.seek(at)
        length, name, long = struct.unpack(">I4sQ", file.read(16))
        if name == b"ftyp" and begun:
            raise _joined()
        begun = True
        length = long if length == 1 else length
        if length < 8 or not name.isascii():  # 0: to the end of the file
            break
        at += length
        if at > size:
            raise _cut(at - size)
    return Promise()


_SEGMENT, _CLUSTER, _EBML = (
    b"\x18\x53\x80\x67",
    b"\x1f\x43\xb6\x75",
    b"\x1a\x45\xdf\xa3",
)


def _matroska(file: IO[bytes], size: int) -> None:
    at = 0
    while at < size:
        file.seek(at)
        head = file.read(12)
        id_length = 9 - head[0].bit_length()
        name = head[:id_length]
        if name == _EBML and at:
            raise _joined()
        head = head[id_length:]
        length_length = 9 - (head[0] if head else 0).bit_length()
        if id_length > 4 or length_length > 8:
            message = f"is not whole: it is cut, or damaged, at byte {at}"
            raise _NotWholeError(message)
        bits = 7 * length_length
        length = int.from_bytes(head[:length_length], "big") & (1 << bits) - 1
        at += id_length + length_length
        if length == (1 << bits) - 1 and name in (_SEGMENT, _CLUSTER):
            continue  # written to a pipe, without a length: check what is inside
        at += length
        if at > size:
            raise _cut(at - size)


class _Window:
    """Slices of a file, which is read in large pieces."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._start, self._content = file, 0, b""

    def __getitem__(self, part: slice) -> bytes:
        """Return the bytes of a slice; fewer at the end of the file."""
        start, stop = part.start - self._start, part.stop - self._start
        if start < 0 or stop > len(self._content):
            self._file.seek(part.start)
            self._start = part.start
            self._content = self._file.read(max(_AT_ONCE, part.stop - part.start))
            start, stop = 0, part.stop - part.start
        return self._content[start:stop]


_CONTAINERS: Mapping[bytes, Callable[[IO[bytes], int], Promise | None]] = {
    b"RIFF": _Chunks(struct.Struct("<4sI"), 12, b"data"),
    b"RF64": _Chunks(struct.Struct("<4sI"), 12, b"data"),
    b"RIFX": _Chunks(struct.Struct(">4sI"), 12, b"data"),
    b"FORM": _Chunks(struct.Struct(">4sI"), 12, b"SSND"),
    b"caff": _Chunks(struct.Struct(">4sq"), 8, b"data", align=1),
    b"riff": _Chunks(struct.Struct("<16sq"), 40, b"data", align=8, counts_head=True),
    b".snd": _au,
    b"dns.": _au,
    b"NIST": _nist,
    b"OggS": _ogg,
    b"\x1a\x45\xdf\xa3": _matroska,
}
_BEGINNINGS = (*_CONTAINERS, b"fLaC")
# The types of box with which an MP4 can begin.
_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
