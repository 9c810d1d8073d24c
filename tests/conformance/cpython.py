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

NOT_APPLICABLE = {
    "ClosedConTests.test_closed_call": "calling a connection is undocumented",
    "ConnectionTests.test_connection_signature": "the same",
    "ModuleTests.test_disallow_instantiation": "the same: it makes a statement so",
    "ConnectionTests.test_connection_resource_warning": "CPython's own, since 3.13",
    "ConnectionTests.test_connect_positional_arguments": "CPython's own deprecation",
    "CursorTests.test_execute_named_param_and_sequence": "CPython's own deprecation",
}
"""Tests of what is CPython's own affair."""

DIFFERENCES = {
    "BlobTests.test_blob_seek_error": "a place outside is always a ValueError",
    "BlobTests.test_blob_seek_overflow_error": "the same, since 3.12",
    "BlobTests.test_blob_set_slice_error": "TypeError, not BufferError",
    "ConnectionTests.test_connection_bad_reinit": "__init__ is called once",
    "ConnectionTests.test_connection_reinit": "the same, and text_factory",
    "CursorTests.test_cursor_wrong_class": "a cursor is made by its connection",
    "CursorTests.test_execute_non_iterable": "compares the wording",
    "CursorTests.test_execute_param_sequence": "parameters are iterated over",
    "CursorTests.test_fetchone_no_statement": "no results to fetch is an error",
    "SqliteOnConflictTests.test_on_conflict_fail": "the same",
    "OpenTests.test_open_with_undecodable_path": "file names are Unicode",
    "OpenTests.test_open_undecodable_uri": "the same",
    "UninitialisedConnectionTests.test_uninit_operations": "says closed, or nothing",
}
"""Tests that fail by decision; docs/dbapi.md says more."""


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
    return case.assertRaises(expected, *call, **kwargs)  # noqa: PT027


def main() -> int:
    try:
        suite = load()
    except ImportError as error:
        print(f"this interpreter came without its tests: {error}")
        return 0
    output = sys.stderr if "-v" in sys.argv else io.StringIO()
    result = unittest.TextTestRunner(output, verbosity=0).run(suite)
    failed = {
        ".".join(getattr(test, "test_case", test).id().split(".")[-2:])
        for test, _ in result.failures + result.errors
    }
    ran = result.testsRun - len(result.skipped)
    applicable = ran - len(failed & NOT_APPLICABLE.keys())
    differing = failed - NOT_APPLICABLE.keys()
    print(f"Python {sys.version.split()[0]}: {applicable - len(differing)} hold")
    print(f"of {applicable} that apply; {ran - applicable} do not")
    for name in sorted(differing):
        print(f"  {name}: {DIFFERENCES.get(name, 'NOT EXPECTED')}")
    return 1 if differing - DIFFERENCES.keys() else 0


if __name__ == "__main__":
    sys.exit(main())
