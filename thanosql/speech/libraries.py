"""Check that torch, torchaudio and transformers are installed and fit each other."""

from __future__ import annotations

import importlib
import threading
from importlib import metadata
from typing import TYPE_CHECKING

from thanosql.errors import NotSupportedError

if TYPE_CHECKING:
    from collections.abc import Callable


def require_libraries(load: Callable[[str], object] = importlib.import_module) -> None:
    """Raise NotSupportedError, saying what to install, if one cannot be imported.

    torchaudio 2.11.0 refuses to be imported beside a torch for another version of CUDA;
    2.11.1 does so only for another major version. transformers imports torchaudio if it
    is installed, and then fails with "Could not import module". So torchaudio is
    imported first: its own error names the cause.
    """
    for library in ("torch", "torchaudio", "transformers"):
        try:
            load(library)
        except (ImportError, OSError, RuntimeError) as error:
            if not threading.main_thread().is_alive():
                message = (
                    f"the program's main thread has ended, after which {library} "
                    f"cannot be imported ({error}); join the threads that use speech"
                )
                raise NotSupportedError(message) from error
            torch, torchaudio = _version("torch"), _version("torchaudio")
            message = (
                f"speech needs torch and torchaudio that fit each other; {library} "
                f"cannot be imported beside torch {torch} and torchaudio {torchaudio} "
                f"({error}); install 'torch>=2.9,<2.15' and 'torchaudio>=2.9', or "
                "'torchaudio>=2.11.1', which fits any torch of the same CUDA major"
            )
            raise NotSupportedError(message) from error


def _version(library: str) -> str:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return "(not installed)"
