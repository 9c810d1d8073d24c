"""FIT MODEL: a stored model trained further, under its own name or a new one."""

import pytest
from tones import tones

import thanosql
from thanosql.store import schema

FIT = "OPTIONS (epochs=1, batch_size=4, validation=0) AS SELECT * FROM calls"


def facts(connection, name):
    return dict(connection.execute(f"DESCRIBE MODEL {name}").fetchall())


def vocabulary(connection, name):
    return [
        bytes(data)
        for (data,) in connection.execute(
            "SELECT data FROM thanosql_files f JOIN thanosql_models m "
            "ON m.id = f.model_id WHERE m.name = ? AND path = 'vocab.json'",
            (name,),
        )
    ]


def test_a_model_is_trained_further_under_a_new_name(calls):
    before = facts(calls, "m")
    cursor = calls.execute(f"FIT MODEL n USING m {FIT}")
    assert [column[0] for column in cursor.description][:2] == ["epoch", "steps"]
    assert len(cursor.fetchall()) == 1
    told = facts(calls, "n")
    assert told["base"] == before["base"]
    assert (told["parent"], told["parent_sha256"]) == ("m", before["sha256"])
    assert told["parent_run_id"] is None
    assert told["sha256"] != before["sha256"]
    assert vocabulary(calls, "n") == vocabulary(calls, "m") != []
    assert facts(calls, "m") == before


def test_a_model_is_trained_in_place_and_keeps_its_line(calls):
    calls.execute(f"FIT MODEL n USING m {FIT}")
    first = facts(calls, "n")
    calls.execute(f"FIT MODEL N USING n {FIT}")
    second = facts(calls, "n")
    assert second["parent_sha256"] == first["sha256"]
    assert second["parent_run_id"] == first["run_id"]
    assert second["base"] == first["base"]
    assert len(calls.execute("LIST MODELS").fetchall()) == 2
    assert calls.execute("SELECT count(*) FROM thanosql_runs").fetchone() == (2,)


def test_build_from_a_stored_model_names_its_parent_too(calls):
    calls.execute(f"BUILD MODEL n USING m {FIT}")
    told = facts(calls, "n")
    assert (told["base"], told["parent"]) == ("m", "m")
    assert told["parent_sha256"] == facts(calls, "m")["sha256"]


def test_another_model_is_replaced_only_on_demand(calls):
    calls.execute("INSERT INTO calls VALUES (9, ?, 'abba')", (tones("abba"),))
    calls.commit()
    calls.execute(f"FIT MODEL n USING m {FIT}")
    before = facts(calls, "n")
    with pytest.raises(thanosql.ModelExistsError, match="'n' exists already"):
        calls.execute(f"FIT MODEL n USING m {FIT} WHERE id > 5")
    assert facts(calls, "n") == before
    replacing = FIT.replace("epochs=1", "max_epochs=1, overwrite=True")
    calls.execute(f"FIT MODEL n USING m {replacing}")
    assert facts(calls, "n") != before


def test_a_fit_that_is_rolled_back_leaves_the_model_it_was(calls):
    before = facts(calls, "m")
    calls.execute("BEGIN")
    calls.execute(f"FIT MODEL m USING m {FIT}")
    assert facts(calls, "m") != before
    calls.rollback()
    assert facts(calls, "m") == before


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("FIT MODEL n USING mm", "no model named 'mm'; did you mean 'm'"),
        (
            "FIT MODEL n USING wav2vec2en",
            "'wav2vec2en' is a base: GET MODEL wav2vec2en stores it as it is, "
            "BUILD MODEL trains from it",
        ),
    ],
)
def test_what_is_not_stored_cannot_be_trained_further(calls, sql, message):
    with pytest.raises(thanosql.ModelNotFoundError, match=message):
        calls.execute(f"{sql} {FIT}")


def test_build_or_replace_takes_the_place_of_a_model(calls):
    calls.execute(f"BUILD OR REPLACE MODEL m USING m {FIT}")
    assert facts(calls, "m")["base"] == "m"


def test_the_spellings_of_the_original_are_taken(calls, tmp_path):
    calls.execute("EXPORT MODEL m TO ?", (str(tmp_path / "m"),))
    calls.execute(f"UPLOAD MODEL Wav2Vec2Ko FROM '{tmp_path / 'm'}'")
    calls.execute(
        "BUILD MODEL n USING Wav2Vec2Ko OPTIONS (audio_path='audio', text_col='text', "
        "max_epochs=1, batch_size=4, overwrite=True) AS SELECT audio, text FROM calls"
    )
    cursor = calls.execute(
        "PREDICT USING n OPTIONS (audio_path='audio_path', "
        "result_col='predict_result') AS SELECT audio AS audio_path FROM calls"
    )
    assert [column[0] for column in cursor.description] == [
        "audio_path",
        "predict_result",
    ]
    names = {row[0] for row in calls.execute("LIST THANOSQL MODEL")}
    assert names == {"Wav2Vec2Ko", "m", "n"}
    calls.execute("DELETE MODEL n")
    assert len(calls.execute("LIST MODEL").fetchall()) == 2


@pytest.fixture(params=["AUTOINCREMENT", ""], ids=["new file", "older file"])
def tidied(request, calls):
    """Return a connection to a file whose ids are, or are not, given but once."""
    calls.execute("DROP MODEL m")
    for table in reversed(schema.TABLES):
        calls.execute(f"DROP TABLE {table}")
    for step in schema.STEPS:
        calls.executescript(step.replace("AUTOINCREMENT", request.param))
    calls.execute("UPDATE thanosql_schema SET version = ?", (schema.VERSION,))
    calls.commit()
    return calls


def test_after_runs_are_deleted_their_ids_lead_to_no_other_run(tidied, base):
    build = f"BUILD MODEL {{}} USING '{base}' {FIT}"
    tidied.execute(build.format("old"))
    tidied.execute(f"FIT MODEL child USING old {FIT}")
    tidied.execute("DELETE FROM thanosql_runs")
    tidied.commit()
    tidied.execute(f"FIT MODEL other USING old {FIT} WHERE id > 6")
    tidied.execute(build.format("new"))
    for name in ("old", "child"):
        assert "run_id" not in facts(tidied, name)
    told = facts(tidied, "other")
    assert told["utterances"] == 2
    assert told["parent_run_id"] != told["run_id"]
    assert tidied.execute(
        "SELECT count(*) FROM thanosql_rows WHERE run_id = ?", (told["run_id"],)
    ).fetchone() == (2,)


def test_a_model_whose_row_was_deleted_is_in_the_way_of_no_other(tidied, base):
    for name in ("first", "second"):
        tidied.execute(f"IMPORT MODEL {name} FROM '{base}'")
        tidied.execute("DELETE FROM thanosql_models")
        tidied.commit()
    tidied.execute(f"IMPORT MODEL third FROM '{base}'")
    assert tidied.execute("PREDICT USING third AS SELECT audio FROM calls").fetchone()
