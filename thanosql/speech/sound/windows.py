"""Long recordings: pieces of a waveform in, overlapping windows out; frames joined.

A model's memory and time grow faster than its recording (attention looks from every
frame at every other), and what it was trained on lasted seconds. So a recording longer
than `chunk_seconds` is heard in windows that overlap:

    window 0   |=================----|
    window 1                |----=================----|
    window 2                                 |----=================|

Of each, the outer frames (-) served the inner ones (=) as context and are dropped. CTC
gives every frame its letter by itself, so the inner frames of all windows, one after
the other, are the path of the whole recording, which is then read once: a letter that
lies on a joint is neither lost nor doubled.

For the joints to fit, windows begin where a frame of the whole recording would:
at multiples of the frames' stride.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from thanosql.errors import OptionError
from thanosql.speech.sound.audio import LONGEST, SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

CONTEXT_SECONDS = 2.0  # on either side of what is kept; docs/experiments.md says why
_CONTEXT_SHARE = 0.25  # of a window at most, where windows are small
# Windows begin at multiples of so many frames, since some models work on frames by
# twos or fours (SEW squeezes two into one).
_TOGETHER = 4
_LEAST = 4 * _TOGETHER  # frames: one group each for both contexts and more between


@dataclass(frozen=True, slots=True)
class Layout:
    """How a long recording is cut for a model."""

    length: int
    "Samples of a window; a recording of at most so many is heard whole."
    context: int
    "Samples before what is kept of a window; behind it there are as many or more."
    step: int
    "Samples that are kept of a window; the next begins so many later."
    stride: int
    "Samples from one frame of logits to the next; `context` and `step` are multiples."


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a recording, and what of it counts."""

    waveform: NDArray[np.float32]
    "(samples,), mono, 16 kHz."
    frames: slice
    "Which of its frames are the recording's."
    seconds: float
    "From the recording's beginning to this window's end."
    last: bool


def layout(stride: int, chunk_seconds: float) -> Layout:
    """Return how recordings longer than `chunk_seconds` are cut for a CTC model.

    stride: its samples a frame. Raises OptionError where `chunk_seconds` is shorter
    than its frames allow.
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


def cut(pieces: Iterable[NDArray[np.float32]], layout: Layout) -> Iterator[Window]:
    """Yield the windows of a waveform that comes piece by piece.

    One window, whole, where it is not longer than a window. No more than a window and
    a piece are in memory at a time.
    """
    held: list[NDArray[np.float32]] = []
    samples = begin = 0  # of what is held: how many, and where they begin
    for piece in pieces:
        held.append(piece)
        samples += len(piece)
        while samples > layout.length:
            waveform = np.concatenate(held)
            yield _window(waveform[: layout.length], begin, layout, last=False)
            held = [waveform[layout.step :]]
            samples -= layout.step
            begin += layout.step
    yield _window(np.concatenate(held), begin, layout, last=True)


def _window(
    waveform: NDArray[np.float32], begin: int, layout: Layout, *, last: bool
) -> Window:
    first = layout.context // layout.stride if begin else 0
    end = None if last else (layout.context + layout.step) // layout.stride
    return Window(
        waveform, slice(first, end), (begin + len(waveform)) / SAMPLE_RATE, last
    )
