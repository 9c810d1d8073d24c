"""An archive's URL in, a folder with its files out: all of them, or no folder.

A download goes on where an earlier one broke off, nothing is unpacked before its
checksum is right, and a folder appears in the cache by one rename.
"""

from __future__ import annotations

import hashlib
import http.client
import tarfile
import urllib.error
import urllib.request
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from thanosql import errors
from thanosql.catalog import cache

if TYPE_CHECKING:
    from collections.abc import Callable

    from thanosql.catalog.datasets import Archive

    Progress = Callable[[str, float, float | None], None]
    "Called with the name of a stage, how much is done, and of how much in all."

TIMEOUT = 30.0  # seconds without a byte
_BLOCK = 2**20


def folder(archive: Archive) -> Path:
    """Return the folder for an archive's files; it exists once they are unpacked."""
    return cache.folder() / "datasets" / archive.directory


def fetch(archive: Archive, mirror: str | None, progress: Progress) -> Path:
    """Return the folder of an archive's files, fetched now or earlier.

    mirror: the URL of a folder that has the file, or a folder of this machine; None for
    `archive.home`. Raises OperationalError if the file cannot be fetched or kept,
    DataError if its checksum is wrong or it is no archive.
    """
    target = folder(archive)
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if mirror is not None and "://" not in mirror:
            file = Path(mirror).expanduser() / archive.file
            if not file.is_file():
                message = f"the folder {mirror!r} has no file {archive.file!r}"
                raise errors.OperationalError(message)
            _check(file, archive, progress)
            _unpack(file, target)
        else:
            home = archive.home if mirror is None else mirror.rstrip("/")
            file = target.with_name(f"{archive.directory}.part")
            _download(f"{home}/{archive.file}", file, progress)
            try:
                _check(file, archive, progress)
                _unpack(file, target)
            except errors.DataError:
                file.unlink()  # a later call would go on from it, and fail again
                raise
            file.unlink()
    except (OSError, ValueError, RuntimeError) as error:
        # A full disk, no permission; a mirror that is no URL; ~ of an unknown user.
        message = f"cannot keep {archive.file} in {str(target.parent)!r}: {error}"
        raise errors.OperationalError(message) from error
    return target


def _download(url: str, file: Path, progress: Progress) -> None:
    """Append to the file the part of the URL's content that it lacks."""
    have = file.stat().st_size if file.exists() else 0
    request = urllib.request.Request(url)
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            if response.status != http.client.PARTIAL_CONTENT:
                have = 0  # the server sends all of it again
            length = response.headers.get("Content-Length")
            total = None if length is None else have + int(length)
            with file.open("ab" if have else "wb") as target:
                while block := response.read(_BLOCK):
                    target.write(block)
                    have += len(block)
                    progress("download", have, total)
        if total is not None and have < total:
            message = f"the connection ended after {have} of {total} bytes"
            raise http.client.HTTPException(message)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is left to fetch; the checksum says if it is right
        raise _unreachable(url, f"{error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise _unreachable(url, str(error.reason)) from error
    except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise _unreachable(url, str(error) or type(error).__name__) from error


def _unreachable(url: str, reason: str) -> errors.OperationalError:
    message = (
        f"cannot fetch {url}: {reason}; run the statement again to go on from what has "
        "come, or fetch the file where there is a network and set mirror to its folder"
    )
    return errors.OperationalError(message)


def _check(file: Path, archive: Archive, progress: Progress) -> None:
    algorithm, _, wanted = archive.digest.partition(":")
    digest = hashlib.new(algorithm, usedforsecurity=algorithm != "md5")
    size, done = file.stat().st_size, 0
    with file.open("rb") as content:
        while block := content.read(_BLOCK):
            digest.update(block)
            done += len(block)
            progress("check", done, size)
    if digest.hexdigest() != wanted:
        message = (
            f"the checksum of {archive.file} is wrong: its {algorithm} is "
            f"{digest.hexdigest()}, not {wanted}; nothing of it was kept; run the "
            "statement again, or set mirror to another server"
        )
        raise errors.DataError(message)


def _unpack(file: Path, target: Path) -> None:
    """Unpack a tar file into a folder, which appears only when all of it is there."""
    if not hasattr(tarfile, "data_filter"):
        message = "unpacking an archive safely needs Python 3.11.4 or newer"
        raise errors.NotSupportedError(message)
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as temporary:
        unpacked = Path(temporary, "unpacked")
        try:
            with tarfile.open(file) as archive:
                # Refuses what would land outside, devices, and links to elsewhere.
                archive.extractall(unpacked, filter="data")
        except (tarfile.TarError, EOFError, zlib.error) as error:
            message = f"{file.name} cannot be unpacked: {error}"
            raise errors.DataError(message) from error
        unpacked.rename(target)
