"""The interface of decodings: scores of one recording in, its hypothesis out.

`Decoding.start` makes a decoder for one recording. The decoder is fed the scores of the
recording's windows in order; `finish` returns the hypothesis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from thanosql.speech.results import Hypothesis


class Decoder(Protocol):
    """Decodes one recording."""

    def feed(self, scores: Tensor) -> None:
        """Take the scores of the next frames: (frames, ...), on the CPU."""

    def finish(self) -> Hypothesis:
        """Return the hypothesis for all the scores fed so far."""


class Decoding(Protocol):
    """A way to turn scores into text. Best path is the only one so far."""

    def start(self) -> Decoder:
        """Return a decoder for one recording."""


def decode(decoding: Decoding, utterances: Iterable[Tensor]) -> list[Hypothesis]:
    """Return a hypothesis for each utterance.

    utterances: the scores of each, whole, (frames, ...).
    """
    hypotheses = []
    for scores in utterances:
        decoder = decoding.start()
        decoder.feed(scores)
        hypotheses.append(decoder.finish())
    return hypotheses
