"""Paths of recordings in, what their headers say out."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from thanosql import errors
from thanosql.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from thanosql.speech.recordings import Recording

_LISTED = 10  # bad files that an error shows


def open_recording(path: str, root: Path | None) -> IO[bytes]:
    """Return the file that an audio value names, open; AudioError if it must not be."""
    from thanosql.speech import place

    return place.open_file(path, root)


def inspect(path: Path) -> Recording:
    """Return what the header of an audio file says, or raise AudioError."""
    from thanosql.speech import recordings

    return recordings.inspect(path)


def inspect_folder(folder: Path) -> Iterator[tuple[Path, Recording]]:
    """Yield every audio file below a folder, by name, and what its header says.

    Raises AudioError at the end if any cannot be read, with the first of those.
    """
    from thanosql.speech import recordings

    # Links to folders are not followed, so the walk ends. Hidden files are no data:
    # macOS leaves a ._name.wav beside each file it copies to a foreign disk.
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in recordings.SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
    )
    if not paths:
        known = ", ".join(sorted(recordings.SUFFIXES))
        message = f"no audio in the folder {str(folder)!r}: no file ends in {known}"
        raise errors.DataError(message)
    bad: list[str] = []
    with Progress() as progress:
        for done, path in enumerate(paths, start=1):
            progress("inspect", done, len(paths))
            try:
                found = recordings.inspect(path)
            except errors.AudioError as error:
                bad.append(str(error))
            else:
                yield path, found
    if bad:
        lines = bad[:_LISTED]
        if len(bad) > _LISTED:
            lines.append(f"and {len(bad) - _LISTED} more")
        listed = "\n  ".join(lines)
        message = (
            f"{len(bad)} of {len(paths)} recordings in the folder {str(folder)!r} "
            f"cannot be read; move or delete them\n  {listed}"
        )
        raise errors.AudioError(message)
