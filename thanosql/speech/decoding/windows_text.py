"""The texts of a recording's windows in, the recording's text out."""

from __future__ import annotations

import math
import zlib
from collections import Counter
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from thanosql.speech.decoding.token_words import in_recording
from thanosql.speech.results import Details, Hypothesis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thanosql.speech.recording import Span
    from thanosql.speech.results import Word

# A text that compresses better than this repeats itself (Radford et al. 2022).
LOOPS = 2.4
# Languages that write no space between words, by Whisper's codes.
_UNSPACED = frozenset({"bo", "ja", "km", "lo", "my", "th", "yue", "zh"})


def is_spaced(language: str | None) -> bool:
    """Return whether a language has spaces between words. language: Whisper's code."""
    return language not in _UNSPACED


@dataclass(frozen=True, slots=True)
class WindowText:
    """What a model wrote of one window."""

    text: str
    log_probability: float
    "The sum over the tokens."
    tokens: int
    language: str | None = None
    language_probability: float | None = None
    "None if the language was not for the model to find."
    again: bool = False
    "Whether the text was sampled, since the most likely one repeated itself."
    words: tuple[Word, ...] = ()
    "With seconds from the window's beginning; empty unless they are asked for."

    @property
    def compression_ratio(self) -> float:
        """Bytes of the text, in UTF-8, to bytes of it compressed by zlib."""
        content = self.text.encode()
        return len(content) / len(zlib.compress(content))

    @property
    def loops(self) -> bool:
        """Whether the text repeats itself."""
        return self.compression_ratio > LOOPS


class WindowTexts:
    """Collects the texts of one recording, window by window."""

    def __init__(self, written_in: str | None = None, *, words: bool = False) -> None:
        """Begin. written_in: the texts' language; None if they are in the spoken.

        words: whether each word's time and confidence are wanted.
        """
        self._written_in = written_in
        self._with_words = words
        self._heard: list[WindowText] = []
        self._words: list[Word] = []

    def feed(self, scores: WindowText, kept: slice, spans: Sequence[Span]) -> None:
        """Take the text of the next window. kept: all of it; windows do not overlap."""
        self._heard.append(scores)
        self._words += [in_recording(word, spans) for word in scores.words]

    def silence(self) -> None:
        """Take note of a window without speech, which has no text."""

    def finish(self) -> Hypothesis:
        """Return the text of all windows, and how they were heard."""
        heard = self._heard
        if not heard:
            return Hypothesis("", self._confidence())
        windows: Counter[str | None] = Counter(each.language for each in heard)
        language = windows.most_common(1)[0][0]
        found = [
            each.language_probability
            for each in heard
            if each.language == language and each.language_probability is not None
        ]
        tokens = sum(each.tokens for each in heard)
        mean = sum(each.log_probability for each in heard) / max(1, tokens)
        space = " " if is_spaced(self._written_in or language) else ""
        return Hypothesis(
            space.join(each.text for each in heard if each.text),
            confidence=self._confidence(),
            words=tuple(self._words),
            details=Details(
                language=language,
                language_probability=sum(found) / len(found) if found else None,
                windows_heard_again=sum(each.again for each in heard),
                repeats_itself=any(each.loops for each in heard),
                compression_ratio=max(each.compression_ratio for each in heard),
                token_probability=math.exp(mean) if tokens else None,
            ),
        )

    def _confidence(self) -> float | None:
        """Return the share of the words that is to be expected right."""
        if not self._with_words:
            return None
        return fmean([each.confidence for each in self._words] or [1.0])
