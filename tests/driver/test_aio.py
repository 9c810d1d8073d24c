"""thanosql.aio, on a real event loop."""

import asyncio
import subprocess
import sys
import threading
import time

import pytest

import thanosql
from thanosql import aio


def run(work):
    """Run a coroutine function in a new event loop, and fail if a thread is left."""
    before = threading.active_count()
    result = asyncio.run(work())
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before
    return result


@pytest.fixture
def path(calls):
    path = calls.execute("PRAGMA database_list").fetchone()[2]
    calls.close()
    return path


def test_statements_are_awaited_and_rows_iterated():
    async def work():
        con = await aio.connect(":memory:")
        cursor = await con.cursor()
        await cursor.execute("CREATE TABLE t (a INTEGER)")
        await cursor.executemany("INSERT INTO t VALUES (?)", [(1,), (2,), (3,)])
        assert cursor.rowcount == 3
        assert await con.run(lambda: con.blocking.in_transaction)
        await con.commit()
        await cursor.execute("SELECT a FROM t")
        assert cursor.description[0][0] == "a"
        assert cursor.declared_types == ("INTEGER",)
        assert await cursor.fetchone() == (1,)
        assert await cursor.fetchmany(1) == [(2,)]
        assert [row async for row in cursor] == [(3,)]
        await con.executescript("DELETE FROM t; SELECT 1")
        assert await (await con.execute("SELECT * FROM t")).fetchall() == []
        await con.close()
        await con.close()

    run(work)


def test_a_predict_leaves_the_event_loop_free(path):
    async def work():
        con = await aio.connect(path)
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)
                ticks += 1

        ticking = asyncio.create_task(tick())
        cursor = await con.execute(
            "PREDICT USING m OPTIONS (batch_size=1) AS SELECT id, audio FROM calls"
        )
        rows = [row async for row in cursor]
        ticking.cancel()
        await con.close()
        return rows, ticks

    rows, ticks = run(work)
    with thanosql.connect(path) as con:
        predict = "PREDICT USING m AS SELECT id, audio FROM calls"
        assert con.execute(predict).fetchall() == rows
    con.close()
    assert ticks > 10  # torch was imported and eight batches transcribed meanwhile


def test_the_block_of_a_connection_commits_or_rolls_back(tmp_path):
    async def work():
        con = await aio.connect(tmp_path / "x.db")
        await con.execute("CREATE TABLE t (a)")
        async with con:
            await con.execute("INSERT INTO t VALUES (1)")

        async def fail_half_way():
            async with con:
                await con.execute("INSERT INTO t VALUES (2)")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail_half_way()
        rows = await (await con.execute("SELECT a FROM t")).fetchall()
        await con.close()
        return rows

    assert run(work) == [(1,)]


def test_errors_are_those_of_pep_249():
    async def work():
        con = await aio.connect(":memory:")
        with pytest.raises(thanosql.OperationalError, match="no such table"):
            await con.execute("SELECT * FROM nowhere")
        with pytest.raises(thanosql.ModelNotFoundError):
            await con.execute("PREDICT USING nowhere AS SELECT 1 AS audio")
        with pytest.raises(thanosql.ProgrammingError, match="another thread"):
            con.blocking.execute("SELECT 1")
        await con.close()
        with pytest.raises(thanosql.ProgrammingError, match="closed"):
            await con.execute("SELECT 1")
        with pytest.raises(thanosql.OperationalError, match="unable to open"):
            await aio.connect("/no/such/folder/x.db")

    run(work)


def test_a_cancelled_query_stops_and_the_connection_goes_on():
    async def work():
        con = await aio.connect(":memory:")
        endless = (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
            "SELECT count(*) FROM n"
        )
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(con.execute(endless), 0.05)
        rows = await (await con.execute("SELECT 1")).fetchall()
        await con.close()
        return rows

    assert run(work) == [(1,)]


