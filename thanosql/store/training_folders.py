"""The folders of trainings under way: a database file in, a locked folder out.

    <database>-thanosql/<id>/   beside the database; in the user's cache if in memory
        lock                    held for as long as the process trains
        identity.json           the model's name, its base and options
        rows                    a digest of each row, one after the other
        validation_rows         those of a validation query
        outcome.json            how it ended, where it did so without a model
        *.safetensors           its checkpoint, written by `thanosql.speech`

A folder is removed when its model is stored. One that is left and not locked belongs to
a training that broke off: `resume=True` goes on with it, any other BUILD of that name
removes it. A folder with a checkpoint and no readable identity.json is left alone: it
may be another model's.
"""

from __future__ import annotations

import json
import shutil
import time
import uuid
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thanosql import errors
from thanosql.catalog import cache
from thanosql.store.records import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from filelock import FileLock

_JUST_BEGUN = 60.0
"""A folder younger than these seconds may lack identity.json: its process is about to
write it."""

_LOCK, _IDENTITY, _OUTCOME = "lock", "identity.json", "outcome.json"
_CHECKPOINT = "checkpoint.safetensors"
_ROWS = ("rows", "validation_rows")  # files of that name, fields of `Identity`
DIGEST_BYTES = 8  # of a row


def no_rows() -> Iterator[bytes]:
    """Yield no digests."""
    return iter(())


@dataclass(frozen=True, slots=True)
class Identity:
    """All that a training's weights depend on: if it is equal, the weights are."""

    model: str
    base: str = ""
    base_digest: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    rows: Callable[[], Iterator[bytes]] = no_rows
    "Yields a digest of each row's audio value and text, of DIGEST_BYTES."
    validation_rows: Callable[[], Iterator[bytes]] = no_rows
    "Those of a validation query."
    recordings: str = ""
    "A digest of their lengths and targets."

    def difference(self, other: Identity) -> str:
        """Say what the first difference is and what `other` had there; "" for none."""
        if self.base.casefold() != other.base.casefold():
            return f"its base was {other.base!r}, not {self.base!r}"
        for name, value in self.options.items():
            if other.options.get(name) != value:
                was = other.options.get(name)
                return f"its option {name} was {was!r}, not {value!r}"
        for of, mine, theirs in (
            ("", self.rows, other.rows),
            (" of the validation query", self.validation_rows, other.validation_rows),
        ):
            count, was = sum(1 for _ in mine()), sum(1 for _ in theirs())
            if count != was:
                return f"it had {was} rows{of}, not {count}"
            for number, (a, b) in enumerate(
                zip(mine(), theirs(), strict=True), start=1
            ):
                if a != b:
                    return f"row {number}{of} was another"
        if self.base_digest != other.base_digest:
            return f"the base {self.base!r} was not the same, whatever its name"
        if self.recordings != other.recordings:
            return "its recordings were not the same, whatever their paths"
        return ""


