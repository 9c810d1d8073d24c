"""What the documentation says is what the package does."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def options_page():
    spec = importlib.util.spec_from_file_location("options", ROOT / "docs/options.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_options_tables_are_those_of_the_dataclasses(options_page):
    page = options_page.PAGE.read_text(encoding="utf-8")
    assert options_page.with_tables(page) == page, "run python docs/options.py"


def test_every_statement_has_its_options_table(options_page):
    page = options_page.PAGE.read_text(encoding="utf-8")
    shown = re.findall(r"<!-- options: (.+?) -->", page)
    assert sorted(shown) == sorted(options_page.TABLES)


def test_links_between_pages_lead_somewhere():
    for page in [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_examples_of_the_db_api_page_run():
    page = (ROOT / "docs" / "dbapi.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.+?)```", page, re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        exec(compile(example, "docs/dbapi.md", "exec"), {})
