"""A stored model, or the name of a base, in; its Recognizer out.

The stored models used last stay loaded.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from thanosql import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import torch

    from thanosql.speech.opening.adapters import AdapterFiles
    from thanosql.speech.recognizers.recognizer import Recognizer

# By `model_type`, the file that defines a model which transformers does not have.
_MODELLING = {"encoder_ctc": "modeling_encoder_ctc.py"}
_KEPT_LOADED = 2  # models; one of wav2vec2-base's size takes 0.4 GB
# Adapters, of all models; one of wav2vec2-base has weights of 0.1 GB of its own.
_KEPT_ADAPTERS = 4


@dataclass(frozen=True, slots=True)
class StoredFiles:
    """A way to read the files of a stored model: file name -> content."""

    sha256: str
    "Their digest. The files are not read if a model with this digest is loaded."
    read_settings: Callable[[], Mapping[str, memoryview]]
    "Reads all files but the weights, without checking the digest."
    read: Callable[[], Mapping[str, memoryview]]
    "Reads all files and checks the digest."
    base: StoredFiles | None = None
    "Of an adapter: the files of the model that it is added to."


class _LoadedModel:
    """A place for a model. The first thread that takes the lock loads it."""

    def __init__(self, base: str | None) -> None:
        self.base = base  # of an adapter: the digest of its base
        self.lock = threading.Lock()
        self.recognizer: Recognizer | None = None


class _LoadedModels:
    """The models used last, by the digest of their files and by their device.

    By digest rather than by name, since the name may belong to another model by now. By
    device, since one thread may use a model on a CPU while another uses it on a GPU.
    Adapters of a model share its tensors, and are let go together with it.
    """

    def __init__(self) -> None:
        self._models: OrderedDict[tuple[str, torch.device], _LoadedModel] = (
            OrderedDict()
        )
        self._adapters: OrderedDict[tuple[str, torch.device], _LoadedModel] = (
            OrderedDict()
        )
        self._lock = threading.Lock()

    def get(self, stored: StoredFiles, device: torch.device) -> Recognizer:
        if stored.base is None:

            def whole() -> Recognizer:
                recognizer = open_stored(stored)
                model: torch.nn.Module = recognizer.model
                model.to(device)
                return recognizer

            return self._get(self._models, _KEPT_LOADED, stored, device, whole)
        base = self.get(stored.base, device)  # which keeps it loaded, too

        def adapted() -> Recognizer:
            from thanosql.speech.opening import adapters

            return adapters.over(base, adapters.read_files(stored.read()))

        return self._get(self._adapters, _KEPT_ADAPTERS, stored, device, adapted)

    def _get(
        self,
        models: OrderedDict[tuple[str, torch.device], _LoadedModel],
        kept: int,
        stored: StoredFiles,
        device: torch.device,
        load: Callable[[], Recognizer],
    ) -> Recognizer:
        key = stored.sha256, device
        with self._lock:
            loaded = models.setdefault(
                key, _LoadedModel(None if stored.base is None else stored.base.sha256)
            )
            models.move_to_end(key)
        # Only the model's own lock is held here, so others can be looked up meanwhile.
        with loaded.lock:
            if loaded.recognizer is None:
                try:
                    loaded.recognizer = load()
                except BaseException:
                    with self._lock:
                        models.pop(key, None)
                    raise
            found = loaded.recognizer
        with self._lock:  # now, so that one that cannot be opened costs none its place
            while len(models) > kept:
                (sha256, where), _ = models.popitem(last=False)
                for each, adapter in list(self._adapters.items()):
                    if (adapter.base, each[1]) == (sha256, where):
                        del self._adapters[each]
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


def open_stored(stored: StoredFiles, *, to_adapt: bool = False) -> Recognizer:
    """Return a stored model, always read anew.

    An adapter comes as its base with the sums for weights; with `to_adapt`, as its base
    with the adapter, to train that further.

    A thread builds the skeleton while the calling thread reads the weights. The reading
    must stay in the calling thread: SQLite lets no other one in during a statement.
    """
    from concurrent.futures import ThreadPoolExecutor  # slow to import

    from thanosql.speech.opening import adapters, opening

    if stored.base is not None:
        recognizer = open_stored(stored.base)
        adapter = adapters.read_files(stored.read())
        if not to_adapt:
            return adapters.over(recognizer, adapter)
        adapters.train_further(recognizer, adapter)
        return recognizer
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


def open_encoder(
    files: Mapping[str, memoryview], texts: Callable[[], Iterable[str]]
) -> Recognizer:
    """Return a CTC model with the encoder of a stored model; a CTC model as it is."""
    from thanosql.speech.opening import opening

    return opening.open_encoder(files, texts)


def modelling_files(
    files: Mapping[str, bytes | memoryview],
) -> dict[str, bytes]:
    """Return what else transformers needs to open a stored model: name -> content.

    Empty for the classes that it has. A model's config names the file as `auto_map`. It
    is not stored with the model, since nothing stored is ever run.
    """
    settings = json.loads(bytes(files.get("config.json", b"{}")))
    kind = settings.get("model_type") if isinstance(settings, dict) else None
    name = _MODELLING.get(str(kind))
    if name is None:
        return {}
    return {name: (Path(__file__).parent / "recognizers" / name).read_bytes()}


def package_files(directory: Path, sha256: str) -> StoredFiles:
    """Return the files of a base that comes with the package, as if it were stored."""

    def read(*, weights: bool) -> dict[str, memoryview]:
        return {
            path.name: memoryview(bytearray(path.read_bytes()))
            for path in directory.iterdir()
            if weights or path.suffix != ".safetensors"
        }

    return StoredFiles(
        sha256, partial(read, weights=False), partial(read, weights=True)
    )


def import_adapter(origin: str) -> AdapterFiles | None:
    """Return the adapter in a directory of PEFT's; None if it holds none."""
    from thanosql.speech.opening import adapters

    directory = adapters.in_directory(origin)
    return None if directory is None else adapters.read_directory(directory)


def save_adapter(
    adapter: Recognizer | AdapterFiles,
    directory: Path,
    base: str,
    sha256: str,
) -> None:
    """Write the files of an adapter. base, sha256: the name and digest of its base."""
    from thanosql.speech.opening import adapters

    adapters.save(adapter, directory, base, sha256)


def check_adapter(adapter: AdapterFiles, base: StoredFiles, origin: str) -> str:
    """Return the class of a base; DataError if the adapter does not fit it.

    origin: where the adapter is from, for errors.
    """
    from thanosql.speech.opening import adapters

    found = adapters.over(open_stored(base), adapter, origin)
    return type(found.model).__name__


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
