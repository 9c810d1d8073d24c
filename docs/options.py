"""Write the tables of language.md from what defines them: options, bases.

python docs/options.py            rewrites language.md
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from thanosql import statements
from thanosql.bases import BASES
from thanosql.datasets import DATASETS

PAGE = Path(__file__).with_name("language.md")
TABLES = {
    cls.statement: cls
    for cls in (
        statements.BuildOptions,
        statements.PredictOptions,
        statements.EvaluateOptions,
        statements.ImportOptions,
        statements.ExportOptions,
    )
}


def with_tables(page: str) -> str:
    """Return the page with every table between its markers as it should be."""
    return re.sub(
        r"(<!-- (options: )?(.+?) -->\n).*?(<!-- end -->)",
        lambda found: (
            found[1]
            + (options_table(TABLES[found[3]]) if found[2] else bases_table())
            + found[4]
        ),
        page,
        flags=re.DOTALL,
    )


def options_table(options: type[statements.Options]) -> str:
    """Return a Markdown table of a statement's options."""
    lines = ["| option | default | takes | |", "|---|---|---|---|"]
    for field in dataclasses.fields(options):
        about = field.metadata
        names = " ".join(f"`{name}`" for name in (field.name, *about["aliases"]))
        default = "" if field.default is None else f"`{field.default!r}`"
        unit = f" ({about['unit']})" if about["unit"] else ""
        lines.append(
            f"| {names} | {default} | {about['accepts']} | {about['doc']}{unit} |"
        )
    return "\n".join(lines) + "\n"


def bases_table() -> str:
    """Return a Markdown table of the bases that have a name."""
    lines = [
        "| name | model | language | parameters | licence |",
        "|---|---|---|---|---|",
    ]
    for name, base in BASES.items():
        source = base.source.removeprefix("package:")
        kind = base.language or "any, once trained"
        size = f"{base.parameters / 1e6:,.0f} M" if base.parameters else ""
        lines.append(f"| `{name}` | {source} | {kind} | {size} | {base.license} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
