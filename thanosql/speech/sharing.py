"""A training in several processes: a `Material` in; plans, epochs and weights out.

The process that has the material hands out a plan, the model's files and the rows, and
keeps the checkpoints. In each of the others `train_share` trains.
"""

from __future__ import annotations

import tempfile
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thanosql.speech import loading

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from thanosql.speech.fitting import Material
    from thanosql.speech.peers import Seat
    from thanosql.speech.progress import Progress
    from thanosql.speech.recognizers.recognizer import Recognizer
    from thanosql.speech.results import EpochResult
    from thanosql.speech.training.checkpoint import Checkpoints
    from thanosql.speech.training.relay import Parcel
    from thanosql.speech.training.utterances import Utterances
    from thanosql.statements import BuildOptions

    Rows = Sequence[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Plan:
    """What all processes of a training are told, beside its rows and the model."""

    options: BuildOptions
    root: Path | None
    "The audio_root, absolute."
    fresh: frozenset[str]
    head_first: bool
    adapter: Mapping[str, bytes] | None
    "The files of the adapter that is trained; None if the model itself is."
    learned: Utterances
    held_out: Utterances


def plan(material: Material, options: BuildOptions, root: Path | None) -> Plan:
    """Return what the processes are told; the options name the device they have."""
    recognizer = material.recognizer
    adapter: Mapping[str, bytes] | None = None
    if recognizer.adapter is not None:
        adapter = _written(lambda d: loading.save_adapter(recognizer, d, "", ""))
    return Plan(
        options,
        None if root is None else root.resolve(),
        recognizer.fresh,
        recognizer.head_first,
        adapter,
        material.learned,
        material.held_out,
    )


def packed(material: Material) -> dict[str, bytes]:
    """Return the files of the model that the training starts from, or adapts."""
    return _written(material.recognizer.save)


def opened(plan: Plan, files: Mapping[str, Any]) -> Recognizer:
    """Return the recognizer to train, with the adapter if one is trained.

    files: as `packed` returns them, bytes or arrays.
    """
    stored = _stored(files)
    if plan.adapter is not None:
        stored = replace(_stored(plan.adapter), base=stored)
    recognizer = loading.open_stored(stored, to_adapt=plan.adapter is not None)
    recognizer.fresh, recognizer.head_first = plan.fresh, plan.head_first
    return recognizer


def train_share(
    plan: Plan,
    files: Mapping[str, Any],
    rows: Rows,
    validation_rows: Rows | None,
    seat: Seat,
    saved: Parcel | None,
    send: Callable[[Parcel], None],
    is_ready: Callable[[], bool],
    progress: Progress,
) -> Generator[EpochResult, None, None]:
    """Train with the other processes, yielding the result of each epoch.

    files: as `opened` takes them. validation_rows: None if they are
    `rows`. saved: the state to go on from; None begins anew. send, is_ready: pass a
    state on, and tell whether the last one has arrived; only the first process calls
    them. The state after the last epoch is passed on in any case. Raises PeerLostError
    if another process ends amidst the work.
    """
    from thanosql.speech.recognizers.precision import resolve
    from thanosql.speech.training import train
    from thanosql.speech.training.parallel import joined
    from thanosql.speech.training.relay import Relay

    recognizer = opened(plan, files)
    options = plan.options
    device = resolve(options.device, options.precision).device
    is_first = seat.rank == 0
    with (
        joined(seat, device) as group,
        closing(
            train.train(
                recognizer,
                rows,
                plan.learned,
                plan.held_out,
                options,
                plan.root,
                progress,
                validation_rows=validation_rows,
                checkpoints=Relay(saved, send if is_first else None, is_ready),
                group=group,
            )
        ) as epochs,
    ):
        yield from epochs


def take_weights(material: Material, last: Parcel) -> None:
    """Give the material's recognizer the best weights of a training that has ended."""
    from thanosql.speech.training.loop import weights_of

    state, best = last.opened()
    recognizer = material.recognizer
    recognizer.model.load_state_dict(best or weights_of(state), strict=False)
    if recognizer.adapter is not None:
        recognizer.adapter.settle()


def checkpoints(folder: Path) -> Checkpoints:
    """Return the checkpoints that are kept in a folder."""
    from thanosql.speech.training.checkpoint import Checkpoints

    return Checkpoints(folder)


def load_parcel(checkpoints: Checkpoints) -> Parcel | None:
    """Return the last state of a training, for its processes; None without one."""
    from thanosql.speech.training.relay import Parcel

    saved = checkpoints.load()
    return None if saved is None else Parcel.of(*saved)


def save_parcel(checkpoints: Checkpoints, parcel: Parcel) -> None:
    """Keep a state that a process has passed on."""
    checkpoints.save(*parcel.opened())


def _written(save: Callable[[Path], None]) -> dict[str, bytes]:
    """Return the files that `save` writes into a directory."""
    with tempfile.TemporaryDirectory(prefix="thanosql-") as directory:
        save(Path(directory))
        return {path.name: path.read_bytes() for path in Path(directory).iterdir()}


def _stored(files: Mapping[str, Any]) -> loading.StoredFiles:
    views = {name: memoryview(content) for name, content in files.items()}
    return loading.StoredFiles("", lambda: views, lambda: views)
