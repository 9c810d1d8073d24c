"""Databases of earlier and later releases: what opens, what is brought up to date."""

import shutil
from pathlib import Path

import apsw
import pytest
from tones import tones

import thanosql
from thanosql.store import schema

FIT = "FIT MODEL {} USING old OPTIONS (epochs=1, batch_size=3) AS SELECT * FROM calls"


@pytest.fixture
def older(tmp_path):
    """Return a connection to a copy of schema_0.db, with a table calls of 4 rows."""
    path = tmp_path / "older.db"
    shutil.copy(Path(__file__).parents[1] / "fixtures/schema_0.db", path)
    connection = thanosql.connect(path)
    connection.execute("CREATE TABLE calls (audio BLOB, text TEXT)")
    connection.executemany(
        "INSERT INTO calls VALUES (?, ?)",
        [(tones(text), text) for text in ("bad", "cab", "fed", "abed")],
    )
    connection.commit()
    yield connection
    connection.close()


def version(connection):
    """Return what thanosql_schema says, None where there is no such table."""
    if not connection.apsw.table_exists("main", "thanosql_schema"):
        return None
    return connection.execute("SELECT version FROM thanosql_schema").fetchall()


def definitions(connection):
    return {
        name: " ".join(sql.split())
        for name, sql in connection.execute(
            "SELECT name, sql FROM sqlite_schema "
            "WHERE name LIKE 'thanosql%' AND sql IS NOT NULL"
        )
    }


def test_an_older_database_is_read_as_it_is(older):
    file = Path(older.apsw.filename)
    before = file.read_bytes()
    assert [row[0] for row in older.execute("LIST MODELS")] == ["child", "old"]
    told = dict(older.execute("DESCRIBE MODEL child").fetchall())
    assert (told["base"], told["parent"], told["parent_run_id"]) == ("toy", "old", 1)
    assert (told["utterances"], told["kept_epoch"]) == (4, 1)
    predicted = older.execute("PREDICT USING old AS SELECT * FROM calls").fetchall()
    assert [text for _, text, _ in predicted] == ["bad", "cab", "fed", "abed"]
    evaluated = older.execute("EVALUATE USING child AS SELECT * FROM calls")
    assert evaluated.fetchone()[0] == 4
    assert older.execute(
        "SELECT status, count(*) FROM thanosql_runs GROUP BY 1 ORDER BY 1"
    ).fetchall() == [("failed", 1), ("stored", 2)]
    assert version(older) is None
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("statement", "left"),
    [
        (FIT.format("old"), ["child", "old"]),
        (FIT.format("new"), ["child", "new", "old"]),
        ("DROP MODEL child", ["old"]),
    ],
)
def test_an_older_database_is_brought_up_to_date_by_the_first_write(
    older, connection, base, statement, left
):
    older.execute(statement)
    assert version(older) == [(schema.VERSION,)]
    assert [row[0] for row in older.execute("LIST MODELS")] == left
    assert older.execute(
        "SELECT count(*) FROM thanosql_epochs WHERE run_id < 4"
    ).fetchone() == (3,)
    connection.execute("IMPORT MODEL m FROM ?", (str(base),))
    assert definitions(older) == definitions(connection)


def test_an_older_database_whose_only_training_failed_has_no_models_yet(older, base):
    older.executescript(
        "DELETE FROM thanosql_runs WHERE status = 'stored';"
        "DROP TABLE thanosql_files; DROP TABLE thanosql_models"
    )
    assert older.execute("LIST MODELS").fetchall() == []
    with pytest.raises(thanosql.ModelNotFoundError, match="none is stored yet"):
        older.execute("DROP MODEL old")
    assert version(older) is None
    older.execute("IMPORT MODEL m FROM ?", (str(base),))
    assert [row[0] for row in older.execute("LIST MODELS")] == ["m"]


def test_a_write_that_is_undone_leaves_the_database_as_old_as_it_was(older):
    older.execute("BEGIN")
    older.execute("DROP MODEL child")
    assert version(older) == [(schema.VERSION,)]
    older.rollback()
    assert version(older) is None
    assert [row[0] for row in older.execute("LIST MODELS")] == ["child", "old"]


