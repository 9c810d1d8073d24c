"""LIST and DESCRIBE: what there is, without loading anything heavy."""

import pytest

import thanosql


def facts(connection, what):
    return dict(connection.execute(f"DESCRIBE {what}").fetchall())


def test_tables_are_listed_without_our_own(calls):
    calls.execute("CREATE VIEW some AS SELECT id FROM calls WHERE id < 3")
    cursor = calls.execute("LIST TABLES")
    assert [column[0] for column in cursor.description] == [
        "name",
        "type",
        "rows",
        "columns",
    ]
    assert cursor.fetchall() == [
        ("calls", "table", 8, "id, audio, text"),
        ("some", "view", None, "id"),
    ]
    assert (
        calls.execute("LIST THANOSQL TABLE").fetchall()
        == calls.execute("SELECT * FROM (LIST TABLES)").fetchall()
    )


def test_a_view_of_a_table_that_is_gone_hides_no_other_table(calls):
    calls.execute("CREATE TABLE gone (a)")
    calls.execute("CREATE VIEW broken AS SELECT a FROM gone")
    calls.execute("DROP TABLE gone")
    assert calls.execute("LIST TABLES").fetchall() == [
        ("broken", "view", None, None),
        ("calls", "table", 8, "id, audio, text"),
    ]
    with pytest.raises(thanosql.OperationalError, match=r"no such table: main\.gone"):
        calls.execute("DESCRIBE TABLE broken")


def test_a_table_is_described_a_row_a_column(calls):
    assert calls.execute("DESCRIBE TABLE Calls").fetchall() == [
        ("id", "INTEGER", 0, 1),
        ("audio", None, 0, 0),
        ("text", "TEXT", 0, 0),
    ]
    calls.execute("CREATE VIEW v AS SELECT text FROM calls")
    assert calls.execute("DESCRIBE TABLE v").fetchall() == [("text", "TEXT", 0, 0)]


