"""Counts of n-grams in, probabilities and backoffs out: modified Kneser-Ney smoothing.

Interpolated, with three discounts for each length (Chen & Goodman 1999, "An empirical
study of smoothing techniques for language modeling", section 3). What that paper leaves
open is done as KenLM does it (Heafield et al. 2013, "Scalable modified Kneser-Ney
language model estimation"): the words are interpolated with a uniform distribution over
the vocabulary, of which <unk> has only that share; n-grams that are pruned count
for the discounts, and leave what they had to the backoff.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from thanosql.speech.ngram.files import START, Level, blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from thanosql.speech.ngram.counting import Counts, Scratch
    from thanosql.speech.progress import Progress

FALLBACK = (0.5, 1.0, 1.5)
"""The discounts where counts are too few to estimate them, those of KenLM's option."""

NEVER = -99.0
"""The logarithm of what <s> has for a probability, as ARPA files write it."""


@dataclass(frozen=True, slots=True)
class _Estimates:
    """The n-grams of one length; arrays are (n-grams,), those left out included."""

    counts: Counts
    kept: NDArray[Any]
    "bool: whether an n-gram is in the model."
    nodes: NDArray[Any]
    "int32: its node, if it is."
    probs: NDArray[Any]
    "float64: the probability of its last word after the others."


def estimate(
    counted: Sequence[Counts],
    pruned_up_to: Sequence[int],
    scratch: Scratch,
    progress: Progress,
) -> list[Level]:
    """Return the levels of a model.

    pruned_up_to: for each length, the greatest count of n-grams that are left out. It
    is 0 for words, and does not fall with the length: so what an n-gram begins with and
    what it ends in are in the model where the n-gram is.
    """
    levels: list[Level] = []
    shorter: _Estimates | None = None
    before: _Estimates | None = None  # what is shorter by two
    first_node = 1
    for i, counts in enumerate(counted):
        progress("estimate", i, len(counted))
        longer = counted[i + 1] if i + 1 < len(counted) else None
        adjusted = _adjusted(counts, longer, scratch)
        kept = scratch.array("?", len(counts))
        nodes = scratch.array("i4", len(counts))
        for block in blocks(len(counts)):
            kept[block] = counts.counts[block] > pruned_up_to[i] if i else True
            nodes[block] = first_node - 1 + np.cumsum(kept[block])
            first_node += int(np.count_nonzero(kept[block]))
        if shorter is None:
            probs = _words_probs(adjusted)
        else:
            probs, backoffs = _probs(counts, adjusted, kept, shorter, scratch)
            levels.append(_level(shorter, before, backoffs, scratch))
        before, shorter = shorter, _Estimates(counts, kept, nodes, probs)
    if shorter is not None:
        levels.append(_level(shorter, before, None, scratch))
    return levels


def _adjusted(counts: Counts, longer: Counts | None, scratch: Scratch) -> NDArray[Any]:
    """Return what smoothing takes for the counts: (n-grams,) int64.

    For the longest n-grams these are their counts, as for those that nothing can come
    before; for all others, how many words there are that come before.
    """
    if longer is None:
        return counts.counts
    adjusted = scratch.array("i8", len(counts))
    for block in blocks(len(longer)):
        np.add.at(adjusted, longer.suffixes[block], 1)
    adjusted[counts.from_start] = counts.counts[counts.from_start]
    return adjusted


def discounts(adjusted: NDArray[Any]) -> NDArray[Any]:
    """Return what is taken from a count of 0, of 1, of 2, and of 3 or more.

    By how many n-grams have a count of 1, 2, 3 and 4 (equation 26 of Chen & Goodman,
    and what stands around it); FALLBACK if these give no discounts.
    """
    n = np.zeros(6)
    for block in blocks(len(adjusted)):
        n += np.bincount(np.minimum(adjusted[block], 5), minlength=6)
    taken = np.zeros(4)
    if n[1:4].all():
        share = n[1] / (n[1] + 2 * n[2])
        for count in (1, 2, 3):
            taken[count] = count - (count + 1) * share * n[count + 1] / n[count]
        if all(0 < taken[count] <= count for count in (1, 2, 3)):
            return taken
    taken[1:] = FALLBACK
    return taken


def _words_probs(adjusted: NDArray[Any]) -> NDArray[Any]:
    """Return the probabilities of the words alone: (words,)."""
    taken = discounts(adjusted)[np.minimum(adjusted, 3)]
    left = taken.sum() / (len(adjusted) - 1)  # all words but <s>
    probs: NDArray[Any] = (adjusted - taken + left) / adjusted.sum()
    probs[START] = 10**NEVER
    return probs


def _probs(
    counts: Counts,
    adjusted: NDArray[Any],
    kept: NDArray[Any],
    shorter: _Estimates,
    scratch: Scratch,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the probabilities of n-grams, and the backoffs of those they begin with.

    A probability is that of the discounted counts of its context, and what they leave,
    the backoff, times the probability after a context that is shorter by a word.
    """
    taken = discounts(adjusted)
    totals = scratch.array("f8", len(shorter.counts))
    backoffs = scratch.array("f8", len(shorter.counts))
    for block in blocks(len(counts)):
        parents, found = counts.parents(block), adjusted[block]
        left = np.where(kept[block], taken[np.minimum(found, 3)], found)
        # The parents of a block are neighbours.
        first, last = parents[0], parents[-1] + 1
        totals[first:last] += np.bincount(parents - first, found)
        backoffs[first:last] += np.bincount(parents - first, left)
    for block in blocks(len(backoffs)):
        is_context = totals[block] > 0
        np.divide(backoffs[block], totals[block], backoffs[block], where=is_context)
        backoffs[block][~is_context] = 1
    probs = scratch.array("f8", len(counts))
    for block in blocks(len(counts)):
        parents, found = counts.parents(block), adjusted[block]
        probs[block] = (found - taken[np.minimum(found, 3)]) / totals[parents]
        probs[block] += backoffs[parents] * shorter.probs[counts.suffixes[block]]
    return probs, backoffs


def _level(
    own: _Estimates,
    shorter: _Estimates | None,
    backoffs: NDArray[Any] | None,
    scratch: Scratch,
) -> Level:
    """Return the n-grams that are kept; None stands for what there is not."""
    counts = own.counts

    def written(dtype: str, values: Callable[[slice], NDArray[Any]]) -> NDArray[Any]:
        parts = (values(block)[own.kept[block]] for block in blocks(len(counts)))
        return scratch.written(dtype, parts)

    def nodes(numbers: NDArray[Any]) -> NDArray[Any]:
        return np.zeros_like(numbers) if shorter is None else shorter.nodes[numbers]

    none = np.zeros(0)
    return Level(
        parents=written("i4", lambda block: nodes(counts.parents(block))),
        words=written("i4", counts.words),
        log_probs=written("f4", lambda block: np.log10(own.probs[block])),
        backoffs=none
        if backoffs is None
        else written("f4", lambda block: np.log10(backoffs[block])),
        suffixes=none
        if backoffs is None
        else written("i4", lambda block: nodes(counts.suffixes[block])),
    )
