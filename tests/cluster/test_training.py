from __future__ import annotations

import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from tones import spoken
from toys import parakeet

import thanosql
from thanosql.cluster.rows import SharedRows, shared_rows

BUILD = (
    "BUILD MODEL m USING '{base}' OPTIONS (epochs={epochs}, batch_size=8, "
    "learning_rate={rate}, overwrite=TRUE{more}) AS SELECT * FROM s"
)


@pytest.fixture(scope="module")
def tones_base(tmp_path_factory):
    directory = tmp_path_factory.mktemp("base")
    torch.manual_seed(1)
    parakeet(directory)
    return directory


@pytest.fixture
def connection(tmp_path):
    connection = thanosql.connect(tmp_path / "s.db", audio_root=tmp_path)
    connection.execute("CREATE TABLE s (audio, text TEXT)")
    rows = [[audio, text] for audio, text in spoken(40, letters="abc")]
    for number in range(0, 40, 3):  # some as files
        (tmp_path / f"{number}.wav").write_bytes(rows[number][0])
        rows[number][0] = f"{number}.wav"
    connection.executemany("INSERT INTO s VALUES (?, ?)", rows)
    connection.commit()
    yield connection
    connection.close()


@pytest.fixture
def trainings(tmp_path):
    """Return the folder of the database's trainings."""
    return Path(f"{tmp_path / 's.db'}-thanosql")


@pytest.fixture
def build(connection, tones_base):
    """Return a function that trains, and returns what is comparable of the epochs."""

    def built(more="", epochs=8, rate=0.003, validation="validation=0.2"):
        more = f", {validation}{more}"
        sql = BUILD.format(base=tones_base, epochs=epochs, rate=rate, more=more)
        columns = (0, 1, 2, 3, 4, 5, 6, 7, 9)  # all but the seconds that it took
        return [[row[i] for i in columns] for row in connection.execute(sql)]

    return built


def same(epochs, expected):
    assert len(epochs) == len(expected)
    for found, wanted in zip(epochs, expected, strict=True):
        assert found == pytest.approx(wanted, abs=1e-4)


def when_checkpointed(folder, do):
    """Have `do` called in a thread once the training has its first checkpoint."""

    def wait():
        while not [*folder.glob("*/checkpoint.safetensors")]:
            time.sleep(0.01)
        do()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_more_workers_than_a_batch_has_utterances_are_refused(build):
    with pytest.raises(thanosql.OptionError, match=r"workers is 9.* batch has 8"):
        build(", workers=9")


@pytest.mark.parametrize("statement", ["BUILD MODEL m", "FIT MODEL n"])
def test_cores_of_workers_without_workers_are_refused(archive, statement):
    with pytest.raises(thanosql.OptionError, match=r"worker_cpus .* set workers too"):
        archive.execute(
            f"{statement} USING m OPTIONS (worker_cpus=2) AS SELECT * FROM calls"
        )


@pytest.mark.thorough(seconds=15)
def test_rows_in_the_object_store_are_as_they_were(ray):
    draw = random.Random(0)
    rows = [
        (
            draw.choice([draw.randbytes(draw.randrange(90_000)), "a.wav", None, 7]),
            str(i),
        )
        for i in range(900)
    ]
    shared = shared_rows(ray, rows, lambda *_: None)
    assert len(shared) == 900
    assert len(shared.references) > 3
    places = draw.sample(range(900), 900)
    assert [shared[i] for i in places] == [rows[i] for i in places]
    assert shared[5:7] == rows[5:7]
    with pytest.raises(IndexError):
        shared[900]
    assert [*SharedRows([], [], 0)] == []


@pytest.mark.thorough(seconds=40)
def test_workers_learn_what_one_process_does(ray, connection, build):
    expected = build()
    same(build(", workers=2"), expected)
    ((options,),) = connection.execute(
        "SELECT options FROM thanosql_models WHERE name = 'm'"
    ).fetchall()
    assert '"workers": 2' in options
    texts = "SELECT text, predicted FROM (PREDICT USING m AS SELECT * FROM s)"
    correct = [text == predicted for text, predicted in connection.execute(texts)]
    assert sum(correct) > 20
    fit = "FIT MODEL n USING m OPTIONS (epochs=2, workers=2) AS SELECT * FROM s"
    assert [row[0] for row in connection.execute(fit)] == [1, 2]
    query = "validation='SELECT * FROM s WHERE rowid > 30'"
    with pytest.warns(thanosql.Warning, match="trained on too"):
        expected = build(validation=query, epochs=8)
    with pytest.warns(thanosql.Warning, match="trained on too"):
        same(build(", workers=1", validation=query, epochs=8), expected)


