"""Examine every row before training: rows in, utterances and bad rows out.

Every recording is decoded to its end, since a file may break off anywhere. Only its
duration and a digest are kept.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from thanosql.errors import AudioError
from thanosql.speech.prefetch import chunks, prefetched_batches
from thanosql.speech.progress import Progress, silent
from thanosql.speech.rows import BadRow, unusable_text
from thanosql.speech.sound import audio
from thanosql.speech.training.batches import lengthened
from thanosql.speech.training.utterances import Utterance, Utterances

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from thanosql.speech.recognizers.recognizer import Recognizer
    from thanosql.speech.training.checkup import Checkup

ROWS_AT_ONCE = 16  # half of the number of recordings in memory at a time


@dataclass(frozen=True, slots=True)
class Examination:
    """The usable and the bad rows of a query."""

    utterances: Utterances
    bad: tuple[BadRow, ...]
    dropped: Counter[str]
    "Characters of the texts that the vocabulary cannot spell, counted."


class _Candidate(NamedTuple):
    row: int
    audio: object
    targets: tuple[int, ...]
    reason: str  # why its text cannot be used; "" if it can


def examine(
    recognizer: Recognizer,
    rows: Sequence[tuple[object, object]],
    root: Path | None,
    progress: Progress = silent,
    checkup: Checkup | None = None,
) -> Examination:
    """Decode all recordings, spell all texts, and return the usable and the bad rows.

    rows: (audio, text) each; read once, in order, in the calling thread. root: the
    folder that relative paths start from. checkup: takes note of each recording. A bad
    row raises no error; all of them are returned.
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


def _targets(
    recognizer: Recognizer, text: object, dropped: Counter[str]
) -> tuple[tuple[int, ...], str]:
    """Return a row's target ids, or why it has none; count dropped characters."""
    if not isinstance(text, str) or not text.strip():
        return (), unusable_text(text)
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
