"""Open audio files: a path in, an open file out, inside the root if there is one."""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from thanosql.errors import AudioError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO


def open_file(value: str | os.PathLike[str], root: Path | None) -> FileIO:
    """Return the file open for reading, without a buffer.

    libsndfile reads from the descriptor; a buffer would move its position ahead.

    value: relative to `root`, else to the working directory; ~ is a home directory.
    With a root, a path that leads out of it is refused: absolute, with .., or a link.

    Raises AudioError that names the path; also for a directory, a device or a pipe.
    """
    name = os.fsdecode(value)
    if not name:
        message = "the audio is an empty path"
        raise AudioError(message)
    try:
        path = Path(root or "") / Path(name).expanduser()
        if root is not None and not path.resolve().is_relative_to(root.resolve()):
            message = f"{name!r} leads out of audio_root ({root.resolve()})"
            raise AudioError(message)
        file = open(path, "rb", 0, opener=_without_waiting)  # noqa: SIM115 - the caller's
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file
        file.close()
        reason: object = "it is not a file"
    except (OSError, RuntimeError, ValueError) as error:
        # RuntimeError: ~ of an unknown user, or links in a circle. ValueError: a NUL.
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        cause: Exception | None = error
    else:
        cause = None
    where = "" if Path(name).is_absolute() else f" (in {Path(root or '').resolve()})"
    message = f"cannot read {name!r:.300}{where}: {reason}"
    if where and isinstance(cause, FileNotFoundError):
        message += (
            "; relative paths start in audio_root"
            if root is not None
            else "; relative paths start in the working directory, unless audio_root "
            "names another folder"
        )
    raise AudioError(message) from cause


def check_url(url: str, root: Path | None) -> None:
    """Raise AudioError for a URL if a root limits the files that may be read."""
    if root is not None:
        message = (
            f"{url!r:.300} is not under audio_root; connect without audio_root where "
            "rows may name URLs"
        )
        raise AudioError(message)


def _without_waiting(path: str, flags: int) -> int:
    # Without O_NONBLOCK, opening a pipe waits for a writer. Files ignore the flag.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


@contextmanager
def naming(row: int) -> Iterator[None]:
    """Put the row's number, from 1, before the message of a DataError."""
    try:
        yield
    except DataError as error:
        message = f"row {row}: {error}"
        raise type(error)(message) from error
