"""Ctrl-C, in a real process."""

import subprocess
import sys

import pytest

_SCRIPT = """
import os, signal, sys, threading
import thanosql
from thanosql.execution.progress import Progress

statement, stage = sys.argv[2:]
con = thanosql.connect(sys.argv[1])
transcripts = "SELECT id, predicted FROM (PREDICT USING m AS SELECT * FROM calls)"
before = con.execute(transcripts).fetchall()
show = Progress.__call__

def interrupt_once(self, at, *numbers, **facts):
    if at == stage:
        Progress.__call__ = show
        os.kill(os.getpid(), signal.SIGINT)

Progress.__call__ = interrupt_once
try:
    con.execute(statement).fetchall()
except KeyboardInterrupt:
    print("interrupted", threading.active_count())
after = con.execute(transcripts).fetchall()
print(after == before, con.in_transaction)
print(con.execute("PRAGMA integrity_check").fetchall())
print(con.execute("SELECT name FROM pragma_module_list WHERE name LIKE 'thanosql%'")
      .fetchall())
"""


BUILD = (
    "BUILD MODEL m USING m OPTIONS (overwrite=TRUE, epochs=50, validation=0.3) "
    "AS SELECT * FROM calls"
)
PREDICT = "PREDICT USING m OPTIONS (batch_size=2) AS SELECT audio FROM calls"


@pytest.mark.parametrize(
    ("statement", "stage"),
    [
        (BUILD, "examine"),
        (BUILD, "train"),
        (BUILD, "validate"),
        (PREDICT, "transcribe"),
    ],
)
def test_an_interrupt_leaves_the_earlier_model_and_no_thread(calls, statement, stage):
    path = calls.execute("PRAGMA database_list").fetchone()[2]
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, path, statement, stage],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.splitlines() == [
        "interrupted 1",
        "True False",
        "[('ok',)]",
        "[]",
    ], done.stderr
