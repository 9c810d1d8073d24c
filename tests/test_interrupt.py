"""Ctrl-C in a real process, and `Connection.interrupt` at any moment."""

import random
import subprocess
import sys
import threading

import pytest
from tones import tones

import thanosql
from thanosql import speech
from thanosql.statements import PredictOptions

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


_COLD = """
import sys, threading
import thanosql

con = thanosql.connect(sys.argv[1])
con.execute("CREATE TABLE t (audio, text)")

def interrupt_at(frame, event, _):
    if event == "call" and frame.f_code.co_name == sys.argv[2]:
        sys.setprofile(None)
        thread = threading.Thread(target=con.interrupt)
        thread.start()
        thread.join()

sys.setprofile(interrupt_at)
try:
    con.execute("INSERT INTO t PREDICT USING m AS SELECT audio FROM calls")
except thanosql.OperationalError as error:
    print(error, error.sqlite_errorname)
print(con.execute("SELECT count(*) FROM t").fetchone(), "torch" in sys.modules)
"""


@pytest.mark.parametrize(
    ("function", "loads"),
    [("find_route", False), ("read_first", False), ("open_stored", True)],
)
def test_a_first_statement_is_interrupted_while_it_imports_and_loads(
    calls, function, loads
):
    path = calls.execute("PRAGMA database_list").fetchone()[2]
    done = subprocess.run(
        [sys.executable, "-c", _COLD, path, function],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.splitlines() == [
        "interrupted SQLITE_INTERRUPT",
        f"(0,) {loads}",
    ], done.stderr


class Moments:
    """Counts the calls in this package, in this thread; at one of them, interrupts.

    The first is that of `execute`, which has not begun yet.
    """

    def __init__(self, connection, at=None):
        self.connection = connection
        self.cursor = connection.cursor()
        self.at = at
        self.count = 0

    def __call__(self, frame, event, _argument):
        if event != "call" or "thanosql" not in frame.f_code.co_filename:
            return
        self.count += 1
        if self.count == self.at:
            thread = threading.Thread(target=self.connection.interrupt)
            thread.start()
            thread.join()

    def execute(self, sql):
        """Execute a statement and fetch its rows; return what interrupted it."""
        sys.setprofile(self)
        try:
            self.cursor.execute(sql)
            if self.cursor.description:
                self.cursor.fetchall()
        except thanosql.OperationalError as error:
            return error
        else:
            return None
        finally:
            sys.setprofile(None)


FROM_CALLS = "OPTIONS (batch_size=3) AS SELECT id, audio, text FROM calls"
READING = {
    "predict": f"PREDICT USING m {FROM_CALLS}",
    "evaluate": f"EVALUATE USING m {FROM_CALLS}",
    "join": f"SELECT p.predicted FROM calls JOIN (PREDICT USING m {FROM_CALLS}) AS p",
}
WRITING = {
    "insert": f"INSERT INTO t SELECT predicted FROM (PREDICT USING m {FROM_CALLS})",
    "create": f"CREATE TABLE t2 AS PREDICT USING m {FROM_CALLS}",
    "update": "UPDATE calls SET text = p.predicted FROM "
    f"(PREDICT USING m {FROM_CALLS}) AS p WHERE p.id = calls.id",
}
EFFECTS = {
    "build": "BUILD MODEL n USING m OPTIONS (epochs=2, batch_size=4, overwrite=TRUE) "
    "AS SELECT * FROM calls",
    "check": "BUILD MODEL n USING m OPTIONS (check_only=TRUE, batch_size=4) "
    "AS SELECT * FROM calls",
    "get": "GET MODEL TinyEn OPTIONS (overwrite=TRUE)",
    "drop": "DROP MODEL m",
    "copy": "COPY t2 OPTIONS (if_exists='replace') FROM 'rows.csv'",
}


def content(connection):
    """Return all that a statement here may change."""
    tables = connection.execute(
        "SELECT name FROM sqlite_schema WHERE name IN ('t', 't2', 'calls')"
    ).fetchall()
    rows = {
        name: connection.execute(f"SELECT * FROM {name}").fetchall()
        for (name,) in tables
    }
    return rows, connection.execute("SELECT name FROM (LIST MODELS)").fetchall()


def undo(connection):
    """Undo what a statement here does."""
    if connection.in_transaction:
        connection.rollback()
    connection.execute("DROP TABLE IF EXISTS t2")
    for name in ("n", "TinyEn"):
        connection.execute(f"DROP MODEL IF EXISTS {name}")


@pytest.fixture
def ready(calls, tmp_path, monkeypatch):
    """Return a connection, which finds the file that COPY reads."""
    monkeypatch.chdir(tmp_path)
    lines = "".join(f"{i},text {i}\n" for i in range(40))
    (tmp_path / "rows.csv").write_text(f"id,text\n{lines}")
    calls.execute("CREATE TABLE t (text)")
    return calls


@pytest.mark.parametrize("is_reading", [False, True])
@pytest.mark.parametrize("kind", [*READING, *WRITING, *EFFECTS])
def test_an_interrupt_at_any_moment_leaves_all_or_nothing(ready, kind, is_reading):
    sql = (READING | WRITING | EFFECTS)[kind]
    before = content(ready)
    for _ in range(2):  # the first imports and loads
        if kind == "drop":  # which cannot be undone otherwise
            ready.execute("BEGIN")
        moments = Moments(ready)
        assert moments.execute(sql) is None
        after = content(ready)
        undo(ready)
        assert content(ready) == before
    draw = random.Random(f"{kind} {is_reading}")
    count = moments.count
    drawn = [2, 3, count // 2, *(draw.randrange(2, count) for _ in range(9))]
    interrupted, ended = [], []
    for at in drawn:
        if kind == "drop":
            ready.execute("BEGIN")
        reading = ready.execute("SELECT * FROM calls") if is_reading else None
        error = Moments(ready, at).execute(sql)
        if reading is not None:
            reading.close()  # until then SQLite lets nothing run, not even ROLLBACK
            if error is not None and ready.in_transaction:
                ready.rollback()
        found = content(ready)
        if error is None:
            ended.append(at)
            assert found == after
        else:
            interrupted.append(at)
            assert str(error).endswith("interrupted") or "interrupted;" in str(error)
            # What a clause has done by itself is not undone by what follows.
            assert found == before or (kind in EFFECTS and at > 0.9 * count)
        undo(ready)
        assert content(ready) == before
    # Only one that comes at the very end is not heeded.
    assert min(ended, default=count) > max(interrupted)


def test_an_interrupt_between_two_batches_ends_the_reading(calls):
    cursor = calls.execute(f"PREDICT USING m {FROM_CALLS}")
    cursor.fetchone()
    thread = threading.Thread(target=calls.interrupt)
    thread.start()
    thread.join()
    with pytest.raises(thanosql.OperationalError, match="interrupted"):
        cursor.fetchall()
    assert len(calls.execute(f"PREDICT USING m {FROM_CALLS}").fetchall()) == 8


def test_a_long_recording_can_be_stopped_before_its_end(base):
    recognizer = speech.open_base(str(base), lambda: ())
    options = PredictOptions(batch_size=1, chunk_seconds=1.5)
    told = []

    def stop(*stage):
        told.append(stage)
        if len(told) == 3:
            raise thanosql.OperationalError

    recordings = [speech.Recording(tones("head bed " * 8))]
    found = speech.transcribe(recognizer, recordings, options, None, stop)
    assert next(found) == []
    with pytest.raises(thanosql.OperationalError):
        list(found)


def test_a_long_search_can_be_stopped_after_each_window(base):
    recognizer = speech.open_base(str(base), lambda: ())
    options = PredictOptions(batch_size=64, chunk_seconds=1.5, beam_size=4)
    told = []
    recordings = [speech.Recording(tones("head bed " * 8))]
    found = speech.transcribe(
        recognizer, recordings, options, None, lambda *stage: told.append(stage)
    )
    *windows, (_,) = found
    assert windows == [[]] * len(windows)
    assert len(told) - 2 == len(windows) > 3


def test_an_interrupt_before_a_statement_does_not_stop_it(calls):
    calls.interrupt()
    assert len(calls.execute(f"PREDICT USING m {FROM_CALLS}").fetchall()) == 8
    calls.interrupt()
    statement = "BUILD MODEL n USING m OPTIONS (epochs=1) AS SELECT * FROM calls"
    assert len(calls.execute(statement).fetchall()) == 1
