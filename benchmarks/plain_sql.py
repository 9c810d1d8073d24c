"""What plain SQL costs: thanosql beside bare APSW and the standard library's sqlite3.

    python benchmarks/plain_sql.py        half a minute; prints JSON

Ratios within one run, the contestants in turn; the median of the rounds. The rows that
come back are compared.
"""

from __future__ import annotations

import json
import platform
import sqlite3
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import apsw

import thanosql

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 9
ROWS = [(i, str(i), i / 2) for i in range(100_000)]


def main() -> None:
    """Measure, and print one JSON object."""
    connections: dict[str, Any] = {
        "thanosql": thanosql.connect(":memory:"),
        "sqlite3": sqlite3.connect(":memory:"),
        "apsw": apsw.Connection(":memory:"),
    }
    cursors = {name: each.cursor() for name, each in connections.items()}
    for cursor in cursors.values():
        cursor.execute("CREATE TABLE t (a, b, c)")
    select = in_turn({n: lambda c=c: select_one(c) for n, c in cursors.items()}, 20_000)
    insert = in_turn({n: lambda c=c: insert_all(c) for n, c in cursors.items()})
    fetched: dict[str, Any] = {}
    fetch = in_turn(
        {
            n: lambda n=n, c=c: fetched.update({n: all_rows(c)})
            for n, c in cursors.items()
        }
    )
    assert fetched["thanosql"] == fetched["apsw"] == fetched["sqlite3"] == ROWS
    imports = in_turn(
        {name: lambda name=name: import_anew(name) for name in ("thanosql", "sqlite3")}
    )
    print(
        json.dumps(
            {
                "machine": platform.processor() or platform.machine(),
                "python": platform.python_version(),
                "apsw": apsw.apsw_version(),
                "select_1_us": {n: s * 1e6 for n, s in select.items()},
                "executemany_100k_ms": {n: s * 1e3 for n, s in insert.items()},
                "fetchall_100k_ms": {n: s * 1e3 for n, s in fetch.items()},
                "import_process_ms": {n: s * 1e3 for n, s in imports.items()},
                "ratios": {
                    "SELECT 1 to sqlite3": select["thanosql"] / select["sqlite3"],
                    "executemany to apsw": insert["thanosql"] / insert["apsw"],
                    "fetchall to apsw": fetch["thanosql"] / fetch["apsw"],
                },
            },
            indent=2,
        )
    )


def in_turn(works: dict[str, Callable[[], object]], times: int = 1) -> dict[str, float]:
    """Return the median seconds of each work, once for each of `times`."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            began = time.perf_counter()
            for _ in range(times):
                work()
            seconds[name].append((time.perf_counter() - began) / times)
    return {name: statistics.median(each) for name, each in seconds.items()}


def select_one(cursor: Any) -> None:
    cursor.execute("SELECT 1").fetchall()


def insert_all(cursor: Any) -> None:
    cursor.execute("DELETE FROM t")
    if isinstance(cursor, apsw.Cursor):  # it opens no transaction by itself
        cursor.execute("BEGIN")
    cursor.executemany("INSERT INTO t VALUES (?, ?, ?)", ROWS)
    cursor.execute("COMMIT")


def all_rows(cursor: Any) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = cursor.execute("SELECT * FROM t").fetchall()
    return rows


def import_anew(name: str) -> None:
    subprocess.run([sys.executable, "-c", f"import {name}"], check=True)


if __name__ == "__main__":
    main()
