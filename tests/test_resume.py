"""Trainings that break off, in this process: what is kept, and how they go on."""

import contextlib
import json
import os
import threading
import time
from pathlib import Path

import apsw
import pytest
from counting import statements

import thanosql
from thanosql import speech
from thanosql.execution.clauses import training
from thanosql.execution.progress import Progress
from thanosql.speech.training import checkpoint
from thanosql.store import runs as ledgers

BUILD = (
    "BUILD MODEL new USING '{base}' "
    "OPTIONS ({more} epochs=4, batch_size=3, learning_rate=0.003, validation=0.3) "
    "AS SELECT * FROM calls"
)


class Broken(Exception):
    """What a training is broken off with here."""


@pytest.fixture
def broken(monkeypatch):
    """Return a function: what `speech.train` is told to raise after so many epochs."""
    train = speech.train

    def breaking(after, error=Broken):
        def broken_off(*arguments):
            for number, epoch in enumerate(train(*arguments), start=1):
                yield epoch
                if number == after:
                    raise error

        monkeypatch.setattr(speech, "train", broken_off)

    return breaking


@pytest.fixture
def whole(monkeypatch):
    """Wait for each checkpoint, so that what is kept does not hang on the disk."""
    save = checkpoint.Checkpoints.save

    def waiting(self, *arguments):
        save(self, *arguments)
        self._wait()

    monkeypatch.setattr(checkpoint.Checkpoints, "save", waiting)
    return monkeypatch


def built(connection, base, more="", **parameters):
    statement = BUILD.format(base=base, more=more)
    return connection.execute(statement, parameters).fetchall()


def digest(connection, name="new"):
    return connection.execute(
        "SELECT sha256 FROM thanosql_models WHERE name = ?", (name,)
    ).fetchone()[0]


def runs(connection):
    connection.execute("LIST MODELS").fetchall()  # which finds out who was killed
    return connection.execute(
        "SELECT status, (SELECT count(*) FROM thanosql_epochs WHERE run_id = id) "
        "FROM thanosql_runs"
    ).fetchall()


def folder(connection):
    path = connection.execute("PRAGMA database_list").fetchone()[2]
    return Path(f"{path}-thanosql")


OPTIONS = {
    "plain": "",
    "speeds": "speed_perturbation=TRUE,",
    "no cache": "feature_cache=0,",
    "trained encoder": "freeze_feature_encoder=FALSE,",
    "noises, masks": "noise_perturbation=TRUE, spec_augment=TRUE,",
    "steps": "max_steps=7,",
    "checkpointing": "gradient_checkpointing=TRUE,",
    "bf16": "precision='bf16',",
}


@pytest.mark.parametrize("more", OPTIONS.values(), ids=OPTIONS)
def test_a_resumed_training_ends_as_an_uninterrupted_one(
    calls, base, broken, whole, more
):
    epochs = built(calls, base, more)
    expected = digest(calls)
    calls.execute("DROP MODEL new")
    for after, resume in ((1, ""), (2, "resume=TRUE,")):
        broken(after)
        with pytest.raises(Broken) as caught:
            built(calls, base, more + resume)
        assert "resume=True" in caught.value.__notes__[0]
        whole.undo()
    resumed = built(calls, base, more + "resume=TRUE,")
    assert digest(calls) == expected
    # All but the seconds that an epoch took.
    assert [(*e[:8], e[9]) for e in resumed] == [(*e[:8], e[9]) for e in epochs]
    assert not folder(calls).exists()
    assert [status for status, _ in runs(calls)] == ["stored", "stored"]


def test_what_is_resumed_is_not_trained_again(calls, base, broken, whole, monkeypatch):
    broken(2)
    with pytest.raises(Broken):
        built(calls, base)
    whole.undo()
    steps = []
    show = Progress.__call__

    def counting(self, stage, *numbers, **facts):
        if stage == "train":
            steps.append(facts["epoch"])
        show(self, stage, *numbers, **facts)

    monkeypatch.setattr(Progress, "__call__", counting)
    assert [row[0] for row in built(calls, base, "resume=TRUE,")] == [1, 2, 3, 4]
    assert set(steps) == {3, 4}
    assert runs(calls) == [("stored", 4)]


