"""Many connections, many cursors, many rows, many models."""

import gc
import resource
import subprocess
import sys

import pytest
from tones import tones

import thanosql

_WORKER = """
import sys, time
import torch
torch.set_num_threads(1)
import thanosql
path = sys.argv[1]
connection = thanosql.connect(path, timeout=60)
query = "SELECT id, predicted FROM (PREDICT USING m AS SELECT * FROM calls) ORDER BY id"
expected = connection.execute(query).fetchall()
print("ready", flush=True)
count = 0
while True:
    assert connection.execute(query).fetchall() == expected
    status = connection.execute(
        "SELECT count(*) FROM thanosql_runs WHERE status = 'training'"
    ).fetchone()[0]
    count += 1
    if connection.execute("SELECT count(*) FROM thanosql_models").fetchone()[0] == 2:
        break
print(count, flush=True)
"""


@pytest.mark.thorough(seconds=60)
@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_processes_predict_and_read_while_one_builds(calls, base, mode):
    calls.execute(f"PRAGMA journal_mode = {mode}").fetchall()
    path = calls.apsw.filename
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", _WORKER, path],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    try:
        assert [worker.stdout.readline() for worker in workers] == ["ready\n"] * 8
        calls.execute(
            f"BUILD MODEL new USING '{base}' OPTIONS (epochs=8, batch_size=4) "
            "AS SELECT * FROM calls"
        )
        for worker in workers:
            out, errors = worker.communicate(timeout=120)
            assert int(out) >= 1, errors
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
            worker.stdout.close()
            worker.stderr.close()
    assert calls.execute("SELECT status FROM thanosql_runs").fetchall() == [("stored",)]
    assert calls.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.thorough(seconds=30)
def test_cursors_dropped_half_way_leave_nothing(calls):
    query = "PREDICT USING m OPTIONS (batch_size=1) AS SELECT * FROM calls"
    for _ in range(1_000):
        assert calls.execute(query).fetchone() is not None
    gc.collect()
    assert (
        calls.execute(
            "SELECT count(*) FROM pragma_module_list WHERE name LIKE 'thanosql%'"
        ).fetchone()[0]
        == 0
    )
    calls.execute("CREATE TABLE writable (x)")  # no reader holds a lock
    calls.execute("DROP TABLE writable")


@pytest.mark.thorough(seconds=60)
def test_memory_is_flat_over_twenty_thousand_rows(calls):
    calls.execute("CREATE TABLE short (audio BLOB)")
    clip = tones("a")
    calls.executemany("INSERT INTO short VALUES (?)", [(clip,)] * 100)
    query = (
        "PREDICT USING m OPTIONS (batch_size=64) AS "
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) "
        "SELECT a.audio FROM n, short AS a"
    )

    def peak(times):
        rows = sum(1 for _ in calls.execute(query.format(times)))
        assert rows == 100 * times
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    before = peak(20)
    assert peak(200) - before < 40  # MB


@pytest.mark.thorough(seconds=30)
def test_building_and_dropping_uses_the_same_room_again(calls, base):
    count = 150

    def size():
        return calls.execute("PRAGMA page_count").fetchone()[0]

    def cycle():
        calls.execute(
            f"BUILD MODEL new USING '{base}' OPTIONS (epochs=1, max_steps=1) "
            "AS SELECT * FROM calls"
        )
        calls.execute("DROP MODEL new")

    cycle()
    before = size()
    for _ in range(count):
        cycle()
    # A run stays, as history: some hundred bytes, and as much for each of its rows.
    assert size() - before <= 2 + count
    assert calls.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_model_replaced_meanwhile_answers_to_the_end_of_what_it_began(calls, base):
    query = (
        "PREDICT USING m OPTIONS (batch_size=1) AS SELECT audio FROM calls ORDER BY id"
    )
    expected = [row[1] for row in calls.execute(query)]
    # In WAL mode a writer need not wait for the reader.
    calls.execute("PRAGMA journal_mode = wal").fetchall()
    reading = calls.execute(query)
    read = [reading.fetchone()[1]]
    other = thanosql.connect(calls.apsw.filename)
    other.execute(
        f"BUILD MODEL m USING '{base}' OPTIONS (overwrite=TRUE, epochs=4, "
        "learning_rate=0.01, batch_size=2) AS SELECT * FROM calls"
    )
    read += [row[1] for row in reading]
    assert read == expected
    after = [row[1] for row in calls.execute(query)]
    assert after == [row[1] for row in other.execute(query)]
    assert after != expected
    other.close()
