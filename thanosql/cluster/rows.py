"""The rows of a training: read here once, then read by any worker, in any order.

They lie in Ray's object store in chunks: once on each machine, however many workers it
has, and on its disk where memory is short.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from thanosql.speech.progress import Progress

    Row = tuple[Any, ...]  # (audio, text)

_CHUNK_BYTES = 2**24  # of BLOBs; a chunk that has more takes no more rows
_CHUNK_ROWS = 256
_OPEN = 4  # chunks that a worker keeps mapped


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Some rows. Their BLOBs are one array, which workers get without a copy."""

    content: Any
    rows: list[Row]
    "With a slice of the content in the place of each BLOB."

    def row(self, place: int) -> Row:
        audio, text = self.rows[place]
        if isinstance(audio, slice):
            audio = self.content[audio].tobytes()
        return audio, text


@dataclass
class SharedRows(Sequence["Row"]):
    """Rows in the object store, by position."""

    references: list[Any]
    firsts: list[int]
    "The position of each chunk's first row."
    size: int
    _opened: OrderedDict[int, _Chunk] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.size))]
        if not 0 <= index < self.size:
            message = "row index out of range"
            raise IndexError(message)
        number = bisect_right(self.firsts, index) - 1
        return self._chunk(number).row(index - self.firsts[number])

    def _chunk(self, number: int) -> _Chunk:
        import ray

        chunk = self._opened.pop(number, None)
        if chunk is None:
            while len(self._opened) >= _OPEN:
                self._opened.popitem(last=False)
            chunk = ray.get(self.references[number])
        self._opened[number] = chunk
        return chunk


def shared_rows(ray: Any, rows: Sequence[Row], progress: Progress) -> SharedRows:
    """Put rows into the object store; they are read once, in order.

    progress: is called for each chunk, and may raise to stop.
    """
    references: list[Any] = []
    firsts: list[int] = []
    count = 0
    progress("share", 0, len(rows))
    for chunk in _chunks(rows):
        references.append(ray.put(chunk))
        firsts.append(count)
        count += len(chunk.rows)
        progress("share", count, len(rows))
    return SharedRows(references, firsts, count)


def _chunks(rows: Iterable[Row]) -> Iterator[_Chunk]:
    blobs: list[bytes] = []
    kept: list[Row] = []
    size = 0
    for audio, text in rows:
        if isinstance(audio, bytes):
            blobs.append(audio)
            kept.append((slice(size, size + len(audio)), text))
            size += len(audio)
        else:
            kept.append((audio, text))
        if size >= _CHUNK_BYTES or len(kept) == _CHUNK_ROWS:
            yield _chunk(blobs, kept)
            blobs, kept, size = [], [], 0
    if kept:
        yield _chunk(blobs, kept)


def _chunk(blobs: list[bytes], rows: list[Row]) -> _Chunk:
    import numpy as np

    return _Chunk(np.frombuffer(b"".join(blobs), "u1"), rows)
