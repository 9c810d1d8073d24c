"""A recording that is to be heard, and a stretch of one, as plain values.

Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

SAMPLE_RATE = 16_000
"""Hz; every base is trained on it, so every recording is brought to it."""


@dataclass(frozen=True, slots=True)
class Recording:
    """What is heard, and what is known of it beforehand."""

    audio: Any
    "A path, a URL or the bytes of an encoded file, as `sound.audio.load` takes them."
    channel: int | Literal["mix", "each"] = "mix"
    "What is heard: one of them, from 1; the mean of all; or each by itself."
    hotwords: Any = None
    "Words and names to be expected in it: a text, as the option hotwords takes it."
    words: tuple[str, ...] = ()
    "Those of its text, all and in order, where it is to be aligned with it."


@dataclass(frozen=True, slots=True)
class FileCopy:
    """A file's content, where it is not to be read from its place."""

    content: bytes
    name: str
    "The path or URL that it was read from, for errors."


class Span(NamedTuple):
    """Samples of a window that lie as one piece in the recording, at 16 kHz."""

    begin: int
    "The first one's place in the window."
    source: int
    "The first one's place in the recording."
    samples: int
    "Their number."
