"""Transcribe on a cluster: recordings in, their texts out, in the same order.

Batches go out to workers and come back in any order. What is read and not yet yielded
is bounded, in batches and in bytes. A batch whose worker dies goes to another.
"""

from __future__ import annotations

import os
from collections import deque
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from thanosql import errors, speech
from thanosql.cluster.crew import Crew, Died
from thanosql.cluster.jobs import Batch, Job
from thanosql.cluster.session import connected
from thanosql.cluster.sizing import size_of_workers
from thanosql.cluster.worker import Request
from thanosql.speech.results import Transcription

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from thanosql.cluster.session import Session
    from thanosql.speech.progress import Progress
    from thanosql.statements import EvaluateOptions, PredictOptions

_AHEAD = 4  # batches for each worker that are read and not yet yielded
_BATCH_BYTES = 2**25  # of recordings; a batch that has more takes no more of them
_AHEAD_BYTES = 2**26  # for each worker; of all that is read and not yet yielded
_POLLED_EVERY = 0.1  # seconds; an interrupt is noticed so soon
_TRIES = 2  # workers that a recording may end before it is a bad row


def transcribe(
    session: Session,
    model: speech.StoredFiles,
    recordings: Iterable[speech.Recording],
    options: PredictOptions | EvaluateOptions,
    root: Path | None,
    progress: Progress,
    first_row: int = 1,
    language_model: speech.StoredFiles | None = None,
) -> Generator[list[Transcription], None, None]:
    """Yield the transcriptions of recordings, in order, a batch at a time.

    As `speech.transcribe`, on a cluster: `recordings` are read in the calling thread,
    and closing the generator ends the work. A path or URL is read by the worker, or
    here where the worker cannot.

    Raises OptionError if the cluster has no room for the workers, OperationalError if
    it is lost or if workers cannot start.
    """
    ray = session.ray()
    with connected():
        size = size_of_workers(ray.nodes(), options)
        request = Request(
            options,
            None if root is None else os.path.realpath(root),
            os.getcwd(),  # noqa: PTH109 - as text
            model.sha256,
            None if model.base is None else model.base.sha256,
            None if language_model is None else language_model.sha256,
        )
        progress("transcribe", 0, None)  # connecting may have taken seconds
        files, base, texts = (
            None if each is None else session.model(each.sha256, each.read)
            for each in (model, model.base, language_model)
        )
        assert options.workers is not None
        opening = request, files, base, texts
        with closing(Crew(session, options.workers, size, opening)) as crew:
            work = _Work(recordings, options, root, first_row)
            yield from work.done_by(crew, progress)