def test_a_time_limit_that_is_over_at_once_leaves_one_step(calls, base, broken, whole):
    broken(1)
    with pytest.raises(Broken):
        built(calls, base, "time_limit=1e-9,")
    whole.undo()
    whole.setattr(
        "thanosql.speech.training.loop.Loop.score", lambda *_: pytest.fail("again")
    )
    ((epoch, steps, *_, kept),) = built(calls, base, "time_limit=1e-9, resume=TRUE,")
    assert (epoch, steps, kept) == (1, 1, 1)


def test_resume_begins_at_the_start_where_there_is_nothing_to_go_on_with(calls, base):
    with pytest.warns(thanosql.Warning, match="nothing to resume for 'new': it is tr"):
        assert len(built(calls, base, "resume=TRUE,")) == 4
    assert not folder(calls).exists()


@pytest.mark.parametrize(
    ("change", "more", "says"),
    [
        ("", "seed=3,", "its option seed was 0, not 3"),
        ("UPDATE calls SET text = 'bag' WHERE id = 5", "", "row 5 was another"),
        ("DELETE FROM calls WHERE id = 8", "", "it had 8 rows, not 7"),
    ],
)
def test_another_training_of_that_name_is_not_gone_on_with(
    calls, base, broken, whole, change, more, says
):
    broken(2)
    with pytest.raises(Broken):
        built(calls, base)
    whole.undo()
    if change:
        calls.execute(change)
        calls.commit()
    with pytest.raises(thanosql.OperationalError, match=says) as caught:
        built(calls, base, more + "resume=TRUE,")
    assert "resume=False" in str(caught.value)
    built(calls, base, more)
    assert not folder(calls).exists()
    assert [status for status, _ in runs(calls)] == ["failed", "stored"]


def test_options_that_change_no_weight_may_change(calls, base, broken, whole):
    broken(2)
    with pytest.raises(Broken):
        built(calls, base)
    whole.undo()
    built(calls, base, "resume=TRUE, feature_cache=0, overwrite=TRUE,")
    assert runs(calls) == [("stored", 4)]


def test_a_base_that_is_another_now_is_not_gone_on_with(calls, broken, whole):
    broken(2)
    statement = "FIT MODEL new USING m OPTIONS ({} epochs=4) AS SELECT * FROM calls"
    with pytest.raises(Broken):
        calls.execute(statement.format(""))
    whole.undo()
    calls.execute("FIT MODEL m USING m OPTIONS (epochs=1) AS SELECT * FROM calls")
    with pytest.raises(thanosql.OperationalError, match="the base 'm' was not the"):
        calls.execute(statement.format("resume=TRUE,"))


def test_a_trained_model_that_cannot_be_stored_is_kept(calls, base, monkeypatch):
    built(calls, base)
    expected = digest(calls)
    calls.execute("DROP MODEL new")
    monkeypatch.setattr(training, "PATIENCE", 0)
    calls.apsw.set_busy_timeout(0)
    other = apsw.Connection(calls.apsw.filename)
    train = speech.train

    def locked_at_the_end(*arguments):
        yield from train(*arguments)
        other.execute("BEGIN IMMEDIATE")

    monkeypatch.setattr(speech, "train", locked_at_the_end)
    with pytest.raises(thanosql.OperationalError, match="resume=True, which stores it"):
        built(calls, base)
    other.execute("ROLLBACK")
    other.close()
    # The ledger could not be written to, so the folder has the word.
    assert runs(calls)[-1][0] == "failed"

    def untrained(*arguments):
        epochs = list(train(*arguments))
        assert len(epochs) == 4
        yield from epochs

    monkeypatch.setattr(speech, "train", untrained)
    monkeypatch.setattr(
        "thanosql.speech.training.loop.Loop.run_epoch",
        lambda _: pytest.fail("trained again"),
    )
    built(calls, base, "resume=TRUE,")
    assert digest(calls) == expected
    assert not folder(calls).exists()


