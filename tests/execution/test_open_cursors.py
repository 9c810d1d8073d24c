"""A statement of ours leaves those that are being read, and itself, as they are."""

import pytest

from thanosql.speech import loading

pytestmark = pytest.mark.filterwarnings("ignore:.*were trained on:thanosql.Warning")

READER = "SELECT id FROM calls UNION ALL SELECT -id FROM calls"
READ = [(i,) for i in range(1, 9)] + [(-i,) for i in range(1, 9)]
BOTH = "SELECT audio, text FROM calls UNION ALL SELECT audio, text FROM more"
ARMS = (
    BOTH,
    f"WITH u AS ({BOTH}) SELECT * FROM u",
    "SELECT audio, text, (SELECT count(*) FROM more) FROM calls",
    "SELECT audio, text, (SELECT max(id) FROM more AS m WHERE m.id < c.id) "
    "FROM calls AS c",
    "SELECT audio, text FROM calls AS c "
    "WHERE id < 3 OR EXISTS (SELECT 1 FROM more AS m WHERE m.id = c.id)",
)


@pytest.fixture
def both(calls, monkeypatch):
    """Return `calls` with a table more and a trained model, of which none is loaded."""
    calls.execute("CREATE TABLE more AS SELECT * FROM calls WHERE id > 6")
    calls.execute(
        "FIT MODEL trained USING m OPTIONS (max_steps=1, batch_size=2, validation=0) "
        "AS SELECT audio, text FROM calls WHERE id < 3"
    )
    monkeypatch.setattr(loading, "_loaded", loading._LoadedModels())
    return calls


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT count(*) FROM thanosql_runs",
        "LIST MODELS",
        "LIST TABLES",
        "DESCRIBE MODEL trained",
        "PREDICT USING m AS SELECT audio FROM calls LIMIT 2",
        "EVALUATE USING trained AS SELECT audio, text FROM calls LIMIT 2",
        "BUILD MODEL n USING m OPTIONS (max_steps=1, batch_size=2, validation=0) "
        "AS SELECT audio, text FROM calls LIMIT 2",
        "DROP MODEL trained",
    ],
)
def test_a_cursor_that_is_being_read_goes_on_behind_any_statement(both, statement):
    reader = both.execute(READER)
    rows = [reader.fetchone()]
    cursor = both.execute(statement)
    if cursor.description:
        cursor.fetchall()
    assert rows + reader.fetchall() == READ


@pytest.mark.parametrize("query", ARMS)
def test_evaluate_takes_a_query_of_several_arms(both, query):
    expected = both.execute(f"SELECT count(*) FROM ({query})").fetchone()
    found = both.execute(f"SELECT rows FROM (EVALUATE USING trained AS {query})")
    assert found.fetchone() == expected


@pytest.mark.parametrize("query", ARMS)
def test_the_first_predict_of_a_process_takes_a_query_of_several_arms(both, query):
    expected = both.execute(f"SELECT count(*) FROM ({query})").fetchone()[0]
    assert len(both.execute(f"PREDICT USING m AS {query}").fetchall()) == expected


@pytest.mark.parametrize(
    "statement",
    [
        "PREDICT USING m AS SELECT id, audio FROM calls",
        "SELECT id, predicted FROM (PREDICT USING m AS SELECT id, audio FROM calls)",
        "EVALUATE USING trained AS SELECT audio, text FROM calls",
        "SELECT wer, (SELECT count(*) FROM more) "
        "FROM (EVALUATE USING trained AS SELECT audio, text FROM calls)",
        "SELECT predicted FROM (PREDICT USING m AS SELECT audio FROM calls) "
        "UNION ALL SELECT text FROM more",
        "LIST MODELS",
    ],
)
def test_a_table_is_created_of_the_first_statement_of_a_process(
    both, statement, monkeypatch
):
    expected = both.execute(statement).fetchall()
    monkeypatch.setattr(loading, "_loaded", loading._LoadedModels())
    both.execute(f"CREATE TABLE made AS {statement}")
    made = both.execute("SELECT * FROM made").fetchall()
    assert len(made) == len(expected) > 0


def test_a_reader_in_wal_mode_can_still_write_once_a_killed_run_is_to_be_told(both):
    both.execute("PRAGMA journal_mode = WAL").fetchall()
    both.execute(
        "UPDATE thanosql_runs SET status = 'training', training = ?", ("0" * 32,)
    )
    both.commit()
    reader = both.execute(READER)
    reader.fetchone()
    both.execute("LIST MODELS").fetchall()
    both.execute("INSERT INTO more SELECT * FROM calls WHERE id = 1")
    both.commit()
    reader.close()
    both.execute("LIST MODELS").fetchall()
    status = both.execute("SELECT status FROM thanosql_runs").fetchall()
    assert status == [("killed",)]
