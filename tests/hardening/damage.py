"""Seeded damage: bytes in, damaged bytes out; the same for the same seed."""

from __future__ import annotations

import contextlib
import faulthandler
import resource
import signal
from pathlib import Path


def damaged(content: bytes, random) -> tuple[str, bytes]:
    """Return what was done to the bytes, and what is left of them."""
    kind = random.choice(("cut", "flip", "flips", "zeros", "noise", "splice", "head"))
    data, size = bytearray(content), len(content)
    # Headers are where a parser decides: half of the damage is within 256 bytes.
    at = random.randrange(min(size, 256) if random.random() < 0.5 else size)
    if kind == "cut":
        del data[at:]
    elif kind == "flip":
        data[at] ^= 1 << random.randrange(8)
    elif kind == "flips":
        for _ in range(random.randrange(2, 64)):
            data[random.randrange(size)] ^= 1 << random.randrange(8)
    elif kind == "zeros":
        length = min(random.randrange(1, 512), size - at)
        data[at : at + length] = bytes(length)
    elif kind == "noise":
        length = min(random.randrange(1, 512), size - at)
        data[at : at + length] = random.randbytes(length)
    elif kind == "splice":  # a stretch twice, so that all behind it moves
        data[at:at] = data[at : at + random.randrange(1, 64)]
    else:  # a length field that claims far too much
        length = random.choice((2, 4, 8))
        data[at : at + length] = random.choice((b"\xff", b"\x7f")) * length
    return f"{kind} at {at}", bytes(data)


@contextlib.contextmanager
def bounded(seconds: int, memory: int):
    """Bound the address space of a block, beyond what is mapped before it.

    seconds: after which it hangs, and ends in a TimeoutError; far more than it takes.
    """

    def too_long(*_) -> None:
        raise TimeoutError

    mapped = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = mapped * resource.getpagesize() + memory
    signal.signal(signal.SIGALRM, too_long)
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    signal.alarm(seconds)
    faulthandler.dump_traceback_later(3 * seconds, exit=True)  # stuck outside Python
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, before)


def content(connection) -> list[object]:
    """Return all that a database holds, for comparing.

    But for the highest ids there have been, which outlive what had them.
    """
    database = connection.apsw
    schema = database.execute(
        "SELECT type, name, sql FROM sqlite_schema ORDER BY type, name"
    ).fetchall()
    rows = [
        sorted(database.execute(f'SELECT * FROM "{name}"'), key=repr)
        for kind, name, _ in schema
        if kind == "table" and name != "sqlite_sequence"
    ]
    return [schema, rows]
