"""Print what benchmarks reported as one table.

    python benchmarks/compare.py results/*.json

Of reports of the same benchmark, each has a column, in the order given.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(paths: list[str]) -> None:
    """Print the table of the reports in these files."""
    if not paths:
        print(__doc__)
        sys.exit(2)
    print(table([json.loads(Path(path).read_text(encoding="utf-8")) for path in paths]))


def table(reports: list[dict[str, Any]]) -> str:
    """Return the ratios and checks of reports, in Markdown."""
    rows: dict[tuple[str, str], list[str]] = {}
    goals: dict[tuple[str, str], str] = {}
    for report in reports:
        for ratio in report["ratios"]:
            key = (report["benchmark"], ratio["name"])
            rows.setdefault(key, []).append(_cell(ratio))
            bound = "at least" if ratio["higher_is_better"] else "at most"
            goals[key] = f"{bound} {ratio['goal']:g}"
    lines = ["| benchmark | ratio | goal | measured (lowest to highest round) |"]
    lines.append("|---|---|---|---|")
    for key, cells in rows.items():
        lines.append(f"| {key[0]} | {key[1]} | {goals[key]} | {'; '.join(cells)} |")
    for report in reports:
        machine = report["machine"]
        device = machine["gpu"] or f"{machine['cores']} cores of {machine['processor']}"
        lines.append(f"\n{report['benchmark']} ({report['set']} set), {device}:")
        lines += [f"- {name}: {outcome}" for name, outcome in report["checks"].items()]
    return "\n".join(lines)


def _cell(ratio: dict[str, Any]) -> str:
    """Return the median, in bold where it misses the goal, and the spread."""
    missed = (
        ratio["median"] < ratio["goal"]
        if ratio["higher_is_better"]
        else ratio["median"] > ratio["goal"]
    )
    median = f"{ratio['median']:.2f}"
    median = f"**{median}**" if missed else median
    return f"{median} ({ratio['lowest']:.2f} to {ratio['highest']:.2f})"


if __name__ == "__main__":
    main(sys.argv[1:])
