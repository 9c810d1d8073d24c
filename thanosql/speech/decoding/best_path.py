"""A model's scores for every frame in, text out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from thanosql.speech.recognizers.recognizer import Recognizer


def best_paths(logits: Tensor, lengths: Tensor) -> list[Tensor]:
    """Return the likeliest token at each frame of each row: (frames,) each, on the CPU.

    logits: (batch, frames, vocab), logarithms of probabilities up to a constant a
    frame; lengths: (batch,), frames that count.
    """
    best = logits.argmax(dim=-1).cpu()  # the one time this waits for a GPU
    return [path[:length] for path, length in zip(best, lengths.tolist(), strict=True)]


def read(path: Tensor, recognizer: Recognizer) -> str:
    """Return the text of a best path: Graves et al. 2006, section 3.2.

    Repeats merged, then blanks removed; the word delimiter becomes a space.
    path: (frames,), a token id for each frame.
    """
    return recognizer.spelling.decode(collapse(path, recognizer.blank))


def greedy_decode(logits: Tensor, lengths: Tensor, recognizer: Recognizer) -> list[str]:
    """Return the text of the best path of each row; shapes as in `best_paths`."""
    return [read(path, recognizer) for path in best_paths(logits, lengths)]


def collapse(path: Tensor, blank: int) -> list[int]:
    """Return the tokens of a path: repeats merged, blanks removed.

    path: (frames,), a token id for each frame.
    """
    tokens = torch.unique_consecutive(path)
    kept: list[int] = tokens[tokens != blank].tolist()
    return kept
