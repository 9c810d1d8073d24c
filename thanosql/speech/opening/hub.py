"""The hub: a repository's id in, its files in a directory out, no pickle among them."""

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

TIMEOUT = 5.0  # seconds for the hub to answer; by itself the client waits for ever
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".h5", ".msgpack")
# What a training leaves beside the weights, pickled too, and of no use here.
_NOT_WEIGHTS = {"training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth"}
# One set of weights, at the top; language adapters and training checkpoints stay there.
_WANTED = ["*.json", "*.txt", "*.model", "model.safetensors", "model-*.safetensors"]
_UNWANTED = ["*/*"]
_CONVERTER = "SFconvertbot"  # the hub's own: offers pickled weights as safetensors

WAYS_OUT = (
    "fetch it where there is a network ('hf download {0} --local-dir DIR') and give "
    "the path of that directory; or copy that machine's cache and set HF_HOME to it; "
    "or set HF_ENDPOINT to a mirror; or use a stored model, or TinyEn, which "
    "comes with the package"
)


class _Bar(tqdm):
    """A progress bar that shows on a terminal, and nowhere else."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("disable", None)
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]


def download(repository: str) -> Path:
    """Return the directory of a repository's files, fetched now or earlier.

    Raises ModelNotFoundError where the hub knows no such repository, OperationalError
    where it cannot be reached or lets us not in, NotSupportedError where the weights
    are a pickle. Without a network this takes the time of one failed connection.
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
        # By name the client's errors are httpx's one year and httpx2's the next.
        cached = _cached(repository)
        if cached is not None:
            logger.warning("using the cached %s: %s", repository, error)
            return cached
        raise _explained(repository, error) from error


def has_safetensors(names: Iterable[str]) -> bool:
    """Say whether there are weights among the file names of a model directory."""
    wanted = {"model.safetensors", "model.safetensors.index.json"}
    return not wanted.isdisjoint(names)


def pickled_weights(names: Iterable[str]) -> str | None:
    """Return the first of the file names of a model directory that is a pickle."""
    top = (name for name in sorted(names) if "/" not in name)
    return next((n for n in top if n.endswith(PICKLES) and n not in _NOT_WEIGHTS), None)


def refuse_pickle(what: str, name: str) -> NotSupportedError:
    """Return the error for weights that only running a pickle could read."""
    message = (
        f"{what} holds its weights only as {name}, which can run code when opened, and "
        "is never read; where you trust it, convert it once: AutoModelForCTC."
        "from_pretrained(DIR, weights_only=True).save_pretrained(DIR) writes "
        "model.safetensors"
    )
    return NotSupportedError(message)


def _revision(info: ModelInfo) -> str:
    """Return where the repository has safetensors: "main", or the hub's conversion."""
    files = {sibling.rfilename: sibling for sibling in info.siblings or ()}
    pickle = pickled_weights(files)
    if pickle is None or has_safetensors(files):
        return "main"
    try:
        return _conversion(info.id, pickle, files[pickle].blob_id)
    except Exception as error:
        # A mirror of the hub's files need not have its discussions.
        logger.info("no conversion of %s: %s", info.id, error)
        raise refuse_pickle(info.id, pickle) from error


def _conversion(repository: str, pickle: str, blob: str | None) -> str:
    """Return the reference of the hub's own conversion of a pickle; else raise."""
    api = HfApi()
    for offer in api.get_repo_discussions(
        repository, author=_CONVERTER, discussion_type="pull_request"
    ):
        reference = f"refs/pr/{offer.num}"
        offered = api.model_info(
            repository, revision=reference, timeout=TIMEOUT, files_metadata=True
        )
        files = {sibling.rfilename: sibling for sibling in offered.siblings or ()}
        # The pickle it was made from must still be the one on the main branch.
        same = pickle in files and files[pickle].blob_id == blob
        if offer.author == _CONVERTER and same and has_safetensors(files):
            return reference
    message = f"none is offered by {_CONVERTER}"
    raise LookupError(message)


def _cached(repository: str) -> Path | None:
    """Return the directory an earlier download left, if one is whole."""
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
