"""What speech work yields: transcripts, scores and epochs, as plain values.

Nothing here imports torch, so that whoever makes columns of them need not either: where
a table has such values, its columns are the fields, by name and in their order.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a transcript, and when it was said."""

    text: str
    start: float  # seconds from the recording's beginning
    end: float
    confidence: float  # 0 to 1


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What decoding makes of a recording's scores."""

    text: str
    confidence: float | None = None
    "From 0 to 1, of the whole; None where it was not asked for."
    words: tuple[Word, ...] = ()
    "Empty where they were not asked for."


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcription:
    """A hypothesis and its recording; or what is wrong with the recording."""

    text: str | None
    "None where the recording is bad."
    confidence: float | None = None
    words: tuple[Word, ...] = ()
    seconds: float = 0.0
    "How long the recording is."
    error: str | None = None
    "Why it is bad; without its row, since others may hold the same recording."


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochResult:
    """What an epoch did; the validation's are None where nothing is held out."""

    epoch: int  # from 1
    steps: int  # since the beginning
    train_loss: float  # mean over utterances, per target character
    validation_loss: float | None
    wer: float | None
    cer: float | None
    learning_rate: float  # of the last step
    audio_seconds: float  # trained on, at their own speed
    seconds: float  # it took, validation included
    best: bool  # so far; without validation every epoch is


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """How a model reads recordings whose texts are known, all of them together.

    The rates, and the ends of the 95 % confidence interval of the first, are None where
    there is nothing to divide by.
    """

    rows: int
    wer: float | None
    wer_low: float | None
    wer_high: float | None
    cer: float | None
    words: int  # of the references; what follows is of words too
    substitutions: int
    deletions: int
    insertions: int
    audio_seconds: float
    seconds: float  # it took
    left_out: int  # bad rows


@dataclass(frozen=True, slots=True, kw_only=True)
class RowScores:
    """How a model reads one recording whose text is known."""

    wer: float | None
    cer: float | None
    words: int  # of the reference; what follows is of words too
    substitutions: int
    deletions: int
    insertions: int
    characters: int  # of the reference
    character_errors: int
