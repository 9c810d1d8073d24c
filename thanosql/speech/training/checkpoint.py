"""Keep a training across a crash: its state after an epoch in, a file out, and back.

The file is in the safetensors format, so that reading it runs no code; its header holds
as JSON whatever is not a tensor. No state of a random generator is kept: each epoch is
seeded by the seed and its number.
"""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from thanosql.errors import OperationalError, warn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from thanosql.speech.recognizers.recognizer import Recognizer
    from thanosql.speech.training.utterances import Utterance

_CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True, slots=True)
class State:
    """The state of a training between two epochs."""

    tensors: Mapping[str, Tensor]
    "On the CPU; copies, which the training does not change."
    facts: Mapping[str, Any]
    "Values that JSON can hold: numbers, texts, lists."


class Checkpoints:
    """The last state of one training, in a folder; written while the next epoch trains.

    If the best epoch N is not the last one, best-N.safetensors beside the state has its
    weights. A context manager: at its end everything is on the disk.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pool = ThreadPoolExecutor(1, "thanosql-checkpoint")
        self._writing: Future[None] | None = None
        self._failed = False

    @property
    def ready(self) -> bool:
        """Whether the last state is written, so that `save` need not wait for it."""
        return self._writing is None or self._writing.done()

    def load(self) -> tuple[State, Mapping[str, Tensor]] | None:
        """Return the last state and the best epoch's weights; None without a state.

        The weights are empty if the best epoch is the last one.
        """
        path = self._folder / _CHECKPOINT
        if not path.is_file():
            return None
        try:
            state = _read(path)
            best = self._best(state.facts["best_epoch"])
            return state, _read(best).tensors if best.is_file() else {}
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            message = (
                f"the checkpoint {str(path)!r} is damaged: {error}; "
                "resume=False begins the training anew"
            )
            raise OperationalError(message) from error

    def save(self, state: State, best: Mapping[str, Tensor]) -> None:
        """Replace the last state, and the best epoch's weights.

        best: empty if the best epoch is that of the state. Waits if the last state is
        still being written. If a state cannot be written, warns once, and the files
        that are there stay.
        """
        self._wait()
        self._writing = self._pool.submit(self._write, state, best)

    def _write(self, state: State, best: Mapping[str, Tensor]) -> None:
        kept = self._best(state.facts["best_epoch"])
        if best and not kept.is_file():
            _write(kept, State(best, {}))
        _write(self._folder / _CHECKPOINT, state)
        for path in self._folder.glob("best-*.safetensors"):
            if path != kept:
                path.unlink()

    def _best(self, epoch: int) -> Path:
        return self._folder / f"best-{int(epoch)}.safetensors"

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            writing.result()
        except (OSError, SafetensorError) as error:
            if not self._failed:
                self._failed = True
                warn(
                    f"no checkpoint could be written to {str(self._folder)!r}: "
                    f"{error}; the training goes on, and if it breaks off, resume=True "
                    "finds an earlier checkpoint or none"
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._wait()
        finally:
            self._pool.shutdown()


def epochs(folder: Path) -> int:
    """Return the number of epochs before the checkpoint in a folder; 0 if none."""
    try:
        with safe_open(folder / _CHECKPOINT, framework="pt") as file:
            return int(json.loads(file.metadata()["facts"])["epoch"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError):
        return 0


def _write(path: Path, state: State) -> None:
    """Write a file completely, or leave the old one as it is."""
    partial = path.with_suffix(".partial")
    try:
        save_file(
            dict(state.tensors), partial, metadata={"facts": json.dumps(state.facts)}
        )
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)  # frees its space: the disk may be full
        raise


def _read(path: Path) -> State:
    with safe_open(path, framework="pt") as file:
        # Copies, since the file is replaced while the training goes on.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - no dict
        return State(tensors, json.loads(file.metadata()["facts"]))


def fingerprint(recognizer: Recognizer) -> str:
    """Return a digest of the model that a training starts from.

    Its config, vocabulary and loaded weights count; freshly drawn weights do not.
    """
    digest = hashlib.blake2b(digest_size=16)
    config = recognizer.model.config.to_dict()
    for made_by in ("transformers_version", "_name_or_path"):
        config.pop(made_by, None)
    described = (
        type(recognizer.model).__name__,
        config,
        sorted(recognizer.tokenizer.get_vocab().items()),
        recognizer.feature_extractor.to_dict(),
    )
    digest.update(json.dumps(described, sort_keys=True, default=str).encode())
    for name, tensor in sorted(recognizer.model.state_dict().items()):
        if name not in recognizer.fresh:
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).numpy())
    return digest.hexdigest()


def recordings_digest(*utterances: Sequence[Utterance]) -> str:
    """Return a digest of the recordings to train and to validate on.

    The row number, duration and decoded waveform of each count.
    """
    digest = hashlib.blake2b(digest_size=16)
    for each in utterances:
        digest.update(f"{len(each)};".encode())
        for u in each:
            digest.update(f"{u.row} {u.seconds!r} {u.content}".encode())
    return digest.hexdigest()
