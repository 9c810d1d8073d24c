"""Download from the hub: a repository's id in, a directory without pickles out."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils.tqdm import tqdm

from thanosql.errors import ModelNotFoundError, NotSupportedError, OperationalError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from huggingface_hub.hf_api import ModelInfo

logger = logging.getLogger(__name__)

TIMEOUT = 5.0  # seconds for the hub to answer; without it the client waits for ever
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".h5", ".msgpack")
# Pickles that a training leaves beside the weights; they are not needed.
_NOT_WEIGHTS = {"training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth"}
# Only the weights at the top are fetched; language adapters and training checkpoints in
# subdirectories are not.
_WANTED = ["*.json", "*.txt", "*.model", "model.safetensors", "model-*.safetensors"]
_UNWANTED = ["*/*"]
_CONVERTER = "SFconvertbot"  # the hub's bot that offers pickles as safetensors

WAYS_OUT = (
    "fetch it where there is a network ('hf download {0} --local-dir DIR') and give "
    "the path of that directory; or copy that machine's cache and set HF_HOME to it; "
    "or set HF_ENDPOINT to a mirror; or use a stored model, or WhisperTinyEn, which "
    "comes with the package"
)


class _Bar(tqdm):
    """A progress bar that shows only on a terminal."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("disable", None)
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]


def download(repository: str) -> Path:
    """Return the directory of a repository's files, downloaded now or earlier.

    Raises ModelNotFoundError if the hub has no such repository, OperationalError if it
    cannot be reached or denies access, NotSupportedError if the weights are a pickle.
    Without a network this takes the time of one failed connection.
    """
    try:
        info = HfApi().model_info(repository, timeout=TIMEOUT, files_metadata=True)
        revision = _revision(info)
        return Path(
            snapshot_download(
                repository,
                revision=revision,
                allow_patterns=_WANTED,
                ignore_patterns=_UNWANTED,
                tqdm_class=_Bar,
            )
        )
    except NotSupportedError:
        raise
    except Exception as error:
        # Any exception: which package's errors the client raises differs by version.
        cached = _cached(repository)
        if cached is not None:
            logger.warning("using the cached %s: %s", repository, error)
            return cached
        raise _explained(repository, error) from error


def has_safetensors(names: Iterable[str]) -> bool:
    """Return whether the file names of a model directory include safetensors."""
    wanted = {"model.safetensors", "model.safetensors.index.json"}
    return not wanted.isdisjoint(names)


def pickled_weights(names: Iterable[str]) -> str | None:
    """Return the first of a model directory's file names that is a pickle, or None."""
    top = (name for name in sorted(names) if "/" not in name)
    return next((n for n in top if n.endswith(PICKLES) and n not in _NOT_WEIGHTS), None)


def refuse_pickle(what: str, name: str) -> NotSupportedError:
    """Return the error for weights that are only in a pickle.

    what: the directory or repository; name: the pickle's file.
    """
    message = (
        f"{what} holds its weights only as {name}, which can run code when opened, and "
        "is never read; where you trust it, convert it once: AutoModelForCTC."
        "from_pretrained(DIR, weights_only=True).save_pretrained(DIR) writes "
        "model.safetensors (of Whisper: AutoModelForSpeechSeq2Seq)"
    )
    return NotSupportedError(message)


def _revision(info: ModelInfo) -> str:
    """Return the revision with safetensors: "main", or that of the hub's conversion."""
    files = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    pickle = pickled_weights(files)
    if pickle is None or has_safetensors(files):
        return "main"
    try:
        return _conversion(info.id, pickle, files[pickle].blob_id)
    except Exception as error:
        # A mirror of the hub may have its files but not its discussions.
        logger.info("no conversion of %s: %s", info.id, error)
        raise refuse_pickle(info.id, pickle) from error


def _conversion(repository: str, pickle: str, blob: str | None) -> str:
    """Return the reference of the hub's conversion of a pickle.

    blob: the pickle's content id. Raises LookupError if there is no conversion.
    """
    api = HfApi()
    for offer in api.get_repo_discussions(
        repository, author=_CONVERTER, discussion_type="pull_request"
    ):
        reference = f"refs/pr/{offer.num}"
        offered = api.model_info(
            repository, revision=reference, timeout=TIMEOUT, files_metadata=True
        )
        files = {sibling.rfilename: sibling for sibling in offered.siblings or ()}
        # It must have been made from the pickle that is on the main branch now.
        same = pickle in files and files[pickle].blob_id == blob
        if offer.author == _CONVERTER and same and has_safetensors(files):
            return reference
    message = f"none is offered by {_CONVERTER}"
    raise LookupError(message)


def _cached(repository: str) -> Path | None:
    """Return the directory of an earlier, complete download, or None."""
    folder = repo_folder_name(repo_id=repository, repo_type="model")
    references = Path(constants.HF_HUB_CACHE) / folder / "refs"
    found = []
    for reference in sorted(path for path in references.rglob("*") if path.is_file()):
        try:
            snapshot = snapshot_download(
                repository,
                revision=reference.relative_to(references).as_posix(),
                allow_patterns=_WANTED,
                ignore_patterns=_UNWANTED,
                local_files_only=True,
            )
        except LocalEntryNotFoundError:
            continue
        found.append(Path(snapshot))
    with_weights = [p for p in found if has_safetensors(f.name for f in p.iterdir())]
    return next(iter(with_weights + found), None)


def _explained(repository: str, error: Exception) -> Exception:
    ways_out = WAYS_OUT.format(repository)
    if isinstance(error, GatedRepoError):
        message = (
            f"the hub shows {repository!r} only to those who accepted its terms: do so "
            f"on {constants.ENDPOINT}/{repository}, then 'hf auth login'; or {ways_out}"
        )
        return OperationalError(message)
    if isinstance(error, RepositoryNotFoundError):
        message = (
            f"the hub at {constants.ENDPOINT} has no model {repository!r}, or it is "
            "private ('hf auth login'); there is no such directory either"
        )
        return ModelNotFoundError(message)
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if constants.HF_HUB_OFFLINE:
        reason = "offline mode is set (HF_HUB_OFFLINE)"
    message = (
        f"base model {repository!r} cannot be fetched from {constants.ENDPOINT}: "
        f"{reason}; it is neither in the cache ({constants.HF_HUB_CACHE}) nor a "
        f"directory here; {ways_out}"
    )
    return OperationalError(message)
