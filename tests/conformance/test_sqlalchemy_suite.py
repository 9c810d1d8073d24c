"""SQLAlchemy's own tests for dialects that others write."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.thorough(seconds=75)
def test_the_suite_for_dialects_fails_nowhere_that_sqlite3_passes():
    suite = Path(__file__).with_name("sqlalchemy_suite")
    done = subprocess.run(
        [sys.executable, suite / "compare.py"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
