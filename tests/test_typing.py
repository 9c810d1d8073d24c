"""The types that users get: mypy, strict, on a program that only imports thanosql."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy", reason="mypy is not installed")

PROGRAM = Path(__file__).parent / "example_program.py"


def checked(program: Path, cache: Path) -> str:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "--strict", "--config-file="),
            *("--follow-imports=silent", f"--cache-dir={cache}", str(program)),
        ],
        capture_output=True,
        text=True,
        cwd=PROGRAM.parents[1],
    )
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_users_program_type_checks_and_its_mistakes_are_found(tmp_path, pytestconfig):
    cache = Path(pytestconfig.cache.mkdir("mypy-of-users"))
    assert "Success" in checked(PROGRAM, cache)
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "import thanosql\n"
        "con = thanosql.connect(5)\n"
        'con.execute("SELECT 1", parameters=5)\n'
        'count: str = con.execute("SELECT 1").rowcount\n'
        'con.isolation_level = "SERIALIZABLE"\n'
    )
    found = checked(wrong, cache)
    assert [f"wrong.py:{line}: error" in found for line in (2, 3, 4, 5)] == [True] * 4
