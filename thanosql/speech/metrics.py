"""References and hypotheses in, how many words and characters are wrong out.

Strings are compared as given; who wants case or punctuation not to count removes them
from both first (EVALUATE: `Spelling.normalize`). Counts add up, so a corpus is scored
batch by batch in the memory of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jiwer
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BLOCKS, REPLICATES = 10, 1_000  # draws of the bootstrap, and how many at a time


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


def confidence_interval(
    utterances: Mapping[tuple[int, int], int], confidence: float = 0.95
) -> tuple[float | None, float | None]:
    """Return the ends of an error rate's confidence interval, by bootstrap.

    utterances: (errors, reference length) -> how many utterances have these. As many
    are drawn anew from them, with replacement, 10 000 times; the ends are
    percentiles of the rates of these draws (Bisani and Ney, "Bootstrap estimates for
    confidence intervals in ASR performance evaluation", ICASSP 2004). Drawing from the
    distinct pairs by their counts is the same draw, in memory that does not grow with
    the number of utterances. The same utterances give the same interval; fewer than two
    give none.
    """
    count = sum(utterances.values())
    if count < 2:
        return None, None
    pairs = sorted(utterances)
    shares = np.array([utterances[pair] for pair in pairs]) / count
    random = np.random.default_rng(0)
    # (replicates, 2): errors and lengths of each draw
    sums = np.concatenate(
        [
            random.multinomial(count, shares, size=REPLICATES) @ np.array(pairs)
            for _ in range(BLOCKS)
        ]
    )
    errors, lengths = sums[sums[:, 1] > 0].T
    rates = errors / lengths
    if len(rates) == 0:
        return None, None
    tail = 50 * (1 - confidence)
    low, high = np.percentile(rates, [tail, 100 - tail])
    return float(low), float(high)


def _counts(output: jiwer.WordOutput | jiwer.CharacterOutput) -> EditCounts:
    return EditCounts(
        output.hits, output.substitutions, output.deletions, output.insertions
    )
