"""The types that users get: mypy, strict, on a program that only imports thanosql."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy", reason="mypy is not installed")

PROGRAM = Path(__file__).parent / "example_program.py"


@pytest.mark.thorough(seconds=60)
def test_a_users_program_type_checks_and_its_mistakes_are_found(tmp_path, pytestconfig):
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "import thanosql\n"
        "con = thanosql.connect(5)\n"
        'con.execute("SELECT 1", parameters=5)\n'
        'count: str = con.execute("SELECT 1").rowcount\n'
        'con.isolation_level = "SERIALIZABLE"\n'
    )
    cache = pytestconfig.cache.mkdir("mypy-of-users")  # a second run takes seconds
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--config-file="),
            *("--follow-imports=silent", f"--cache-dir={cache}", PROGRAM, wrong),
        ],
        capture_output=True,
        text=True,
        cwd=PROGRAM.parents[1],
    )
    found = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert [line.partition("wrong.py:")[2][:1] for line in found] == [*"2345"]
