"""The results of speech work as plain values: transcripts, scores and epochs.

A table of such values has a column for each field, of the same name and in the same
order. Nothing here imports torch, so the code that makes the columns need not either.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a transcript, and when it was spoken."""

    text: str
    start: float  # seconds from the recording's beginning
    end: float
    confidence: float  # 0 to 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """How a recording was heard. None where the model or the options do not tell.

    Of a recording in several windows: the language that most of them are in, the worst
    compression ratio, the mean over all tokens.
    """

    language: str | None = None
    "ISO 639-1 code, or the model's own."
    language_probability: float | None = None
    speech_seconds: float | None = None
    "The seconds in which voice activity detection found speech."
    windows: int = 0
    "The stretches that the model heard, one after the other."
    windows_heard_again: int | None = None
    "Those whose text repeated itself, so that it was sampled again."
    repeats_itself: bool | None = None
    "Whether a text repeats itself still."
    compression_ratio: float | None = None
    "Bytes of the text to those of it compressed; more than 2.4 is a text in a loop."
    token_probability: float | None = None
    "The geometric mean of the tokens' probabilities."


@dataclass(frozen=True, slots=True)
class Alternative:
    """One of the best texts that a search has found."""

    text: str
    confidence: float  # 0 to 1; of all texts found, the likeliest have the most


@dataclass(frozen=True, slots=True)
class AlignedWord:
    """A word of a given text, as it is written there, and when it was spoken."""

    text: str
    start: float | None = None  # seconds from the recording's beginning
    end: float | None = None
    confidence: float | None = None
    """0 to 1; 0 if the word was not said.

    None if the model cannot spell it: then its times are those between its neighbours.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """When the words of a given text were spoken, or why that cannot be found."""

    words: tuple[AlignedWord, ...] = ()
    confidence: float | None = None
    "The mean of the words'."
    agreement: float | None = None
    "0 if nothing of the text is said, 1 if it is all that is said, word by word."
    matches: bool | None = None
    "Whether the text is likely the recording's, at least in part."
    error: str | None = None
    "Names no row."


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """The result of decoding one recording."""

    text: str
    confidence: float | None = None
    "From 0 to 1, for the whole text; None if the decoding does not compute it."
    words: tuple[Word, ...] = ()
    "Empty if the decoding does not compute them."
    alternatives: tuple[Alternative, ...] = ()
    "The best texts, this one first; empty unless they are asked for."
    best_path: str | None = None
    "The text without language model and hotwords; None unless it is asked for."
    details: Details = Details()
    alignment: Alignment | None = None
    "Of a text that was given; then the hypothesis's text is that one."


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcription:
    """The hypothesis for a recording, or the reason why there is none."""

    text: str | None
    "None if the recording is bad."
    confidence: float | None = None
    words: tuple[Word, ...] = ()
    alternatives: tuple[Alternative, ...] = ()
    best_path: str | None = None
    details: Details = Details()
    alignment: Alignment | None = None
    seconds: float = 0.0
    "The recording's duration; 0 if it is bad."
    channel: int | None = None
    "The one that was heard, from 1; None for the mean of all."
    channels: int | None = None
    "How many there are, each with a transcription of its own; None if one has all."
    mixes_speech: bool = False
    "Whether channels with different speech were averaged."
    error: str | None = None
    "Why it is bad. Names no row, since several rows may hold the same recording."

    @property
    def is_last(self) -> bool:
        """Whether no other channel of the recording follows."""
        return self.channels in (None, self.channel)


VALIDATION_NORMALIZE = "basic"
"""How the scores of a training compare texts, as EVALUATE's option has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochResult:
    """One epoch of a training; without validation rows, its scores are None."""

    epoch: int  # from 1
    steps: int  # since the training began
    train_loss: float  # mean over utterances, per target token: of CTC, a character
    validation_loss: float | None
    wer: float | None
    cer: float | None
    learning_rate: float  # of the last step
    audio_seconds: float  # of the recordings trained on, before speed perturbation
    seconds: float  # how long the epoch took, validation included
    best: bool  # whether it is the best so far; without validation, always


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """The error rates of a model over all rows of an EVALUATE.

    wer_low and wer_high are the ends of the 95 % confidence interval of the WER. A rate
    is None if there is nothing to divide by.
    """

    rows: int
    wer: float | None
    wer_low: float | None
    wer_high: float | None
    cer: float | None
    wer_without: float | None  # the WER without language model and hotwords
    words: int  # in the references
    substitutions: int  # these three count words
    deletions: int
    insertions: int
    audio_seconds: float
    seconds: float  # how long the work took
    normalize: str  # how texts were compared, as the option has it
    left_out: int  # bad rows, which are not scored


@dataclass(frozen=True, slots=True, kw_only=True)
class RowScores:
    """The error rates of a model for one row of an EVALUATE."""

    wer: float | None
    cer: float | None
    words: int  # in the reference
    substitutions: int  # these three count words
    deletions: int
    insertions: int
    characters: int  # in the reference
    character_errors: int
