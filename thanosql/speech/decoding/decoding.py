"""The stage between scores and text: started, fed a window's scores, finished."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from thanosql.speech.results import Hypothesis


class Decoder(Protocol):
    """The decoding of one recording."""

    def feed(self, scores: Tensor) -> None:
        """Take the scores of the frames that follow: (frames, ...), on the CPU."""

    def finish(self) -> Hypothesis:
        """Return the hypothesis of all that was fed."""


class Decoding(Protocol):
    """How scores become text: best path, and in time beam search."""

    def start(self) -> Decoder:
        """Return a decoder for a recording."""


def decode(decoding: Decoding, utterances: Iterable[Tensor]) -> list[Hypothesis]:
    """Return the hypothesis of each utterance's scores, all of them at once."""
    hypotheses = []
    for scores in utterances:
        decoder = decoding.start()
        decoder.feed(scores)
        hypotheses.append(decoder.finish())
    return hypotheses
