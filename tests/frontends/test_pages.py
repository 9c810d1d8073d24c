"""The examples on the pages about other packages and about testing run as written."""

import re
import shutil
from pathlib import Path

import pytest
from test_pytest_plugin import CONFTEST

DOCS = Path(__file__).parents[2] / "docs"


def examples(page):
    return re.findall(
        r"```python\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL
    )


@pytest.fixture
def calls_db(thanosql_trained, thanosql_path, tmp_path, monkeypatch):
    """Have a file calls.db here, with table calls and model m."""
    monkeypatch.chdir(tmp_path)
    thanosql_trained.execute(
        "CREATE TABLE calls AS SELECT rowid AS id, audio, text FROM spoken"
    )
    thanosql_trained.execute("UPDATE thanosql_models SET name = 'm'")
    thanosql_trained.commit()
    shutil.copy(thanosql_path, "calls.db")


def test_the_examples_for_other_packages_run(calls_db):
    names = {}
    for example in examples("integrations.md"):
        exec(compile(example, "integrations.md", "exec"), names)
    assert names["count"] == sum("door" in text for text in names["frame"]["text"])
    assert names["table"].num_rows == 8
    models = names["con"].execute("SELECT name FROM (LIST MODELS)").fetchall()
    assert models == [("m",), ("second",)]
    names["con"].close()
    names["engine"].dispose()
    names["strict"].dispose()


def test_the_example_of_a_test_passes(pytester, request):
    # Its own session would train the model once more.
    trained = request.getfixturevalue("_thanosql_trained_once")
    pytester.makeconftest(
        CONFTEST
        + f"""
import pathlib, pytest

@pytest.fixture(scope="session")
def _thanosql_trained_once():
    return pathlib.Path({str(trained)!r})
"""
    )
    (example,) = examples("testing.md")
    pytester.makepyfile(example)
    pytester.runpytest_inprocess().assert_outcomes(passed=2)


def test_the_page_about_testing_names_every_fixture():
    from thanosql.frontends import pytest_plugin

    fixtures = {name for name in vars(pytest_plugin) if name.startswith("thanosql_")}
    shown = set(re.findall(r"^\| `(\w+)` \|", (DOCS / "testing.md").read_text(), re.M))
    assert shown == fixtures
