"""The examples of the statements' pages: a page and a connection in, the page out.

A block of SQL is run; the block of text right behind it, if there is one, becomes what
it yielded. ``<!-- file: NAME -->`` has the block below it written to that file first.
tests/test_docs.py holds the pages against this; with THANOSQL_WRITE_DOCS=1 in the
environment it writes them instead.

What hangs on a training, which is another on each machine, is not held but dated, as
``<!-- a run of 2026-11-23 -->``. This writes the tutorials' anew:

    thanosql demo demo.db && python docs/examples.py demo.db
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import thanosql
from thanosql.frontends.demo import show

if TYPE_CHECKING:
    from collections.abc import Sequence

STATEMENTS = Path(__file__).parent / "statements"
TUTORIALS = tuple(Path(__file__).parent / f"tutorial{end}.md" for end in ("", ".ko"))
_DATED = re.compile(
    r"```sql\n(?P<sql>[^`]*?)\n```\n\n<!-- a run of \S+ -->\n```text\n.*?```\n",
    re.DOTALL,
)
_BLOCK = re.compile(
    r"<!-- file: (?P<name>\S+) -->\n```text\n(?P<content>.*?)```\n"
    r"|```sql\n(?P<sql>.*?)\n```\n(?P<gap>\n```text\n)?(?(gap)(?P<shown>.*?)```\n)",
    re.DOTALL,
)


def pages() -> list[Path]:
    """Return the statements' pages in the order of their table of contents."""
    index = (STATEMENTS / "index.md").read_text(encoding="utf-8")
    (contents,) = re.findall(r"```\{toctree\}\n:hidden:\n\n(.*?)```", index, re.DOTALL)
    return [STATEMENTS / f"{name}.md" for name in contents.split()]


def with_outputs(page: str, connection: thanosql.Connection) -> str:
    """Run a page's examples, its files in the working directory; return it anew."""

    def run(found: re.Match[str]) -> str:
        if found["name"]:
            Path(found["name"]).write_text(found["content"], encoding="utf-8")
            return found[0]
        output = output_of(connection, found["sql"])
        connection.commit()  # as the shell and the notebook do
        if found["gap"] is None:
            return found[0]
        return f"```sql\n{found['sql']}\n```\n\n```text\n{output}```\n"

    return _BLOCK.sub(run, page)


def output_of(connection: thanosql.Connection, statement: str) -> str:
    """Return a statement's rows as `thanosql demo` prints them."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        show(connection, statement)
    rows = printed.getvalue().removeprefix(f"{statement};\n\n").rstrip("\n")
    return rows + "\n" if rows else ""


def main(databases: Sequence[str]) -> None:
    """Write what is dated in the tutorials, as the demo's database gives it today."""
    (database,) = databases
    today = time.strftime("%Y-%m-%d", time.gmtime())
    with contextlib.closing(thanosql.connect(database)) as connection:

        def run(found: re.Match[str]) -> str:
            output = output_of(connection, found["sql"])
            return (
                f"```sql\n{found['sql']}\n```\n\n<!-- a run of {today} -->\n"
                f"```text\n{output}```\n"
            )

        for path in TUTORIALS:
            page = path.read_text(encoding="utf-8")
            path.write_text(_DATED.sub(run, page), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
