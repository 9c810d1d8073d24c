"""Which Ray: an address, or none, in; this process's connection to a cluster out.

Ray connects a process to one cluster at a time. So the sessions of several connections
share what was connected for the first of them, and the last one disconnects. Where the
program has called `ray.init` itself, its cluster is used and left connected.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
import weakref
from collections import OrderedDict
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thanosql import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_PATIENCE = 5.0  # seconds, for a cluster's head to answer
_LOOKED_EVERY = 3.0  # seconds, at whether the cluster's head is there
_KEPT_FOR = 60.0  # seconds, that idle workers hold their cores and GPUs
_KEPT_MODELS = 3  # in the object store: an adapter, its base, a language model
_EXTRA = "pip install 'thanosql-local[ray]'"


@contextmanager
def connected() -> Iterator[None]:
    """Raise OperationalError where the block loses a cluster of a ray:// address."""
    try:
        yield
    except Exception as error:
        # Not grpc's class by name: only the extra [client] of Ray has it.
        kinds = type(error).__mro__
        is_of_grpc = any(kind.__module__.partition(".")[0] == "grpc" for kind in kinds)
        if not is_of_grpc and not isinstance(error, ConnectionError):
            raise
        message = f"the connection to the Ray cluster is lost: {error}"
        raise errors.OperationalError(message) from error


class Session:
    """What one connection has to do with Ray; nothing until `ray` is called."""

    def __init__(self, address: str | None) -> None:
        """Begin without Ray; address: as `connect` takes it."""
        self._address = address
        self._job: str | None = None  # the connection that what is kept belongs to
        self._models: OrderedDict[str, Any] = OrderedDict()
        self._looked = 0.0

    def ray(self) -> Any:
        """Return the module `ray`, connected to the session's cluster.

        Raises NotSupportedError where Ray is not installed, OperationalError where the
        cluster cannot be reached, ProgrammingError where this process is in another.
        """
        ray = _imported()
        if self.is_connected():
            with suppress(errors.OperationalError):  # the cluster may be another by now
                self.check_head()
        address = self._address or os.environ.get("RAY_ADDRESS") or None
        job = _process.join(ray, self, address)
        if job != self._job:
            self._job = job
            self._models.clear()
        return ray

    def model(self, sha256: str, read: Callable[[], Mapping[str, memoryview]]) -> Any:
        """Return a reference to the files of a model in Ray's object store.

        Ray copies them once to each machine where a worker asks for them. They stay for
        the next statement. read: returns them; called if they are not there.
        """
        import numpy as np  # its arrays are not copied again when workers get them

        found = self._models.pop(sha256, None)
        if found is None:
            while len(self._models) >= _KEPT_MODELS:
                self._models.popitem(last=False)
            files = {name: np.frombuffer(file, "u1") for name, file in read().items()}
            found = self.ray().put(files)
        self._models[sha256] = found
        return found

    def take_workers(self, kind: object, count: int) -> list[Any]:
        """Return at most `count` workers that earlier statements have kept idle.

        Those of another kind are ended, since others need their place; more of this
        kind stay. Any of them may have ended by itself.
        """
        taken, others = _process.take_idle(self._job, kind, count)
        if not self.is_connected():
            return []
        _end(others)
        return taken

    def keep_workers(self, kind: object, workers: list[Any]) -> None:
        """Keep idle workers for the next statement of any session of this process.

        They end by themselves after a minute.
        """
        for worker in workers:
            worker.rest.remote(_KEPT_FOR)
        me = weakref.ref(self)
        _process.keep_idle([_Idle(each, kind, self._job, me) for each in workers])

    def is_connected(self) -> bool:
        """Return whether the connection that `ray` has made or found is still there."""
        return self._job is not None and self._job == _job(_imported())

    def look(self) -> None:
        """Check every few seconds that the cluster is there, as `check_head` does."""
        now = time.monotonic()
        if now - self._looked > _LOOKED_EVERY:
            self._looked = now
            self.check_head()

    def check_head(self) -> None:
        """Raise OperationalError if the cluster's head does not answer any more.

        Then Ray is disconnected, which would wait for the head and, after a minute, end
        this process.
        """
        ray = _imported()
        if ray.util.client.ray.is_connected():
            return  # by ray://, where each call fails by itself
        if not self.is_connected():  # another statement has noticed it
            message = "the connection to the Ray cluster is lost"
            raise errors.OperationalError(message)
        try:
            check_answers(ray.get_runtime_context().gcs_address)
        except OSError as error:
            _process.lose(ray)
            message = f"the head of the Ray cluster does not answer any more: {error}"
            raise errors.OperationalError(message) from error

    def close(self) -> None:
        """End the workers, and disconnect where no other session needs to be connected.

        Another statement may connect anew.
        """
        if self._job is not None:
            mine = _process.take_idle_of(self)
            if self.is_connected():
                _end(mine)
            self._models.clear()
            self._job = None
            _process.leave(_imported(), self)


@dataclass(frozen=True, slots=True)
class _Idle:
    """A worker that has nothing to do."""

    actor: Any
    kind: object
    job: str | None
    "The connection to a cluster that it belongs to."
    session: weakref.ref[Session]
    "Whose statement it comes from."


