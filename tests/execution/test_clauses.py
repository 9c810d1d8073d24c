"""A speech clause stands wherever SQLite takes a query."""

import gc
import inspect
import itertools
import threading
import warnings

import pytest

import thanosql

PREDICT = "PREDICT USING m AS SELECT id, audio FROM calls"


@pytest.fixture
def transcripts(calls):
    """Return what the model reads: {id: text}."""
    return {row[0]: row[2] for row in calls.execute(PREDICT)}


@pytest.fixture
def runs(monkeypatch):
    """Return a list to which every utterance that goes through a model is added."""
    from thanosql.speech.recognizers.ctc import CTCRecognizer

    seen = []
    scores = CTCRecognizer.scores

    def counting(recognizer, batch, decoding):
        seen.extend(batch)
        return scores(recognizer, batch, decoding)

    monkeypatch.setattr(CTCRecognizer, "scores", counting)
    return seen


def modules(connection):
    return [
        name
        for (name,) in connection.apsw.execute("SELECT name FROM pragma_module_list")
        if name.startswith("thanosql_")
    ]


def test_predict_yields_the_columns_of_the_query_and_the_transcript(calls):
    cursor = calls.execute("PREDICT USING m AS SELECT * FROM calls")
    names = [column[0] for column in cursor.description]
    assert names == ["id", "audio", "text", "predicted"]
    assert cursor.declared_types == ("INTEGER", None, "TEXT", "TEXT")
    rows = cursor.fetchall()
    assert [row[0] for row in rows] == list(range(1, 9))
    assert all(isinstance(row[3], str) for row in rows)
    assert len({row[3] for row in rows}) > 1


@pytest.mark.parametrize(
    "sql",
    [
        f"SELECT id, predicted FROM ({PREDICT})",
        f"SELECT p.id, p.predicted FROM ({PREDICT}) AS p WHERE p.id > 0",
        f"WITH p AS ({PREDICT}) SELECT id, predicted FROM p",
        f"WITH p(i, a, t) AS MATERIALIZED ({PREDICT}) SELECT i, t FROM p",
        "WITH c AS (SELECT id, audio FROM calls) "
        "SELECT id, predicted FROM (PREDICT USING m AS SELECT * FROM c)",
        f"SELECT c.id, p.predicted FROM calls c JOIN ({PREDICT}) p ON c.id = p.id",
        f"SELECT c.id, p.predicted FROM ({PREDICT}) p JOIN calls c USING (id)",
        f"SELECT c.id, p.predicted FROM calls c LEFT JOIN ({PREDICT}) p USING (id)",
        "SELECT id, (SELECT predicted "
        f"FROM ({PREDICT}) p WHERE p.id = c.id) FROM calls c",
        f"SELECT id, predicted FROM ({PREDICT} WHERE id < 4) UNION ALL "
        f"SELECT id, predicted FROM ({PREDICT} WHERE id >= 4)",
        f"SELECT id, predicted FROM (SELECT * FROM ({PREDICT}) ORDER BY id)",
        "SELECT id, p FROM (PREDICT USING m OPTIONS (result_col='p', batch_size=3) "
        "AS SELECT id, audio FROM calls)",
        "-- PREDICT\nselect id, predicted "
        "from (predict using M as select * from calls);",
    ],
)
def test_predict_nests_in_every_query(calls, transcripts, sql):
    assert dict(calls.execute(sql).fetchall()) == transcripts
    assert modules(calls) == []


def test_predict_fills_tables(calls, transcripts):
    calls.execute(f"CREATE TABLE t AS {PREDICT}")
    assert dict(calls.execute("SELECT id, predicted FROM t").fetchall()) == transcripts
    cursor = calls.execute(f"INSERT INTO t {PREDICT}")
    assert cursor.rowcount == 8
    assert calls.in_transaction
    calls.rollback()
    assert calls.execute("SELECT count(*) FROM t").fetchone() == (8,)
    calls.execute(
        "UPDATE calls SET text = p.predicted "
        f"FROM ({PREDICT}) AS p WHERE p.id = calls.id"
    )
    assert dict(calls.execute("SELECT id, text FROM calls").fetchall()) == transcripts


@pytest.mark.parametrize(
    "query",
    [
        "PREDICT USING m OPTIONS (result_col='text') AS SELECT audio FROM calls",
        "SELECT NULL, NULL UNION ALL SELECT * FROM "
        "(PREDICT USING m OPTIONS (result_col='t') AS SELECT audio FROM calls)",
    ],
)
def test_a_statement_that_writes_does_not_feed_on_its_own_rows(calls, query):
    before = calls.execute("SELECT count(*) FROM calls").fetchone()[0]
    cursor = calls.execute(f"INSERT INTO calls (audio, text) {query}")
    assert cursor.rowcount == before + query.startswith("SELECT")


