"""Batches out to workers, rows back in order; bad rows, lost workers, an early end."""

import os
import signal
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from ray_nodes import PATIENCE
from tones import tones

import thanosql
from thanosql.cluster import crew, session, training

WORKERS = "workers=2, worker_cpus=1, batch_size=2"
CALLS = "SELECT id, audio FROM calls"


def predict(options="", query=CALLS):
    return f"SELECT id, predicted FROM (PREDICT USING m OPTIONS ({options}) AS {query})"


def waited_for(condition, seconds=PATIENCE):
    """Return what a condition returns once that is true; fail where it never is."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def files(folder, count=6, **other):
    """Return a query of files in a folder; other: row number -> another file's name."""
    for i in range(count):
        (folder / f"{i}.wav").write_bytes(tones("abcd"[i % 4], seed=i))
    names = [other.get(f"row{i + 1}", f"{i}.wav") for i in range(count)]
    rows = " UNION ALL ".join(f"SELECT {i + 1}, '{n}'" for i, n in enumerate(names))
    return f"WITH rows (id, audio) AS ({rows}) SELECT * FROM rows"


# The same as without workers


def test_rows_are_those_of_this_process_alone_in_the_same_order(archive):
    alone = archive.execute(predict("batch_size=2")).fetchall()
    assert archive.execute(predict(WORKERS)).fetchall() == alone
    assert len({text for _, text in alone}) > 1


@pytest.mark.thorough(seconds=10)
def test_an_adapter_goes_to_workers_along_with_its_base(archive):
    archive.execute("BEGIN")
    try:
        archive.execute(
            "BUILD MODEL a USING m OPTIONS (adapter=4, learning_rate=0.03, epochs=2, "
            "batch_size=4, validation=0.3) AS SELECT audio, text FROM calls"
        )
        adapted = predict(WORKERS).replace("USING m", "USING a")
        alone = predict("batch_size=2").replace("USING m", "USING a")
        expected = archive.execute(alone).fetchall()
        assert archive.execute(adapted).fetchall() == expected
        assert archive.execute(predict(WORKERS)).fetchall() != expected
    finally:
        archive.execute("ROLLBACK")


@pytest.mark.parametrize("statement", ["PREDICT", "EVALUATE"])
def test_cores_of_workers_without_workers_are_refused(archive, statement):
    with pytest.raises(thanosql.OptionError, match=r"worker_cpus .* set workers too"):
        archive.execute(
            f"{statement} USING m OPTIONS (worker_cpus=2) AS SELECT * FROM calls"
        )


def test_the_query_is_read_no_further_than_the_work_is_ahead(archive):
    read = []
    archive.create_function("noted", 1, lambda number: read.append(number) or number)
    query = (
        "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n LIMIT 9999) "
        "SELECT noted(i) AS id, audio FROM n JOIN calls ON id = 1 + i % 24"
    )
    rows = archive.execute(f"{predict(WORKERS, query)} LIMIT 3").fetchall()
    assert [number for number, _ in rows] == [0, 1, 2]
    assert len(read) < 100


def test_scores_are_those_of_this_process_alone(archive):
    def scores(options):
        cursor = archive.execute(
            f"EVALUATE USING m OPTIONS (batch_size=2, {options}) AS SELECT * FROM calls"
        )
        names = [column[0] for column in cursor.description]
        found = dict(zip(names, cursor.fetchone(), strict=True))
        del found["seconds"]
        return found

    assert scores("workers=2") == scores("workers=NULL")


def test_words_channels_and_details_come_back_whole(archive):
    options = "words=TRUE, details=TRUE, channel='each', vad=TRUE"
    query = "PREDICT USING m OPTIONS ({}) AS SELECT id, audio FROM calls WHERE id < 6"
    alone = archive.execute(query.format(options)).fetchall()
    assert archive.execute(query.format(f"{options}, workers=2")).fetchall() == alone