@dataclass(slots=True)
class Training:
    """A training and its folder, which this process has locked."""

    id: str
    folder: Path | None
    "None if it could not be made, or has been removed."
    _lock: FileLock | None = field(repr=False)

    def note_outcome(self, status: Status, reason: str) -> None:
        """Write outcome.json, in case the ledger cannot be written to."""
        if self.folder is not None:
            with suppress(OSError):
                _write(self.folder / _OUTCOME, {"status": status, "reason": reason})

    def release(self) -> None:
        """Unlock the folder, so that another statement may go on with it."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def discard(self, *, all_but_outcome: bool = False) -> None:
        """Remove the folder: the model is stored, or nothing can come of it.

        all_but_outcome: leave outcome.json, until another training begins.
        """
        folder, self.folder = self.folder, None
        if folder is not None:
            self.release()
            with suppress(OSError):  # another process removes it too
                # identity.json goes last, so that a half removed folder is still known
                # as this model's, and removed by its next training.
                for path in sorted(folder.iterdir(), key=lambda p: p.name == _IDENTITY):
                    if path.name != _OUTCOME or not all_but_outcome:
                        path.unlink(missing_ok=True)
                folder.rmdir()  # which leaves a folder that is not empty
                folder.parent.rmdir()  # if it was the last there


def home(database: Path | None) -> Path:
    """Return where the trainings of a database file, or one in memory, have folders."""
    return (
        cache.folder() / "memory" if database is None else Path(f"{database}-thanosql")
    )


@contextmanager
def opened(where: Path, identity: Identity, *, resume: bool) -> Iterator[Training]:
    """Return the training of that identity, in a folder that no other process uses.

    resume: go on in the folder that an interrupted training left. Raises
    OperationalError if that was another training, or is still at work; warns if there
    is none. Without `resume`, folders of interrupted trainings of the name are removed.
    """
    training: Training | None = None
    for folder in _folders(where):
        found = _identity(folder)
        if found and found.model.casefold() != identity.model.casefold():
            continue
        try:
            has_state = folder / _CHECKPOINT in folder.iterdir()
            if found is None and (has_state or _age(folder) < _JUST_BEGUN):
                continue
            lock = _locked(folder)
        except OSError:  # just removed by its own process; or another user's
            continue
        if lock is None:
            if resume:
                message = (
                    f"model {identity.model!r} is being trained by another connection; "
                    "wait for it, or set resume=False to train beside it"
                )
                raise errors.OperationalError(message)
            continue
        earlier = Training(folder.name, folder, lock)
        if found is None or not resume or not has_state or training:
            earlier.discard()
            continue
        difference = identity.difference(found)
        if difference:
            earlier.release()
            message = (
                f"the interrupted training of {identity.model!r} was another: "
                f"{difference}; run its statement again, or set resume=False, which "
                "discards it"
            )
            raise errors.OperationalError(message)
        (folder / _OUTCOME).unlink(missing_ok=True)
        training = earlier
    if training is None:
        if resume:
            errors.warn(
                f"nothing to resume for {identity.model!r}: "
                "it is trained from the start"
            )
        training = _new(where, identity)
    try:
        yield training
    finally:
        training.release()


def outcome(where: Path, id_: str) -> tuple[Status, str] | None:
    """Return the status and the reason of a training that is over, else None."""
    folder = where / id_
    try:
        lock = _locked(folder) if folder in _folders(where) else None
        if folder.exists() and lock is None:
            return None
    except OSError:
        return None
    if lock is not None:
        lock.release()
        left = _read(folder / _OUTCOME) or {}
        if left.get("status") in (Status.FAILED, Status.INTERRUPTED):
            return Status(left["status"]), str(left.get("reason"))
    return Status.KILLED, "its process ended before the training did"


def _new(where: Path, identity: Identity) -> Training:
    id_ = uuid.uuid4().hex
    folder = where / id_
    try:
        folder.mkdir(parents=True)
        lock = _locked(folder)
        for name in _ROWS:
            with (folder / name).open("wb") as file:
                file.writelines(getattr(identity, name)())
        names = (each.name for each in fields(identity) if each.name not in _ROWS)
        _write(folder / _IDENTITY, {name: getattr(identity, name) for name in names})
    except (OSError, NotImplementedError) as error:  # e.g. a file system without locks
        errors.warn(
            f"no checkpoints can be kept in {str(where)!r}: {error}; "
            "if the training breaks off, it cannot be resumed"
        )
        shutil.rmtree(folder, ignore_errors=True)
        return Training(id_, None, None)
    return Training(id_, folder, lock)


def _age(folder: Path) -> float:
    try:
        return time.time() - folder.stat().st_mtime
    except OSError:  # gone
        return 0.0


def _folders(where: Path) -> list[Path]:
    try:
        return [path for path in where.iterdir() if path.is_dir()]
    except OSError:
        return []


def _locked(folder: Path) -> FileLock | None:
    """Return the lock of a folder, acquired; None if another process has it."""
    from filelock import FileLock, Timeout  # only where models are trained

    lock = FileLock(folder / _LOCK, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    return lock


def _identity(folder: Path) -> Identity | None:
    """Return what identity.json says; None where it does not name a model.

    Another version of thanosql may have written fewer fields, or more: those are
    ignored.
    """
    content = _read(folder / _IDENTITY) or {}
    if not isinstance(content.get("model"), str):
        return None
    known = {each.name for each in fields(Identity)}.difference(_ROWS)
    return Identity(
        **{name: content[name] for name in known & content.keys()},
        rows=lambda: _digests(folder / "rows"),
        validation_rows=lambda: _digests(folder / "validation_rows"),
    )


def _digests(path: Path) -> Iterator[bytes]:
    """Yield the digests of rows that a file holds; none where there is no file."""
    with suppress(FileNotFoundError), path.open("rb") as file:
        while row := file.read(DIGEST_BYTES):
            yield row


def _write(path: Path, content: Mapping[str, Any]) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content), encoding="utf-8")
    partial.replace(path)


def _read(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file; None where there is none, or it is damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
