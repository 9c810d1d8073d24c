"""Where this user's cache is."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def folder() -> Path:
    """Return the folder, there or not yet, of what can be made or fetched again.

    THANOSQL_CACHE, or a folder thanosql where the system keeps its users' caches.
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
