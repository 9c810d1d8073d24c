"""A stored n-gram model in; the probability of a word after others out, one at a time.

A state is the node of the longest n-gram that the words so far end in and that a next
word can make a difference to, so that states are equal where all that follows is.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import TYPE_CHECKING

from thanosql.speech.ngram.files import END, SPECIAL, START, UNKNOWN, read
from thanosql.speech.words import words_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from thanosql.speech.ngram.files import Buffer, Facts, Trie

_KEPT_SCORES = 2**18  # some 40 MB at most


class NGramModel:
    """How likely a word is after others; a LanguageModel of a search."""

    def __init__(self, vocabulary: list[str], trie: Trie, facts: Facts) -> None:
        """Begin. vocabulary: the words by number, first <unk>, <s> and </s>."""
        self.facts = facts
        # bisect and single items are faster through these than through NumPy.
        self._words = trie.words.data
        self._log_probs = trie.log_probs.data
        self._backoffs = trie.backoffs.data
        self._suffixes = trie.suffixes.data
        self._children = trie.children.data
        self._numbers = {word: i for i, word in enumerate(vocabulary)}
        if facts.spelled_as_found:
            # A model of others may have capitals. A word that is there in our form,
            # too, is that one; of several in other forms, the first counts.
            for i, word in enumerate(vocabulary):
                form = words_of(word)
                if len(form) == 1 and i > END:
                    self._numbers.setdefault(form[0], i)
        for special in SPECIAL:  # none that somebody can say
            del self._numbers[special]
        self._scores: dict[tuple[int, str], tuple[float, int]] = {}
        self._start = self._shortened(1 + START if facts.order > 1 else 0)

    @property
    def order(self) -> int:
        """The number of words of its longest n-grams."""
        return self.facts.order

    @property
    def words(self) -> Iterable[str]:
        """The words that it knows, in the form of `words_of`."""
        return self._numbers.keys()

    def start(self) -> int:
        """Return the state before the first word of a text."""
        return self._start

    def score(self, state: int, word: str) -> tuple[float, int]:
        """Return the natural log-probability of a word after a state, and the next one.

        word: in the form of `words_of`. A word that the model does not know has the
        probability of an unknown one.
        """
        found = self._scores.get((state, word))
        if found is None:
            if len(self._scores) >= _KEPT_SCORES:
                self._scores.clear()
            found = self._score(state, self._numbers.get(word, UNKNOWN))
            self._scores[state, word] = found
        return found

    def end(self, state: int) -> float:
        """Return the natural log-probability that the text ends after a state."""
        return self._score(state, END)[0]

    def log_probability(self, words: Iterable[str]) -> float:
        """Return the natural log-probability of a whole text."""
        state, total = self.start(), 0.0
        for word in words:
            # Not by `score`: what is asked for once needs not be kept.
            gain, state = self._score(state, self._numbers.get(word, UNKNOWN))
            total += gain
        return total + self.end(state)

    def _score(self, node: int, word: int) -> tuple[float, int]:
        log_prob = 0.0
        while (found := self._child(node, word)) is None:
            log_prob += self._backoffs[node]
            node = self._suffixes[node]
        log_prob += self._log_probs[found]
        # Of an n-gram of the longest, what may count later is what it ends in.
        while node and (found is None or found >= len(self._backoffs)):
            node = self._suffixes[node]
            found = self._child(node, word)
        if found is None or found >= len(self._backoffs):  # the model has no contexts
            found = 0
        return log_prob * math.log(10), self._shortened(found)

    def _child(self, node: int, word: int) -> int | None:
        end = self._children[node + 1]
        place = bisect_left(self._words, word, self._children[node], end)
        return place if place < end and self._words[place] == word else None

    def _shortened(self, node: int) -> int:
        """Return the longest suffix of a context that can change what comes next."""
        children, backoffs = self._children, self._backoffs
        while node and children[node] == children[node + 1] and not backoffs[node]:
            node = self._suffixes[node]
        return node


def open_model(files: Mapping[str, Buffer]) -> NGramModel:
    """Return the model of a stored model's files; DataError if they are damaged."""
    return NGramModel(*read(files))