def test_explain_query_plan_runs_nothing(calls, runs):
    rows = calls.execute(f"EXPLAIN QUERY PLAN {PREDICT}").fetchall()
    assert "VIRTUAL TABLE" in rows[0][3]
    rows = calls.execute(
        f"EXPLAIN QUERY PLAN SELECT * FROM ({PREDICT}) JOIN calls USING (id)"
    ).fetchall()
    assert rows
    assert runs == []
    calls.execute("EXPLAIN BUILD MODEL x USING m AS SELECT * FROM calls").fetchall()
    assert calls.execute("SELECT name FROM (LIST MODELS)").fetchall() == [("m",)]


@pytest.mark.parametrize(
    "sql",
    [
        f"SELECT count(*) FROM calls a CROSS JOIN ({PREDICT}) p",
        "SELECT (SELECT p.predicted "
        f"FROM ({PREDICT}) p WHERE p.id = c.id) FROM calls c",
        f"SELECT * FROM calls c WHERE EXISTS "
        f"(SELECT 1 FROM ({PREDICT}) p WHERE p.id = c.id LIMIT 1)",
        f"SELECT * FROM calls WHERE id IN (SELECT id FROM ({PREDICT}))",
    ],
)
def test_the_model_runs_once_for_a_row_however_often_it_is_scanned(calls, runs, sql):
    assert len(calls.execute(sql).fetchall()) in (1, 8)
    assert len(runs) == 8


def test_limit_runs_one_batch_of_many(calls, runs):
    calls.execute(f"{PREDICT[:16]} OPTIONS (batch_size=2) {PREDICT[16:]}").fetchone()
    assert len(runs) == 2
    del runs[:]
    sql = (
        "SELECT * FROM (PREDICT USING m OPTIONS (batch_size=3) AS SELECT * FROM calls)"
    )
    assert len(calls.execute(f"{sql} LIMIT 3").fetchall()) == 3
    assert len(runs) == 3


def test_a_result_dropped_half_way_stops_its_work(calls, runs):
    threads = threading.active_count()
    sql = "PREDICT USING m OPTIONS (batch_size=1) AS SELECT id, audio FROM calls"
    cursor = calls.execute(sql)
    cursor.fetchone()
    assert modules(calls) != []
    cursor.execute("SELECT 1")
    assert modules(calls) == []
    assert threading.active_count() == threads
    cursor.execute(sql).fetchone()
    cursor.close()
    assert modules(calls) == []
    assert threading.active_count() == threads
    gc.disable()
    calls.execute(sql).fetchone()
    gc.enable()
    assert modules(calls) == []
    assert threading.active_count() == threads
    assert len(runs) == 3


def test_closing_the_connection_ends_an_open_result(calls):
    threads = threading.active_count()
    cursor = calls.execute(PREDICT)
    cursor.fetchone()
    calls.close()
    assert threading.active_count() == threads
    with pytest.raises(thanosql.ProgrammingError, match="closed"):
        cursor.fetchone()
    cursor.close()


def test_two_cursors_predict_at_once_on_one_connection(calls, transcripts):
    sql = "PREDICT USING m OPTIONS (batch_size=2) AS SELECT id, audio FROM calls"
    one, two = calls.execute(sql), calls.execute(f"{sql} ORDER BY id DESC")
    found_one, found_two = {}, {}
    for (i, _, first), (j, _, second) in zip(one, two, strict=True):
        found_one[i], found_two[j] = first, second
    assert found_one == found_two == transcripts


