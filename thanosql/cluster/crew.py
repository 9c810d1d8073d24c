"""The workers of a statement: jobs in, results out, and new workers for lost ones."""

from __future__ import annotations

import time
from collections import deque
from concurrent import futures
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from thanosql import errors
from thanosql.cluster.sizing import STARTS_WITHIN, why_none_start
from thanosql.cluster.worker import Worker, installed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from thanosql.cluster.jobs import Job
    from thanosql.cluster.session import Session
    from thanosql.cluster.sizing import Size
    from thanosql.cluster.worker import Heard, Request

_STARTS = 3  # workers that may die in a row before one has loaded the model
_MOMENT = 0.3  # seconds, that a job may go on when its result is not needed any more


@dataclass(frozen=True, slots=True)
class Died:
    """What becomes of a job whose worker died."""

    reason: str
    is_suspect: bool
    "Whether the job may be at fault: it was under way, and the machine is alive."


@dataclass(slots=True)
class Member:
    """A worker, and what it has to do."""

    actor: Any
    is_new: bool
    node: str = ""
    is_open: bool = False
    jobs: deque[Job] = field(default_factory=deque)


class Crew:
    """As many workers as a statement wants, of which any may die at any time."""

    def __init__(
        self,
        session: Session,
        count: int,
        size: Size,
        opening: tuple[Request, Any, Any, Any],
    ) -> None:
        """Begin to start the workers; opening: the request and the models' files."""
        self.count = count
        self._session = session
        self._ray = session.ray()
        self._size = size
        self._opening = opening
        # On a GPU one batch is decoded while the model works on another. On a CPU that
        # gains nothing: decoding takes far less time than any model.
        self._at_once = 2 if size.gpus else 1
        self._members: list[Member] = []
        self._waiting: dict[Future[Any], tuple[Member, Job | None]] = {}
        self._back: SimpleQueue[Future[Any]] = SimpleQueue()  # those that are done
        self._failures = 0
        self._began: float | None = time.monotonic()  # None once a worker has begun
        for actor in session.take_workers(size, count):
            self._begin(Member(actor, is_new=False))
        self._fill()

    def free(self, *, alone: bool) -> Member | None:
        """Return the worker with the least to do, if it can take another job.

        alone: one that has nothing to do.
        """
        ready = [
            member
            for member in self._members
            if member.is_open
            and len(member.jobs) <= (0 if alone else self._at_once)
            and not any(job.is_alone for job in member.jobs)
        ]
        return min(ready, key=lambda member: len(member.jobs), default=None)

    def give(self, member: Member, job: Job) -> None:
        """Send a job to a worker."""
        reference = member.actor.transcribe.remote(
            job.recordings, job.first_row, job.on_error
        )
        member.jobs.append(job)
        self._wait_for(reference, member, job)

    def results(self, timeout: float) -> Sequence[tuple[Job, Heard | Died | Exception]]:
        """Return what has come back, after at most `timeout` seconds.

        Raises OperationalError if the cluster is lost or if no worker can start.
        """
        self._look()
        found: list[tuple[Job, Heard | Died | Exception]] = []
        try:
            future = self._back.get(timeout=timeout)
        except Empty:
            return found
        if future not in self._waiting:  # of a worker that has died since
            return found
        member, job = self._waiting.pop(future)
        try:
            value = future.result()
        except self._ray.exceptions.RayTaskError as error:
            if job is None:
                raise _cannot_start(error) from error
            member.jobs.remove(job)
            found.append((job, error.cause))
        except self._ray.exceptions.RayError as error:
            found += self._bury(member, error)
        else:
            if job is not None:
                member.jobs.remove(job)
                found.append((job, value))
            elif member.node:
                member.is_open = True
                self._failures = 0
            else:
                member.node = value
                self._open(member)
            self._began = None
        return found

    def close(self) -> None:
        """Keep the idle workers for the next statement, and end the others."""
        if not self._session.is_connected():  # to call Ray would start another
            return
        busy = [each for each, (_, job) in self._waiting.items() if job is not None]
        for future in futures.wait(busy, _MOMENT).done:
            member, job = self._waiting.pop(future)
            if job is not None:
                member.jobs.remove(job)
        idle = [m.actor for m in self._members if m.is_open and not m.jobs]
        for member in self._members:
            if member.actor not in idle:
                self._ray.kill(member.actor)
        self._members.clear()
        self._waiting.clear()
        self._session.keep_workers(self._size, idle)

    # Workers come and go

    def _fill(self) -> None:
        """Start workers in the place of those that are missing."""
        while len(self._members) < self.count:
            actor = (
                self._ray.remote(Worker)
                .options(
                    num_cpus=self._size.cpus,
                    num_gpus=self._size.gpus,
                    max_concurrency=self._at_once,
                    scheduling_strategy="SPREAD",
                )
                .remote()
            )
            self._begin(Member(actor, is_new=True))

    def _begin(self, member: Member) -> None:
        """Have a worker say where it is."""
        self._members.append(member)
        self._wait_for(member.actor.begin.remote(installed()), member)

    def _open(self, member: Member) -> None:
        """Have a worker load what the statement needs."""
        request, *files = self._opening
        reference = member.actor.open.remote(request, self._size.cpus, *files)
        self._wait_for(reference, member)

    def _wait_for(self, reference: Any, member: Member, job: Job | None = None) -> None:
        """Have what a worker returns put into `_back`."""
        # Not ray.wait, which would wait forever for a cluster whose head is gone.
        future = reference.future()
        self._waiting[future] = member, job
        future.add_done_callback(self._back.put)

    def _bury(self, member: Member, error: Exception) -> list[tuple[Job, Any]]:
        """Return what becomes of a dead worker's jobs, the last one first."""
        self._session.check_head()
        self._members.remove(member)
        self._ray.kill(member.actor)  # it may be unreachable only
        alive = {n["NodeID"] for n in self._ray.nodes() if n["Alive"]}
        is_at_fault = not member.node or member.node in alive
        if member.is_new and not member.is_open and is_at_fault:
            self._failures += 1
            if self._failures == _STARTS:
                raise _cannot_start(error) from error
        reason = str(error).strip().splitlines()[-1].strip()
        jobs = [
            (job, Died(reason, is_at_fault and place < self._at_once))
            for place, job in enumerate(member.jobs)
        ]
        self._waiting = {
            future: waiting
            for future, waiting in self._waiting.items()
            if waiting[0] is not member
        }
        if self._began is None and not any(m.is_open for m in self._members):
            self._began = time.monotonic()
        self._fill()
        return jobs[::-1]

    # Whether anything can go on

    def _look(self) -> None:
        """Raise OperationalError if nothing is to be expected any more."""
        self._session.look()
        began = self._began
        if began is not None and time.monotonic() - began > STARTS_WITHIN:
            message = why_none_start(self._ray, "no worker", self._size)
            raise errors.OperationalError(message)


def _cannot_start(error: Any) -> Exception:
    """Return the error for a worker that cannot start."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, errors.Error):
        return cause
    reason = str(cause or error).strip().splitlines()[-1].strip()
    return errors.OperationalError(f"the workers cannot start: {reason}")
