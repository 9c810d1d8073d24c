"""A stored model, or the name of a base, in; its Recognizer out, kept for a while."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from thanosql import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import torch

    from thanosql.speech.recognizers.recognizer import Recognizer

    _Key = tuple[str, torch.device]

_KEPT_LOADED = 2  # models; one of wav2vec2-base's size is 0.4 GB


@dataclass(frozen=True, slots=True)
class StoredFiles:
    """How to come by the files of a stored model: name to content."""

    sha256: str
    "Their digest: whoever has a model of it loaded need not read them."
    read_settings: Callable[[], Mapping[str, memoryview]]
    "Reads all but the weights, not checked by the digest."
    read: Callable[[], Mapping[str, memoryview]]
    "Reads all of them, checked."


class _LoadedModel:
    """A place for a model; whoever holds its lock first fills it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.recognizer: Recognizer | None = None


class _LoadedModels:
    """The models used last, by the digest of their files and the device they are on.

    By the digest, since another model may have the name by now. By the device, since
    two threads, on a CPU and a GPU, may use one model at the same time.
    """

    def __init__(self) -> None:
        self._models: OrderedDict[tuple[str, torch.device], _LoadedModel] = (
            OrderedDict()
        )
        self._lock = threading.Lock()

    def get(self, stored: StoredFiles, device: torch.device) -> Recognizer:
        key = stored.sha256, device
        with self._lock:
            loaded = self._models.setdefault(key, _LoadedModel())
            self._models.move_to_end(key)
            while len(self._models) > _KEPT_LOADED:
                self._models.popitem(last=False)
        # A model that is being loaded keeps nobody waiting who wants another.
        with loaded.lock:
            if loaded.recognizer is None:
                recognizer = open_stored(stored)
                model: torch.nn.Module = recognizer.model
                model.to(device)
                loaded.recognizer = recognizer
            return loaded.recognizer


_loaded = _LoadedModels()


def loaded(stored: StoredFiles, device: str) -> Recognizer:
    """Return a stored model on a device; read only if it is not one of the last used.

    device: the option's value. The model must stay there: other threads use it too.
    """
    from thanosql.speech.recognizers.precision import resolve

    return _loaded.get(stored, resolve(device).device)


def open_stored(stored: StoredFiles) -> Recognizer:
    """Return a stored model, read anew.

    A thread builds its skeleton meanwhile; the reading is for the calling thread, as
    SQLite lets no other in while a statement runs.
    """
    from concurrent.futures import ThreadPoolExecutor  # slow to import

    from thanosql.speech.opening import opening

    settings = stored.read_settings()
    with ThreadPoolExecutor(1) as beside:
        skeleton = beside.submit(opening.skeleton, settings)
        files = stored.read()
    return opening.open_files(files, skeleton.result())


def open_base(base: str, texts: Callable[[], Iterable[str]]) -> Recognizer:
    """Return a base by name, directory or hub id; `texts` is for a new vocabulary."""
    from thanosql.speech.opening import opening

    return opening.open_base(base, texts)


def import_base(origin: str) -> Recognizer:
    """Return the model of a directory or hub id, which must be able to transcribe."""

    def no_texts() -> Iterable[str]:
        message = (
            f"{origin!r} has no vocabulary, so it cannot transcribe yet; BUILD MODEL "
            "... USING it makes one from the texts it is trained on"
        )
        raise errors.NotSupportedError(message)

    recognizer = open_base(origin, no_texts)
    # Some checkpoints lack masked_spec_embed; inference does not use it.
    fresh = {n for n in recognizer.fresh if not n.endswith("masked_spec_embed")}
    if fresh:
        message = (
            f"{origin!r} has no weights for {min(fresh)}, so it cannot transcribe yet; "
            "BUILD MODEL ... USING it draws and trains them"
        )
        raise errors.DataError(message)
    return recognizer
