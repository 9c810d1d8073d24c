"""Samples of all channels in; whether they hold different speech out.

A telephone call is often recorded with one speaker in each channel. In the mean of the
channels two people speak at once, and a model reads neither well.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

_FRAME = 0.05  # seconds
_AROUND = 10  # frames, 0.5 s: an echo comes sooner, and nobody answers within it
_LOUDER = 15.0  # dB above the others, and above the channel's own pauses
_QUIETEST = -50.0  # dB of full scale; what is below is no speech
_PAUSES = 10  # per cent of a channel's frames are as quiet as its pauses
_LEAST = 10  # frames, 0.5 s, that a channel is to speak alone
_SILENCE = -100.0  # dB; stands for digital silence


class Levels:
    """Takes note of how loud each channel is; 160 bytes a second for two channels."""

    def __init__(self) -> None:
        """Begin before the first sample."""
        self._frames: list[NDArray[np.float32]] = []

    def watched(
        self, pieces: Iterable[NDArray[np.float32]], rate: int
    ) -> Iterator[NDArray[np.float32]]:
        """Yield the pieces of a recording, each (samples, channels), as they are."""
        size = max(1, round(_FRAME * rate))
        held: NDArray[np.float32] | None = None
        for piece in pieces:
            yield piece
            if piece.shape[1] == 1:
                continue
            held = piece if held is None else np.concatenate([held, piece])
            whole = len(held) - len(held) % size
            frames = held[:whole].reshape(-1, size, held.shape[1])
            held = held[whole:]
            with np.errstate(all="ignore"):  # samples of 1e30 have no finite square
                power = frames.var(axis=1)
                self._frames.append(10 * np.log10(power + 10 ** (_SILENCE / 10)))

    def tell_of_different_speech(self) -> bool:
        """Return whether two channels each speak while no other does.

        A channel speaks alone where it is loud, and no other is nearly as loud within
        half a second. So the same speech does not count, though it reaches one
        microphone later or weaker, nor does what is as loud in both, such as music or a
        room. Loud is what stands out of a channel's own pauses: noise does not.
        """
        if not sum(map(len, self._frames)):  # one channel, or not one whole frame
            return False
        levels = np.nan_to_num(np.concatenate(self._frames), posinf=0.0)
        pauses = np.percentile(levels, _PAUSES, axis=0)
        speaks = levels >= np.maximum(_QUIETEST, pauses + _LOUDER)
        around = _loudest_around(levels)
        alone = 0
        for channel in range(levels.shape[1]):
            others = np.delete(around, channel, axis=1).max(axis=1)
            by_itself = speaks[:, channel] & (levels[:, channel] >= others + _LOUDER)
            alone += int(by_itself.sum()) >= _LEAST
        return alone > 1


def _loudest_around(levels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the highest level within `_AROUND` frames: (frames, channels)."""
    width = 2 * _AROUND + 1
    padded = np.pad(levels, ((_AROUND, _AROUND), (0, 0)), constant_values=_SILENCE)
    windows = np.lib.stride_tricks.sliding_window_view(padded, width, axis=0)
    loudest: NDArray[np.float32] = windows.max(axis=-1)
    return loudest