@pytest.mark.parametrize("root", [False, True])
def test_bad_rows_say_what_they_say_without_workers(
    archive, tmp_path, root, monkeypatch
):
    (tmp_path / "empty.wav").touch()
    outside = tmp_path.parent / "outside.wav"
    outside.write_bytes(tones("a"))
    query = files(tmp_path, row2="not_there.wav", row4="empty.wav", row5=str(outside))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(archive, "audio_root", str(tmp_path) if root else None)
    select = "SELECT id, predicted, error FROM (PREDICT USING m OPTIONS ({}) AS {})"
    ours = "on_error='null', batch_size=2"
    alone = archive.execute(select.format(ours, query)).fetchall()
    found = archive.execute(select.format(f"{ours}, workers=2", query)).fetchall()
    assert found == alone
    assert ("audio_root" in found[4][2]) if root else found[4][2] is None
    messages = []
    for options in ("batch_size=3", "batch_size=3, workers=2"):
        with pytest.raises(thanosql.AudioError) as raised:
            archive.execute(predict(options, query)).fetchall()
        messages.append(str(raised.value))
    assert messages[0] == messages[1]
    assert messages[0].startswith("row 2: cannot read 'not_there.wav'")


def test_a_file_that_workers_cannot_see_is_read_here(archive, tmp_path):
    # In a worker, the path leads to another file or to none.
    path = tmp_path / "gone.wav"
    path.write_bytes(tones("bad cab", seed=1))
    with path.open("rb") as only_here:
        path.unlink()
        for number in range(4_000, 4_004):
            os.dup2(only_here.fileno(), number)
        try:
            query = " UNION ALL ".join(
                f"SELECT {number} AS id, '/proc/self/fd/{number}' AS audio"
                for number in range(4_000, 4_004)
            )
            alone = archive.execute(predict("", query)).fetchall()
            assert archive.execute(predict(WORKERS, query)).fetchall() == alone
        finally:
            os.closerange(4_000, 4_004)


def test_an_error_of_hotwords_is_no_error_of_audio(archive):
    query = "SELECT id, audio, iif(id = 3, X'00', NULL) AS names FROM calls"
    with pytest.raises(thanosql.DataError, match=r"^row 3: its hotwords") as raised:
        archive.execute(
            predict("workers=2, hotwords_col='names', batch_size=1", query)
        ).fetchall()
    assert not isinstance(raised.value, thanosql.AudioError)


def test_what_a_model_cannot_do_is_said_by_its_error(archive):
    with pytest.raises(thanosql.OptionError, match="option prompt is for models"):
        archive.execute(predict("workers=2, prompt='a'")).fetchall()


# What fits


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("workers=3", "workers with 1 core 2 fit .* 2 cores and 0 GPUs; set fewer"),
        ("workers=1, worker_cpus=3", "with 3 cores 0 fit .* or a smaller worker_cpus"),
        ("workers=1, device='cuda'", "the cluster has no GPU"),
        ("workers=1, device='cuda:1'", "which Ray chooses; write 'cuda' or 'auto'"),
    ],
)
def test_what_the_cluster_has_no_room_for_is_an_error(archive, options, message):
    with pytest.raises(thanosql.OptionError, match=message):
        archive.execute(predict(options)).fetchall()


# Idle workers


@pytest.fixture
def other(ray, base):
    """Return another connection of this process, with model m and table calls."""
    connection = thanosql.connect(":memory:")
    connection.execute("CREATE TABLE calls (id INTEGER PRIMARY KEY, audio)")
    connection.execute("INSERT INTO calls (audio) VALUES (?)", (tones("bad"),))
    connection.commit()
    connection.execute("IMPORT MODEL m FROM ?", (str(base),))
    yield connection
    connection.close()


@pytest.mark.thorough(seconds=8)
def test_idle_workers_serve_another_connection_and_give_way_to_its_own(
    archive, other, worker_pids, monkeypatch
):
    monkeypatch.setattr(session, "_KEPT_FOR", 600.0)
    one = "workers=1, worker_cpus=1"
    archive.execute(predict(one)).fetchall()
    (idle,) = waited_for(lambda: len(found := worker_pids()) == 1 and found)
    alone = other.execute(predict()).fetchall()
    assert other.execute(predict(one)).fetchall() == alone
    assert worker_pids() == [idle]
    larger = "workers=1, worker_cpus=2"  # has no room beside them
    assert other.execute(predict(larger)).fetchall() == alone
    waited_for(lambda: idle not in worker_pids())


@pytest.mark.thorough(seconds=12)
def test_idle_workers_end_by_themselves_and_with_their_connection(
    archive, other, worker_pids, monkeypatch
):
    other.execute(predict(WORKERS)).fetchall()
    assert worker_pids()
    other.close()
    waited_for(lambda: not worker_pids())
    monkeypatch.setattr(session, "_KEPT_FOR", 0.1)
    rows = archive.execute(predict(WORKERS)).fetchall()
    waited_for(lambda: not worker_pids())
    assert archive.execute(predict(WORKERS)).fetchall() == rows


