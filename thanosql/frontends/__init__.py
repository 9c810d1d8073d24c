"""Ways to use thanosql beside the driver: shell, notebook, SQLAlchemy, pytest."""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType


def package() -> ModuleType:
    """Return the module `thanosql`: SQLAlchemy wants it, and the shell its version.

    It is imported by name and only here: it imports the notebook's magic, so an import
    statement would make a circle.
    """
    return import_module("thanosql")
