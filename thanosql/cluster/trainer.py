"""A worker that trains: its share of a training in, what becomes of it out."""

from __future__ import annotations

import os
import socket
import threading
import warnings
from collections import deque
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from thanosql import speech
from thanosql.cluster.worker import check_installed
from thanosql.speech.progress import silent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thanosql.cluster.rows import SharedRows

_HELD_BACK = 0.1  # seconds, that an answer waits for something to tell


@dataclass(frozen=True, slots=True)
class Event:
    """Something that the first worker has to tell."""

    kind: Literal["epoch", "state", "warning"]
    value: Any


@dataclass(frozen=True, slots=True)
class News:
    """What there is since the last time."""

    events: list[Event]
    progress: tuple[str, float, float | None, Mapping[str, float]] | None
    "The last call of the progress function."


class Trainer:
    """One of the processes that train a model together."""

    def begin(self, expected: str) -> tuple[str, int]:
        """Return this machine's address and a port that is free on it."""
        import ray

        check_installed(expected)
        self._changed = threading.Condition()
        self._events: deque[Event] = deque()
        self._progress: tuple[str, float, float | None, dict[str, float]] | None = None
        host = ray.util.get_node_ip_address()
        with socket.socket() as free:
            free.bind((host, 0))
            return host, free.getsockname()[1]

    def train(
        self,
        seat: speech.Seat,
        plan: speech.Plan,
        directory: str,
        threads: int,
        files: Mapping[str, Any],
        rows: SharedRows,
        validation_rows: SharedRows | None,
        saved: Any,
        keeps_states: bool,
    ) -> None:
        """Train to the end; the first worker tells of it by `news`.

        directory: where relative paths start without a root. threads: those that torch
        computes with. saved: a parcel of `speech`. keeps_states: whether more than the
        last state is wanted. The rest is as in `speech.train_share`.
        """
        speech.set_threads(threads)
        # Where this machine has no such directory, relative paths lead nowhere.
        with suppress(OSError):
            os.chdir(directory)
        is_first = seat.rank == 0
        if is_first:
            warnings.showwarning = self._note
        with closing(
            speech.train_share(
                plan,
                files,
                rows,
                validation_rows,
                seat,
                saved,
                lambda parcel: self._tell("state", parcel),
                lambda: keeps_states and self._all_states_are_taken(),
                self._take_note if is_first else silent,
            )
        ) as epochs:
            for epoch in epochs:
                if is_first:
                    self._tell("epoch", epoch)

    def news(self, *, takes_state: bool) -> News:
        """Return what is to be told; waits a moment if there is nothing.

        takes_state: whether a state can be taken now; if not, what follows one waits.
        """
        told: list[Event] = []
        with self._changed:
            if not self._events:
                self._changed.wait(_HELD_BACK)
            while self._events and (takes_state or self._events[0].kind != "state"):
                takes_state &= self._events[0].kind != "state"
                told.append(self._events.popleft())
            progress, self._progress = self._progress, None
        return News(told, progress)

    def _tell(self, kind: Literal["epoch", "state", "warning"], value: Any) -> None:
        with self._changed:
            self._events.append(Event(kind, value))
            self._changed.notify_all()

    def _all_states_are_taken(self) -> bool:
        with self._changed:
            return all(event.kind != "state" for event in self._events)

    def _note(self, message: Warning | str, *_place: Any, **_line: Any) -> None:
        self._tell("warning", str(message))

    def _take_note(
        self, stage: str, done: float, total: float | None, **facts: float
    ) -> None:
        self._progress = stage, done, total, facts
