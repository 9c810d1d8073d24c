"""Score a model in training: texts in, a `Score` that tells the better model out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from thanosql.speech.metrics import EditCounts, character_errors, word_errors
from thanosql.speech.normalization import NORMALIZERS
from thanosql.speech.results import VALIDATION_NORMALIZE

if TYPE_CHECKING:
    from collections.abc import Sequence


class Score(NamedTuple):
    """How well a model transcribes; compared field by field, and lower is better."""

    is_stuck: bool  # whether it writes the same text for every recording
    cer: float  # before WER, which stays near 1 while letters are being learned
    wer: float
    loss: float  # mean over utterances, per target token
    text: str  # the text that it writes for all of them; else empty


@dataclass(frozen=True, slots=True)
class Tally:
    """What has been counted of some utterances; those of several can be added."""

    words: EditCounts = EditCounts()  # noqa: RUF009 - frozen
    characters: EditCounts = EditCounts()  # noqa: RUF009
    loss: float = 0.0
    "The sum over the utterances."
    count: int = 0
    first: tuple[str, str] = ("", "")
    "The first utterance's hypothesis and reference."
    are_many_written: bool = False
    are_many_wanted: bool = False

    @classmethod
    def of(
        cls, references: Sequence[str], hypotheses: Sequence[str], loss: float
    ) -> Tally:
        """Return that of a batch; loss: the mean over its utterances."""
        normalize = NORMALIZERS[VALIDATION_NORMALIZE]
        pair = [[normalize(t) for t in each] for each in (references, hypotheses)]
        return cls(
            word_errors(*pair),
            character_errors(*pair),
            loss * len(references),
            len(references),
            (hypotheses[0], references[0]),
            any(text != hypotheses[0] for text in hypotheses),
            any(text != references[0] for text in references),
        )

    def __add__(self, other: Tally) -> Tally:
        """Return that of both; `other` is of later utterances."""
        if not self.count or not other.count:
            return self if self.count else other
        (written, wanted), (also_written, also_wanted) = self.first, other.first
        return replace(
            self,
            words=self.words + other.words,
            characters=self.characters + other.characters,
            loss=self.loss + other.loss,
            count=self.count + other.count,
            are_many_written=self.are_many_written
            or other.are_many_written
            or written != also_written,
            are_many_wanted=self.are_many_wanted
            or other.are_many_wanted
            or wanted != also_wanted,
        )

    def score(self) -> Score:
        """Return the score of the utterances, of which there is at least one."""
        text = None if self.are_many_written else self.first[0]
        return Score(
            is_stuck=text == "" or (text is not None and self.are_many_wanted),
            # The rate is None if all references are empty: word delimiters alone.
            cer=self.characters.rate or 0.0,
            wer=self.words.rate or 0.0,
            loss=self.loss / self.count,
            text=text or "",
        )
