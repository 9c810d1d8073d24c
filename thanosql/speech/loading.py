"""A stored model, or the name of a base, in; its Recognizer out.

The stored models used last stay loaded.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from thanosql import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import torch

    from thanosql.speech.recognizers.recognizer import Recognizer

# By `model_type`, the file that defines a model which transformers does not have.
_MODELLING = {"encoder_ctc": "modeling_encoder_ctc.py"}
_KEPT_LOADED = 2  # models; one of wav2vec2-base's size takes 0.4 GB


@dataclass(frozen=True, slots=True)
class StoredFiles:
    """A way to read the files of a stored model: file name -> content."""

    sha256: str
    "Their digest. The files are not read if a model with this digest is loaded."
    read_settings: Callable[[], Mapping[str, memoryview]]
    "Reads all files but the weights, without checking the digest."
    read: Callable[[], Mapping[str, memoryview]]
    "Reads all files and checks the digest."


class _LoadedModel:
    """A place for a model. The first thread that takes the lock loads it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.recognizer: Recognizer | None = None


class _LoadedModels:
    """The models used last, by the digest of their files and by their device.

    By digest rather than by name, since the name may belong to another model by now. By
    device, since one thread may use a model on a CPU while another uses it on a GPU.
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
        # Only the model's own lock is held here, so others can be looked up meanwhile.
        with loaded.lock:
            if loaded.recognizer is None:
                try:
                    recognizer = open_stored(stored)
                    model: torch.nn.Module = recognizer.model
                    model.to(device)
                except BaseException:
                    with self._lock:
                        self._models.pop(key, None)
                    raise
                loaded.recognizer = recognizer
            found = loaded.recognizer
        with self._lock:  # now, so that one that cannot be opened costs none its place
            while len(self._models) > _KEPT_LOADED:
                self._models.popitem(last=False)
        return found


_loaded = _LoadedModels()


def loaded(stored: StoredFiles, device: str) -> Recognizer:
    """Return a stored model on a device; it is read only if it is not loaded yet.

    device: the option's value. The caller must not move the model to another device,
    since other threads use it too.
    """
    from thanosql.speech.recognizers.precision import resolve

    return _loaded.get(stored, resolve(device).device)


def set_threads(count: int) -> None:
    """Have torch compute with so many threads in this process."""
    import torch

    torch.set_num_threads(count)


def open_stored(stored: StoredFiles) -> Recognizer:
    """Return a stored model, always read anew.

    A thread builds the skeleton while the calling thread reads the weights. The reading
    must stay in the calling thread: SQLite lets no other one in during a statement.
    """
    from concurrent.futures import ThreadPoolExecutor  # slow to import

    from thanosql.speech.opening import opening

    settings = stored.read_settings()
    with ThreadPoolExecutor(1) as beside:
        skeleton = beside.submit(opening.skeleton, settings)
        files = stored.read()
    return opening.open_files(files, skeleton.result())


def open_base(
    base: str, texts: Callable[[], Iterable[str]], *, ctc: bool = False
) -> Recognizer:
    """Return the recognizer of a base: its name, a directory or a hub id.

    texts: returns transcripts; called only if the base needs a new vocabulary. ctc: of
    a model that writes text, open the encoder alone, with a CTC head.
    """
    from thanosql.speech.opening import opening

    return opening.open_base(base, texts, ctc=ctc)


def open_stored_encoder(
    stored: StoredFiles, texts: Callable[[], Iterable[str]]
) -> Recognizer:
    """Return a CTC model with the encoder of a stored model; a CTC model as it is."""
    from thanosql.speech.opening import opening

    return opening.open_encoder(stored.read(), texts)


def modelling_files(
    files: Mapping[str, bytes | memoryview],
) -> dict[str, bytes]:
    """Return what else transformers needs to open a stored model: name -> content.

    Empty for the classes that it has. A model's config names the file as `auto_map`. It
    is not stored with the model, since nothing stored is ever run.
    """
    kind = json.loads(bytes(files.get("config.json", b"{}"))).get("model_type")
    if kind not in _MODELLING:
        return {}
    name = _MODELLING[kind]
    return {name: (Path(__file__).parent / "recognizers" / name).read_bytes()}


def import_base(origin: str) -> Recognizer:
    """Return the model of a directory or hub id, ready to transcribe.

    Raises NotSupportedError if it has no vocabulary, DataError if it lacks weights.
    """

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
