"""What long work tells while it runs: the protocol a caller implements to show it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called with how far a stage of the work has come, at most once a step."""

    def __call__(
        self, stage: str, done: float, total: float | None, **facts: float
    ) -> None:
        """Take note; must return at once, and may raise to stop the work.

        stage: "examine" (rows), "train" (steps), "validate" (utterances) or
        "transcribe" (recordings, whose total is not known: None). facts: while
        training, epoch, loss, learning_rate and audio_seconds, as far as known.
        """


def silent(stage: str, done: float, total: float | None, **facts: float) -> None:
    """Show nothing."""
