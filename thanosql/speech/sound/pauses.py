"""Cut recordings at pauses: pieces of a waveform in, windows with speech out.

A seq2seq model such as Whisper hears at most 30 s at a time, and writes a text of its
own where nobody speaks. So for such a model a recording is looked at for speech first:

    recording  |........====.===...................===.=====.====.......|
    kept            |...====.===...|           |...===.=====.====...|
    windows         |...====.===......===.|=====.====...|

The middle of a long pause is left out, and windows end where speech pauses. What is
left out is never speech, and nothing is changed: a window's samples are the
recording's.

    `AtPauses`     cuts so, or, without looking for speech, where it is quietest
    `WithSpeech`   cuts as a layout does, and says of each window how much speech it has
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from thanosql.speech.recording import Span
from thanosql.speech.sound.audio import SAMPLE_RATE
from thanosql.speech.sound.voice import FRAME, blocks, listen
from thanosql.speech.sound.windows import Layout, Window

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

_LONGEST = 2 * SAMPLE_RATE // FRAME  # frames of a pause that is left as it is
_KEPT = 24  # frames of a longer one that stay beside speech: 0.77 s
_AROUND = 16  # frames that are weighed together where a window may end: 0.5 s
_LATEST_SHARE = 3  # a window ends in its last third, for the sake of few windows


class _Frame(NamedTuple):
    """32 ms of a recording; the last may be shorter."""

    begin: int
    "Its first sample's place in the recording."
    waveform: NDArray[np.float32]
    level: float
    "How little it is suited for a cut: the probability of speech, or the power."
    speech: bool

    @property
    def end(self) -> int:
        return self.begin + len(self.waveform)


@dataclass(frozen=True, slots=True)
class AtPauses:
    """Windows that do not overlap, each at most `seconds` long."""

    seconds: float = 30.0
    vad: bool = True
    "Whether to look for speech. If not, all counts as speech."

    def cut(self, pieces: Iterable[NDArray[np.float32]]) -> Iterator[Window]:
        """Yield the windows of a waveform that comes piece by piece.

        A recording of at most `seconds` without a pause of more than 2 s is one window,
        and that is the recording to the bit. Of a longer pause 0.77 s stay on either
        side, next to speech; if all of the recording is one, nothing stays, and the
        only window is empty. Of a longer recording a window ends where, over half a
        second, speech is least likely (power is least) in its last third. All but the
        last window have speech in them, if `seconds` is more than 3. No more than a
        window and 16 s are in memory.
        """
        held: list[_Frame] = []
        samples = end = 0  # the samples held; where the recording ends

        def frames() -> Iterator[_Frame]:
            nonlocal end
            for frame in _searched(pieces) if self.vad else _unsearched(pieces):
                end = frame.end
                yield frame

        for frame in _without_long_pauses(frames()):
            if samples + len(frame.waveform) > self.seconds * SAMPLE_RATE:
                count = _quietest([each.level for each in held])
                yield self._window(held[:count], held[count - 1].end, last=False)
                held = held[count:]
                samples = sum(len(each.waveform) for each in held)
            held.append(frame)
            samples += len(frame.waveform)
        yield self._window(held, end, last=True)

    def _window(self, frames: Sequence[_Frame], end: int, *, last: bool) -> Window:
        waveform = np.concatenate(
            [np.empty(0, np.float32), *(each.waveform for each in frames)]
        )
        speech = sum(len(each.waveform) for each in frames if each.speech)
        return Window(
            waveform,
            slice(0, None),
            end / SAMPLE_RATE,
            last,
            tuple(_spans(frames)),
            speech / SAMPLE_RATE if self.vad else None,
            silent=not speech,
        )


@dataclass(frozen=True, slots=True)
class WithSpeech:
    """The windows of a layout, with the speech that was found in each."""

    layout: Layout

    def cut(self, pieces: Iterable[NDArray[np.float32]]) -> Iterator[Window]:
        """Yield the layout's windows, all of them, with `speech_seconds`."""
        speech = bytearray()  # of each frame so far; an hour has 112,500

        def passing() -> Iterator[NDArray[np.float32]]:
            for block in listen(pieces):
                speech.extend(block.speech.tobytes())
                yield block.waveform

        counted = 0  # frames
        for window in self.layout.cut(passing()):
            (span,) = window.spans
            begin = span.source // FRAME
            silent = not any(speech[begin : -(-(span.source + span.samples) // FRAME)])
            end = len(speech)
            if not window.last:
                end = (span.source + window.frames.stop * self.layout.stride) // FRAME
            seconds = sum(speech[counted:end]) * FRAME / SAMPLE_RATE
            counted = end
            yield replace(window, speech_seconds=seconds, silent=silent)


def _searched(pieces: Iterable[NDArray[np.float32]]) -> Iterator[_Frame]:
    begin = 0
    for block in listen(pieces):
        levels = zip(block.probability.tolist(), block.speech.tolist(), strict=True)
        for number, (level, speech) in enumerate(levels):
            waveform = block.waveform[number * FRAME : (number + 1) * FRAME]
            yield _Frame(begin, waveform, level, speech)
            begin += len(waveform)


def _unsearched(pieces: Iterable[NDArray[np.float32]]) -> Iterator[_Frame]:
    begin = 0
    for block in blocks(pieces):
        for start in range(0, len(block), FRAME):
            waveform = block[start : start + FRAME]
            # Without its mean, since a microphone's offset is not sound.
            yield _Frame(begin, waveform, float(waveform.var(dtype=float)), speech=True)
            begin += len(waveform)


def _without_long_pauses(frames: Iterable[_Frame]) -> Iterator[_Frame]:
    """Yield the frames but for those amid long pauses, as soon as a pause has ended."""
    pause: list[_Frame] = []
    long = False
    after = 0  # frames that stay behind speech; none before the first
    for frame in frames:
        if frame.speech:
            yield from pause
            yield frame
            pause, long, after = [], False, _KEPT
            continue
        pause.append(frame)
        long = long or len(pause) > _LONGEST
        if long:
            del pause[after:-_KEPT]
    yield from pause[:after] if long else pause


def _quietest(levels: Sequence[float]) -> int:
    """Return the number of frames after which a window is best cut."""
    late = max(1, len(levels) // _LATEST_SHARE)
    around = min(_AROUND, late)
    weights = np.hanning(around + 2)[1:-1]
    means = np.convolve(levels[-late:], weights, "valid")
    return max(1, len(levels) - late + int(means.argmin()) + around // 2)


def _spans(frames: Iterable[_Frame]) -> Iterator[Span]:
    """Yield where the samples of frames come from, neighbours joined."""
    begin = 0
    span: Span | None = None
    for frame in frames:
        samples = len(frame.waveform)
        if span is not None and span.source + span.samples == frame.begin:
            span = span._replace(samples=span.samples + samples)
        else:
            if span is not None:
                yield span
            span = Span(begin, frame.begin, samples)
        begin += samples
    if span is not None:
        yield span