def test_committing_and_writing_do_not_end_an_open_predict(calls, transcripts):
    calls.execute("CREATE TABLE done (id, text)")
    sql = "PREDICT USING m OPTIONS (batch_size=2) AS SELECT id, audio FROM calls"
    for i, _, text in calls.execute(sql):
        calls.execute("INSERT INTO done VALUES (?, ?)", (i, text))
        calls.commit()
    assert dict(calls.execute("SELECT * FROM done").fetchall()) == transcripts


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        (
            "SELECT ?, id FROM (PREDICT USING m OPTIONS (batch_size=?, result_col=?) "
            "AS SELECT id, audio FROM calls WHERE id > ? AND id < ?) WHERE id <> ?",
            ("x", 2, "p", 2, 6, 4),
        ),
        (
            "SELECT ?6, id FROM (PREDICT USING m OPTIONS (batch_size=?2, result_col=?3)"
            " AS SELECT id, audio FROM calls WHERE id > ?2 AND id < ?5) WHERE id <> ?4",
            ("unused", 2, "p", 4, 6, "x"),
        ),
        (
            "SELECT :x, id FROM (PREDICT USING m OPTIONS (batch_size=@two, "
            "result_col=$p) AS SELECT id, audio FROM calls WHERE id > :two AND id < :y)"
            " WHERE id <> :z",
            {"x": "x", "two": 2, "p": "p", "y": 6, "z": 4},
        ),
    ],
)
def test_parameters_bind_before_inside_and_after_a_clause(calls, sql, parameters):
    assert calls.execute(sql, parameters).fetchall() == [("x", 3), ("x", 5)]


def test_parameters_of_a_clause_are_counted(calls):
    sql = "PREDICT USING m OPTIONS (batch_size=?) AS SELECT * FROM calls WHERE id = ?"
    with pytest.raises(thanosql.ProgrammingError, match="uses 2, and there are 1"):
        calls.execute(sql, (1,))
    with pytest.raises(thanosql.ProgrammingError, match="parameter :i"):
        calls.execute("PREDICT USING m AS SELECT * FROM calls WHERE id = :i", {"j": 1})


@pytest.mark.parametrize(
    "head",
    [
        "CREATE VIEW v AS ",
        "CREATE TEMP VIEW v AS SELECT * FROM (",
        "CREATE TRIGGER r AFTER INSERT ON calls BEGIN INSERT INTO calls ",
    ],
)
def test_a_clause_cannot_outlive_its_execution(calls, head):
    tail = ")" if head.endswith("(") else "; END" if "BEGIN" in head else ""
    with pytest.raises(thanosql.NotSupportedError, match="CREATE TABLE"):
        calls.execute(head + PREDICT + tail)


def test_a_script_may_hold_clauses(calls):
    calls.executescript(
        f"CREATE TABLE t AS {PREDICT}; -- first; PREDICT\n"
        f"INSERT INTO t {PREDICT};"
        f"{PREDICT}"
    )
    assert calls.execute("SELECT count(*) FROM t").fetchone() == (16,)
    assert not calls.in_transaction


def test_an_error_in_the_query_points_into_the_statement(calls):
    sql = "PREDICT USING m\nAS SELECT 'é', audio,\n  nope FROM calls"
    with pytest.raises(thanosql.OperationalError) as error:
        calls.execute(sql)
    assert str(error.value) == (
        "no such column: nope (line 3, column 3)\n    nope FROM calls\n    ^"
    )
    with pytest.raises(thanosql.OperationalError, match=r"line 2, column 7"):
        calls.execute(
            f"SELECT nada FROM ({PREDICT})\nWHERE nope = 1".replace("nada", "1")
        )


def test_a_row_that_cannot_be_read_is_named_when_it_is_reached(calls):
    calls.execute("UPDATE calls SET audio = x'00' WHERE id = 5")
    sql = "PREDICT USING m OPTIONS (batch_size=2) AS SELECT id, audio FROM calls"
    cursor = calls.execute(sql)
    assert len(cursor.fetchmany(4)) == 4
    with pytest.raises(thanosql.AudioError, match="row 5"):
        cursor.fetchall()
    assert modules(calls) == []
    assert calls.execute("SELECT 1").fetchall() == [(1,)]


def test_a_row_is_named_by_its_number_in_later_scans_too(calls):
    calls.execute("UPDATE calls SET audio = x'00' WHERE id = 7")
    sql = "PREDICT USING m OPTIONS (batch_size=2) AS SELECT id, audio FROM calls"
    with pytest.raises(thanosql.AudioError, match=r"^row 7:"):
        calls.execute(
            f"SELECT (SELECT predicted FROM ({sql}) WHERE id = c.id) FROM calls c"
        ).fetchall()


def test_a_column_without_a_name_is_called_what_was_written(calls):
    written = f"(SELECT predicted FROM ({PREDICT} WHERE id = 1))"
    cursor = calls.execute(f"SELECT {written}, upper({written}) AS loud, 1 + 1")
    assert [c[0] for c in cursor.description] == [written, "loud", "1 + 1"]
    assert len(cursor.fetchall()) == 1


