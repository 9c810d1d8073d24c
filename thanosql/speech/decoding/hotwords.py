"""Hotwords: the letters of a text in, what its names are worth out.

The automaton of Aho and Corasick (1975) over the spellings of the words and names that
are to be expected. Each letter of a name brings its share of the bonus at once, so that
the name stays in the beam while it is being spelled. If it turns out to be another
word, it gives that back.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Hotwords:
    """The automaton; a state is a number.

    A spelling counts as whole words only: it stands between two spaces, unless the
    vocabulary has none.
    """

    def __init__(self, spellings: Iterable[str], weight: float, space: str) -> None:
        """Build it. weight: the bonus of a letter. space: " ", or "" if there is none.

        spellings: in the vocabulary's letters, words parted by single spaces.
        """
        self._next: list[dict[str, int]] = [{}]
        self._ends: list[bool] = [False]
        # What the letters of a state are worth; the part of it that complete names have
        # brought; and what a name that is complete in this state brings.
        self._worth = [0.0]
        self._earned = [0.0]
        self._completed = [0.0]
        self._fallback = [0]
        for spelling in spellings:
            self._add(f"{space}{spelling}{space}", weight)
        self._link()
        self.start = self._next[0].get(space, 0)
        "The state at the beginning of a text."

    def step(self, state: int, letter: str) -> tuple[int, float]:
        """Return the state after a letter, and what that brings; below 0 if it takes.

        The sum over the letters of a text, and `end`, is the bonus of its names.
        """
        before = self._worth[state] - self._earned[state]
        while state and letter not in self._next[state]:
            state = self._fallback[state]
        after = self._next[state].get(letter, 0)
        pending = self._worth[after] - self._earned[after]
        return after, pending - before + self._completed[after]

    def end(self, state: int) -> float:
        """Return what a text that ends in a state gives back: 0 or less."""
        return self._earned[state] - self._worth[state]

    def _add(self, letters: str, weight: float) -> None:
        state = 0
        for letter in letters:
            after = self._next[state].get(letter)
            if after is None:
                after = len(self._next)
                self._next[state][letter] = after
                self._next.append({})
                self._ends.append(False)
                self._worth.append(
                    self._worth[state] + (0.0 if letter.isspace() else weight)
                )
                self._earned.append(0.0)
                self._completed.append(0.0)
                self._fallback.append(0)
            state = after
        self._ends[state] = True

    def _link(self) -> None:
        """Set what depends on other states; those of fewer letters come first."""
        waiting = deque([0])
        while waiting:
            state = waiting.popleft()
            for letter, after in self._next[state].items():
                shorter = self._fallback[state]
                while shorter and letter not in self._next[shorter]:
                    shorter = self._fallback[shorter]
                if state:  # else the fallback is the root
                    self._fallback[after] = self._next[shorter].get(letter, 0)
                if self._ends[after]:
                    self._earned[after] = self._worth[after]
                    self._completed[after] = self._worth[after] - self._earned[state]
                else:
                    self._earned[after] = self._earned[state]
                    self._completed[after] = self._completed[self._fallback[after]]
                waiting.append(after)
