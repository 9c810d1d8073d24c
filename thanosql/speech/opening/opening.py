"""Open a model: the name of a base, or a stored model's files, in; a Recognizer out.

Nothing that is read here is executed: no pickle, no code that comes with a model.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from thanosql.catalog.bases import BASES, find
from thanosql.errors import DataError, ModelNotFoundError, OperationalError, nearest
from thanosql.speech.opening import assembly, hub, weights
from thanosql.speech.opening.assembly import (
    Skeleton,
    assemble,
    damaged,
    fill,
    has_last_layer,
    has_vocabulary,
)
from thanosql.speech.opening.directory import check, read_json

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping

    from torch import Tensor

    from thanosql.speech.recognizers.recognizer import Recognizer

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_STORED = "the stored model"
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"


def open_base(
    base: str, texts: Callable[[], Iterable[str]], *, ctc: bool = False
) -> Recognizer:
    """Return the recognizer of a base: a name of BASES, a directory or a hub id.

    If the base has no vocabulary or no last layer (a self-supervised checkpoint, a bare
    config.json), it gets a vocabulary made from `texts()`, which is called only then,
    and a fresh last layer. If it has no weights, all are drawn from torch's global
    generator. ctc: of a model that writes text, open the encoder alone, with a new
    vocabulary and a CTC head.

    Raises ModelNotFoundError (no such base), OperationalError (the hub cannot be
    reached), NotSupportedError (a pickle, another kind of model), DataError (damaged).
    """
    directory = _locate(base)
    where = str(directory)
    with damaged(where):
        names = {path.name for path in directory.iterdir()}
        pickle = hub.pickled_weights(names)
        if pickle is not None and not hub.has_safetensors(names):
            raise hub.refuse_pickle(where, pickle)
        check(directory, where)
    state: dict[str, Tensor] = {}
    for name in _weight_files(directory, names, where):
        with damaged(f"{name!r} in {where}"):
            state.update(load_file(directory / name))
    weights.check(state, where)
    recognizer = assemble(directory, weights.widened(state), texts, ctc=ctc)
    known = find(base)
    if known is None or known.directory is None:  # tests try out the bases that ship
        # transformers draws a number for each layer. fork_rng keeps that from changing
        # the random numbers of a training.
        with damaged(where), torch.random.fork_rng(devices=[]):
            recognizer.try_out()
    return recognizer


def skeleton(files: Mapping[str, weights.Buffer]) -> Skeleton:
    """Return the skeleton of a stored model. files: file name -> content."""
    with TemporaryDirectory(prefix="thanosql-") as temporary:
        directory = Path(temporary)
        _write(files, directory)
        if not has_vocabulary(directory):
            message = f"{_STORED} is damaged: it has no tokenizer"
            raise DataError(message)
        return assembly.skeleton(directory, _STORED)


def open_files(
    files: Mapping[str, weights.Buffer], bare: Skeleton | None = None
) -> Recognizer:
    """Return the recognizer of a stored model.

    files: file name -> content. The weights are not written to disk. They share the
    memory of their file if that is writable and float32, so the caller must not use it
    afterwards. bare: the model's skeleton, if it is built already. Raises as
    `open_base` does.
    """
    bare = skeleton(files) if bare is None else bare
    stored = {n: each for n, each in files.items() if n.endswith(".safetensors")}
    state = weights.tensors(stored)
    if not has_last_layer(bare.model.config, state):
        message = f"{_STORED} is damaged: it has no weights for its vocabulary"
        raise DataError(message)
    weights.check(state, _STORED)
    recognizer = fill(bare, weights.widened(state), _STORED)
    if recognizer.fresh:
        message = f"{_STORED} is damaged: it has no weights for {min(recognizer.fresh)}"
        raise DataError(message)
    return recognizer


def open_encoder(
    files: Mapping[str, weights.Buffer], texts: Callable[[], Iterable[str]]
) -> Recognizer:
    """Return a CTC model with the encoder of a stored model, and a new vocabulary.

    files, texts: as `open_files` and `open_base` take them. A CTC model is returned as
    it is.
    """
    stored = {n: each for n, each in files.items() if n.endswith(".safetensors")}
    state = weights.tensors(stored)
    weights.check(state, _STORED)
    with TemporaryDirectory(prefix="thanosql-") as temporary:
        directory = Path(temporary)
        _write(files, directory)
        return assemble(directory, weights.widened(state), texts, ctc=True)


def _write(files: Mapping[str, weights.Buffer], directory: Path) -> None:
    """Write the files of a stored model but its weights, and check them."""
    for name, content in files.items():
        path = directory / name
        if path.resolve().parent != directory.resolve():
            message = f"a stored model has a file outside its directory: {name!r}"
            raise DataError(message)
        if path.suffix != ".safetensors":
            path.write_bytes(content)
    with damaged(_STORED):
        check(directory, _STORED)


def _locate(base: str) -> Path:
    """Return the directory of a base's name, path or hub id."""
    known = find(base)
    if known is not None and known.directory is not None:
        return known.directory
    source = base if known is None else known.source
    if source == base:
        path = Path(base)
        with suppress(RuntimeError):  # ~name without such a user: taken as it is
            path = path.expanduser()
        try:
            is_directory, is_file = path.is_dir(), path.is_file()
        except OSError as error:  # a name too long, a folder without permission
            message = f"cannot look for the model {base!r:.200}: {error.strerror}"
            raise OperationalError(message) from error
        if is_directory:
            return path
        if is_file:
            message = f"{base!r} is a file; give the directory it lies in"
            raise ModelNotFoundError(message)
        if path.is_absolute() or base.startswith((".", "~")):
            message = f"there is no directory {str(path.absolute())!r}"
            raise ModelNotFoundError(message)
    if _HUB_ID.fullmatch(source):
        return hub.download(source)
    hint = nearest(base, BASES) or (
        f"; a base is a stored model, a directory, a hub id such as "
        f"'facebook/wav2vec2-base', or one of {', '.join(BASES)}"
    )
    message = f"no base model named {base!r}{hint}"
    raise ModelNotFoundError(message)


def _weight_files(directory: Path, names: Container[str], where: str) -> list[str]:
    """Return the names of the files with weights; an empty list for a bare config."""
    if _WEIGHTS in names:
        return [_WEIGHTS]
    if _INDEX not in names:
        return []
    listed = read_json(directory / _INDEX, f"{_INDEX!r} in {where}").get("weight_map")
    wanted: list[Any] = [*listed.values()] if isinstance(listed, dict) else [listed]
    for name in wanted:
        # Only names of the directory's own files; a path could lead out of it.
        is_weights = isinstance(name, str) and name.endswith(".safetensors")
        if not is_weights or name not in names:
            message = f"{_INDEX!r} in {where} names {name!r:.50}, which is not there"
            raise DataError(message)
    return sorted(set(wanted))