def _end(workers: list[Any]) -> None:
    for worker in workers:
        _imported().kill(worker)


class _Process:
    """The connection of this process to Ray, and the sessions that use it."""

    def __init__(self) -> None:
        # A statement may end in a finalizer, so amidst anything that this thread does.
        self._lock = threading.RLock()
        # Of the connection that was made here. One that is forgotten without being
        # closed holds up nobody.
        self._sessions: weakref.WeakSet[Session] = weakref.WeakSet()
        self._address: str | None = None
        self._job: str | None = None  # Ray's name for the connection that was made here
        # Of all sessions: the workers of another would have no room beside them.
        self._idle: list[_Idle] = []

    def keep_idle(self, workers: list[_Idle]) -> None:
        """Keep workers for whoever takes them."""
        with self._lock:
            self._idle += workers

    def take_idle(
        self, job: str | None, kind: object, count: int
    ) -> tuple[list[Any], list[Any]]:
        """Return at most `count` idle workers of a kind, and all of other kinds.

        The last kept come first: the others may have ended by now. job: the connection
        that they are to belong to; those of others are forgotten.
        """
        with self._lock:
            idle = [each for each in self._idle if each.job == job]
            same = [each for each in idle if each.kind == kind]
            left = max(0, len(same) - count)
            self._idle = same[:left]
        others = [each.actor for each in idle if each.kind != kind]
        return [each.actor for each in same[left:]], others

    def take_idle_of(self, session: Session) -> list[Any]:
        """Return the idle workers that come from a session and its connection."""
        with self._lock:
            mine = [each for each in self._idle if each.session() is session]
            self._idle = [each for each in self._idle if each.session() is not session]
        return [each.actor for each in mine if each.job == session._job]

    def join(self, ray: Any, session: Session, address: str | None) -> str:
        """Connect where the process is not connected yet; return Ray's name for it."""
        with self._lock:
            job = _job(ray)
            if job is None:
                self._sessions.clear()  # it was lost, or `ray.shutdown` called
                if ray.util.client.num_connected_contexts():
                    ray.shutdown()  # what is left of a connection that was lost
                job = self._job = _connect(ray, address)
                self._address = address
            elif job != self._job:
                return job  # the program's own
            elif address != self._address:
                message = (
                    f"this process is connected to {_named(self._address)} already, "
                    f"and cannot be to {_named(address)}, too; close the connections "
                    "that use it, or use another process"
                )
                raise errors.ProgrammingError(message)
            self._sessions.add(session)
            return job

    def leave(self, ray: Any, session: Session) -> None:
        """Disconnect what was connected here, where this was its last session."""
        with self._lock:
            if session not in self._sessions:
                return
            self._sessions.discard(session)
            if not self._sessions and self._job == _job(ray):
                ray.shutdown()

    def lose(self, ray: Any) -> None:
        """Disconnect from a cluster that is gone, if it was connected to here."""
        with self._lock:
            if self._sessions and self._job == _job(ray):
                self._sessions.clear()
                ray.shutdown()


_process = _Process()


def _imported() -> Any:
    try:
        import ray  # half a second, and an extra
    except ImportError as error:
        message = f"the option workers needs Ray ({error}); {_EXTRA}"
        raise errors.NotSupportedError(message) from error
    return ray


def _connect(ray: Any, address: str | None) -> str:
    """Connect to a cluster, or start a Ray of this machine; return the job's id."""
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is None:
        # "local": without it, Ray looks for one that somebody else has started here.
        address = "local"
        settings["include_dashboard"] = False
        settings["_system_config"] = {"enable_metrics_collection": False}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        check_answers(address)
        with _own_sigterm():
            ray.init(address, **settings)
        job = _job(ray)
        assert job is not None
        return job
    except BaseException as error:  # an interrupt, too: processes may have started
        ray.shutdown()
        if not isinstance(error, Exception):
            raise
        message = f"cannot connect to {_named(address)}: {error}"
        if isinstance(error, ImportError):
            message += f"; {_EXTRA}"
        raise errors.OperationalError(message) from error


def check_answers(address: str) -> None:
    """Raise OSError if nobody answers at an address of the form host:port.

    Ray itself waits for minutes, and may then end the process.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        with socket.create_connection((host.strip("[]"), int(port)), _PATIENCE):
            pass


def _job(ray: Any) -> str | None:
    """Return what no other connection to a cluster has in common with this one.

    None if there is none: then whatever else is asked of Ray makes it start one.
    """
    if not ray.is_initialized():
        return None
    client = ray.util.client.ray
    if client.is_connected():  # to ask the cluster would fail where it is lost
        return str(client.get_context().client_worker.metadata)
    context = ray.get_runtime_context()
    return f"{context.get_node_id()} {context.get_job_id()}"  # each cluster's first: 1


def _named(address: str | None) -> str:
    if address in (None, "local"):
        return "a Ray of this machine's own"
    return f"the Ray cluster at {address!r}"


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep the program's handler of SIGTERM, which `ray.init` replaces by its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if handler is not None:  # None: set by other than Python, and not to be set
            signal.signal(signal.SIGTERM, handler)