def test_an_empty_query_predicts_nothing_and_keeps_its_columns(calls):
    cursor = calls.execute(f"{PREDICT} WHERE 0")
    assert [column[0] for column in cursor.description] == ["id", "audio", "predicted"]
    assert cursor.fetchall() == []


def test_listing_and_describing_models(calls):
    names = [c[0] for c in calls.execute("LIST MODELS").description]
    assert names[:2] == ["name", "base"]
    facts = dict(calls.execute("DESCRIBE MODEL m").fetchall())
    assert facts["architecture"] == "Wav2Vec2ForCTC"
    assert facts["parameters"] > 0
    assert len(facts["sha256"]) == 64
    assert calls.execute(
        "SELECT value FROM (DESCRIBE MODEL m) WHERE property = 'name'"
    ).fetchall() == [("m",)]
    assert calls.execute("LIST THANOSQL MODEL").fetchall()[0][0] == "m"


def test_a_dropped_model_is_gone_and_dropping_it_again_is_an_error(calls):
    cursor = calls.execute("DROP MODEL m")
    assert cursor.description is None
    assert calls.execute("LIST MODELS").fetchall() == []
    assert calls.execute("SELECT count(*) FROM thanosql_files").fetchone() == (0,)
    with pytest.raises(thanosql.ModelNotFoundError, match="no model named 'm'"):
        calls.execute("DELETE MODEL m")
    calls.execute("DROP MODEL IF EXISTS m")


def test_a_model_goes_out_and_comes_back_the_same(calls, transcripts, tmp_path):
    target = tmp_path / "out" / "m"
    (row,) = calls.execute("EXPORT MODEL m TO ?", (str(target),)).fetchall()
    assert row[:2] == ("m", str(target))
    assert (target / "model.safetensors").exists()
    calls.execute(f"UPLOAD MODEL again FROM '{target}'")
    sql = "SELECT id, predicted FROM (PREDICT USING again AS SELECT * FROM calls)"
    assert dict(calls.execute(sql).fetchall()) == transcripts
    with pytest.raises(thanosql.ProgrammingError, match="not empty"):
        calls.execute("EXPORT MODEL m TO ?", (str(target),))
    calls.execute("EXPORT MODEL m TO ? OPTIONS (overwrite=True)", (str(target),))


def test_rolling_back_undoes_what_was_done_to_models(calls):
    calls.execute("BEGIN")
    calls.execute("DROP MODEL m")
    assert calls.execute("LIST MODELS").fetchall() == []
    calls.rollback()
    assert len(calls.execute("LIST MODELS").fetchall()) == 1


def test_a_model_stored_in_an_implicit_transaction_is_announced(calls, base):
    calls.execute("INSERT INTO calls (audio) VALUES (NULL)")
    with pytest.warns(thanosql.Warning, match="commit"):
        calls.execute("IMPORT MODEL n FROM ?", (str(base),))
    calls.rollback()
    calls.execute("BEGIN")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calls.execute("IMPORT MODEL n FROM ?", (str(base),))
    calls.commit()
    assert len(calls.execute("LIST MODELS").fetchall()) == 2


def test_a_rebuilt_model_is_never_served_stale(calls, base, transcripts, tmp_path):
    model = transformers_model(base)
    model.lm_head.weight.data.mul_(-1)
    model.save_pretrained(tmp_path / "other")
    for file in base.iterdir():
        if not (tmp_path / "other" / file.name).exists():
            (tmp_path / "other" / file.name).write_bytes(file.read_bytes())
    calls.execute(
        "IMPORT MODEL m FROM ? OPTIONS (overwrite=1)", (str(tmp_path / "other"),)
    )
    again = {row[0]: row[2] for row in calls.execute(PREDICT)}
    assert again != transcripts


def transformers_model(directory):
    from transformers import AutoModelForCTC

    return AutoModelForCTC.from_pretrained(directory)


