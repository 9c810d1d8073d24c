"""Look at every row before training: rows in, utterances and all that is wrong out.

Every recording is decoded to its end, since a file may break off anywhere; nothing of
it is kept but its length.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, NamedTuple, overload

import numpy as np

from thanosql.errors import AudioError, TrainingError
from thanosql.speech.prefetch import chunks, prefetched_batches
from thanosql.speech.progress import Progress, silent
from thanosql.speech.sound import audio
from thanosql.speech.training.batches import lengthened

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from thanosql.speech.recognizers.recognizer import Recognizer
    from thanosql.speech.training.checkup import Checkup

ROWS_AT_ONCE = 16  # so many recordings are in memory at a time, twice
LISTED = 10  # bad rows that an error shows
_IS_NUMBER = "text is a number, not text"


@dataclass(frozen=True, slots=True)
class Utterance:
    """What batching needs to know of a row; its audio and text stay where they are."""

    row: int
    "Its number in the query, from 1."
    seconds: float
    content: int
    "A digest of its waveform, of 64 bits: equal recordings have the same."


class Utterances(Sequence[Utterance]):
    """The utterances of a training in the memory of three numbers each."""

    def __init__(self, utterances: Iterable[Utterance] = ()) -> None:
        self._rows, self.contents = array("q"), array("Q")
        self.seconds = array("d")
        for utterance in utterances:
            self.append(utterance)

    def append(self, utterance: Utterance) -> None:
        """Add one at the end."""
        self._rows.append(utterance.row)
        self.seconds.append(utterance.seconds)
        self.contents.append(utterance.content)

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Utterance: ...
    @overload
    def __getitem__(self, index: slice) -> Utterances: ...
    def __getitem__(self, index: int | slice) -> Utterance | Utterances:
        if isinstance(index, slice):
            return Utterances(self[i] for i in range(*index.indices(len(self))))
        return Utterance(self._rows[index], self.seconds[index], self.contents[index])


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row nothing can be learned from, and why."""

    row: int
    reason: str


@dataclass(frozen=True, slots=True)
class Examination:
    """What the rows hold."""

    utterances: Utterances
    bad: tuple[BadRow, ...]
    dropped: Counter[str]
    "Characters of the texts that the vocabulary cannot spell, each with how often."


class _Candidate(NamedTuple):
    row: int
    audio: object
    targets: tuple[int, ...]
    reason: str  # why its text is no target; else empty


def examine(
    recognizer: Recognizer,
    rows: Sequence[tuple[object, object]],
    root: Path | None,
    progress: Progress = silent,
    checkup: Checkup | None = None,
) -> Examination:
    """Decode all recordings, spell all texts, and return what fits and what is bad.

    rows: (audio, text) each; read once, in order, in the calling thread. root: the
    folder relative paths start from. checkup: takes note of what is remarkable. Raises
    nothing for a bad row: all are returned.
    """
    dropped: Counter[str] = Counter()

    def candidates() -> Iterator[_Candidate]:
        for row in range(1, len(rows) + 1):
            value, text = rows[row - 1]
            targets, reason = _targets(recognizer, text, dropped)
            yield _Candidate(row, value, targets, reason)

    def check(candidate: _Candidate) -> Utterance | BadRow:
        return _check(recognizer, candidate, root, checkup)

    utterances = Utterances()
    bad: list[BadRow] = []
    for findings in prefetched_batches(
        chunks(candidates(), ROWS_AT_ONCE), check, ROWS_AT_ONCE
    ):
        for finding in findings:
            if isinstance(finding, BadRow):
                bad.append(finding)
            else:
                utterances.append(finding)
        progress("examine", len(utterances) + len(bad), len(rows))
    return Examination(utterances, tuple(bad), dropped)


def bad_rows_error(
    bad: Sequence[BadRow], row_count: int, text_col: str, source: str = "the query"
) -> TrainingError:
    """Return the error that lists the first bad rows of `source` and counts all.

    text_col: the name of the texts' column in it.
    """
    lines = [f"row {b.row}: {b.reason}" for b in bad[:LISTED]]
    if len(bad) > LISTED:
        lines.append(f"and {len(bad) - LISTED} more")
    listed = "\n  ".join(lines)
    way_out = "correct them, or leave them out in its WHERE"
    if all(b.reason == _IS_NUMBER for b in bad):
        way_out = f"write CAST({text_col} AS TEXT) AS {text_col} in it"
    message = (
        f"{len(bad)} of {row_count} rows of {source} cannot be used; {way_out}"
        f"\n  {listed}"
    )
    return TrainingError(message)


def hold_out(
    utterances: Utterances, share: float, seed: int
) -> tuple[Utterances, Utterances]:
    """Return the utterances to train on and a drawn `share` to validate on.

    Both keep the rows' order. Equal recordings are on one side, so that the share may
    be a little larger. At least one utterance is held out where the share is not 0, and
    at least one is left to train on, although they may be equal where all are.
    """
    count = round(len(utterances) * share)
    if share > 0:
        count = max(0, min(max(1, count), len(utterances) - 1))
    contents = np.asarray(utterances.contents)
    _, first, groups = np.unique(contents, return_index=True, return_inverse=True)
    # Numbered as they come, so that where no two are equal a group is its utterance.
    groups = np.argsort(np.argsort(first))[groups]
    if len(first) < 2:
        groups = np.arange(len(utterances))
    sizes = np.bincount(groups)
    drawn = np.random.default_rng(seed).permutation(len(sizes))
    # As many groups as the count takes, but for one.
    needed = int(np.searchsorted(np.cumsum(sizes[drawn]), count)) + 1 if count else 0
    held = np.isin(groups, drawn[: min(needed, len(sizes) - 1)]).tolist()
    return (
        Utterances(compress(utterances, (not each for each in held))),
        Utterances(compress(utterances, held)),
    )


def trained_on(validation: Utterances, training: Utterances) -> int:
    """Return how many of the recordings to validate on are among those to train on."""
    return int(np.isin(validation.contents, training.contents).sum())


def _targets(
    recognizer: Recognizer, text: object, dropped: Counter[str]
) -> tuple[tuple[int, ...], str]:
    """Return the ids of a row's text, or why there are none; count what it drops."""
    if text is None:
        return (), "text is NULL"
    if isinstance(text, int | float):
        return (), _IS_NUMBER
    if not isinstance(text, str):
        return (), f"text is {type(text).__name__}, not text"
    if not text.strip():
        return (), "text is empty"
    normalized = recognizer.spelling.normalize(text)
    dropped.update(normalized.dropped)
    targets = recognizer.spelling.encode(normalized.text)
    return targets, "" if targets else f"the model can spell nothing of {text[:40]!r}"


def _check(
    recognizer: Recognizer,
    candidate: _Candidate,
    root: Path | None,
    checkup: Checkup | None,
) -> Utterance | BadRow:
    row, value, targets, reason = candidate
    if reason:
        return BadRow(row, reason)
    try:
        waveform = audio.load(value, root)
        if checkup is not None:
            checkup.notice(row, value, waveform)
        seconds = audio.seconds(waveform)
        misfit = recognizer.misfit(targets, len(recognizer.features(waveform)), seconds)
        if misfit:
            longer = recognizer.features(lengthened(waveform))
            if not recognizer.misfit(targets, len(longer), seconds):
                misfit = ""
    except AudioError as error:
        return BadRow(row, str(error))
    if misfit:
        return BadRow(row, misfit)
    digest = hashlib.blake2b(waveform.tobytes(), digest_size=8).digest()
    return Utterance(row, seconds, int.from_bytes(digest, "little"))
