"""Audio files in, what their headers say out. Nothing is decoded."""

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
"""What the names of recordings end in, of the kinds that libsndfile reads."""

_OTHERS = (
    *(".wma", ".wmv", ".asf", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".flv", ".vob"),
    *(".ape", ".wv", ".ac3", ".ra", ".rm", ".dss", ".ds2", ".spx", ".gsm", ".voc"),
    *(".shn", ".vox", ".pcm", ".tta", ".tak", ".dsf", ".dff", ".mpc", ".mp1"),
)
"""The same of kinds that nothing here decodes; a folder with some is warned of."""

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
    """Yield every recording below a folder, by name, and what its header says.

    Warns of those that cannot be decoded: a name tells what is a recording, so that a
    transcript or a picture beside them is not one. Raises AudioError at the end if any
    other cannot be read, with the first of those.
    """
    decoded = SUFFIXES + (media.SUFFIXES if media.is_installed() else ())
    # Links to folders are not followed, so the walk ends. Hidden files are no data:
    # macOS leaves a ._name.wav beside each file it copies to a foreign disk.
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
