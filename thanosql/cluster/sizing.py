"""How many workers fit: a cluster's machines in, what each worker takes out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from thanosql import errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thanosql.statements import BuildOptions, EvaluateOptions, PredictOptions

# Seconds for workers to start. Each needs free cores, which others may keep for a
# minute after their statement, and a Python with torch, slow where many start at once.
STARTS_WITHIN = 180.0


@dataclass(frozen=True, slots=True)
class Size:
    """What a worker takes of its machine."""

    cpus: int
    gpus: int


@dataclass(frozen=True, slots=True)
class _Machine:
    cpus: float
    gpus: float

    def holds(self, size: Size) -> int:
        """Return how many workers of a size it has room for."""
        held = int(self.cpus // size.cpus)
        return min(held, int(self.gpus // size.gpus)) if size.gpus else held


def size_of_workers(
    nodes: Sequence[dict[str, Any]],
    options: PredictOptions | EvaluateOptions | BuildOptions,
) -> Size:
    """Return what each of a statement's workers takes.

    A GPU where the cluster has any, unless the option `device` is cpu; and
    `worker_cpus` cores, or the most that leave room for all workers. nodes: as
    `ray.nodes()` gives them.

    Raises OptionError if the cluster has not enough for them, or not the device.
    """
    machines = [
        _Machine(node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0))
        for node in nodes
        if node["Alive"]
    ]
    gpus = _gpus(machines, options.device)
    most = int(max((each.cpus for each in machines), default=0))
    asked = options.worker_cpus
    for cpus in range(most, 0, -1) if asked is None else (asked,):
        size = Size(cpus, gpus)
        if _held(machines, size) >= (options.workers or 1):
            return size
    size = Size(asked or 1, gpus)
    message = (
        f"option workers is {options.workers}, and of workers with {_told(size)} "
        f"{_held(machines, size)} fit on the cluster, which has "
        f"{sum(m.cpus for m in machines):g} cores and "
        f"{sum(m.gpus for m in machines):g} GPUs"
    )
    if asked is not None and asked > 1:
        message += "; set fewer workers, or a smaller worker_cpus"
    elif gpus:
        message += "; set fewer workers, or device='cpu'"
    else:
        message += "; set fewer workers"
    raise errors.OptionError(message)


def _held(machines: Sequence[_Machine], size: Size) -> int:
    return sum(machine.holds(size) for machine in machines)


def _told(size: Size) -> str:
    cores = f"{size.cpus} core{'s' if size.cpus > 1 else ''}"
    return f"{cores} and a GPU" if size.gpus else cores


def _gpus(machines: Sequence[_Machine], device: str) -> int:
    if device == "cpu":
        return 0
    if ":" in device:
        message = (
            f"option device is {device!r}, and each worker has a GPU of its own, which "
            "Ray chooses; write 'cuda' or 'auto'"
        )
        raise errors.OptionError(message)
    has_gpus = any(machine.gpus >= 1 for machine in machines)
    if device == "cuda" and not has_gpus:
        message = "option device is 'cuda', and the cluster has no GPU; write 'auto'"
        raise errors.OptionError(message)
    return int(has_gpus)


def why_none_start(ray: Any, who: str, size: Size) -> str:
    """Return the message for workers that have not started within the time."""
    free = ray.available_resources()
    left = f"{free.get('CPU', 0):g} cores and {free.get('GPU', 0):g} GPUs"
    return (
        f"{who} could start within {STARTS_WITHIN:.0f} s: each takes {_told(size)} of "
        f"a machine, and {left} are free on all; end other work on the cluster, or "
        "set fewer workers or a smaller worker_cpus"
    )
