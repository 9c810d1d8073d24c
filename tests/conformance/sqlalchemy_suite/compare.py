"""SQLAlchemy's suite for third-party dialects, on its own SQLite driver and on ours.

    python tests/conformance/sqlalchemy_suite/compare.py

Prints how many tests end how, and every test that passes with `sqlite3` and not with
thanosql; exit status 1 if there is one. About a minute.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import sqlalchemy

HERE = Path(__file__).parent
CONFIGURATION = """\
[tool:pytest]
[sqla_testing]
requirement_cls = plugin:Requirements
profile_file = profiles.txt
[db]
"""
OUTCOME = re.compile(r"^(PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS) (?:\S*?::)?(.+?)$")
DRIVER_IN_NAME = re.compile(r"_sqlite\+\w+?_\d+_\d+_\d+")
LEAST = 1000  # tests that pass: fewer, and the suite was not run


def outcomes(driver: str) -> dict[str, str]:
    """Run the suite in a process of its own: test id to outcome."""
    # Registered by name, since a checkout that is not installed has no entry point.
    script = (
        "import sys, pytest, sqlalchemy.dialects as d; "
        "d.registry.register('sqlite.thanosql', 'thanosql.frontends.sqlalchemy',"
        " 'ThanosqlDialect'); sys.exit(pytest.main(sys.argv[1:]))"
    )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "setup.cfg").write_text(CONFIGURATION)
        options = ["-p", "plugin", "-p", "no:cacheprovider", "-c", "setup.cfg"]
        options += ["--rootdir=.", "-q", "-rA", "--tb=no", "--dburi"]
        done = subprocess.run(
            [
                *[sys.executable, "-c", script, *options],
                *[f"sqlite+{driver}:///:memory:", str(HERE / "suite.py")],
            ],
            cwd=folder,
            env=_environment(),
            capture_output=True,
            text=True,
        )
    found = {}
    for line in done.stdout.splitlines():
        outcome = OUTCOME.match(line)
        if outcome and outcome[1] != "SKIPPED":  # pytest folds those by their reason
            name = DRIVER_IN_NAME.sub("", outcome[2].split(" - ")[0])
            found[name] = outcome[1]
    if Counter(found.values())["PASSED"] < LEAST:
        raise SystemExit(done.stdout[-2000:] + done.stderr[-2000:])
    return found


def _environment() -> dict[str, str]:
    root = HERE.parents[2]
    before = os.environ.get("PYTHONPATH", "")
    return {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{root}{os.pathsep}{before}"}


def main() -> int:
    """Compare; return the exit status."""
    theirs, ours = outcomes("pysqlite"), outcomes("thanosql")
    print(f"SQLAlchemy {sqlalchemy.__version__}")
    for driver, found in (("sqlite3", theirs), ("thanosql", ours)):
        counts = Counter(found.values())
        print(f"{driver:10}" + ", ".join(f"{n} {k.lower()}" for k, n in counts.items()))
    lost = [name for name, how in theirs.items() if how == "PASSED" != ours.get(name)]
    for name in lost:
        print(f"passes with sqlite3 only: {name}")
    return bool(lost)


if __name__ == "__main__":
    sys.exit(main())
