"""Where this user's cache is."""

import sys
from pathlib import Path

import pytest

from thanosql.catalog import cache
from thanosql.store import training_folders


@pytest.fixture(autouse=True)
def _home(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for name in ("THANOSQL_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "~/.cache/thanosql"),
        ("linux", {"XDG_CACHE_HOME": "/xdg", "LOCALAPPDATA": "/w"}, "/xdg/thanosql"),
        ("darwin", {"XDG_CACHE_HOME": "/xdg"}, "~/Library/Caches/thanosql"),
        ("win32", {}, "~/AppData/Local/thanosql"),
        ("win32", {"LOCALAPPDATA": "/w"}, "/w/thanosql"),
        ("darwin", {"THANOSQL_CACHE": "/mine"}, "/mine"),
        ("win32", {"THANOSQL_CACHE": "~/m", "LOCALAPPDATA": "/w"}, "~/m"),
    ],
)
def test_the_cache_is_where_the_user_or_the_system_wants_it(
    platform, variables, expected, monkeypatch
):
    monkeypatch.setattr(sys, "platform", platform)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache.folder() == Path(expected).expanduser()


def test_trainings_of_a_database_in_memory_are_kept_in_the_cache(monkeypatch):
    monkeypatch.setenv("THANOSQL_CACHE", "/mine")
    assert training_folders.home(None) == Path("/mine/memory")