@pytest.mark.parametrize(
    ("sql", "error", "message"),
    [
        (
            "PREDICT USING em AS SELECT * FROM calls",
            thanosql.ModelNotFoundError,
            "no model named 'em'; did you mean 'm'",
        ),
        (
            "PREDICT USING TinyEn AS SELECT * FROM calls",
            thanosql.ModelNotFoundError,
            "'TinyEn' is a base: GET MODEL TinyEn stores it as it is, BUILD MODEL",
        ),
        (
            "DESCRIBE MODEL XLSRBase",
            thanosql.ModelNotFoundError,
            "'XLSRBase' is a base that cannot transcribe yet: BUILD MODEL trains from",
        ),
        (
            "PREDICT USING m OPTIONS (bacth_size=2) AS SELECT * FROM calls",
            thanosql.OptionError,
            "did you mean 'batch_size'",
        ),
        (
            "PREDICT USING m OPTIONS (batch_size='two') AS SELECT * FROM calls",
            thanosql.OptionError,
            "batch_size",
        ),
        (
            "PREDICT USING m OPTIONS (audio_col='adio') AS SELECT * FROM calls",
            thanosql.OptionError,
            "no column 'adio' for audio_col; did you mean 'audio'",
        ),
        (
            "PREDICT USING m AS SELECT id FROM calls",
            thanosql.OptionError,
            "no column 'audio' for audio_col; it has id",
        ),
        (
            "PREDICT USING m OPTIONS (result_col='TEXT') AS SELECT * FROM calls",
            thanosql.OptionError,
            "set result_col to another name",
        ),
        (
            "PREDICT USING m AS SELECT 'no/such.wav' AS audio",
            thanosql.AudioError,
            r"row 1: .*no/such\.wav",
        ),
        (
            "PREDICT USING m AS SELECT NULL AS audio",
            thanosql.AudioError,
            "row 1: .*NULL",
        ),
        (
            "PREDICT USING m AS SELECT x'' AS audio",
            thanosql.AudioError,
            "row 1: .*empty",
        ),
        (
            "PREDICT USING m AS DELETE FROM calls RETURNING audio",
            thanosql.ProgrammingError,
            "expected a query after AS",
        ),
        (
            "EVALUATE USING m AS SELECT audio FROM calls",
            thanosql.OptionError,
            "no column 'text' for text_col",
        ),
        (
            "IMPORT MODEL m FROM 'x'",
            thanosql.ModelExistsError,
            "a model named 'm' exists already",
        ),
        ("PREDICT USING m AS", thanosql.StatementSyntaxError, r"line 1, column 19"),
    ],
)
def test_bad_input_is_answered_with_the_way_out(calls, sql, error, message):
    with pytest.raises(error, match=message):
        calls.execute(sql).fetchall()
    assert modules(calls) == []
    assert not calls.in_transaction


def test_a_text_file_named_wav_is_told_apart(calls, tmp_path):
    path = tmp_path / "note.wav"
    path.write_text("this is only a note")
    with pytest.raises(thanosql.AudioError, match=r"row 1: .*note\.wav"):
        calls.execute("PREDICT USING m AS SELECT ? AS audio", (str(path),)).fetchall()


def test_a_database_without_models_says_how_to_make_one(connection):
    with pytest.raises(thanosql.ModelNotFoundError, match="none is stored yet"):
        connection.execute("PREDICT USING m AS SELECT 1 AS audio")
    assert connection.execute("LIST MODELS").fetchall() == []


def test_audio_paths_start_at_audio_root(calls, transcripts, tmp_path):
    for i, audio in calls.execute("SELECT id, audio FROM calls").fetchall():
        (tmp_path / f"{i}.wav").write_bytes(audio)
    path = calls.execute("PRAGMA database_list").fetchone()[2]
    connection = thanosql.connect(path, audio_root=tmp_path)
    sql = "PREDICT USING m AS SELECT id, id || '.wav' AS audio_path FROM calls"
    assert {row[0]: row[2] for row in connection.execute(sql)} == transcripts
    connection.close()


def test_an_error_that_is_kept_keeps_no_lock(calls):
    calls.execute("UPDATE calls SET audio = x'00' WHERE id = 5")
    calls.commit()
    path = calls.execute("PRAGMA database_list").fetchone()[2]
    other = thanosql.connect(path, timeout=0)
    kept = []
    for clause in ("PREDICT USING m", "EVALUATE USING m", "BUILD MODEL n USING m"):
        sql = f"{clause} OPTIONS (batch_size=2) AS SELECT * FROM calls"
        with pytest.raises(thanosql.Error) as error:
            calls.execute(sql).fetchall()
        kept.append(error.value)
        other.execute("UPDATE calls SET text = 'x' WHERE id = 1")
        other.commit()
    other.close()


@pytest.mark.parametrize(
    "sql", [PREDICT, "EVALUATE USING m AS SELECT * FROM calls", "DESCRIBE MODEL m"]
)
def test_a_locked_database_is_an_operational_error_for_clauses_too(calls, sql):
    path = calls.execute("PRAGMA database_list").fetchone()[2]
    calls.execute("BEGIN EXCLUSIVE")
    other = thanosql.connect(path, timeout=0)
    with pytest.raises(thanosql.OperationalError, match="locked"):
        other.execute(sql)
    other.close()


