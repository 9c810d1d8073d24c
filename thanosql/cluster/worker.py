"""The worker: a model and recordings in, transcripts out, in a process of Ray's."""

from __future__ import annotations

import os
import threading
import warnings
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from thanosql import errors, speech
from thanosql.speech.progress import silent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from thanosql.speech.results import Transcription
    from thanosql.statements import EvaluateOptions, PredictOptions

    Files = Mapping[str, Any]  # bytes as an array of NumPy


@dataclass(frozen=True, slots=True)
class Request:
    """What a statement asks of every recording."""

    options: PredictOptions | EvaluateOptions
    root: str | None
    "The audio_root, absolute."
    directory: str
    "Where relative paths start without a root: the statement's working directory."
    sha256: str
    "The digest of the model's files."
    base: str | None
    "The digest of its base's files, where the model is an adapter."
    language_model: str | None
    "The digest of the language model's files."


@dataclass(frozen=True, slots=True)
class Heard:
    """What a worker has made of some recordings."""

    found: Sequence[Sequence[Transcription]]
    "Of each recording, one for each channel that was heard."
    warnings: Sequence[str]


def installed() -> str:
    """Return what is installed here; it is to be the same everywhere."""
    return version("thanosql-local")


def check_installed(expected: str) -> None:
    """Raise OperationalError if something else is installed here."""
    if installed() != expected:
        message = (
            f"a worker has thanosql {installed()}, and this process {expected}; "
            "install the same on every machine of the cluster"
        )
        raise errors.OperationalError(message)


class Worker:
    """Keeps a model loaded and transcribes with it; what it is told is one statement's.

    The models used last stay loaded for the next one.
    """

    def __init__(self) -> None:
        """Have nothing yet."""
        self._lock = threading.Lock()
        self._warnings: list[str] = []
        self._end: threading.Timer | None = None

    def begin(self, expected: str) -> str:
        """Return this machine's name in the cluster; nothing heavy is loaded yet."""
        import ray

        if self._end is not None:
            self._end.cancel()
        check_installed(expected)
        warnings.showwarning = self._note
        return str(ray.get_runtime_context().get_node_id())

    def open(
        self,
        request: Request,
        threads: int,
        model: Files,
        base: Files | None,
        language_model: Files | None,
    ) -> None:
        """Load what a statement needs; threads: those that torch computes with."""
        with self._lock:
            self._warnings.clear()  # of a statement that has ended before them
        speech.set_threads(threads)
        self._request = request
        stored = _stored(request.sha256, model)
        if request.base is not None and base is not None:
            stored = replace(stored, base=_stored(request.base, base))
        self._recognizer = speech.loaded(stored, request.options.device)
        self._language_model = None
        if request.language_model is not None and language_model is not None:
            self._language_model = speech.open_language_model(
                _stored(request.language_model, language_model)
            )

    def rest(self, seconds: float) -> None:
        """End after so many seconds, unless another statement begins before."""
        import ray

        # From here, since the driver's process may be busy, or have others to do it.
        me = ray.get_runtime_context().current_actor
        self._end = threading.Timer(seconds, ray.kill, (me,))
        self._end.daemon = True
        self._end.start()

    def transcribe(
        self,
        recordings: Sequence[speech.Recording],
        first_row: int,
        on_error: Literal["raise", "null"],
    ) -> Heard:
        """Return the transcriptions; raises as `speech.transcribe` does."""
        request = self._request
        # Where this machine has no such directory, relative paths lead nowhere.
        with suppress(OSError):
            os.chdir(request.directory)
        found: list[list[Transcription]] = []
        channels: list[Transcription] = []
        with closing(
            speech.transcribe(
                self._recognizer,
                recordings,
                replace(request.options, on_error=on_error),
                None if request.root is None else Path(request.root),
                silent,
                first_row,
                self._language_model,
            )
        ) as batches:
            for batch in batches:
                for each in batch:
                    channels.append(each)
                    if each.is_last:
                        found.append(channels)
                        channels = []
        with self._lock:
            noted, self._warnings = self._warnings, []
        return Heard(found, noted)

    def _note(self, message: Warning | str, *_place: Any, **_line: Any) -> None:
        with self._lock:
            self._warnings.append(str(message))


def _stored(sha256: str, files: Files) -> speech.StoredFiles:
    views = {name: memoryview(content) for name, content in files.items()}
    return speech.StoredFiles(sha256, lambda: views, lambda: views)
