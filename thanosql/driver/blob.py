"""Incremental access to one BLOB of the database: reads and writes in, bytes out.

The interface is `sqlite3.Blob`'s, over APSW's.
"""

from __future__ import annotations

import os

from thanosql import errors
from thanosql.errors import translating

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Self

    import apsw

    from thanosql.driver.database import Database

    Buffer = bytes | bytearray | memoryview


class Blob:
    """A BLOB in a row, opened by `Connection.blobopen`; its length cannot change.

    Reads and writes like a file, from its own position on, and by index and slice
    like a bytearray.
    """

    __slots__ = ("_apsw", "_database")

    def __init__(self, database: Database, blob: apsw.Blob) -> None:
        self._database = database
        self._apsw: apsw.Blob | None = blob

    def _open(self) -> apsw.Blob:
        self._database.apsw  # noqa: B018 - raises if closed or in the wrong thread
        if self._apsw is None:
            message = "the blob is closed"
            raise errors.ProgrammingError(message)
        return self._apsw

    # As a file

    @translating
    def read(self, length: int = -1, /) -> bytes:
        """Return up to `length` bytes from the position on; all that are left if -1."""
        blob = self._open()
        size = blob.length()
        return blob.read(size if length < 0 else min(length, size))

    @translating
    def write(self, data: Buffer, /) -> None:
        """Overwrite bytes from the position on."""
        blob = self._open()
        if len(memoryview(data).cast("B")) > blob.length() - blob.tell():
            message = "the data is longer than what is left of the blob"
            raise errors.ArgumentValueError(message)
        blob.write(data)

    @translating
    def seek(self, offset: int, origin: int = os.SEEK_SET, /) -> None:
        """Move the position, counted from the start, itself or the end."""
        blob = self._open()
        if origin not in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END):
            message = "the origin is os.SEEK_SET, os.SEEK_CUR or os.SEEK_END"
            raise errors.ArgumentValueError(message)
        start = (0, blob.tell(), blob.length())[origin]
        if not 0 <= start + offset <= blob.length():
            message = f"the blob has no position {start + offset}"
            raise errors.ArgumentValueError(message)
        blob.seek(start + offset)

    def tell(self) -> int:
        """Return the position."""
        return self._open().tell()

    def close(self) -> None:
        """Close the blob; again does nothing."""
        if self._apsw is not None:
            self._apsw.close(True)  # else it raises the error of an earlier call again
            self._apsw = None

    # As a bytearray

    def __len__(self) -> int:
        return self._open().length()

    @translating
    def __getitem__(self, key: int | slice) -> int | bytes:
        start, stop, step = self._range(key)
        read: bytes = self._at(
            start, lambda blob: blob.read(stop - start) if stop > start else b""
        )
        return read[::step] if isinstance(key, slice) else read[0]

    @translating
    def __setitem__(self, key: int | slice, value: Any) -> None:
        start, stop, step = self._range(key)
        if isinstance(key, slice):
            data = bytearray(self[start:stop])
            new = memoryview(value).cast("B")
            if len(new) != len(data[::step]):
                message = f"the slice has {len(data[::step])} bytes, not {len(new)}"
                raise IndexError(message)
            data[::step] = new
        else:
            data = bytearray(1)
            data[0] = value
        self._at(start, lambda blob: blob.write(data))

    def __delitem__(self, key: int | slice) -> None:
        message = "the length of a blob cannot change; overwrite bytes instead"
        raise errors.ArgumentTypeError(message)

    @translating
    def _range(self, key: int | slice) -> tuple[int, int, int]:
        """Return start and stop in bytes, and the step, which is not negative."""
        length = len(self)
        if isinstance(key, slice):
            start, stop, step = key.indices(length)
            if step < 0:
                message = "a blob is sliced forwards only"
                raise errors.ArgumentValueError(message)
            return start, max(start, stop), step
        at = range(length)[key]  # IndexError, as any sequence's; TypeError
        return at, at + 1, 1

    def _at(self, position: int, do: Any) -> Any:
        """Do something at a position and go back to where the blob was."""
        blob = self._open()
        before = blob.tell()
        try:
            blob.seek(position)
            return do(blob)
        finally:
            blob.seek(before)

    __iter__ = None  # it would read byte by byte
    __contains__ = None

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open()
        self.close()