@pytest.mark.parametrize(
    "sql", ["PREDICT USING m AS SELECT ? AS audio", f"SELECT ? FROM ({PREDICT})"]
)
def test_a_parameter_of_a_wrong_type_is_a_programming_error(calls, sql):
    with pytest.raises(thanosql.ProgrammingError, match="of type object, which"):
        calls.execute(sql, (object(),))
    assert modules(calls) == []


def test_tables_with_the_names_of_ours_are_not_mistaken_for_them(calls):
    calls.serial = itertools.count(1)
    calls.execute("CREATE TABLE thanosql_predict_1 AS SELECT 'wrong'")
    calls.execute("CREATE TEMP TABLE thanosql_PREDICT_2 AS SELECT 'wrong'")
    sql = f"""
        WITH thanosql_predict_3 AS (SELECT 'wrong')
        SELECT count(*) FROM ({PREDICT}), thanosql_predict_3
        """
    assert calls.execute(sql).fetchall() == [(8,)]


def test_a_column_added_between_two_scans_does_not_pass_for_the_transcript(calls):
    cursor = calls.execute(
        "SELECT k.value, predicted FROM json_each('[1, 2]') AS k "
        "CROSS JOIN (PREDICT USING m AS SELECT * FROM calls)"
    )
    cursor.fetchone()
    calls.execute("ALTER TABLE calls ADD COLUMN extra DEFAULT 'wrong'")
    with pytest.raises(thanosql.OperationalError, match="have changed since"):
        cursor.fetchall()


def test_a_model_replaced_before_it_is_read_is_not_mistaken_for_the_new_one(
    calls, base, monkeypatch
):
    from thanosql.speech import loading

    monkeypatch.setattr(loading, "_loaded", loading._LoadedModels())
    calls.execute("IMPORT MODEL n FROM ?", (str(base),))
    calls.execute("UPDATE thanosql_models SET sha256 = 'old' WHERE name = 'n'")
    calls.commit()
    sql = f"SELECT id FROM ({PREDICT}) UNION ALL SELECT id FROM ({PREDICT})"
    cursor = calls.execute(sql[::-1].replace(" m ", " n ", 1)[::-1])
    calls.execute("IMPORT MODEL n FROM ? OPTIONS (overwrite=TRUE)", (str(base),))
    with pytest.raises(thanosql.OperationalError, match="'n' was dropped or replaced"):
        cursor.fetchall()


def test_an_implicit_transaction_is_announced_at_the_callers_line(calls, base):
    calls.execute("INSERT INTO calls (audio) VALUES (NULL)")
    calls.execute("SAVEPOINT s")
    with pytest.warns(thanosql.Warning, match="commit") as warned:
        calls.execute("IMPORT MODEL n FROM ?", (str(base),))
    assert [warning.filename for warning in warned] == [__file__]


def test_a_model_that_cannot_be_written_out_is_an_operational_error(calls, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(thanosql.OperationalError, match="Not a directory"):
        calls.execute("EXPORT MODEL m TO ?", (str(tmp_path / "file" / "m"),))
    with pytest.raises(thanosql.ProgrammingError, match="it is a file"):
        calls.execute("EXPORT MODEL m TO ?", (str(tmp_path / "file"),))


def test_an_error_of_a_later_scan_points_nowhere_rather_than_wrong(calls):
    calls.execute("CREATE TABLE c AS SELECT audio, text FROM calls LIMIT 1")
    cursor = calls.execute(
        "SELECT k.value FROM json_each('[1, 2]') AS k "
        "CROSS JOIN (PREDICT USING m AS SELECT audio, text FROM c)"
    )
    cursor.fetchone()
    calls.execute("ALTER TABLE c RENAME COLUMN text TO words")
    with pytest.raises(thanosql.OperationalError, match=r"no such column: text$"):
        cursor.fetchall()


def test_a_failed_predict_leaves_nothing_to_the_garbage_collector(calls):
    def fail():
        with pytest.raises(thanosql.DataError, match="row 9"):
            calls.execute(
                "PREDICT USING m OPTIONS (batch_size=4) AS "
                "SELECT audio FROM calls UNION ALL SELECT x'00'"
            ).fetchall()

    fail()  # the first time imports
    gc.collect()
    gc.disable()
    try:
        fail()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        left = [each for each in gc.garbage if inspect.isframe(each)]
        names = {frame.f_code.co_name for frame in left}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not names
