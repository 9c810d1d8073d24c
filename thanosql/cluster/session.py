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
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from thanosql import errors

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATIENCE = 5.0  # seconds, for a cluster's head to answer
_EXTRA = "pip install 'thanosql-local[ray]'"


class Session:
    """What one connection has to do with Ray; nothing until `ray` is called."""

    def __init__(self, address: str | None) -> None:
        """Begin without Ray; address: as `connect` takes it."""
        self._address = address

    def ray(self) -> Any:
        """Return the module `ray`, connected to the session's cluster.

        Raises NotSupportedError where Ray is not installed, OperationalError where the
        cluster cannot be reached, ProgrammingError where this process is in another.
        """
        _process.join(self, self._address or os.environ.get("RAY_ADDRESS") or None)
        return _imported()

    def close(self) -> None:
        """Disconnect, where no other session needs the connection."""
        _process.leave(self)


class _Process:
    """The connection of this process to Ray, and the sessions that use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: set[Session] = set()  # of the connection that was made here
        self._address: str | None = None
        self._job: str | None = None  # Ray's name for the connection that was made here

    def join(self, session: Session, address: str | None) -> None:
        ray = _imported()
        with self._lock:
            if not ray.is_initialized():
                self._sessions.clear()  # the program has called `ray.shutdown`
                self._job = _connect(ray, address)
                self._address = address
            elif self._job != _job(ray):
                return  # the program's own
            elif address != self._address:
                message = (
                    f"this process is connected to {_named(self._address)} already, "
                    f"and cannot be to {_named(address)}, too; close the connections "
                    "that use it, or use another process"
                )
                raise errors.ProgrammingError(message)
            self._sessions.add(session)

    def leave(self, session: Session) -> None:
        with self._lock:
            if session not in self._sessions:
                return
            self._sessions.remove(session)
            ray = _imported()
            if not self._sessions and ray.is_initialized() and self._job == _job(ray):
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
        return _job(ray)
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


def _job(ray: Any) -> str:
    return str(ray.get_runtime_context().get_job_id())


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
