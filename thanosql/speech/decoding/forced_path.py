"""Frames and the text that was found in them in, when each of its tokens was heard out.

Viterbi's algorithm over the tokens of the text, with blanks before, between and after
them, finds the likeliest of the paths that read as the text.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from thanosql.speech.decoding.frames import LEAST_LIKELY, Frames, joined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_UNLIKELY = math.exp(LEAST_LIKELY)
_ENOUGH = 1500  # frames, after which it is looked for what can be told already


class ForcedPath:
    """The path of one recording, of which no more than some windows are in memory."""

    def __init__(self, blank: int, space: int | None) -> None:
        """Begin. blank: what stands for all that writes nothing.

        space: as a `PrefixBeamSearch` has it; where a text has one, or begins, another
        writes nothing.
        """
        self._blank = blank
        self._space = space
        self._waiting: list[Frames] = []
        self._told = 0  # tokens whose frames are in the path
        self._spaced = True  # whether the last of them is a space
        self._path: list[NDArray[np.int64]] = []
        self._probabilities: list[NDArray[np.float32]] = []

    def feed(self, frames: Frames) -> None:
        """Take the next frames."""
        self._waiting.append(frames)

    def tell(self, tokens: Sequence[int], sure: int) -> None:
        """Take note of the text so far, of which the first tokens are sure to stay."""
        if sure > self._told and sum(len(f.ends) for f in self._waiting) >= _ENOUGH:
            self._extend(tokens, sure)

    def finish(
        self, tokens: Sequence[int]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the path of a text, and its probabilities, both (frames,)."""
        if self._waiting:
            self._extend(tokens, None)
        return np.concatenate(self._path), np.concatenate(self._probabilities)

    def _extend(self, tokens: Sequence[int], sure: int | None) -> None:
        """Find the path of the frames that wait, and keep it up to the sure tokens."""
        frames = joined(self._waiting)
        text = tokens[self._told :][: len(frames.ends)]
        states = self._states(frames, text)
        count = len(states)
        if sure is not None:
            # Up to the blank after the last of them, or to the token that follows it.
            last = 2 * (sure - self._told)
            count = int(np.searchsorted(states, last))
            count += bool(count < len(states) and states[count] == last)
            self._spaced = tokens[sure - 1] == self._space
            self._told = sure
            self._waiting = [frames[count:]]
        path = np.full(len(states), self._blank)
        path[states % 2 == 1] = np.asarray(text, np.int64)[states[states % 2 == 1] // 2]
        self._path.append(path[:count])
        self._probabilities.append(self._chances(frames[:count], path))

    def _states(self, frames: Frames, text: Sequence[int]) -> NDArray[np.int64]:
        """Return the number of tokens so far, twice, less 1 at a token: (frames,).

        What is unlikely in a frame is taken for just that, so that every text has a
        path.
        """
        tokens = np.full(2 * len(text) + 1, self._blank)
        tokens[1::2] = text
        # From a token to the next without a blank between, unless they are equal.
        skips = np.full(len(tokens), -np.inf)
        skips[3::2] = np.where(tokens[3::2] != tokens[1:-2:2], 0.0, -np.inf)
        after_space = np.zeros(len(tokens), bool)
        after_space[2::2] = tokens[1::2] == self._space
        after_space[0] = self._spaced
        scores = np.full(len(tokens), -np.inf)
        scores[0] = 0.0
        steps = np.zeros((len(frames.ends), len(tokens)), np.int8)
        choices = np.full((3, len(tokens)), -np.inf)
        known = max(self._blank, tokens.max(), frames.tokens.max(initial=0))
        likely = np.zeros(1 + int(known))
        begin = 0
        for frame, end in enumerate(frames.ends.tolist()):
            here = frames.tokens[begin:end]
            likely[here] = frames.probabilities[begin:end]
            likely[self._blank] = frames.blanks[frame]
            chances = likely[tokens]
            if self._space is not None and self._space <= known:
                chances[after_space] += likely[self._space]
            likely[here] = 0.0
            begin = end
            choices[0] = scores
            choices[1, 1:] = scores[:-1]
            choices[2, 2:] = scores[:-2] + skips[2:]
            steps[frame] = choices.argmax(0)
            scores = choices.max(0) + np.log(np.maximum(chances, _UNLIKELY))
        state = len(tokens) - 1
        if text and scores[-2] > scores[-1]:
            state -= 1
        states = np.empty(len(frames.ends), np.int64)
        for frame in reversed(range(len(states))):
            states[frame] = state
            state -= int(steps[frame, state])
        return states

    def _chances(self, frames: Frames, path: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return how likely each token of a path is in its frame: (frames,)."""
        return np.array(
            [
                blank if token == self._blank else dict(entries).get(token, _UNLIKELY)
                for token, (blank, entries) in zip(path.tolist(), frames, strict=False)
            ],
            np.float32,
        )
