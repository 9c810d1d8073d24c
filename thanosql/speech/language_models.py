"""A column of texts, an ARPA file or a stored model's files in; language models out.

The language models used last stay loaded.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from thanosql.speech.progress import Progress, silent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from thanosql.speech.loading import StoredFiles
    from thanosql.speech.ngram.files import Facts
    from thanosql.speech.ngram.model import NGramModel

_KEPT_LOADED = 2  # models; one of 5 million n-grams takes 70 MB, and its scores 40 MB
_loaded: OrderedDict[str, NGramModel] = OrderedDict()  # by the digest of their files
_lock = threading.Lock()


def open_language_model(stored: StoredFiles) -> NGramModel:
    """Return a stored language model; it is read only if it is not loaded yet.

    Raises DataError if its files are damaged.
    """
    from thanosql.speech.ngram.model import open_model

    with _lock:
        found = _loaded.get(stored.sha256)
        if found is not None:
            _loaded.move_to_end(stored.sha256)
            return found
    # Without the lock: to read is to ask SQLite, which may wait for another thread.
    # Where two threads read the same model, the last one's stays.
    model = open_model(stored.read())
    with _lock:
        _loaded[stored.sha256] = model
        while len(_loaded) > _KEPT_LOADED:
            _loaded.popitem(last=False)
    return model


def build_language_model(
    texts: Iterable[object],
    directory: Path,
    *,
    order: int,
    prune: Sequence[int],
    validation: float,
    text_col: str,
    progress: Progress = silent,
) -> tuple[Facts, int]:
    """Write a language model of texts; see `ngram.building.build`."""
    from thanosql.speech.ngram.building import build

    return build(
        texts,
        directory,
        order=order,
        prune=prune,
        validation=validation,
        text_col=text_col,
        progress=progress,
    )


def import_arpa(path: Path, directory: Path, progress: Progress = silent) -> Facts:
    """Write the files of the model in an ARPA file; DataError if it is damaged."""
    from thanosql.speech.ngram import arpa

    return arpa.read(path, directory, progress)


def export_arpa(stored: Mapping[str, memoryview], file: BinaryIO) -> None:
    """Write a stored model's files as an ARPA file."""
    from thanosql.speech.ngram import arpa

    arpa.write(stored, file)


def language_model_facts(settings: Mapping[str, memoryview]) -> Facts:
    """Return what is to be known of a model; ValueError and its like if damaged.

    settings: its small files.
    """
    from thanosql.speech.ngram.files import read_facts

    return read_facts(settings)
