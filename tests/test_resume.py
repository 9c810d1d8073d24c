"""Trainings that break off, in this process: what is kept, and how they go on."""

import pytest

from thanosql import jobs, store
from thanosql.speech import checkpoint

BUILD = (
    "BUILD MODEL new USING '{base}' "
    "OPTIONS ({more} epochs=4, batch_size=3, learning_rate=0.003, validation=0.3) "
    "AS SELECT * FROM calls"
)


class Broken(Exception):
    """What a training is broken off with here."""


@pytest.fixture
def broken(monkeypatch):
    """Return a function: what `jobs.train` is told to raise after so many epochs."""
    train = jobs.train

    def breaking(after, error=Broken):
        def broken_off(*arguments):
            for number, epoch in enumerate(train(*arguments), start=1):
                yield epoch
                if number == after:
                    raise error

        monkeypatch.setattr(jobs, "train", broken_off)

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
    return connection.execute(
        "SELECT status, (SELECT count(*) FROM thanosql_epochs WHERE run_id = id) "
        "FROM thanosql_runs"
    ).fetchall()


def folder(connection):
    path = connection.execute("PRAGMA database_list").fetchone()[2]
    return store.Path(f"{path}-thanosql")


OPTIONS = {
    "plain": "",
    "speeds": "speed_perturbation=TRUE,",
    "no cache": "feature_cache=0,",
    "trained encoder": "freeze_feature_encoder=FALSE,",
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
    for after in (1, 2):
        broken(after)
        with pytest.raises(Broken) as caught:
            built(calls, base, more + "resume=TRUE,")
        assert "resume=True" in caught.value.__notes__[0]
        whole.undo()
    resumed = built(calls, base, more + "resume=TRUE,")
    assert digest(calls) == expected
    # All but the seconds that an epoch took.
    assert [(*e[:8], e[9]) for e in resumed] == [(*e[:8], e[9]) for e in epochs]
    assert not folder(calls).exists()
    assert [status for status, _ in runs(calls)] == ["stored", "stored"]
