"""An unpacked archive in, its utterances out: one function a layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from thanosql.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DIGITS = (
    *("zero", "one", "two", "three", "four"),
    *("five", "six", "seven", "eight", "nine"),
)
_TEST_TAKES = 5  # of each digit and speaker, the first ones


class Utterance(NamedTuple):
    """A recording and what is said in it."""

    audio: Path
    text: str
    speaker: str


def librispeech(folder: Path, _part: str) -> Iterator[Utterance]:
    """Yield the utterances of LibriSpeech: .../speaker/chapter/*.trans.txt, *.flac.

    A line of a transcript is the name of a recording, a space, its text in capitals.
    """
    transcripts = sorted(folder.rglob("*.trans.txt"))
    if not transcripts:
        raise _no_layout(folder, "*.trans.txt")
    for transcript in transcripts:
        for line in transcript.read_text(encoding="utf-8").splitlines():
            name, _, text = line.partition(" ")
            audio = transcript.with_name(f"{name}.flac")
            yield Utterance(audio, text.lower(), name.partition("-")[0])


def digits(folder: Path, part: str) -> Iterator[Utterance]:
    """Yield the Free Spoken Digit Dataset's: .../recordings/7_jackson_32.wav.

    The takes 0 to 4 of each digit and speaker are for the test, as its authors say.
    """
    recordings = sorted(folder.rglob("recordings/*.wav"))
    if not recordings:
        raise _no_layout(folder, "recordings/*.wav")
    for audio in recordings:
        digit, speaker, take = audio.stem.split("_")
        if (int(take) < _TEST_TAKES) == (part == "test"):
            yield Utterance(audio, _DIGITS[int(digit)], speaker)


def _no_layout(folder: Path, what: str) -> DataError:
    message = f"the dataset in {str(folder)!r} is laid out otherwise: it has no {what}"
    return DataError(message)
