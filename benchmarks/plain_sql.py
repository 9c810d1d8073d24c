"""What plain SQL costs: thanosql beside bare APSW and the standard library's sqlite3.

    python benchmarks/plain_sql.py [--full] [--output FILE]

Half a minute; the full set, more rounds, takes two. The rows that come back are
compared. An import is timed as the processor time of `python -I -c "import NAME"` less
that of `python -I -c pass` in the same round, all with compiled files in place.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
from common import arguments, in_turn, ratio, report

import thanosql

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = [(i, str(i), i / 2) for i in range(100_000)]
INSERT = "INSERT INTO t VALUES (?, ?, ?)"


def main() -> None:
    options = arguments(__doc__)
    rounds, starts = (41, 60) if options.full else (11, 20)
    connections: dict[str, Any] = {
        "thanosql": thanosql.connect(":memory:"),
        "sqlite3": sqlite3.connect(":memory:"),
        "apsw": apsw.Connection(":memory:"),
    }
    cursors = {name: each.cursor() for name, each in connections.items()}
    for cursor in cursors.values():
        cursor.execute("CREATE TABLE t (a, b, c)")

    def each(
        work: Callable[[Any], object], rounds: int, times: int = 1
    ) -> dict[str, list[float]]:
        works = {n: lambda c=c: work(c) for n, c in cursors.items()}
        in_turn(works, 1, times)
        return in_turn(works, rounds, times)

    insert = each(insert_all, rounds)
    fetch = each(all_rows, rounds)
    select = each(select_one, rounds * 10, 1000)
    fetched = [all_rows(cursor) for cursor in cursors.values()]
    imports = import_seconds(starts)
    report(
        options,
        packages=["apsw"],
        settings={"sqlite3": sqlite3.sqlite_version, "apsw": apsw.sqlite_lib_version()},
        measurements={
            "select_1_us": in_units(select, 1e6),
            "executemany_100k_ms": in_units(insert, 1e3),
            "fetchall_100k_ms": in_units(fetch, 1e3),
            "import_cpu_ms_net": in_units(imports, 1e3),
        },
        ratios=[
            ratio(
                name,
                seconds["thanosql"],
                seconds[peer],
                goal=goal,
                higher_is_better=False,
            )
            for name, seconds, peer, goal in [
                ("fetchall of 100k rows, to APSW", fetch, "apsw", 1.05),
                ("executemany of 100k rows, to APSW", insert, "apsw", 1.05),
                ("SELECT 1 and fetch, to sqlite3", select, "sqlite3", 1.2),
                ("import, to sqlite3", imports, "sqlite3", 3.0),
            ]
        ],
        checks={"same rows": all(rows == ROWS for rows in fetched)},
    )


def in_units(seconds: dict[str, list[float]], unit: float) -> dict[str, float]:
    return {name: min(each) * unit for name, each in seconds.items()}


def select_one(cursor: Any) -> None:
    cursor.execute("SELECT 1").fetchall()


def insert_all(cursor: Any) -> None:
    cursor.execute("DELETE FROM t")
    if isinstance(cursor, apsw.Cursor):  # it opens no transaction by itself
        cursor.execute("BEGIN")
    cursor.executemany(INSERT, ROWS)
    cursor.execute("COMMIT")


def all_rows(cursor: Any) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = cursor.execute("SELECT * FROM t").fetchall()
    return rows


def import_seconds(starts: int) -> dict[str, list[float]]:
    """Return each module's net processor seconds; a figure is the least of 5 starts."""
    package = Path(thanosql.__file__).parents[1]
    paths = [str(package), sysconfig.get_paths()["platlib"]]
    prepare = f"import sys; sys.path[:0] = {paths}"
    figures: dict[str, list[float]] = {"thanosql": [], "sqlite3": []}
    for _ in range(max(starts // 5, 1)):
        least = {
            what: min(processor_seconds(f"{prepare}; {what}") for _ in range(5))
            for what in ("import thanosql", "import sqlite3", "pass")
        }
        for name, seconds in figures.items():
            seconds.append(least[f"import {name}"] - least["pass"])
    return figures


def processor_seconds(program: str) -> float:
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", program])
    _, status, usage = os.wait4(child.pid, 0)  # in microseconds, unlike os.times
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
