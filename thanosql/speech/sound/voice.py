"""Find speech: a waveform in, the frames in which somebody speaks out.

The model is silero-vad 6.2 for 16 kHz (Silero Team, MIT): magnitudes of a short-time
Fourier transform, four convolutions, an LSTM and one output. Its package runs it frame
by frame. Here all layers but the LSTM take the frames of a block together, and the LSTM
goes through them in one call. The weights ship, in `thanosql/catalog/silero_vad`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

from thanosql.speech.sound.audio import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

FRAME = 512  # samples: 32 ms
_BLOCK = 256  # frames that are looked at together: 8.2 s
_CONTEXT = 64  # samples before a frame that its spectrum takes in
_WINDOW, _HOP = 256, 128  # samples of the Fourier transform
_BANDS = _WINDOW // 2 + 1
_HIDDEN = 128  # units of the LSTM

# The model answers to a sound that begins more than to one that was there before it. A
# word that was cut out of its recording begins at once, and counts as noise: of 1,200
# spoken digits, 63 never reach 0.5. After a second of silence all do. But so does the
# hum of a recording that begins in the middle of it, and hum goes on. So only what is
# too short to be more than a word or two is looked at as if silence came before it.
_SHORT = SAMPLE_RATE
_SILENCE = SAMPLE_RATE // FRAME + 1  # frames

# Speech begins with `_LEAST` of `_WITHIN` frames at `_ENTER` or more, and ends after
# `_QUIET` frames below `_LEAVE`. docs/adr/0015-voice-activity.md says on what these
# were tried.
_ENTER, _LEAVE = 0.4, 0.3
_LEAST, _WITHIN, _QUIET = 3, 8, 4

_State = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Frames of a recording, one after the other."""

    waveform: NDArray[np.float32]
    "(samples,): frames of FRAME samples; the recording's last one may be shorter."
    probability: NDArray[np.float32]
    "(frames,): of speech in each frame, as silero-vad gives it."
    speech: NDArray[np.bool_]
    "(frames,): whether somebody speaks in it, by all frames up to it."


def listen(pieces: Iterable[NDArray[np.float32]]) -> Iterator[Block]:
    """Yield a waveform that comes piece by piece, with the speech found in it.

    pieces: (samples,) each, mono, 16 kHz. How the waveform was split makes no
    difference, since a block of it has always the same frames.
    """
    voice, decision = _voice(), _Decision()
    context = torch.zeros(_CONTEXT)
    state: _State | None = None
    for waveform in blocks(pieces):
        with torch.inference_mode():
            if len(waveform) < _SHORT and state is None:
                _, state = voice(torch.zeros(_SILENCE, _CONTEXT + FRAME), None)
            samples = torch.from_numpy(waveform)
            samples = functional.pad(samples, (0, -len(samples) % FRAME))
            frames = torch.cat([context, samples]).unfold(0, _CONTEXT + FRAME, FRAME)
            context = samples[-_CONTEXT:]
            found, state = voice(frames, state)
        # Samples of 1e30 make no numbers here; what cannot be told is heard.
        probability = found.nan_to_num(1.0).numpy()
        speech = np.array([decision(each) for each in probability.tolist()])
        yield Block(waveform, probability, speech)


def blocks(pieces: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
    """Yield a waveform in blocks of the same size, of which the last may be shorter."""
    size = _BLOCK * FRAME
    held: list[NDArray[np.float32]] = []
    samples = 0
    for piece in pieces:
        held.append(piece)
        samples += len(piece)
        if samples < size:
            continue
        waveform = np.concatenate(held)
        whole = samples - samples % size
        yield from waveform[:whole].reshape(-1, size)
        held, samples = [waveform[whole:]], samples - whole
    if samples:
        yield np.concatenate(held)


class _Decision:
    """Whether somebody speaks, from the probabilities of all frames so far."""

    def __init__(self) -> None:
        self._latest: deque[float] = deque(maxlen=_WITHIN)
        self._speech = False

    def __call__(self, probability: float) -> bool:
        """Return it for the next frame."""
        self._latest.append(probability)
        latest = [*self._latest]
        if self._speech:
            self._speech = max(latest[-_QUIET:]) >= _LEAVE
        elif probability >= _ENTER:
            self._speech = sum(each >= _ENTER for each in latest) >= _LEAST
        return self._speech


class Voice(nn.Module):
    """The layers of silero-vad, whose state is passed in and out."""

    def __init__(self) -> None:
        super().__init__()
        self.stft = nn.Conv1d(1, 2 * _BANDS, _WINDOW, stride=_HOP, bias=False)
        self.encoder = nn.ModuleList(
            nn.Conv1d(inputs, outputs, 3, stride=stride, padding=1)
            for inputs, outputs, stride in (
                (_BANDS, 128, 1),
                (128, 64, 2),
                (64, 64, 2),
                (64, _HIDDEN, 1),
            )
        )
        self.lstm = nn.LSTM(_HIDDEN, _HIDDEN)
        self.output = nn.Linear(_HIDDEN, 1)

    def forward(self, frames: Tensor, state: _State | None) -> tuple[Tensor, _State]:
        """Return the probability of speech in each frame, and the state after the last.

        frames: (frames, _CONTEXT + FRAME), one after the other; result: (frames,).
        """
        values = functional.pad(frames[:, None], (0, _CONTEXT), mode="reflect")
        real, imaginary = self.stft(values).split(_BANDS, dim=1)
        values = (real.square() + imaginary.square()).sqrt()
        for layer in self.encoder:
            values = layer(values).relu()
        # Of each frame one column is left. To the LSTM, frames are steps: (frames, 1,
        # channels).
        values, state = self.lstm(values.transpose(1, 2), state)
        return self.output(values.relu())[:, 0, 0].sigmoid(), state


@cache
def _voice() -> Voice:
    """Return the model with its weights, which are loaded once."""
    file = resources.files("thanosql.catalog") / "silero_vad/model.safetensors"
    with torch.device("meta"):
        voice = Voice()
    voice.load_state_dict(load(file.read_bytes()), assign=True)
    return voice.eval().requires_grad_(False)
