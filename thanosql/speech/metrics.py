"""References and hypotheses in, how many words and characters are wrong out.

Strings are compared as given; who wants case or punctuation not to count removes them
from both first (EVALUATE: `Spelling.normalize`). Counts add up, so a corpus is scored
batch by batch in the memory of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jiwer

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class EditCounts:
    """How references become hypotheses with the fewest edits, in words or characters.

    ``EditCounts()`` is the sum of none; ``a + b`` scores the rows of both.
    """

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def reference_length(self) -> int:
        """Words, or characters, in the references."""
        return self.hits + self.substitutions + self.deletions

    @property
    def rate(self) -> float | None:
        """Errors a word (or character) of the references; above 1 if much is inserted.

        None where the references have none: there is nothing to divide by, and what
        was inserted is in the counts.
        """
        return self.errors / self.reference_length if self.reference_length else None

    def __add__(self, other: EditCounts) -> EditCounts:
        return EditCounts(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )


def word_errors(references: Sequence[str], hypotheses: Sequence[str]) -> EditCounts:
    """Return the word edits of a batch; words are what white space separates.

    An empty reference counts: each word of its hypothesis is an insertion.
    """
    if len(references) == 0:
        return EditCounts()
    return _counts(jiwer.process_words(list(references), list(hypotheses)))


def character_errors(
    references: Sequence[str], hypotheses: Sequence[str]
) -> EditCounts:
    """Return the character edits of a batch; a space between words is a character."""
    if len(references) == 0:
        return EditCounts()
    return _counts(jiwer.process_characters(list(references), list(hypotheses)))


def word_error_rate(
    references: Sequence[str], hypotheses: Sequence[str]
) -> float | None:
    """Return the word error rate of a corpus; None without a word to recognise."""
    return word_errors(references, hypotheses).rate


def character_error_rate(
    references: Sequence[str], hypotheses: Sequence[str]
) -> float | None:
    """Return the character error rate of a corpus; None without a character."""
    return character_errors(references, hypotheses).rate


def _counts(output: jiwer.WordOutput | jiwer.CharacterOutput) -> EditCounts:
    return EditCounts(
        output.hits, output.substitutions, output.deletions, output.insertions
    )
