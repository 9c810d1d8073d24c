"""Audio files in, what their headers say out. Nothing is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from thanosql.errors import AudioError, DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SUFFIXES = frozenset(
    (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf")
)
"""What the names of audio files end in, of the kinds that libsndfile reads."""

_LISTED = 10  # bad files that an error shows


@dataclass(frozen=True, slots=True)
class Recording:
    """What a file says of itself."""

    seconds: float
    sample_rate: int  # Hz
    channels: int
    format: str  # wav, flac, ogg, mp3...


def inspect(path: Path) -> Recording:
    """Return what the header of an audio file says.

    Raises AudioError for what cannot be read, or is no audio.
    """
    import soundfile  # 0.1 s, with numpy: only where there are recordings

    try:
        # libsndfile gets the descriptor: no name has to be encoded for it.
        with (
            path.open("rb") as file,
            soundfile.SoundFile(file.fileno(), closefd=False) as sound,
        ):
            return Recording(
                sound.frames / sound.samplerate,
                sound.samplerate,
                sound.channels,
                sound.format.lower(),
            )
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip(" .")
        message = (
            f"{str(path)!r} is no audio that can be decoded (libsndfile: {reason})"
        )
        raise AudioError(message) from error
    except OSError as error:
        message = f"cannot read {str(path)!r}: {error.strerror or error}"
        raise AudioError(message) from error


def inspect_folder(
    folder: Path, progress: Callable[[str, float, float], None]
) -> Iterator[tuple[Path, Recording]]:
    """Yield every audio file below a folder, by name, and what its header says.

    Raises AudioError at the end if any cannot be read, with the first of those.
    """
    # Links to folders are not followed, so the walk ends. Hidden files are no data:
    # macOS leaves a ._name.wav beside each file it copies to a foreign disk.
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
    )
    if not paths:
        known = ", ".join(sorted(SUFFIXES))
        message = f"no audio in the folder {str(folder)!r}: no file ends in {known}"
        raise DataError(message)
    bad: list[str] = []
    for done, path in enumerate(paths, start=1):
        progress("inspect", done, len(paths))
        try:
            found = inspect(path)
        except AudioError as error:
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
        raise AudioError(message)