def test_a_new_database_has_the_version_from_its_first_model_on(connection, base):
    connection.execute("LIST MODELS").fetchall()
    connection.execute("DROP MODEL IF EXISTS m")
    assert version(connection) is None
    connection.execute("IMPORT MODEL m FROM ?", (str(base),))
    assert version(connection) == [(schema.VERSION,)]
    assert definitions(connection).keys() >= set(schema.TABLES)


STATEMENTS = [
    "LIST MODELS",
    "DESCRIBE MODEL m",
    "PREDICT USING m AS SELECT * FROM calls",
    "EVALUATE USING m AS SELECT * FROM calls",
    "FIT MODEL n USING m AS SELECT * FROM calls",
    "DROP MODEL m",
    "DROP MODEL IF EXISTS m",
]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_database_of_a_later_thanosql_is_refused_with_the_way_out(calls, statement):
    later = schema.VERSION + 1
    calls.execute("UPDATE thanosql_schema SET version = ?", (later,))
    # A later version may have what is refused in the tables of this one.
    calls.execute("ALTER TABLE thanosql_models ADD COLUMN twice AS (bytes * 2)")
    calls.commit()
    with pytest.raises(
        thanosql.NotSupportedError,
        match=rf"version {later}, .* up to version {schema.VERSION}; upgrade thanosql",
    ):
        calls.execute(statement).fetchall()
    assert calls.execute("SELECT name FROM thanosql_models").fetchall() == [("m",)]


@pytest.mark.parametrize("statement", STATEMENTS)
@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM thanosql_schema",
        "INSERT INTO thanosql_schema VALUES (1)",
        "UPDATE thanosql_schema SET version = 'one'",
        "UPDATE thanosql_schema SET version = -1",
    ],
)
def test_a_version_that_is_none_is_said_to_be_damaged(calls, damage, statement):
    calls.execute(damage)
    calls.commit()
    with pytest.raises(thanosql.DatabaseError, match="thanosql_schema is damaged"):
        calls.execute(statement).fetchall()


@pytest.fixture
def killed(calls):
    """Return `calls` with a run whose process is gone, though the run does not say."""
    calls.execute("FIT MODEL n USING m OPTIONS (max_steps=1) AS SELECT * FROM calls")
    calls.execute("UPDATE thanosql_runs SET status = 'training'")
    calls.commit()
    return calls


def statuses(database):
    return database.execute("SELECT status FROM thanosql_runs ORDER BY id").fetchall()


def test_a_select_writes_nothing(killed):
    file = Path(killed.apsw.filename)
    before = file.read_bytes()
    assert statuses(killed) == [("training",)]
    killed.execute("PREDICT USING m AS SELECT audio FROM calls").fetchall()
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "statement",
    [
        "LIST MODELS",
        "DESCRIBE MODEL n",
        "FIT MODEL m USING m OPTIONS (max_steps=1) AS SELECT * FROM calls",
        "BUILD MODEL o USING m OPTIONS (max_steps=1) AS SELECT * FROM calls",
    ],
)
def test_models_are_listed_and_trained_with_the_runs_settled(killed, statement):
    killed.execute(statement).fetchall()
    assert statuses(killed)[0] == ("killed",)


def test_an_outcome_that_says_nothing_known_is_that_of_a_killed_training(killed):
    (training,) = killed.execute("SELECT training FROM thanosql_runs").fetchone()
    folder = Path(f"{killed.apsw.filename}-thanosql", training)
    folder.mkdir(parents=True)
    (folder / "outcome.json").write_text('{"status": "stored", "reason": "x"}')
    killed.execute("LIST MODELS").fetchall()
    assert statuses(killed) == [("killed",)]


def test_an_older_database_with_a_killed_run_is_settled(older):
    other = apsw.Connection(older.apsw.filename)
    other.execute("UPDATE thanosql_runs SET status = 'training' WHERE id = 3")
    other.close()
    older.execute("LIST MODELS").fetchall()
    assert statuses(older)[2] == ("killed",)