def test_a_cancelled_task_that_waits_its_turn_leaves_the_others_statement_alone():
    async def work():
        con = await aio.connect(":memory:")
        counting = (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
            "WHERE i < 1000000) SELECT count(*) FROM n"
        )
        first = asyncio.create_task(con.execute(counting))
        await asyncio.sleep(0.05)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(con.execute("SELECT 1"), 0.01)
        try:
            return await (await first).fetchall()
        finally:
            await con.close()

    assert run(work) == [(1000000,)]


def test_an_abandoned_cursor_is_closed_in_its_thread(path):
    async def work():
        con = await aio.connect(path)
        cursor = await con.execute("PREDICT USING m AS SELECT audio FROM calls")
        await cursor.fetchone()
        del cursor
        tables = "SELECT name FROM pragma_module_list WHERE name LIKE 'thanosql%'"
        left = await (await con.execute(tables)).fetchall()
        await con.close()
        return left

    assert run(work) == []


# The end of a program

PROGRAMS = {
    "connecting is cancelled": """
try:
    await asyncio.wait_for(aio.connect(path), 0.001)
except TimeoutError:
    pass
""",
    "connecting is cancelled before it begins": """
task = asyncio.create_task(aio.connect(path))
await asyncio.sleep(0)
task.cancel()
""",
    "connecting is refused": """
try:
    await aio.connect("/no/such/folder/x.db")
except thanosql.OperationalError:
    pass
""",
    "close is forgotten": """
con = await aio.connect(path)
await con.execute("SELECT 1")
""",
    "close is forgotten in an open transaction, with a result half read": """
con = await aio.connect(path)
await con.execute("INSERT INTO calls (audio, text) SELECT audio, text FROM calls")
cursor = await con.execute("PREDICT USING m AS SELECT id, audio FROM calls")
await cursor.fetchone()
""",
    "a query runs that is cancelled by the end": """
con = await aio.connect(path)
asyncio.create_task(con.execute(
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
    "SELECT count(*) FROM n"
))
await asyncio.sleep(0.1)
""",
    "close is cancelled": """
con = await aio.connect(path)
task = asyncio.create_task(con.close())
await asyncio.sleep(0)
task.cancel()
""",
}


@pytest.mark.parametrize("what", PROGRAMS)
def test_a_program_ends_where(what, path):
    body = PROGRAMS[what].strip().replace("\n", "\n    ")
    program = (
        "import asyncio, sys\nimport thanosql\nfrom thanosql import aio\n"
        f"async def main(path):\n    {body}\n"
        "asyncio.run(main(sys.argv[1]))\nprint('over')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, path],
        capture_output=True,
        text=True,
        timeout=120,  # only against hanging
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "over\n", "")
    with thanosql.connect(path) as again:
        assert again.execute("SELECT count(*) FROM calls").fetchone() == (8,)
    again.close()


def test_a_connection_that_is_cancelled_while_it_opens_is_closed(path):
    async def work():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(aio.connect(path, isolation_level="EXCLUSIVE"), 0)

    run(work)


def test_a_connection_that_nobody_holds_any_more_leaves_no_thread():
    async def work():
        await (await aio.connect(":memory:")).execute("SELECT 1")

    run(work)


def test_a_call_cancelled_while_it_waits_is_not_made():
    made = []
    began, go_on = threading.Event(), threading.Event()

    def hold():
        began.set()
        go_on.wait(10)

    async def work():
        con = await aio.connect(":memory:")
        first = asyncio.create_task(con.run(hold))
        await asyncio.to_thread(began.wait)
        second = asyncio.create_task(con.run(made.append, 1))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        go_on.set()
        await first
        await con.run(made.append, 2)
        await con.close()
        await asyncio.get_running_loop().shutdown_default_executor()

    run(work)
    assert made == [2]


def test_closing_in_the_middle_of_a_call_waits_for_it():
    async def work():
        con = await aio.connect(":memory:")
        call = asyncio.create_task(con.run(lambda: con.blocking.execute("SELECT 1")))
        await asyncio.sleep(0)
        await con.close()
        await call
        with pytest.raises(thanosql.ProgrammingError, match="closed"):
            await con.commit()

    run(work)
