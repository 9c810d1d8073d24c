"""The frames of recordings in, their texts, words and confidences out.

Of several recordings at once: see `Transduction`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING

from thanosql.speech.decoding.words import Heard, Timeline, timed_words
from thanosql.speech.recognizers.transducer_search import Lane
from thanosql.speech.results import Details, Hypothesis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from thanosql.speech.decoding.spelling import Spelling
    from thanosql.speech.decoding.words import Grid
    from thanosql.speech.recognizers.transducer_search import GreedySearch
    from thanosql.speech.recording import Span

_MOST_WAITING = 2**14  # frames that wait for a search: 20 minutes at 12.5 a second


@dataclass
class Transduction:
    """The greedy search, for several recordings at once.

    A decoder's frames wait until some recording is at its end, or until many wait; then
    those of all decoders are searched together, since a step for one recording alone is
    bound by reading the weights.
    """

    search: GreedySearch
    spelling: Spelling
    grid: Grid | None
    "Where the frames lie in a waveform; None if no word's time is wanted."
    lanes: list[Lane] = field(default_factory=list)
    "Those with frames that wait."

    def start(self, expected: tuple[str, ...] = ()) -> TransducerDecoder:
        """Return a decoder for one recording. expected: is for a beam search."""
        return TransducerDecoder(self)

    def wait(self, lane: Lane) -> None:
        """Let a lane's frames wait for the search."""
        if lane not in self.lanes:
            self.lanes.append(lane)
        if sum(len(f) for each in self.lanes for f in each.waiting) > _MOST_WAITING:
            self.catch_up()

    def catch_up(self) -> None:
        """Search all frames that wait."""
        self.search.run(self.lanes)
        self.lanes.clear()


class TransducerDecoder:
    """Collects the frames of one recording, window by window, and its text."""

    def __init__(self, decoding: Transduction) -> None:
        self._decoding = decoding
        self._lane = Lane()
        self._timeline = None if decoding.grid is None else Timeline(decoding.grid)

    def feed(self, scores: Tensor, kept: slice, spans: Sequence[Span]) -> None:
        """Take the frames of the next window: (frames, width)."""
        frames = scores[kept]
        if self._timeline is not None:
            self._timeline.feed(len(frames), kept, spans)
        self._lane.waiting.append(frames)
        self._decoding.wait(self._lane)

    def silence(self) -> None:
        """Take note of a window without speech: the text goes on after it."""

    def finish(self) -> Hypothesis:
        """Return the text of all frames, and its words if their times are wanted.

        The windows' frames are joined before they are searched, and the state runs on,
        so that a word at a joint is neither lost nor doubled. The text's confidence is
        the mean of its words': the share of them that is to be expected right.
        """
        self._decoding.catch_up()
        emissions = self._lane.emissions
        spelling, timeline = self._decoding.spelling, self._timeline
        text = spelling.decode([each.token for each in emissions])
        details = Details()
        if emissions:
            mean = fmean(each.log_probability for each in emissions)
            details = Details(token_probability=math.exp(mean))
        if timeline is None:
            return Hypothesis(text, details=details)
        heard = [
            Heard(
                each.token,
                timeline.second(each.frame),
                timeline.second(each.frame + max(0, each.duration - 1)),
                math.exp(each.log_probability),
            )
            for each in emissions
        ]
        words = timed_words(spelling, text, heard, timeline)
        confidence = fmean(word.confidence for word in words) if words else 1.0
        return Hypothesis(text, confidence, words, details=details)
