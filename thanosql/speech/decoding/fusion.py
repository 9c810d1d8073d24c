"""What a language model and hotwords add to a text: its letters in, log-gains out.

Shallow fusion: to the log-probability that the recognizer gives a text, a weighted
log-probability of its words is added, a bonus for each word and one for each hotword
(`hotwords.py`). A word is scored where it ends. The letters of a word that no known
word begins with cost at once what the end would bring: an unknown word's probability,
and its spelling's. So a search drops it before it is written out.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from thanosql.speech.decoding.decoding import LanguageModel
    from thanosql.speech.decoding.hotwords import Hotwords

# States that are remembered at most. One takes some 800 bytes.
_REMEMBERED = 20_000
_MOST = 700.0  # nats, up or down; their exponential is a float still


class Lexicon:
    """The known words, by their spelling in a recognizer's vocabulary."""

    def __init__(self, words: Iterable[str], spell: Callable[[str], str]) -> None:
        """Spell the words. spell: returns a word in the vocabulary's letters.

        A word that cannot be spelled whole is left out; of several with one spelling
        the first is taken.
        """
        self._words: dict[str, str] = {}
        for word in words:
            spelled = spell(word)
            if spelled and " " not in spelled:
                self._words.setdefault(spelled, word)
        self._sorted = sorted(self._words)

    def __len__(self) -> int:
        return len(self._sorted)

    def word(self, spelled: str) -> str | None:
        """Return the word that is spelled so, as the language model has it."""
        return self._words.get(spelled)

    def begins(self, letters: str) -> bool:
        """Return whether a known word begins with these letters."""
        place = bisect_left(self._sorted, letters)
        return place < len(self._sorted) and self._sorted[place].startswith(letters)


@dataclass(slots=True, eq=False)
class State:
    """All that the gains after a text depend on."""

    letters: str
    "Those since the last space; without a language model, whether there are any."
    history: Hashable
    "The language model's state before them."
    hotword: int
    paid: float
    "What the letters have cost in advance."
    following: dict[int, tuple[float, State]] = field(default_factory=dict)
    "Token -> factor and next state, as far as `Fusion.step` was asked for them."


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """How much a text's parts count, in nats beside the recognizer's."""

    language_model: float
    word: float
    "The bonus of a word."
    unknown_letter: float
    "The log-probability of a letter of a word that the language model does not know."


class Fusion:
    """The gains of texts, as an automaton over tokens that is built where it is needed.

    Equal states are one object, whatever texts lead there.
    """

    def __init__(
        self,
        tokens: tuple[str, ...],
        weights: Weights,
        *,
        language_model: LanguageModel | None,
        lexicon: Lexicon | None,
        hotwords: Hotwords,
        names: Lexicon,
    ) -> None:
        """Begin. tokens: the letters of each. names: the words of the hotwords."""
        self._tokens = tokens
        self._weights = weights
        self._model = language_model
        self._lexicon = lexicon
        self._hotwords = hotwords
        self._names = names
        self._states: dict[tuple[str, Hashable, int], State] = {}
        self.start = State(
            "", language_model.start() if language_model else None, hotwords.start, 0.0
        )

    def step(self, state: State, token: int) -> tuple[float, State]:
        """Return the factor of a token after a state, and the state after it."""
        gain = 0.0
        letters, history, hotword = state.letters, state.history, state.hotword
        paid = state.paid
        for letter in self._tokens[token]:
            if letter != " ":
                # Only a language model needs to know them; a text without spaces would
                # be one word as long as the recording.
                letters = letter if self._model is None else letters + letter
            elif letters:
                scored, history = self._word(letters, history)
                gain += scored - paid
                letters, paid = "", 0.0
            hotword, brought = self._hotwords.step(hotword, letter)
            gain += brought
        if letters and self._model is not None:
            due = self._due(letters)
            gain += due - paid
            paid = due
        key = letters, history, hotword
        after = self._states.get(key)
        if after is None:
            if len(self._states) >= _REMEMBERED:
                self._forget()
            after = self._states[key] = State(letters, history, hotword, paid)
        found = state.following[token] = math.exp(max(-_MOST, min(gain, _MOST))), after
        return found

    def _forget(self) -> None:
        """Forget all states but those that a search has in its beam."""
        for each in (self.start, *self._states.values()):
            each.following.clear()  # or one would keep all that come after it
        self._states.clear()

    def end(self, state: State) -> float:
        """Return the log-gain of ending a text in a state."""
        gain, history, hotword = 0.0, state.history, state.hotword
        if state.letters:
            gain, history = self._word(state.letters, history)
            gain -= state.paid
            hotword, brought = self._hotwords.step(hotword, " ")
            gain += brought
        if self._model is not None:
            gain += self._weights.language_model * self._model.end(history)
        return gain + self._hotwords.end(hotword)

    def _word(self, letters: str, history: Hashable) -> tuple[float, Hashable]:
        """Return what a word brings after a history, and the history after it."""
        gain = self._weights.word
        if self._model is None or self._lexicon is None:
            return gain, history
        known = self._lexicon.word(letters)
        scored, history = self._model.score(history, known or letters)
        if known is None:
            scored += self._spelling(letters)
        return gain + self._weights.language_model * scored, history

    def _due(self, letters: str) -> float:
        """Return what the first letters of a word cost in advance."""
        if self._lexicon is None or self._lexicon.begins(letters):
            return 0.0
        return self._weights.language_model * self._spelling(letters)

    def _spelling(self, letters: str) -> float:
        """Return the log-probability of an unknown word's spelling."""
        if self._names.begins(letters):
            return 0.0
        return self._weights.unknown_letter * len(letters)
