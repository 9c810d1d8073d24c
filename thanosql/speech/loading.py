"""A stored model, or the name of a base, in; its Recognizer out, kept for a while."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from thanosql import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from thanosql.speech.recognizers.recognizer import Recognizer
    from thanosql.store.models import ModelStore, StoredModel

_KEPT_LOADED = 2  # models; one of wav2vec2-base's size is 0.4 GB


class _LoadedModel:
    """A place for a model; whoever holds its lock first fills it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.recognizer: Recognizer | None = None


class _LoadedModels:
    """The models used last, by their files' digest: never one that was replaced."""

    def __init__(self) -> None:
        self._models: OrderedDict[str, _LoadedModel] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, models: ModelStore, model: StoredModel) -> Recognizer:
        with self._lock:
            loaded = self._models.setdefault(model.sha256, _LoadedModel())
            self._models.move_to_end(model.sha256)
            while len(self._models) > _KEPT_LOADED:
                self._models.popitem(last=False)
        # Loading one model keeps nobody waiting who wants another.
        with loaded.lock:
            if loaded.recognizer is None:
                loaded.recognizer = open_stored(models, model)
            return loaded.recognizer


_loaded = _LoadedModels()


def loaded(models: ModelStore, model: StoredModel) -> Recognizer:
    """Return a stored model, read only where it is not one of those used last."""
    return _loaded.get(models, model)


def open_stored(models: ModelStore, model: StoredModel) -> Recognizer:
    """Return a stored model, read anew.

    It is put together in a thread while the bulk of its weights is still being read,
    in the calling one: SQLite lets no other thread in while a statement runs.
    """
    from concurrent.futures import Future, ThreadPoolExecutor

    from thanosql.speech.opening import opening

    whole: Future[None] = Future()
    opened: list[Future[Recognizer]] = []
    with ThreadPoolExecutor(1) as beside:
        try:
            models.read(
                model,
                lambda files: opened.append(
                    beside.submit(opening.open_files, files, whole.result)
                ),
            )
        except BaseException as error:
            whole.set_exception(error)  # ends the thread as well
            raise
        whole.set_result(None)
        return opened[0].result()


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
    # What masks a frame in training is not in every checkpoint, and not heard with.
    fresh = {n for n in recognizer.fresh if not n.endswith("masked_spec_embed")}
    if fresh:
        message = (
            f"{origin!r} has no weights for {min(fresh)}, so it cannot transcribe yet; "
            "BUILD MODEL ... USING it draws and trains them"
        )
        raise errors.DataError(message)
    return recognizer
