"""Write the pages' tables from what defines or measured them: options, bases, errors.

python docs/options.py            rewrites the pages that have such tables
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

from thanosql import statements
from thanosql.catalog.bases import BASES
from thanosql.catalog.datasets import DATASETS

DOCS = Path(__file__).parent
PAGES = (
    DOCS / "models.md",
    DOCS / "tiny-en.md",
    *sorted(DOCS.glob("statements/*.md")),
)
ERRORS = DOCS.parent / "benchmarks/results/tiny_en.json"
TABLES = {
    cls.statement: cls
    for cls in (
        statements.BuildOptions,
        statements.PredictOptions,
        statements.EvaluateOptions,
        statements.PrintAudioOptions,
        statements.ImportOptions,
        statements.ExportOptions,
        statements.GetModelOptions,
        statements.GetDatasetOptions,
        statements.CopyOptions,
    )
}


def with_tables(page: str) -> str:
    """Return the page with every table between its markers as it should be."""
    return re.sub(
        r"(<!-- (options: )?([A-Z ]+|bases|datasets|tiny_en) -->\n).*?(<!-- end -->)",
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
        tables = f"`{dataset.train_table}`, `{dataset.test_table}`"
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


LISTS = {"bases": bases_table, "datasets": datasets_table, "tiny_en": errors_table}


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
