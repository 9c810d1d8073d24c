"""The folder of this user's cache: the environment in, a path out."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def folder() -> Path:
    """Return the folder for files that can be made or fetched again; it may not exist.

    It is THANOSQL_CACHE, or a folder thanosql where the system keeps users' caches.
    """
    chosen = os.environ.get("THANOSQL_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        usual = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        usual = "~/Library/Caches"
    else:
        usual = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(usual).expanduser() / "thanosql"
