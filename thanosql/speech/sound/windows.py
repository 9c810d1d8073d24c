"""Cut long recordings: pieces of a waveform in, overlapping windows out.

A model's memory and time grow faster than the recording, since attention compares every
frame with every other; and models are trained on recordings of seconds. So a recording
longer than `chunk_seconds` is transcribed in windows that overlap:

    window 0   |=================----|
    window 1                |----=================----|
    window 2                                 |----=================|

In each window the outer frames (-) only give context to the inner ones (=), and are
dropped. CTC scores every frame by itself. So the inner frames of all windows, one after
the other, are those of the whole recording. They are decoded together, so a letter at a
joint is neither lost nor doubled.

For the joints to fit, a window begins where a frame of the whole recording would: at a
multiple of the stride.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from thanosql.errors import OptionError
from thanosql.speech.recording import Span
from thanosql.speech.sound.audio import LONGEST, SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

CONTEXT_SECONDS = 2.0  # on either side of the inner frames; see docs/experiments.md
_CONTEXT_SHARE = 0.25  # largest share of a window; limits the context of small windows
# Windows begin at multiples of so many frames, since some models take frames in twos or
# fours (SEW squeezes two into one).
_TOGETHER = 4
_LEAST = 4 * _TOGETHER  # frames of a window: a group for each context, two between


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a recording, and which of its frames are kept."""

    waveform: NDArray[np.float32]
    "(samples,), mono, 16 kHz."
    frames: slice
    "The frames that are kept; the others are context."
    seconds: float
    "From the recording's beginning to this window's end; of the last, to its own end."
    last: bool
    "Whether the recording ends here."
    spans: tuple[Span, ...]
    "Where the samples come from, in order: all of them, each once."
    speech_seconds: float | None = None
    """How long somebody speaks in it; None if nobody looked.

    Where windows overlap, what two have is counted in one: the sum of all windows is
    the recording's.
    """
    silent: bool = False
    """Whether it is known that nobody speaks in it, so that no model need hear it.

    Its waveform may be empty.
    """


class Windows(Protocol):
    """A way to cut recordings into windows."""

    def cut(self, pieces: Iterable[NDArray[np.float32]]) -> Iterator[Window]:
        """Yield the windows of a waveform that comes piece by piece, in order.

        How it was split into pieces makes no difference. The last window is marked, and
        there is always one.
        """


@dataclass(frozen=True, slots=True)
class Layout:
    """The sizes by which a long recording is cut, all in samples."""

    length: int
    "Of a window; a recording of at most this length is one window."
    context: int
    "Before the inner part of a window; after it there are at least as many."
    step: int
    "Of the inner part, which is also the distance from one window to the next."
    stride: int
    "From one frame of logits to the next; `context` and `step` are multiples of it."

    def cut(self, pieces: Iterable[NDArray[np.float32]]) -> Iterator[Window]:
        """Yield the windows of a waveform that comes piece by piece.

        A waveform that is not longer than a window is yielded whole. No more than a
        window and a piece are in memory at a time.
        """
        held: list[NDArray[np.float32]] = []
        samples = begin = 0  # the number of samples held, and where they begin
        for piece in pieces:
            held.append(piece)
            samples += len(piece)
            while samples > self.length:
                waveform = np.concatenate(held)
                yield self._window(waveform[: self.length], begin, last=False)
                held = [waveform[self.step :]]
                samples -= self.step
                begin += self.step
        yield self._window(np.concatenate(held), begin, last=True)

    def _window(
        self, waveform: NDArray[np.float32], begin: int, *, last: bool
    ) -> Window:
        first = self.context // self.stride if begin else 0
        end = None if last else (self.context + self.step) // self.stride
        return Window(
            waveform,
            slice(first, end),
            (begin + len(waveform)) / SAMPLE_RATE,
            last,
            (Span(0, begin, len(waveform)),),
        )


def layout(stride: int, chunk_seconds: float) -> Layout:
    """Return how recordings longer than `chunk_seconds` are cut for a CTC model.

    stride: the model's samples from one frame to the next. Raises OptionError if
    `chunk_seconds` is less than the fewest frames of a window.
    """
    group = stride * _TOGETHER
    if chunk_seconds * SAMPLE_RATE < stride * _LEAST:
        least = math.ceil(stride * _LEAST / SAMPLE_RATE * 100) / 100
        message = (
            f"chunk_seconds={chunk_seconds:g} is too little for the model, which hears "
            f"{1000 * stride / SAMPLE_RATE:.0f} ms at a time; {least:g} is the least"
        )
        raise OptionError(message)
    length = int(min(chunk_seconds, LONGEST) * SAMPLE_RATE)
    context = int(min(CONTEXT_SECONDS * SAMPLE_RATE, length * _CONTEXT_SHARE))
    context = max(1, context // group) * group
    step = (length - 2 * context) // group * group
    return Layout(length, context, step, stride)
