"""An audio file in; what its header says of it out. Nothing is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import soundfile

from thanosql.errors import AudioError

if TYPE_CHECKING:
    from pathlib import Path

SUFFIXES = frozenset(
    (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf")
)
"""What the names of audio files end in, of the kinds that libsndfile reads."""


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
