"""The interface of decodings: what was heard of a recording in, its hypothesis out.

`Decoding.start` makes a decoder for one recording. The decoder is fed the recording's
windows in order: with CTC the scores of their frames, with a model that writes by
itself what it wrote. `finish` returns the hypothesis.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from thanosql.speech.results import Hypothesis

WHOLE = slice(None)


@dataclass(frozen=True, slots=True)
class Request:
    """What a statement asks of a decoding; None where it leaves that to the model."""

    language: str | None = None
    "An ISO 639-1 code or an English name; auto to let the model find it."
    task: str | None = None
    "transcribe or translate."
    prompt: str | None = None
    "A text that may come before the recording's."
    beam_size: int | None = None


NO_REQUEST = Request()


class Decoder(Protocol):
    """Decodes one recording."""

    def feed(self, scores: Any, kept: slice) -> None:
        """Take the scores of the next window, as `Recognizer.scores` returns them.

        kept: the frames that count; the others are context. All of them for a model
        whose windows do not overlap.
        """

    def silence(self) -> None:
        """Take note of a window without speech, which the model did not hear."""

    def finish(self) -> Hypothesis:
        """Return the hypothesis for all the scores fed so far."""


class Decoding(Protocol):
    """A way to turn scores into text."""

    def start(self) -> Decoder:
        """Return a decoder for one recording."""


def decode(decoding: Decoding, utterances: Iterable[Any]) -> list[Hypothesis]:
    """Return a hypothesis for each utterance.

    utterances: the scores of each, whole.
    """
    hypotheses = []
    for scores in utterances:
        decoder = decoding.start()
        decoder.feed(scores, WHOLE)
        hypotheses.append(decoder.finish())
    return hypotheses
