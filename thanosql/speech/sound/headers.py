"""Audio files in, the facts of their headers out. Nothing is decoded."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thanosql.errors import AudioError, DataError, warn
from thanosql.speech.sound import media

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SUFFIXES = (
    *(
        ".wav",
        ".wave",
        ".bwf",
        ".flac",
        ".ogg",
        ".oga",
        ".opus",
        ".mp3",
        ".mp2",
        ".mpga",
        ".aiff",
        ".aif",
        ".aifc",
    ),
    *(".au", ".snd", ".caf", ".w64", ".rf64", ".sph", ".nist"),
)
"""Suffixes of recordings that libsndfile can read."""

_OTHERS = (
    *(".wma", ".wmv", ".asf", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".flv", ".vob"),
    *(".ape", ".wv", ".ac3", ".ra", ".rm", ".dss", ".ds2", ".spx", ".gsm", ".voc"),
    *(".shn", ".vox", ".pcm", ".tta", ".tak", ".dsf", ".dff", ".mpc", ".mp1"),
)
"""Suffixes of recordings that cannot be decoded here; COPY warns of such files."""

_LISTED = 10  # bad files that an error shows


@dataclass(frozen=True, slots=True)
class Recording:
    """The facts of an audio file's header."""

    seconds: float
    sample_rate: int  # Hz
    channels: int
    format: str  # wav, flac, ogg, mp3...


def inspect(path: Path) -> Recording:
    """Return the facts of an audio file's header.

    Raises AudioError if the file cannot be read or is no audio.
    """
    import soundfile  # 0.1 s, with numpy: only where there are recordings

    name = repr(str(path))
    try:
        # libsndfile gets the descriptor: no name has to be encoded for it.
        with path.open("rb", 0) as file:
            if path.suffix.lower() in media.SUFFIXES and media.is_installed():
                return Recording(*media.described(file, name))
            with soundfile.SoundFile(file.fileno(), closefd=False) as sound:
                return Recording(
                    sound.frames / sound.samplerate,
                    sound.samplerate,
                    sound.channels,
                    sound.format.lower(),
                )
    except soundfile.LibsndfileError as error:
        reason = error.error_string.strip(" .")
        message = f"{name} is no audio that can be decoded (libsndfile: {reason})"
        raise AudioError(message) from error
    except OSError as error:
        message = f"cannot read {name}: {error.strerror or error}"
        raise AudioError(message) from error


def inspect_folder(
    folder: Path, progress: Callable[[str, float, float], None]
) -> Iterator[tuple[Path, Recording]]:
    """Yield every recording below a folder, sorted by path, and its header's facts.

    Recordings are known by suffix, so transcripts and pictures beside them are ignored.
    Warns of recordings of kinds that cannot be decoded. If others cannot be read,
    raises AudioError at the end, listing the first of them.
    """
    decoded = SUFFIXES + (media.SUFFIXES if media.is_installed() else ())
    # Links to folders are not followed, so the walk ends. Hidden files are ignored:
    # macOS puts a ._name.wav beside each file that it copies to a foreign disk.
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in (*SUFFIXES, *media.SUFFIXES, *_OTHERS)
        and not path.name.startswith(".")
        # A link to a file that is not there (git-annex leaves such) is named as bad.
        and (path.is_file() or (path.is_symlink() and not path.exists()))
    )
    paths = [path for path in files if path.suffix.lower() in decoded]
    left = Counter(
        path.suffix.lower() for path in files if path.suffix.lower() not in decoded
    )
    left_out = (
        f"{left.total()} recordings that cannot be decoded "
        f"({', '.join(f'{count} {suffix}' for suffix, count in left.most_common())}); "
        + (media.WAY_OUT if left.keys() & {*media.SUFFIXES} else "")
        + "ffmpeg -i FILE FILE.flac makes them others"
    )
    if not paths:
        known = ", ".join(sorted(decoded))
        message = f"no audio in the folder {str(folder)!r}: no file ends in {known}"
        raise DataError(f"{message}; there are {left_out}" if left else message)
    if left:
        warn(f"the folder {str(folder)!r} has {left_out}; they are left out")
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
