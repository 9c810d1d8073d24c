"""The callback that long work calls as it advances, so that a caller can show it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """A function that is told how far a stage of the work is, at most once a step."""

    def __call__(
        self, stage: str, done: float, total: float | None, **facts: float
    ) -> None:
        """Take note. Must return at once; may raise to stop the work.

        stage: "inspect" (done and total count files), "examine" (rows), "train"
        (steps; before it "train the head", of a fresh last layer), "validate"
        (utterances) or "transcribe" (recordings; total is None, as it is not known); of
        a language model, "read" and "validate" (texts), "count 2-grams" (words) and so
        on, "estimate" (lengths) and "read 1-grams" (lines).
        facts: "train" has epoch, loss, learning_rate and audio_seconds; "validate" of
        a training has epoch.
        """


def silent(stage: str, done: float, total: float | None, **facts: float) -> None:
    """Show nothing."""
