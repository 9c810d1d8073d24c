"""References and hypotheses in, counts of wrong words and characters out.

Strings are compared as given; `normalization` takes from both what should not count.
Counts can be added, so a corpus is scored batch by batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jiwer
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

BLOCKS, REPLICATES = 10, 1_000  # of the bootstrap: blocks, and draws in each


@dataclass(frozen=True, slots=True)
class EditCounts:
    """The fewest edits that turn references into hypotheses, of words or characters.

    ``EditCounts()`` counts nothing; ``a + b`` counts the rows of both.
    """

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def errors(self) -> int:
        """The sum of substitutions, deletions and insertions."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def reference_length(self) -> int:
        """The number of words, or characters, in the references."""
        return self.hits + self.substitutions + self.deletions

    @property
    def rate(self) -> float | None:
        """Errors per word (or character) of the references.

        Insertions can make it more than 1. None if the references are empty, since
        there is nothing to divide by; `insertions` still counts.
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
    """Return the word edits of a batch; white space separates words.

    Each word of a hypothesis whose reference is empty is an insertion.
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

    utterances: (errors, reference length) -> the number of utterances that have both.
    From n utterances, n are drawn with replacement, 10 000 times; the ends are
    percentiles of the error rates of these draws (Bisani and Ney, "Bootstrap estimates
    for confidence intervals in ASR performance evaluation", ICASSP 2004). Distinct
    pairs are drawn by their counts: that is the same draw, in memory that does not grow
    with the number of utterances. The same utterances give the same interval. With
    fewer than two utterances both ends are None.
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