@pytest.mark.thorough(seconds=4)
@pytest.mark.parametrize("statement", ["PREDICT", "BUILD"])
def test_cores_that_others_keep_end_the_wait_for_workers(
    ray, other, monkeypatch, statement
):
    for module in (crew, training):
        monkeypatch.setattr(module, "STARTS_WITHIN", 1.0)
    other.cluster().ray()
    other.cluster().take_workers(None, 0)  # idle ones end
    group = ray.util.placement_group([{"CPU": 2}])
    ray.get(group.ready())
    waited_for(lambda: not ray.available_resources().get("CPU"))
    sql = predict(WORKERS)
    if statement == "BUILD":
        sql = (
            "BUILD MODEL n USING m OPTIONS (workers=2, validation=0, batch_size=2) "
            "AS SELECT audio, 'bad' AS text FROM calls, (VALUES (1), (2), (3))"
        )
    try:
        with pytest.raises(thanosql.OperationalError, match=r"each .* and 0 cores"):
            other.execute(sql).fetchall()
    finally:
        ray.util.remove_placement_group(group)


# The end


@pytest.mark.thorough(seconds=20)
@pytest.mark.parametrize("how", ["limit", "close", "interrupt"])
def test_an_early_end_stops_the_work_everywhere(archive, tmp_path, worker_pids, how):
    long = tmp_path / "long.wav"
    long.write_bytes(tones("abcdefgh " * 400))  # ten minutes
    query = (
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "  # no end
        f"SELECT i AS id, iif(i = 1, audio, '{long}') AS audio FROM n, calls "
        "WHERE calls.id = 1"
    )
    statement = predict("workers=2, batch_size=1", query)
    cursor = archive.cursor()
    if how == "limit":
        assert len(cursor.execute(f"{statement} LIMIT 1").fetchall()) == 1
    elif how == "close":
        with closing(cursor):
            cursor.execute(statement).fetchone()
    else:

        def interrupt():
            try:
                waited_for(lambda: _opened(worker_pids(), long))
            finally:
                archive.interrupt()

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(thanosql.OperationalError, match="interrupted"):
            cursor.execute(statement).fetchall()
        thread.join()
    waited_for(lambda: not _opened(worker_pids(), long))
    assert archive.execute(predict(WORKERS)).fetchone()


# Lost workers


@pytest.mark.thorough(seconds=15)
def test_rows_are_the_same_if_a_worker_is_killed(archive, worker_pids):
    query = f"{CALLS} UNION ALL {CALLS} UNION ALL {CALLS}"
    alone = archive.execute(predict("", query)).fetchall()
    cursor = archive.execute(predict(WORKERS, query))
    rows = [cursor.fetchone()]
    os.kill(worker_pids()[0], signal.SIGKILL)
    assert rows + cursor.fetchall() == alone


@pytest.mark.thorough(seconds=40)
@pytest.mark.parametrize("on_error", ["null", "raise"])
def test_a_recording_that_ends_its_workers_is_a_bad_row_and_no_other(
    archive, tmp_path, worker_pids, on_error, monkeypatch
):
    killer = tmp_path / "killer.wav"
    killer.write_bytes(tones("abcdefgh " * 400))
    query = files(tmp_path, row3=killer.name)
    query = query.replace(
        "SELECT * FROM rows", f"SELECT id, '{tmp_path}/' || audio AS audio FROM rows"
    )
    is_over = threading.Event()
    killed = set()  # one may be seen again before it has ended

    def kill():
        while not is_over.is_set():
            for pid in _opened(worker_pids(), killer):
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        statement = (
            "SELECT id, predicted IS NULL FROM (PREDICT USING m OPTIONS (workers=2, "
            f"batch_size=4, on_error='{on_error}') AS {query})"
        )
        if on_error == "raise":
            with pytest.raises(thanosql.AudioError, match=r"^row 3: each of the 2"):
                archive.execute(statement).fetchall()
        else:
            rows = archive.execute(statement).fetchall()
            assert rows == [(i, i == 3) for i in range(1, 7)]
    finally:
        is_over.set()
        thread.join()
    assert len(killed) == 3  # in its batch, and twice alone


def _opened(pids, path):
    """Return the processes that have a file open."""
    found = []
    for pid in pids:
        try:
            links = [f.readlink() for f in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:  # it ends
            continue
        if path in links:
            found.append(pid)
    return found
