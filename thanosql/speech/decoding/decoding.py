"""The interface of decodings: what was heard of a recording in, its hypothesis out.

`Decoding.start` makes a decoder for one recording. The decoder is fed the recording's
windows in order: with CTC the scores of their frames, with a transducer the frames,
with a model that writes by itself what it wrote, and where in the recording their
samples are from. `finish` returns the hypothesis. All decoders of a batch are fed
before the first of them finishes, so that they can work together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from thanosql.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from thanosql.speech.recording import Span
    from thanosql.speech.results import Hypothesis

WHOLE = slice(None)


class LanguageModel(Protocol):
    """How likely a word is after others, as a search asks it. Natural logarithms."""

    def start(self) -> Hashable:
        """Return the state before the first word of a text."""

    def score(self, state: Any, word: str) -> tuple[float, Hashable]:
        """Return the log-probability of a word after a state, and the state after it.

        A word that the model does not know has the probability of an unknown one.
        """

    def end(self, state: Any) -> float:
        """Return the log-probability that the text ends after a state."""

    @property
    def words(self) -> Iterable[str]:
        """The words that it knows."""


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
    words: bool = False
    "Whether each word's time and confidence are wanted, and the text's confidence."
    alternatives: int | None = None
    "How many of the best texts are wanted."
    language_model: LanguageModel | None = None
    lm_weight: float | None = None
    word_bonus: float | None = None
    hotwords: tuple[str, ...] = ()
    "Words and names to be expected in every recording."
    own_hotwords: bool = False
    "Whether recordings may bring hotwords of their own."
    hotword_weight: float | None = None
    align: bool = False
    "Whether the words of a text are known, and when each was said is wanted."
    best_path: bool = False
    "Whether the text without language model and hotwords is wanted, too."

    @property
    def searches(self) -> bool:
        """Whether a CTC model's best path is not enough."""
        return bool(
            self.beam_size
            or self.alternatives
            or self.language_model
            or self.hotwords
            or self.own_hotwords
        )


NO_REQUEST = Request()


# What stands in a statement for the fields that are no options themselves.
_NOT_OPTIONS = {"own_hotwords": "option hotwords_col", "align": "ALIGN"}


def refuse(request: Request, reasons: Mapping[str, str], others: str) -> None:
    """Raise OptionError if a request asks for what a kind of models cannot do.

    reasons: field of the request -> why. others: the models that can.
    """
    for wanted, reason in reasons.items():
        if getattr(request, wanted) not in (None, (), False):
            what = _NOT_OPTIONS.get(wanted, f"option {wanted}")
            message = f"{what} is for {others}; {reason}"
            raise OptionError(message)


class Decoder(Protocol):
    """Decodes one recording."""

    def feed(self, scores: Any, kept: slice, spans: Sequence[Span]) -> None:
        """Take the scores of the next window, as `Recognizer.scores` returns them.

        kept: the frames that count; the others are context. All of them for a model
        whose windows do not overlap. spans: where the window's samples are from.
        """

    def silence(self) -> None:
        """Take note of a window without speech, which the model did not hear."""

    def finish(self) -> Hypothesis:
        """Return the hypothesis for all the scores fed so far."""


class Decoding(Protocol):
    """A way to turn scores into text."""

    def start(self, expected: tuple[str, ...] = ()) -> Decoder:
        """Return a decoder for one recording.

        expected: words to be expected in it: hotwords, beside the request's, or where
        a text is aligned those of the text, all and in order.
        """


def decode(decoding: Decoding, utterances: Iterable[Any]) -> list[Hypothesis]:
    """Return a hypothesis for each utterance, without times.

    utterances: the scores of each, whole.
    """
    decoders = []
    for scores in utterances:
        decoder = decoding.start()
        decoder.feed(scores, WHOLE, ())
        decoders.append(decoder)
    return [decoder.finish() for decoder in decoders]
