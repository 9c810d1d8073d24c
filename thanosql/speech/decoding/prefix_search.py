"""Likely tokens of frames in, the likeliest texts out: CTC prefix beam search.

Graves (2006), Hannun et al. (2014), "First-pass large vocabulary continuous speech
recognition using bi-directional recurrent DNNs": the probability of a text is the sum
over all its alignments. What a language model and hotwords add (`fusion.py`) depends on
the text alone, so every alignment is multiplied by it where a token is added.

The prefixes form a tree. A node is dropped once nothing in the beam goes on from it;
what all prefixes in the beam begin with is kept as token ids. So memory grows with the
text, not with the recording.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from thanosql.speech.decoding.fusion import Fusion, State

# A prefix is dropped if its log-probability is that much below the best one's.
_FAR_BEHIND = math.exp(-14.0)
_COMMIT = 64  # frames, after which it is looked for what all prefixes begin with


class _Prefix:
    """A node of the tree: the tokens from the root to it."""

    __slots__ = (
        "after_blank", "after_token", "alive", "children", "next_blank", "next_token",
        "parent", "state", "token",
    )  # fmt: skip

    def __init__(self, parent: _Prefix | None, token: int, state: State) -> None:
        self.parent = parent
        self.token = token
        self.state = state
        self.children: dict[int, _Prefix] = {}
        self.alive = True  # in the beam
        # The probability of its alignments that end in a blank, and in its last token,
        # over that of the best prefix; the same at the frame that is worked on.
        self.after_blank = self.after_token = 0.0
        self.next_blank = self.next_token = 0.0


class PrefixBeamSearch:
    """The search through one recording."""

    def __init__(self, fusion: Fusion, beam_size: int, space: int | None) -> None:
        """Begin with the empty text.

        space: the token that is nothing but a space, of which a text has never two in
        a row and none at its beginning; None if there is no such token.
        """
        self._fusion = fusion
        self._beam_size = beam_size
        self._space = space
        self._root = _Prefix(None, -1 if space is None else space, fusion.start)
        self._root.after_blank = 1.0
        self._beam = [self._root]
        self._committed: list[int] = []  # what all texts begin with
        self._frames = 0

    def advance(self, frames: Iterable[tuple[float, list[tuple[int, float]]]]) -> None:
        """Take the next frames, each the blank's probability and tokens with theirs."""
        for blank, entries in frames:
            if entries:
                self._advance(blank, entries)
            else:
                self._pause()
            self._frames += 1
            if self._frames % _COMMIT == 0:
                self._commit()

    @property
    def sure(self) -> int:
        """The number of tokens that all texts begin with, as far as that is known."""
        return len(self._committed)

    def likeliest(self) -> list[int]:
        """Return the tokens of the best text so far, as if it went on."""
        best = max(self._beam, key=lambda each: each.after_blank + each.after_token)
        return self._tokens(best)

    def texts(self) -> list[tuple[list[int], float]]:
        """Return the texts of the beam as tokens, and their log-probabilities.

        The best comes first, and has 0. The log-probabilities hold what language model
        and hotwords add.
        """
        end = self._fusion.end
        found = [
            (
                self._tokens(prefix),
                math.log(prefix.after_blank + prefix.after_token) + end(prefix.state),
            )
            for prefix in self._beam
        ]
        best = max(score for _, score in found)
        found = [(tokens, score - best) for tokens, score in found]
        return sorted(found, key=lambda each: each[1], reverse=True)

    def _advance(self, blank: float, entries: list[tuple[int, float]]) -> None:
        """Take a frame: the blank's probability; the likely tokens and theirs."""
        space, step = self._space, self._fusion.step
        added = []
        for prefix in self._beam:
            after_blank = prefix.after_blank
            total = after_blank + prefix.after_token
            last, state, children = prefix.token, prefix.state, prefix.children
            prefix.next_blank = total * blank
            for token, probability in entries:
                if token != last:
                    mass = total * probability
                elif token == space:
                    prefix.next_token += total * probability
                    continue
                else:
                    prefix.next_token += prefix.after_token * probability
                    mass = after_blank * probability
                factor, after = state.following.get(token) or step(state, token)
                mass *= factor
                child = children.get(token)
                if child is not None and child.alive:
                    child.next_token += mass
                else:
                    added.append((mass, prefix, token, after))
        self._select(added)

    def _pause(self) -> None:
        """Take a frame that can only be blank."""
        for prefix in self._beam:
            prefix.after_blank += prefix.after_token
            prefix.after_token = 0.0

    def _select(self, added: list[tuple[float, _Prefix, int, State]]) -> None:
        """Make the beam of the best prefixes: of its own, and of those added."""
        before = self._beam
        masses = [prefix.next_blank + prefix.next_token for prefix in before]
        masses += [each[0] for each in added]
        best = max(masses)
        least = best * _FAR_BEHIND
        places = [place for place, mass in enumerate(masses) if mass >= least]
        if len(places) > self._beam_size:
            places.sort(key=masses.__getitem__, reverse=True)  # stable
            del places[self._beam_size :]
        scale = 1.0 / best
        beam = []
        for prefix in before:
            prefix.alive = False
        for place in places:
            if place < len(before):
                prefix = before[place]
                prefix.after_blank = prefix.next_blank * scale
                prefix.after_token = prefix.next_token * scale
            else:
                mass, parent, token, state = added[place - len(before)]
                child = parent.children.get(token)  # left the beam, but goes on in it
                if child is None:
                    child = parent.children[token] = _Prefix(parent, token, state)
                prefix = child
                prefix.after_blank, prefix.after_token = 0.0, mass * scale
            prefix.next_token = 0.0
            prefix.alive = True
            beam.append(prefix)
        self._beam = beam
        for prefix in before:
            if not prefix.alive:
                prefix.next_token = 0.0
                _drop(prefix)

    def _commit(self) -> None:
        """Move what all prefixes begin with from the tree to the committed tokens."""
        root = self._root
        while not root.alive and len(root.children) == 1:
            (root,) = root.children.values()
            root.parent = None
            self._committed.append(root.token)
        self._root = root

    def _tokens(self, prefix: _Prefix) -> list[int]:
        tokens = []
        while prefix is not self._root:
            tokens.append(prefix.token)
            assert prefix.parent is not None
            prefix = prefix.parent
        return self._committed + tokens[::-1]


def _drop(prefix: _Prefix) -> None:
    """Take a prefix out of the tree, and those before it that only led to it."""
    parent = prefix.parent
    while parent is not None and not prefix.alive and not prefix.children:
        del parent.children[prefix.token]
        prefix.parent = None  # it may come here again
        prefix, parent = parent, parent.parent
