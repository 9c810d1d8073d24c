"""A Ray cluster of several nodes on this machine: numbers of cores in, an address out.

Each node is `ray start` in processes of its own, at an address of its own: the head is
127.0.0.2, the others 127.0.0.3 and so on. Not 127.0.0.1, which Ray replaces by the
machine's address in the network wherever a driver or `ray start` is given it, so that
they look for each other where nobody listens. All of 127.0.0.0/8 is this machine under
Linux, and only there.

Run as a program, it is what holds one node: it ends with the process that started it,
even if that one is killed, and takes the node along.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import filelock

if TYPE_CHECKING:
    from collections.abc import Callable

MEMORY = 100 * 2**20  # bytes of each node's object store, unless told otherwise
PATIENCE = 240.0  # seconds, for what two busy cores do within a minute
STARTED = re.compile(r"ray start --address='([\d.]+:\d+)'")


class Nodes:
    """A head without cores, and nodes with some; a context manager that ends them.

    address: what a driver connects to. environment: of a driver, which needs the token
    without which these nodes answer nobody.
    """

    def __init__(
        self,
        *cores: int,
        by_client: bool = False,
        memory: int = MEMORY,
        after: Nodes | None = None,
    ) -> None:
        """Start the head, then a node for each number of cores.

        by_client: whether drivers come by Ray's client, whose address is ray://...
        memory: bytes of each node's object store; what has no room goes to the disk.
        after: a cluster of that kind that is gone; this one takes its place, for
        drivers that know it.
        """
        self._memory = memory
        self._token = secrets.token_hex(32) if after is None else after._token
        others = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        self.environment = {
            **others,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self._token,
            "RAY_USAGE_STATS_ENABLED": "0",
            # gRPC's own handling of forks crashes one in five of the servers that a
            # head forks for its clients.
            "GRPC_ENABLE_FORK_SUPPORT": "0",
            # A node that is gone is known to be after 3 s instead of 15 to 20.
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_failure_threshold": "3",
            # And a driver at ray://... gives a lost head up after 2 s instead of 30.
            "RAY_CLIENT_RECONNECT_GRACE_PERIOD": "2",
        }
        # Sockets are below it, whose paths may have 107 characters.
        self._folder = Path(tempfile.mkdtemp(prefix="nodes-"))
        self._nodes: list[subprocess.Popen[bytes]] = []
        # Heads give the ports from 23000 on, of one address, to their clients.
        self._clients = filelock.FileLock(Path(tempfile.gettempdir(), "ray-clients"))
        if by_client:
            self._clients.acquire()
        try:
            head = ["--head", "--port=0", "--num-cpus=0", "--include-dashboard=false"]
            self._port = _free_port() if after is None else after._port
            if by_client:
                head.append(f"--ray-client-server-port={self._port}")
            self._start(*head)
            self._head = self._wait(
                lambda: (found := STARTED.search(self._log(0))) and found[1]
            )
            self.address = self._head
            if by_client:
                self.address = f"ray://127.0.0.2:{self._port}"
            for each in cores:
                self.add(each)
            for number in range(1, len(self._nodes)):
                self.wait_until_joined(number)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, cores: int) -> int:
        """Start a node with so many cores and return its number; it joins when it can.

        The head is number 0, the first node number 1.
        """
        self._start(f"--address={self._head}", f"--num-cpus={cores}")
        return len(self._nodes) - 1

    def wait_until_joined(self, number: int) -> None:
        """Wait until a node is one of the cluster's."""
        self._wait(lambda: "runtime started" in self._log(number))

    def kill(self, number: int) -> None:
        """Kill all that runs on a node, at once, as if its power had failed."""
        for process in self.processes(number):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        with self._nodes[number] as node:  # and what holds it is waited for
            assert node.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                node.stdin.close()
        self._wait(lambda: not self.processes(number))

    def workers(self, number: int) -> list[int]:
        """Return the process ids of a node's workers that are at work."""
        return [
            process
            for process in self.processes(number)
            if title(process).startswith("ray::Worker.")  # and the method's name
        ]

    def processes(self, number: int) -> list[int]:
        """Return the process ids of all that runs on a node."""
        session = self._nodes[number].pid
        return [each for each in _all_processes() if _session(each) == session]

    def close(self) -> None:
        """End every node, and wait until nothing of them is left."""
        for number in reversed(range(len(self._nodes))):
            if self._nodes[number].returncode is None:
                self.kill(number)
        self._clients.release()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, *arguments: str) -> None:
        number = len(self._nodes)
        # Two nodes that start at once would take the same names in one folder.
        folder = self._folder / str(number)
        with self._log_path(number).open("wb") as log:
            node = subprocess.Popen(
                [
                    *(sys.executable, __file__),
                    *(*arguments, f"--node-ip-address=127.0.0.{2 + number}"),
                    f"--temp-dir={folder}",
                    *(f"--object-store-memory={self._memory}", "--disable-usage-stats"),
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )
        self._nodes.append(node)

    def _log_path(self, number: int) -> Path:
        return self._folder / f"node{number}.log"

    def _log(self, number: int) -> str:
        """Return what a node has said so far; raise where it has ended."""
        said = self._log_path(number).read_text(encoding="utf-8")
        if self._nodes[number].poll() is not None:
            message = f"node {number} has ended: {said}"
            raise RuntimeError(message)
        return said

    def _wait(self, found: Callable[[], Any]) -> Any:
        """Return what `found` returns as soon as that is true."""
        end = time.monotonic() + PATIENCE
        while not (result := found()):
            if time.monotonic() > end:
                message = f"waited {PATIENCE:.0f} s in vain for a Ray node"
                raise TimeoutError(message)
            time.sleep(0.05)
        return result


def _free_port() -> int:
    with socket.create_server(("127.0.0.2", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _all_processes() -> list[int]:
    return [int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit()]


def _status(process: int) -> tuple[str, int, int] | None:
    """Return state, parent and session of a process; None where it is gone."""
    try:
        found = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return found[0], int(found[1]), int(found[3])


def _session(process: int) -> int | None:
    """Return the session of a process; None where it is gone, if not yet waited for."""
    status = _status(process)
    return None if status is None or status[0] == "Z" else status[2]


def descendants(process: int) -> list[int]:
    """Return the process ids of all that a process has started, directly or not."""
    children: dict[int, list[int]] = {}
    for each in _all_processes():
        if status := _status(each):
            children.setdefault(status[1], []).append(each)
    found = [process]
    for each in found:  # which grows
        found += children.get(each, [])
    return found[1:]


def title(process: int) -> str:
    """Return the command line of a process, which Ray's workers set to what they do."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().decode().strip("\0")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _hold(arguments: list[str]) -> None:
    """Run `ray start` until standard input ends; then kill this whole session."""
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    subprocess.Popen([*ray, "start", "--block", *arguments], stdin=subprocess.DEVNULL)
    sys.stdin.read()
    for process in _all_processes():
        if process != os.getpid() and _session(process) == os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


if __name__ == "__main__":
    _hold(sys.argv[1:])