def half_read(connection):
    """Return a cursor on the calls that has rows left, in WAL mode."""
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    cursor = connection.execute("SELECT id FROM calls")
    cursor.fetchone()
    return cursor


def test_a_model_is_stored_while_a_cursor_is_half_read(calls, base):
    cursor = half_read(calls)
    assert len(built(calls, base)) == 4
    assert len(cursor.fetchall()) == 7
    assert runs(calls) == [("stored", 4)]


def test_what_reads_an_outdated_snapshot_is_told_before_training(
    calls, base, monkeypatch
):
    cursor = half_read(calls)
    with contextlib.closing(apsw.Connection(calls.apsw.filename)) as other:
        other.execute("CREATE TABLE t (a)")
    with monkeypatch.context() as patch:
        patch.setattr(speech, "train", lambda *_: pytest.fail("trained in vain"))
        with pytest.raises(thanosql.OperationalError, match="half read"):
            built(calls, base)
    cursor.close()
    assert len(built(calls, base)) == 4


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_write_of_others_while_training_delays_the_storing_only(
    calls, base, monkeypatch, autocommit
):
    cursor = half_read(calls)
    calls.autocommit = autocommit
    train = speech.train

    def with_a_write(*arguments):
        yield from train(*arguments)
        with contextlib.closing(apsw.Connection(calls.apsw.filename)) as other:
            other.execute("CREATE TABLE t (a)")

    monkeypatch.setattr(speech, "train", with_a_write)
    with (
        statements(calls) as counts,
        pytest.raises(
            thanosql.OperationalError,
            match=r"rollback\(\), and close.* half read.*with resume=True, which",
        ) as caught,
    ):
        built(calls, base)
    # No waiting, which would try again and again: no time makes the snapshot current.
    assert max(counts["BEGIN IMMEDIATE"], counts["SAVEPOINT thanosql"]) < 5
    assert caught.value.sqlite_errorname == "SQLITE_BUSY_SNAPSHOT"
    monkeypatch.setattr(speech, "train", train)
    monkeypatch.setattr(
        "thanosql.speech.training.loop.Loop.run_epoch",
        lambda _: pytest.fail("trained again"),
    )
    with pytest.raises(thanosql.OperationalError, match=r"rollback\(\), and close"):
        built(calls, base, "resume=TRUE,")
    cursor.close()
    calls.rollback()
    assert len(built(calls, base, "resume=TRUE,")) == 4
    calls.commit()
    assert runs(calls) == [("stored", 4)]


def test_a_full_database_keeps_the_trained_model(calls, base, monkeypatch):
    pages = calls.execute("PRAGMA page_count").fetchone()[0]
    calls.execute(f"PRAGMA max_page_count = {pages + 20}")
    with pytest.raises(thanosql.OperationalError, match=r"full.*resume=True"):
        built(calls, base)
    assert calls.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    calls.execute(f"PRAGMA max_page_count = {2**30}")
    built(calls, base, "resume=TRUE,")
    assert not folder(calls).exists()