class _Work:
    """The batches of a statement: those that are out, to go out again, or back."""

    def __init__(
        self,
        recordings: Iterable[speech.Recording],
        options: PredictOptions | EvaluateOptions,
        root: Path | None,
        first_row: int,
    ) -> None:
        self._options = options
        self._root = root
        self._following = self._read(iter(recordings), first_row)
        self._batches: deque[Batch] = deque()  # read and not yielded, in order
        self._again: deque[Job] = deque()
        self._bytes = 0  # of the recordings in `_batches`
        self._ended = False
        self._copies = False  # whether workers cannot read what can be read here

    def done_by(
        self, crew: Crew, progress: Progress
    ) -> Generator[list[Transcription], None, None]:
        """Yield each batch's transcriptions in order; progress: may raise to stop."""
        done = 0
        while True:
            progress("transcribe", done, None)
            while self._batches and self._batches[0].is_done():
                batch = self._batches.popleft()
                self._bytes -= batch.bytes
                if batch.errors:
                    raise batch.errors[min(batch.errors)]
                found = [e for place in sorted(batch.found) for e in batch.found[place]]
                done += len(found)
                yield found
            given = self._give(crew)
            if self._ended and not self._batches:
                return
            for job, result in crew.results(0 if given else _POLLED_EVERY):
                if isinstance(result, Died):
                    self._lost(job, result)
                elif isinstance(result, Exception):
                    self._failed(job, result)
                else:
                    for text in result.warnings:
                        errors.warn(f"row {job.first_row} or soon after: {text}")
                    self._take(job, result.found)

    # Out

    def _give(self, crew: Crew) -> bool:
        """Give a job to the worker with the least to do; return whether there was."""
        while self._again and not self._can_go(self._again[0]):
            self._again.popleft()
        alone = bool(self._again) and self._again[0].is_alone
        member = crew.free(alone=alone)
        job = None if member is None else self._next(crew)
        if member is None or job is None:
            return False
        crew.give(member, job)
        return True

    def _next(self, crew: Crew) -> Job | None:
        if self._again:
            return self._again.popleft()
        is_full = len(self._batches) >= _AHEAD * crew.count
        is_heavy = self._bytes >= _AHEAD_BYTES * crew.count
        fails = any(batch.errors for batch in self._batches)
        if self._ended or (self._batches and (is_full or is_heavy or fails)):
            return None
        batch = next(self._following, None)
        if batch is None:
            self._ended = True
            return None
        self._batches.append(batch)
        self._bytes += batch.bytes
        return Job(batch, range(len(batch.recordings)))

    def _read(
        self, recordings: Iterator[speech.Recording], first_row: int
    ) -> Iterator[Batch]:
        """Yield batches of recordings, the first of which is in `first_row`."""
        batch = Batch(first_row)
        for recording in recordings:
            if self._copies:
                with_copy = self._copied(recording)
                if not isinstance(with_copy, errors.AudioError):
                    recording = with_copy
            batch.recordings.append(recording)
            batch.bytes += _size(recording)
            is_full = len(batch.recordings) == self._options.batch_size
            if is_full or batch.bytes >= _BATCH_BYTES:
                yield batch
                batch = Batch(batch.first_row + len(batch.recordings))
        if batch.recordings:
            yield batch

    def _can_go(self, job: Job) -> bool:
        """Return whether a job is to be done; one that no worker could read is read.

        Where its file is bad here, too, why is noted.
        """
        if job.unread is None or not job.is_needed():
            return job.is_needed()
        (place,) = job.places
        copied = self._copied(job.batch.recordings[place])
        if isinstance(copied, errors.AudioError):
            self._bad(job.batch, place, job.unread, copied)
            return False
        job.batch.recordings[place] = copied
        return True

    def _copied(
        self, recording: speech.Recording
    ) -> speech.Recording | errors.AudioError:
        """Return a recording with its file's content, or why that cannot be read."""
        if not isinstance(recording.audio, str):
            return recording
        try:
            return replace(recording, audio=speech.copied(recording.audio, self._root))
        except errors.AudioError as error:
            return error

    # Back

    def _take(self, job: Job, found: Sequence[Sequence[Transcription]]) -> None:
        """Keep what a worker has found, or have bad recordings transcribed again."""
        for place, each in zip(job.places, found, strict=True):
            recording = job.batch.recordings[place]
            is_bad = any(t.error is not None for t in each)
            if is_bad and isinstance(recording.audio, str):
                # The file may be on this machine only, or the worker's network closed.
                self._again.append(Job(job.batch, (place,), unread=each))
            elif is_bad and self._options.on_error == "raise":
                # Only its error itself is of the class that tells what is wrong.
                self._again.append(Job(job.batch, (place,), "raise"))
            else:
                is_copy = isinstance(recording.audio, speech.FileCopy)
                self._copies |= is_copy and not is_bad
                self._found(job.batch, place, each)

    def _found(self, batch: Batch, place: int, found: Sequence[Transcription]) -> None:
        batch.found[place] = found
        # Not needed any more, and it may be large; the row itself is the statement's.
        batch.recordings[place] = speech.Recording(None)

    def _bad(
        self,
        batch: Batch,
        place: int,
        found: Sequence[Transcription],
        error: errors.DataError,
    ) -> None:
        """Note why a recording is bad, by what `on_error` says."""
        if self._options.on_error == "raise":
            message = f"row {batch.first_row + place}: {error}"
            batch.errors[place] = type(error)(message)
            return
        bad = [
            replace(t, error=str(error)) if t.error is not None else t for t in found
        ]
        self._found(batch, place, bad)

    def _failed(self, job: Job, error: Exception) -> None:
        """Note what a worker raised, which the statement ends with in its turn."""
        job.batch.errors[job.places[0]] = error

    def _lost(self, job: Job, died: Died) -> None:
        """Have a job whose worker died done by another; find the recording at fault."""
        if not died.is_suspect:
            self._again.appendleft(job)
            return
        deaths = job.deaths + 1
        if len(job.places) > 1:
            for place in reversed(job.places):
                alone = Job(job.batch, (place,), job.on_error, is_alone=True)
                self._again.appendleft(alone)
        elif deaths < _TRIES:
            self._again.appendleft(replace(job, is_alone=True, deaths=deaths))
        else:
            message = (
                f"each of the {deaths} workers that heard the recording died of it "
                f"({died.reason}); it may take more memory than they have"
            )
            bad = Transcription(text=None, error=message)
            self._bad(job.batch, job.places[0], (bad,), errors.AudioError(message))


def _size(recording: speech.Recording) -> int:
    audio = recording.audio
    if isinstance(audio, speech.FileCopy):
        return len(audio.content)
    return len(audio) if isinstance(audio, bytes | bytearray | memoryview) else 0
