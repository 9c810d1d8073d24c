"""A program as a user would write and type-check it; see test_typing.py."""

from __future__ import annotations

from typing import Any

import thanosql


def transcribe(path: str, audio: list[bytes]) -> dict[int, str]:
    con = thanosql.connect(path, timeout=10, detect_types=thanosql.PARSE_DECLTYPES)
    con.row_factory = thanosql.Row
    with con:
        con.execute("CREATE TABLE IF NOT EXISTS calls (id INTEGER PRIMARY KEY, audio)")
        cursor: thanosql.Cursor = con.cursor()
        cursor.executemany(
            "INSERT INTO calls (audio) VALUES (?)", [(a,) for a in audio]
        )
        inserted: int = cursor.rowcount
    assert inserted == len(audio)
    texts: dict[int, str] = {}
    try:
        for row in con.execute(
            "PREDICT USING m OPTIONS (batch_size=:n) AS SELECT * FROM calls", {"n": 8}
        ):
            texts[row["id"]] = row["predicted"]
    except thanosql.ModelNotFoundError as error:
        raise SystemExit(str(error)) from error
    except (thanosql.OperationalError, con.DataError):
        con.rollback()
    first: Any = con.execute("SELECT 1").fetchone()
    rows: list[Any] = con.execute("SELECT ?", [first[0]]).fetchmany(2)
    kind = con.execute("SELECT id FROM calls").description
    assert kind is not None
    assert kind[0][1] == thanosql.NUMBER
    assert rows
    con.create_function("twice", 1, lambda x: x * 2, deterministic=True)
    with con.blobopen("calls", "audio", 1, readonly=True) as blob:
        head: bytes = blob.read(4)
    assert head
    con.close()
    return texts


async def count(path: str) -> int:
    from thanosql import aio

    con = await aio.connect(path)
    async with con:
        cursor = await con.execute("SELECT * FROM calls")
        counted = 0
        async for _row in cursor:
            counted += 1
    await con.close()
    return counted