def test_a_full_temporary_folder_keeps_the_trained_model(calls, base, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("thanosql.speech.recognizers.recognizer.Recognizer.save", full)
    with pytest.raises(thanosql.OperationalError, match=r"No space left.*resume=True"):
        built(calls, base)
    monkeypatch.undo()
    built(calls, base, "resume=TRUE,")
    assert [row[0] for row in runs(calls)] == ["stored"]


def test_a_full_disk_for_checkpoints_warns_once_and_training_goes_on(
    calls, base, whole
):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    whole.setattr(checkpoint, "save_file", full)
    with pytest.warns(thanosql.Warning, match="no checkpoint") as caught:
        assert len(built(calls, base)) == 4
    assert len(caught) == 1
    assert runs(calls) == [("stored", 4)]


def test_a_folder_that_cannot_be_made_warns_and_training_goes_on(calls, base):
    folder(calls).write_text("a file where the folder would be")
    with pytest.warns(thanosql.Warning, match="cannot be resumed"):
        built(calls, base)
    assert runs(calls) == [("stored", 4)]


def test_a_damaged_checkpoint_is_said_to_be_one(calls, base, broken, whole):
    broken(2)
    with pytest.raises(Broken):
        built(calls, base)
    whole.undo()
    (path,) = folder(calls).glob("*/checkpoint.safetensors")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(thanosql.OperationalError, match=r"damaged.*resume=False"):
        built(calls, base, "resume=TRUE,")


def test_a_run_is_read_by_another_connection_while_it_trains(calls, base, monkeypatch):
    monkeypatch.setattr("thanosql.store.runs.LIVE_EVERY", 0)
    seen = []
    train = speech.train

    def looking(*arguments):
        for epoch in train(*arguments):
            other = thanosql.connect(calls.apsw.filename)
            seen.extend(runs(other))
            rows = other.execute("SELECT count(*) FROM thanosql_rows").fetchone()[0]
            other.close()
            assert rows == 8
            yield epoch

    monkeypatch.setattr(speech, "train", looking)
    built(calls, base)
    assert seen == [("training", n) for n in range(4)]
    assert runs(calls) == [("stored", 4)]


def test_within_a_transaction_nothing_is_written_before_its_end(calls, base, broken):
    broken(3)
    calls.execute("BEGIN")
    with pytest.raises(Broken):
        built(calls, base)
    assert not calls.execute("SELECT count(*) FROM thanosql_runs").fetchone()[0]
    calls.execute("ROLLBACK")


def test_an_interrupt_from_the_keyboard_tells_how_to_go_on(calls, base, broken, whole):
    broken(2, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt) as caught:
        built(calls, base)
    (note,) = caught.value.__notes__
    assert "after epoch 2: run the statement again with resume=True" in note
    assert runs(calls) == [("interrupted", 2)]


def test_an_interrupt_between_two_epochs_waits_for_the_checkpoint(
    calls, base, monkeypatch
):
    write, add = checkpoint.save_file, ledgers.Ledger.add

    def slowly(*arguments, **named):
        time.sleep(0.5)
        write(*arguments, **named)

    def interrupted(ledger, epoch):
        add(ledger, epoch)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save_file", slowly)
    monkeypatch.setattr(ledgers.Ledger, "add", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        built(calls, base)
    (note,) = caught.value.__notes__
    assert "after epoch 1: run the statement again with resume=True" in note
    names = {thread.name.partition("_")[0] for thread in threading.enumerate()}
    assert "thanosql-checkpoint" not in names


def test_a_failed_run_says_why(calls, base, broken):
    broken(1, thanosql.AudioError("row 3: gone"))
    with pytest.raises(thanosql.AudioError):
        built(calls, base)
    assert calls.execute("SELECT status, reason FROM thanosql_runs").fetchall() == [
        ("failed", "row 3: gone")
    ]


def test_a_run_that_failed_beside_a_writer_says_why(calls, base, monkeypatch):
    other = apsw.Connection(calls.apsw.filename)
    error = thanosql.TrainingError("the loss is no number")
    train = speech.train

    def failing(*arguments):
        yield next(train(*arguments))
        other.execute("BEGIN IMMEDIATE")
        raise error

    monkeypatch.setattr(speech, "train", failing)
    with pytest.raises(thanosql.TrainingError):
        built(calls, base)
    other.close()
    # What could be resumed is gone, and word of how it ended is left.
    left = [path.name for path in folder(calls).glob("*/*")]
    assert left == ["outcome.json"]
    # Whether its epoch was written down before the writer began depends on the machine.
    ((status, _),) = runs(calls)
    assert status == "failed"
    assert calls.execute("SELECT status, reason FROM thanosql_runs").fetchall() == [
        ("failed", "the loss is no number")
    ]


def test_another_thread_can_interrupt_a_training(calls, base, monkeypatch):
    show = Progress.__call__

    def interrupting(self, stage, *numbers, **facts):
        if stage == "train" and facts["epoch"] == 3:
            thread = threading.Thread(target=calls.interrupt)
            thread.start()
            thread.join()
        show(self, stage, *numbers, **facts)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "__call__", interrupting)
        with pytest.raises(thanosql.OperationalError, match="interrupted"):
            built(calls, base)
    assert runs(calls)[0][0] == "interrupted"
    built(calls, base, "resume=TRUE,")
    assert [row[0] for row in runs(calls)] == ["stored"]


def test_what_a_kill_left_of_a_folder_is_removed_once_it_is_old(calls, base):
    young, old = folder(calls) / "young", folder(calls) / "old"
    for each in (young, old):
        each.mkdir(parents=True)
        (each / "lock").touch()
    os.utime(old, (0, 0))
    built(calls, base)
    assert [path.name for path in folder(calls).iterdir()] == ["young"]


@pytest.mark.parametrize(
    "identity",
    ['{"model": "other", "of_a_later_version": 1}', '{"model": "other"}', "{", None],
    ids=["more", "less", "damaged", "none"],
)
def test_a_build_leaves_what_may_be_a_training_of_another_model(calls, base, identity):
    left = folder(calls) / ("a" * 32)
    left.mkdir(parents=True)
    (left / "checkpoint.safetensors").write_bytes(b"twenty hours")
    if identity is not None:
        (left / "identity.json").write_text(identity)
    os.utime(left, (0, 0))
    built(calls, base)
    assert (left / "checkpoint.safetensors").read_bytes() == b"twenty hours"


def test_a_training_that_another_version_began_is_gone_on_with(
    calls, base, broken, whole
):
    broken(2)
    with pytest.raises(Broken):
        built(calls, base)
    whole.undo()
    (path,) = folder(calls).glob("*/identity.json")
    identity = json.loads(path.read_text())
    path.write_text(json.dumps(identity | {"of_a_later_version": 1}))
    built(calls, base, "resume=TRUE,")
    assert runs(calls) == [("stored", 4)]
    assert not folder(calls).exists()


def test_a_killed_run_is_found_out_when_models_are_listed(calls, base, broken):
    broken(2)
    with pytest.raises(Broken):
        built(calls, base)
    # As a kill leaves it: no word of how it ended.
    calls.execute("UPDATE thanosql_runs SET status = 'training'")
    calls.commit()
    for path in folder(calls).glob("*/outcome.json"):
        path.unlink()
    changes = calls.total_changes
    calls.execute("LIST MODELS").fetchall()
    assert calls.execute("SELECT status FROM thanosql_runs").fetchone() == ("killed",)
    assert calls.total_changes == changes


def test_a_reader_that_may_not_write_leaves_a_killed_run_as_it_is(calls, base):
    built(calls, base)
    calls.execute("UPDATE thanosql_runs SET status = 'training'")
    calls.commit()
    path = Path(calls.apsw.filename)
    before = path.read_bytes()
    read_only = thanosql.connect(f"file:{path}?mode=ro", uri=True)
    only_reading = thanosql.connect(path)
    only_reading.execute("PRAGMA query_only = ON")
    for connection in (read_only, only_reading):
        assert len(connection.execute("LIST MODELS").fetchall()) == 2
        assert runs(connection) == [("training", 4)]
        with pytest.raises(thanosql.OperationalError, match="read-only"):
            built(connection, base, "overwrite=TRUE,")
        connection.close()
    assert path.read_bytes() == before
    assert runs(calls) == [("killed", 4)]


def test_a_checkpoint_is_no_pickle(calls, base, broken, whole):
    broken(2)
    with pytest.raises(Broken):
        built(calls, base)
    files = [path for path in folder(calls).rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".safetensors", ".json", ""}
    for path in files:
        content = path.read_bytes()
        if path.suffix == ".safetensors":
            size = int.from_bytes(content[:8], "little")
            json.loads(content[8 : 8 + size])
        else:  # so does a pickle begin, and a size may
            assert not content.startswith(b"\x80")