@pytest.mark.thorough(seconds=30)
def test_workers_train_an_adapter_as_one_process_does(ray, connection, build):
    build()
    base = connection.execute("SELECT sha256 FROM thanosql_models").fetchone()

    def adapted(statement, name, more=""):
        sql = (
            f"{statement} OPTIONS (epochs=3, batch_size=8, learning_rate=0.03, "
            f"validation=0.2{more}) AS SELECT * FROM s"
        )
        epochs = [row[:6] for row in connection.execute(sql)]
        facts = dict(connection.execute(f"DESCRIBE MODEL {name}").fetchall())
        assert (facts["adapter_of"], facts["base_sha256"]) == ("m", *base)
        return epochs, facts["rank"], facts["bytes"]

    expected, *sizes = adapted("BUILD MODEL a USING m", "a", ", adapter=4")
    found, *others = adapted("BUILD MODEL b USING m", "b", ", adapter=4, workers=2")
    same(found, expected)
    assert others == sizes
    # FIT goes on with the adapter, as an adapter.
    expected, *sizes = adapted("FIT MODEL c USING a", "c")
    found, *others = adapted("FIT MODEL d USING a", "d", ", workers=2")
    same(found, expected)
    assert others == sizes
    heard = "SELECT predicted FROM (PREDICT USING {} AS SELECT audio FROM s)"
    texts = [connection.execute(heard.format(n)).fetchall() for n in "mcd"]
    assert texts[0] != texts[1] == texts[2]
    unmoved = "SELECT sha256 FROM thanosql_models WHERE name = 'm'"
    assert connection.execute(unmoved).fetchone() == base


@pytest.mark.thorough(seconds=40)
def test_an_interrupted_training_goes_on_with_another_number(
    ray, connection, build, trainings
):
    expected = build(epochs=60)
    connection.execute("DROP MODEL m")
    thread = when_checkpointed(trainings, connection.interrupt)
    with pytest.raises(thanosql.OperationalError, match="interrupted") as caught:
        build(", workers=2", epochs=60)
    assert "run the statement again with resume=True" in caught.value.__notes__[0]
    thread.join()
    same(build(", resume=TRUE", epochs=60), expected)
    runs = "SELECT status FROM thanosql_runs ORDER BY id"
    assert [status for (status,) in connection.execute(runs)] == ["stored", "stored"]


@pytest.mark.thorough(seconds=60)
@pytest.mark.parametrize("which", [0, 1])
def test_a_training_goes_on_without_a_lost_worker(
    ray, build, trainings, worker_pids, which
):
    expected = build(epochs=60)
    killed = []

    def kill():
        pids = sorted(worker_pids("ray::Trainer"))
        killed.append(pids[which])
        os.kill(pids[which], signal.SIGKILL)

    thread = when_checkpointed(trainings, kill)
    with pytest.warns(thanosql.Warning, match="a worker of the training is lost"):
        epochs = build(", workers=2", epochs=60)
    thread.join()
    assert len(killed) == 1
    same(epochs, expected)


@pytest.mark.thorough(seconds=40)
def test_a_training_whose_workers_die_again_and_again_ends(
    ray, build, trainings, worker_pids
):
    is_over = threading.Event()
    killed = set()

    def kill():
        while not is_over.wait(0.2):
            alive = set(worker_pids("ray::Trainer")) - killed
            if len(alive) == 2:  # both have begun
                killed.update(alive)
                os.kill(min(alive), signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        with (
            pytest.warns(thanosql.Warning, match="a worker of the training is lost"),
            pytest.raises(thanosql.OperationalError, match="lost again and again"),
        ):
            build(", workers=2", epochs=100_000)
    finally:
        is_over.set()
        thread.join()
    assert len(killed) >= 6  # three times two, more if an epoch ends between


@pytest.mark.thorough(seconds=20)
def test_what_a_worker_raises_ends_the_statement(ray, build, trainings):
    with pytest.raises(thanosql.TrainingError, match="the loss became"):
        build(", workers=2", epochs=40, rate=1e30)
    assert not [*trainings.glob("*/identity.json")]


@pytest.mark.thorough(seconds=20)
def test_a_time_limit_ends_all_workers_at_the_same_step(ray, build):
    epochs = build(", time_limit=1.5, workers=2", epochs=100_000)
    assert 0 < len(epochs) < 100_000
