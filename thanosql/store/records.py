"""What the store takes and gives: models and trainings, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """What is stored of a model beside its files."""

    name: str
    base: str
    architecture: str
    parameters: int
    versions: Mapping[str, str]
    query: str | None = None
    options: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class AdapterBase:
    """The model that an adapter is added to."""

    name: str
    "The name it had then; it may have another now."
    sha256: str
    "The digest of its files."
    rank: int = 0
    "The rank of the adapter's matrices, once it is stored."


@dataclass(frozen=True, slots=True)
class StoredModel(ModelRecord):
    """A model as the database holds it."""

    id: int = 0
    bytes: int = 0
    sha256: str = ""
    run_id: int | None = None
    created_at: str = ""
    wer: float | None = None
    "Word error rate on the validation rows, of the epoch that was kept."
    adapter_base: AdapterBase | None = None
    "Of an adapter, whose files are a difference to those of another model."


class Status(StrEnum):
    """How a training stands."""

    TRAINING = "training"
    STORED = "stored"
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    KILLED = "killed"
    "Its process ended and wrote none of the others."


@dataclass(frozen=True, slots=True)
class Parent:
    """The stored model that a training went on from."""

    name: str
    sha256: str
    run_id: int | None
    "The training that made it; None for an imported one."


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """A row that a training uses, as `thanosql_rows` keeps it."""

    audio: bytes
    "A digest of the audio column's value."
    row: int
    "Its number in the query, or in the validation query, from 1."
    text: bytes
    "A digest of the text."
    validation: bool


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """What is known of a training when it begins."""

    training: str
    "Its own id; it keeps that when it is resumed."
    model_name: str
    base: str
    query: str
    options: Mapping[str, Any]
    device: str
    utterances: int
    validation_utterances: int
    audio_seconds: float
    dropped: Mapping[str, int]
    rows: Callable[[], Iterable[TrainingRow]] = lambda: ()
    "Returns the rows that it uses; called once."
    parent: Parent | None = None