def test_bases_and_datasets_are_listed_and_described(connection):
    listed = connection.execute("LIST BASES").fetchall()
    assert ("Wav2Vec2Ko", "ko") in [(row[0], row[2]) for row in listed]
    assert connection.execute("LIST BASE").fetchall() == listed
    told = facts(connection, "BASE WAV2VEC2EN")
    assert told["source"] == "facebook/wav2vec2-base-960h"
    assert told["stored_as"] is None
    names = [row[0] for row in connection.execute("LIST THANOSQL DATASETS")]
    assert names[:4] == ["readings", "sample", "fsdd", "librispeech_data"]
    assert facts(connection, "DATASET readings")["people_table"] == "readings_people"
    told = facts(connection, "DATASET librispeech_clean_100")
    assert told["train_table"] == "librispeech_clean_100_train"
    assert told["megabytes"] == 6_646
    assert told["url"].endswith("/12/test-clean.tar.gz")
    assert told["is_here"] in (0, 1)


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("TABLE cals", thanosql.ProgrammingError, "did you mean 'calls'"),
        ("TABLE x", thanosql.ProgrammingError, "there are calls"),
        ("BASE Wav2Vec2", thanosql.ModelNotFoundError, "did you mean 'Wav2Vec2"),
        (
            "BASE x",
            thanosql.ModelNotFoundError,
            "known are WhisperTinyEn, TinyEn, Wav2",
        ),
        ("DATASET fsd", thanosql.ProgrammingError, "did you mean 'fsdd'"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(calls, what, error, message):
    with pytest.raises(error, match=message):
        calls.execute(f"DESCRIBE {what}")


def test_print_audio_yields_the_rows_and_says_what_to_play(calls):
    cursor = calls.execute("PRINT AUDIO AS SELECT id, audio FROM calls WHERE id < 3")
    assert [c[0] for c in cursor.description] == ["id", "audio"]
    assert cursor.declared_types == ("INTEGER", "AUDIO BLOB")
    expected = calls.execute("SELECT id, audio FROM calls WHERE id < 3").fetchall()
    assert cursor.fetchall() == expected
    cursor = calls.execute(
        "SELECT recording FROM (PRINT AUDIO OPTIONS (audio_col=recording) "
        "AS SELECT 'a.wav' AS recording)"
    )
    assert cursor.declared_types == ("AUDIO BLOB",)
    assert cursor.fetchall() == [("a.wav",)]
    with pytest.raises(thanosql.OptionError, match="no column 'audio' for audio_col"):
        calls.execute("PRINT AUDIO AS SELECT id FROM calls")


LISTS = "LIST MODELS, LIST TABLES, LIST BASES or LIST DATASETS"


@pytest.mark.parametrize(
    ("sql", "meant"),
    [
        ("BIULD MODEL m USING b AS SELECT 1", "BUILD MODEL"),
        ("build modle m using b as select 1", "BUILD MODEL"),
        ("PREDCIT USING m AS SELECT 1", "PREDICT USING"),
        ("SELECT * FROM (PREDCIT USING m AS SELECT 1)", "PREDICT USING"),
        ("EVALUTE USING m AS SELECT 1", "EVALUATE USING"),
        ("/* é */ LIST MODLES", "LIST MODELS"),
        ("DESCIRBE MODEL m", "DESCRIBE MODEL"),
        ("COPPY t FROM 'a.csv'", "COPY"),
        ("GET DATSET fsdd", "GET DATASET"),
        ("PRNT AUDIO AS SELECT 1", "PRINT AUDIO"),
        ("FITT MODEL m USING m AS SELECT 1", "FIT MODEL"),
        ("EXPLAIN QUERY PLAN PREDCIT USING m AS SELECT 1", "PREDICT USING"),
        ("SHOW MODELS", "LIST MODELS"),
        ("desc table calls", "DESCRIBE TABLE"),
        ("LIST", LISTS),
        ("LIST RUNS;", LISTS),
        ("SHOW RUNS", LISTS),
        (
            "DESCRIBE calls",
            "DESCRIBE MODEL, DESCRIBE TABLE, DESCRIBE BASE or DESCRIBE DATASET",
        ),
        ("PREDICT AS SELECT 1", "PREDICT USING"),
        ("WITH p AS (PREDICT AS SELECT 1) SELECT * FROM p", "PREDICT USING"),
        ("CREATE TABLE t AS EVALUATE m AS SELECT 1", "EVALUATE USING"),
        ("BUILD m USING b", "BUILD MODEL or BUILD OR REPLACE MODEL"),
        ("GET samples", "GET MODEL or GET DATASET"),
    ],
)
def test_a_misspelled_verb_is_answered_with_the_one_meant(connection, sql, meant):
    for run in (connection.execute, connection.executescript):
        with pytest.raises(
            thanosql.OperationalError, match=rf"syntax error; did you mean {meant}\?"
        ) as caught:
            run(sql)
        assert str(caught.value).endswith("^")


@pytest.mark.parametrize(
    "sql",
    [
        "SLECT 1",
        "SELECT * FORM t",
        "CREATE TABEL t (a)",
        "DROP TABEL t",
        "DROP list",
        "DELETE calls",
        "SELECT count(list FROM t",
        "SELECT list a b FROM list",
        "SELECT * FROM list WHERE",
        "(",
        "copy",
    ],
)
def test_other_mistakes_are_sqlites_to_name(connection, sql):
    with pytest.raises(thanosql.Error) as caught:
        connection.execute(sql)
    assert "did you mean" not in str(caught.value)


def test_sqlite_runs_what_it_accepts_however_it_looks(connection):
    connection.execute("CREATE TABLE biuld (model)")
    assert connection.execute("SELECT model FROM biuld model").fetchall() == []
    connection.execute("CREATE TABLE copy (t)")
    assert connection.execute("SELECT c.t, t FROM (copy c)").fetchall() == []
