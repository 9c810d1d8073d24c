"""CPython's own tests of `sqlite3`, where this interpreter has them."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.thorough(seconds=20)
def test_cpythons_tests_of_sqlite3_hold_but_for_the_listed_differences():
    script = Path(__file__).with_name("cpython.py")
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
