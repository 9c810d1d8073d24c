"""Whisper's encoder: log-mels in, frames out; of 30 s, or of as much as there is.

The layers are transformers' own, which hears 30 s only; `encode` runs them for less. A
shorter window has the first of the positions. Whisper is trained on windows of 30 s, so
it reads shorter ones wrong until it is trained on them (`SHORT`).
"""

from __future__ import annotations

import math
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.nn.utils.rnn import pad_sequence

from thanosql.speech.prefetch import chunks
from thanosql.speech.recognizers.modeling_encoder_ctc import encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

Window = Literal["exact", "short"]

SETTING = "audio_window"
"The name of a model's window in its config.json, which transformers leaves alone."
FRAMES_A_SECOND = 50  # of the encoder's output; half those of its input
# A short window ends in so much silence at least: the sign that the speech is over.
# Each one is a multiple of whole seconds, whatever batch it is in.
_TAIL_SECONDS = 0.5
_STEP_SECONDS = 1.0


def window_frames(window: Window, seconds: float, most: int) -> int:
    """Return how many frames the encoder makes of a recording of so many seconds.

    most: of the frames, those of the exact window.
    """
    if window == "exact":
        return most
    steps = math.ceil((seconds + _TAIL_SECONDS) / _STEP_SECONDS)
    return min(most, round(steps * _STEP_SECONDS * FRAMES_A_SECOND))


def encoded(
    batch: Sequence[Tensor], encoder: Any, device: torch.device
) -> list[Tensor]:
    """Return the frames (n, width) of each utterance's log-mels (2 n, mels)."""
    outputs: dict[int, Tensor] = {}
    # On a CPU one by one: one utterance keeps all cores busy, in less memory, and its
    # frames cannot depend on the others. A GPU takes all of a length at once.
    size = 1 if device.type == "cpu" else len(batch)
    by_length = sorted(range(len(batch)), key=lambda i: len(batch[i]))
    for _, equal in groupby(by_length, lambda i: len(batch[i])):
        for together in chunks(equal, size):
            features = torch.stack([batch[i].T for i in together]).to(device)
            outputs |= zip(together, encode(encoder, features), strict=True)
    return [outputs[i] for i in range(len(batch))]


def padding(lengths: Sequence[int], like: Tensor) -> Tensor | None:
    """Return what to add to the scores of frames, so that padding has no weight.

    lengths: the frames of each utterance. like: a tensor of the device wanted. Returns
    (utterances, 1, longest), 0 or minus infinity; None if all are equally long.
    """
    longest = max(lengths)
    if min(lengths) == longest:
        return None
    places = torch.arange(longest, device=like.device)
    ends = torch.tensor(lengths, device=like.device)
    scores = like.new_zeros(len(lengths), longest)
    return scores.masked_fill_(places >= ends[:, None], -math.inf)[:, None]


def padded(frames: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Return the frames of a batch (batch, longest, width), and their `padding`."""
    lengths = [len(each) for each in frames]
    stacked = pad_sequence(list(frames), batch_first=True)
    return stacked, padding(lengths, stacked)
