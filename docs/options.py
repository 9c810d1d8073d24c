"""Write what follows from a definition elsewhere: what defines it in, the files out.

The pages' tables of options, bases, datasets and measured errors, the contents of the
statements' pages, and the driver's table of verbs.

python docs/options.py            rewrites the files that have such tables
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import get_args

from thanosql import statements
from thanosql.catalog.bases import BASES
from thanosql.catalog.datasets import DATASETS
from thanosql.statements.grammar import BY_VERB, STATEMENTS

DOCS = Path(__file__).parent
INDEX = DOCS / "statements/index.md"
PAGES = (
    DOCS / "language-models.md",
    DOCS / "models.md",
    DOCS / "tiny-en.md",
    *sorted(DOCS.glob("statements/*.md")),
    DOCS.parent / "thanosql/driver/routes.py",
)
ERRORS = DOCS.parent / "benchmarks/results/tiny_en.json"
TABLES = {cls.statement: cls for cls in get_args(statements.Options)}


def with_tables(page: str) -> str:
    """Return the page with every table between its markers as it should be."""
    return re.sub(
        r"(<!-- (options: )?([A-Z][A-Za-z. ]+|[a-z_]+) -->\n).*?((?:# )?<!-- end -->)",
        lambda found: (
            found[1]
            + (options_table(TABLES[found[3]]) if found[2] else LISTS[found[3]]())
            + found[4]
        ),
        page,
        flags=re.DOTALL,
    )


def options_table(options: type[statements.Options]) -> str:
    """Return a Markdown table of a statement's options."""
    lines = ["| option | default | takes | meaning |", "|---|---|---|---|"]
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
        "| name | model | language | parameters | data | licence |",
        "|---|---|---|---|---|---|",
    ]
    for name, base in BASES.items():
        source = "in the package" if base.directory else base.source
        kind = base.language or "any, once trained"
        size = f"{base.parameters / 1e6:,.0f} M" if base.parameters else ""
        lines.append(
            f"| `{name}` | {source} | {kind} | {size} | {base.data} | {base.license} |"
        )
    return "\n".join(lines) + "\n"


def datasets_table() -> str:
    """Return a Markdown table of the datasets that GET DATASET knows."""
    lines = [
        "| name | what | tables | hours | download | licence |",
        "|---|---|---|---|---|---|",
    ]
    for name, dataset in DATASETS.items():
        tables = ", ".join(f"`{table}`" for table in dataset.tables)
        megabytes = sum(archive.megabytes for archive in dataset.archives)
        size = f"{megabytes:,} MB" if megabytes else ""
        lines.append(
            f"| `{name}` | {dataset.about} | {tables} | {dataset.hours:g} | {size} "
            f"| {dataset.license} |"
        )
    return "\n".join(lines) + "\n"


def errors_table() -> str:
    """Return a Markdown table of how well TinyEn reads, as last measured."""
    lines = [
        "| | words tested | WER | of 95 % | CER | it learns, s |",
        "|---|---|---|---|---|---|",
    ]
    found = json.loads(ERRORS.read_text(encoding="utf-8")) if ERRORS.exists() else {}
    for name, errors in found.get("measurements", {}).items():
        seconds = errors.get("seconds_of_build")
        lines.append(
            f"| {name} | {errors['words']:,} | {errors['wer']:.3f} "
            f"| {errors['wer_low']:.3f} to {errors['wer_high']:.3f} "
            f"| {errors['cer']:.3f} | {'' if seconds is None else round(seconds)} |"
        )
    return "\n".join(lines) + "\n"


def contents() -> str:
    """Return the list of the statements' pages, in the grammar's order.

    A page's title is its statement's first words; its first sentence says what it does.
    """
    places: dict[int, tuple[str, str, str]] = {}
    heads = [" ".join(head) for head in STATEMENTS]
    for path in set(DOCS.glob("statements/*.md")) - {INDEX}:
        page = path.read_text(encoding="utf-8")
        about = re.match(r"# (.+)\n\n([^`<|]+?\.)\n", page)
        if about is None:
            message = f"{path} begins with a title and a sentence on what is done"
            raise ValueError(message)
        first_words = about[1].partition(",")[0]
        place = next(i for i, head in enumerate(heads) if head.startswith(first_words))
        places[place] = path.stem, about[1], about[2].replace("\n", " ")
    pages = [page for _, page in sorted(places.items())]
    return "\n".join(
        [
            "| statement | |",
            "|---|---|",
            *(f"| [{title}]({name}.md) | {does} |" for name, title, does in pages),
            "\n```{toctree}\n:hidden:\n",
            *(name for name, _, _ in pages),
            "```\n",
        ]
    )


def verbs() -> str:
    """Return the driver's table: with each verb, what else its statements begin with.

    A statement of several spellings is there by the shortest: MODEL, not MODELS.
    """
    lines = ["_SECOND_WORDS: dict[str, tuple[str, ...]] = {"]
    for verb in dict.fromkeys(head[0] for head in STATEMENTS):
        last = list(dict.fromkeys(head[-1] for head in BY_VERB[verb]))
        words = [word for word in last if not any(o in word for o in last if o != word)]
        listed = ", ".join(f'"{word}"' for word in words)
        lines.append(f'    "{verb}": ({listed}{"," if len(words) == 1 else ""}),')
    return "\n".join([*lines, "}\n"])


LISTS = {
    "bases": bases_table,
    "datasets": datasets_table,
    "tiny_en": errors_table,
    "contents": contents,
    "verbs": verbs,
}


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
