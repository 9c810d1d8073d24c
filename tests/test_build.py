"""BUILD MODEL, from rows to a stored model that PREDICT and EVALUATE use."""

import _thread
import contextlib
import json
import math
import threading
import warnings

import apsw
import pytest
import torch
from counting import statements
from tones import tones

import thanosql
from thanosql.store.models import ModelStore
from thanosql.store.records import ModelRecord

WORDS = ["abc", "cab", "face", "bead", "ace bag", "fed", "gab", "had", "deaf", "egg"]


@pytest.fixture
def tone_table(connection):
    connection.execute("CREATE TABLE spoken (audio BLOB, text TEXT)")
    connection.executemany(
        "INSERT INTO spoken VALUES (?, ?)",
        [(tones(text, seed=i), text) for i, text in enumerate(WORDS * 4)],
    )
    connection.commit()
    return connection


@pytest.fixture(scope="session")
def bare(tmp_path_factory):
    """Return a directory with nothing but the config of a small wav2vec 2.0."""
    directory = tmp_path_factory.mktemp("bare")
    config = {
        "model_type": "wav2vec2",
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 96,
        "conv_dim": [32, 32, 48],
        "conv_kernel": [10, 8, 8],
        "conv_stride": [5, 8, 8],
        "feat_extract_norm": "layer",
        "conv_bias": True,
        "num_feat_extract_layers": 3,
        "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4,
        "apply_spec_augment": False,
        "layerdrop": 0.0,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "feat_proj_dropout": 0.0,
        "final_dropout": 0.0,
    }
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def build(connection, base, **options):
    """Build model m, by default for a few quick steps; return its epochs as dicts."""
    options = {"epochs": 2, "batch_size": 8, "learning_rate": 3e-3, **options}
    names = ", ".join(f"{name} = :{name}" for name in options)
    cursor = connection.execute(
        f"BUILD MODEL m USING '{base}' OPTIONS ({names}) AS SELECT * FROM spoken",
        options,
    )
    columns = [column[0] for column in cursor.description]
    return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]


def test_a_model_built_from_nothing_reads_what_it_was_trained_on(tone_table, bare):
    epochs = build(tone_table, bare, epochs=40, validation=0)
    assert epochs[-1]["train_loss"] < 0.3 < 2 < epochs[0]["train_loss"]
    with pytest.warns(thanosql.Warning, match="40 of the 40 recordings scored were"):
        (score,) = tone_table.execute(
            "SELECT rows, wer FROM (EVALUATE USING m AS SELECT audio, text FROM spoken)"
        ).fetchall()
    assert score[0] == 40
    assert score[1] < 0.2
    assert (
        tone_table.execute(
            "SELECT count(*) FROM (PREDICT USING m AS SELECT * FROM spoken) "
            "WHERE predicted = text"
        ).fetchone()[0]
        >= 32
    )


def test_what_was_trained_how_is_kept_in_tables(tone_table, base):
    epochs = build(tone_table, base, validation=0.25, seed=3)
    assert [epoch["epoch"] for epoch in epochs] == [1, 2]
    assert sum(epoch["kept"] for epoch in epochs) == 1
    assert all(epoch["wer"] >= 0 for epoch in epochs)
    run = tone_table.execute(
        "SELECT model_name, base, query, options, utterances, validation_utterances "
        "FROM thanosql_runs"
    ).fetchone()
    assert run[:3] == ("m", str(base), "SELECT * FROM spoken")
    assert json.loads(run[3])["seed"] == 3
    assert run[4:] == (30, 10)
    kept = tone_table.execute(
        "SELECT e.epoch, e.wer, m.name FROM thanosql_epochs e "
        "JOIN thanosql_models m USING (run_id) WHERE e.kept"
    ).fetchall()
    assert [
        (epoch["epoch"], epoch["wer"], "m") for epoch in epochs if epoch["kept"]
    ] == (kept)
    facts = dict(tone_table.execute("DESCRIBE MODEL m").fetchall())
    assert facts["query"] == "SELECT * FROM spoken"
    assert facts["option seed"] == 3
    (best,) = [epoch for epoch in epochs if epoch["kept"]]
    assert facts["kept_epoch"] == best["epoch"]
    assert facts["train_loss"] == best["train_loss"]
    assert "version torch" in facts


def digest(connection, name="m"):
    return connection.execute(
        f"SELECT value FROM (DESCRIBE MODEL {name}) WHERE property = 'sha256'"
    ).fetchone()[0]


def test_the_same_seed_builds_the_same_model_and_another_another(tone_table, bare):
    digests = []
    for seed in (1, 1, 2):
        build(tone_table, bare, epochs=1, seed=seed, overwrite=True, validation=0.2)
        digests.append(digest(tone_table))
    assert digests[0] == digests[1] != digests[2]


def test_validation_rows_may_come_from_a_query(tone_table, base):
    tone_table.execute("CREATE TABLE other AS SELECT * FROM spoken LIMIT 5")
    tone_table.execute("DELETE FROM spoken WHERE rowid <= 5")
    tone_table.commit()
    build(tone_table, base, validation="SELECT audio, text FROM other; ")
    assert tone_table.execute(
        "SELECT utterances, validation_utterances FROM thanosql_runs"
    ).fetchone() == (35, 5)


def test_rows_that_are_validated_on_and_trained_on_are_warned_of(tone_table, base):
    tone_table.execute("CREATE TABLE other AS SELECT * FROM spoken LIMIT 5")
    with pytest.warns(thanosql.Warning, match="5 of the 5 recordings to validate on"):
        build(tone_table, base, validation="SELECT audio, text FROM other")


def test_rows_that_come_twice_are_on_one_side_of_the_split(tone_table, base):
    tone_table.execute("CREATE TABLE twice AS SELECT * FROM spoken, (VALUES (1), (2))")
    tone_table.execute(
        f"BUILD MODEL m USING '{base}' OPTIONS (epochs=1, validation=0.2) "
        "AS SELECT audio, text FROM twice"
    )
    digests = tone_table.execute(
        "SELECT count(DISTINCT validation) FROM thanosql_rows GROUP BY audio"
    ).fetchall()
    assert digests == [(1,)] * 40


@pytest.mark.parametrize("validation", [0, 0.2])
def test_a_training_that_ruins_a_model_leaves_the_old_one(tone_table, base, validation):
    build(tone_table, base, epochs=2)
    before = digest(tone_table)
    with pytest.raises(thanosql.TrainingError, match=r"the model (reads worse|writes)"):
        tone_table.execute(
            "FIT MODEL m USING m OPTIONS (epochs=2, learning_rate=10, validation=?) "
            "AS SELECT * FROM spoken",
            (validation,),
        )
    assert digest(tone_table) == before


def test_a_stored_model_is_a_base(tone_table, base):
    build(tone_table, base, epochs=1)
    tone_table.execute(
        "BUILD MODEL again USING m OPTIONS (epochs=1) AS SELECT * FROM spoken"
    )
    assert tone_table.execute("SELECT name, base FROM (LIST MODELS)").fetchall() == [
        ("again", "m"),
        ("m", str(base)),
    ]
    assert digest(tone_table) != digest(tone_table, "again")


def test_a_base_imported_under_its_own_name_needs_no_hub(tone_table, base):
    tone_table.execute("IMPORT MODEL Wav2Vec2En FROM ?", (str(base),))
    tone_table.execute(
        "BUILD MODEL m USING Wav2Vec2En OPTIONS (epochs=1, batch_size=4) "
        "AS SELECT * FROM spoken"
    )
    assert len(tone_table.execute("LIST MODELS").fetchall()) == 2


def test_a_base_that_cannot_be_reached_says_what_was_tried(tone_table, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(
        thanosql.OperationalError, match=r"(?s)facebook/wav2vec2-base-960h.*directory"
    ):
        tone_table.execute("BUILD MODEL m USING Wav2Vec2En AS SELECT * FROM spoken")
    with pytest.raises(thanosql.ModelNotFoundError, match="did you mean 'Wav2Vec2En'"):
        tone_table.execute("BUILD MODEL m USING Wav2VecEn AS SELECT * FROM spoken")


def test_a_model_of_that_name_is_replaced_only_when_asked(tone_table, base):
    build(tone_table, base)
    first = digest(tone_table)
    with pytest.raises(thanosql.ModelExistsError, match="overwrite=True"):
        build(tone_table, base)
    sql = "MODEL {} m USING '{}' OPTIONS (epochs=1) AS SELECT * FROM spoken"
    cursor = tone_table.execute("BUILD " + sql.format("IF NOT EXISTS", base))
    assert cursor.fetchall() == []
    assert digest(tone_table) == first
    tone_table.execute("BUILD OR REPLACE " + sql.format("", base))
    assert digest(tone_table) != first
    assert tone_table.execute("SELECT count(*) FROM thanosql_models").fetchone() == (1,)


def test_building_in_a_transaction_belongs_to_it(tone_table, base):
    tone_table.execute("BEGIN")
    build(tone_table, base, epochs=1)
    assert tone_table.in_transaction
    tone_table.rollback()
    assert tone_table.execute("LIST MODELS").fetchall() == []
    assert tone_table.execute(
        "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'thanosql%'"
    ).fetchone() == (0,)
    build(tone_table, base, epochs=1)
    assert not tone_table.in_transaction


def test_no_lock_is_held_while_training(tmp_path, base):
    path = tmp_path / "x.db"
    con = thanosql.connect(path)
    con.execute("CREATE TABLE spoken (audio BLOB, text TEXT)")
    con.executemany("INSERT INTO spoken VALUES (?, ?)", [(tones(w), w) for w in WORDS])
    con.commit()
    con.execute("IMPORT MODEL base FROM ?", (str(base),))
    other = thanosql.connect(path, timeout=0)
    wrote = []

    def write(*_):
        other.execute("INSERT INTO spoken VALUES (NULL, NULL)")
        other.commit()
        wrote.append(True)

    from thanosql.execution.progress import Progress

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "__call__", lambda *_, **__: write())
        build(con, "base", epochs=1, validation=0)
    assert len(wrote) > 1
    other.close()
    con.close()


def test_a_build_that_feeds_an_insert_holds_no_lock_either(tmp_path, base):
    path = tmp_path / "x.db"
    con = thanosql.connect(path)
    con.execute("CREATE TABLE spoken (audio BLOB, text TEXT)")
    con.execute("CREATE TABLE history (epoch, loss)")
    con.executemany("INSERT INTO spoken VALUES (?, ?)", [(tones(w), w) for w in WORDS])
    con.commit()
    other = thanosql.connect(path, timeout=0)

    def write(*_, **__):
        other.execute("INSERT INTO spoken VALUES (NULL, NULL)")
        other.commit()

    from thanosql.execution.progress import Progress

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "__call__", write)
        con.execute(
            "INSERT INTO history SELECT epoch, train_loss FROM (BUILD MODEL m "
            f"USING '{base}' OPTIONS (epochs=1) AS SELECT * FROM spoken)"
        )
    con.rollback()  # the history; no transaction was open when the model was stored
    assert con.execute("SELECT * FROM history").fetchall() == []
    assert con.execute("SELECT name FROM (LIST MODELS)").fetchall() == [("m",)]
    other.close()
    con.close()


@pytest.mark.parametrize(
    ("query", "error", "message"),
    [
        ("SELECT * FROM spoken WHERE text = ?", thanosql.OptionError, "parameters"),
        ("DROP MODEL m", thanosql.StatementSyntaxError, "yields no rows"),
        ("SELECT * FROM spoken; SELECT 1", thanosql.OperationalError, 'near ";"'),
        ("DELETE FROM spoken", thanosql.OperationalError, "syntax error"),
        (
            "SELECT * FROM nope",
            thanosql.OperationalError,
            "in the validation query: no such table: nope",
        ),
        (
            "SELECT audio FROM spoken",
            thanosql.OptionError,
            "the validation query has no column 'text' for text_col; it has audio",
        ),
        (
            "SELECT text FROM spoken",
            thanosql.OptionError,
            "the validation query has no column 'audio' for audio_col",
        ),
    ],
)
def test_validation_takes_one_query(tone_table, base, query, error, message):
    with pytest.raises(error, match=message):
        build(tone_table, base, validation=query)


def test_a_device_that_is_not_there_is_told_before_the_rows_are_looked_at(
    tone_table, base
):
    tone_table.execute("INSERT INTO spoken (audio, text) VALUES (x'00', 'a')")
    tone_table.commit()
    with pytest.raises(thanosql.OptionError, match="device='cuda:99'"):
        build(tone_table, base, device="cuda:99")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_run_tells_on_which_gpu_it_was(tone_table, base):
    build(tone_table, base, device="cuda:0")
    devices = tone_table.execute("SELECT device FROM thanosql_runs").fetchall()
    assert devices == [("cuda:0",)]


@pytest.mark.parametrize("check_only", [True, False])
@pytest.mark.parametrize(
    "follows",
    ["; DELETE FROM spoken; --", ";;/* */ DELETE FROM spoken -- ", "; SELECT (1"],
)
def test_no_statement_hides_behind_the_validation_query(
    tone_table, base, follows, check_only
):
    query = f"SELECT audio, text FROM spoken LIMIT 2){follows}"
    with pytest.raises(thanosql.OptionError, match=r"option validation, and another"):
        build(tone_table, base, validation=query, check_only=check_only)
    assert tone_table.execute("SELECT count(*) FROM spoken").fetchone() == (40,)


def test_a_comment_behind_the_validation_query_is_no_statement(tone_table, base):
    for comment in ("-- the last", "/* those */", "; "):
        query = f"SELECT audio, text FROM spoken LIMIT 2 {comment}"
        assert build(tone_table, base, validation=query, check_only=True)


TRAIN = (
    "BUILD MODEL n USING m OPTIONS (epochs=1, validation=0) "
    "AS SELECT ? AS audio, 'abc' AS text"
)


def when_told(connection, sql, do):
    """Have `do` called once, as the connection comes to a statement."""

    def told(facts):
        if facts["sql"] == sql:
            connection.apsw.trace_v2(0, None)
            do()

    connection.apsw.trace_v2(apsw.SQLITE_TRACE_STMT, told)


def test_a_database_that_is_busy_when_the_model_is_stored_is_waited_for(tmp_path, base):
    path = tmp_path / "x.db"
    con = thanosql.connect(path, timeout=0)
    con.execute("IMPORT MODEL m FROM ?", (str(base),))
    shared = thanosql.connect(path, check_same_thread=False)
    with contextlib.closing(shared) as other:
        other.execute("CREATE TABLE t (a)")
        other.execute("INSERT INTO t VALUES (1)")
        with pytest.raises(thanosql.OperationalError, match="locked"):
            con.execute("DROP MODEL m")
        committing = threading.Timer(0.5, other.commit)
        when_told(con, "BEGIN IMMEDIATE", committing.start)
        con.execute(TRAIN, (tones("abc"),))
        committing.join()
    assert len(con.execute("LIST MODELS").fetchall()) == 2
    con.close()


@pytest.fixture
def beside_a_reader(tmp_path, base):
    """Return a connection without patience of its own, and a cursor of another."""
    path = tmp_path / "x.db"
    with (
        contextlib.closing(thanosql.connect(path, timeout=0)) as con,
        contextlib.closing(thanosql.connect(path, check_same_thread=False)) as other,
    ):
        con.execute("IMPORT MODEL m FROM ?", (str(base),))
        reading = other.execute("SELECT * FROM thanosql_files")
        reading.fetchone()
        yield con, reading


def test_a_reader_is_waited_for_when_the_model_is_stored(beside_a_reader):
    con, reading = beside_a_reader
    closing = threading.Timer(0.5, reading.close)
    when_told(con, "COMMIT", closing.start)
    con.execute(TRAIN, (tones("abc"),))
    closing.join()
    assert len(con.execute("LIST MODELS").fetchall()) == 2


@pytest.mark.parametrize(
    "statement", ["IMPORT MODEL n FROM '{base}'", "GET MODEL TinyEn"]
)
def test_what_is_stored_as_it_is_waits_no_longer_than_the_connection(
    beside_a_reader, base, statement
):
    con, _ = beside_a_reader
    with (
        statements(con) as counts,
        pytest.raises(thanosql.OperationalError, match="locked"),
    ):
        con.execute(statement.format(base=base))
    assert counts["COMMIT"] == 1  # what waits tries again and again
    assert len(con.execute("LIST MODELS").fetchall()) == 1


def test_waiting_for_a_reader_can_be_interrupted(beside_a_reader):
    con, _ = beside_a_reader
    # Well after the callback that starts it, which would swallow it.
    interrupting = threading.Timer(1, _thread.interrupt_main)
    when_told(con, "COMMIT", interrupting.start)
    with pytest.raises(KeyboardInterrupt):
        con.execute(TRAIN, (tones("abc"),))
    assert not con.in_transaction
    assert len(con.execute("LIST MODELS").fetchall()) == 1


def test_a_lock_right_behind_the_commit_is_no_failure(tmp_path, base):
    path = tmp_path / "x.db"
    with (
        contextlib.closing(thanosql.connect(path, timeout=0)) as con,
        contextlib.closing(apsw.Connection(str(path))) as other,
    ):

        def behind_commit(told):
            if told["sql"] == "COMMIT":
                other.execute("BEGIN EXCLUSIVE")

        con.apsw.trace_v2(apsw.SQLITE_TRACE_PROFILE, behind_commit)
        record = ModelRecord("m", str(base), "Wav2Vec2ForCTC", 1, {})
        assert ModelStore(con.apsw).save(record, base).name == "m"


def test_the_epochs_of_a_build_can_be_queried(tone_table, base):
    rows = tone_table.execute(
        "CREATE TABLE history AS SELECT epoch, train_loss FROM "
        f"(BUILD MODEL m USING '{base}' OPTIONS (epochs=2) AS SELECT * FROM spoken)"
    )
    assert rows.description is None
    history = tone_table.execute("SELECT epoch, train_loss FROM history").fetchall()
    assert [epoch for epoch, _ in history] == [1, 2]
    assert all(math.isfinite(loss) for _, loss in history)


def test_bad_rows_are_all_named_before_any_training(tone_table, base, tmp_path):
    (tmp_path / "note.wav").write_text("only a note")
    tone_table.execute("DELETE FROM spoken")
    good = tones("abc")
    tone_table.executemany(
        "INSERT INTO spoken VALUES (?, ?)",
        [
            (good, "abc"),
            (None, "abc"),
            (good, None),
            (b"", "abc"),
            ("no/such.wav", "abc"),
            (str(tmp_path / "note.wav"), "abc"),
            (good, "..."),
            (good, "abc" * 40),
            (good, ""),
            (5, "abc"),
            *[(None, "abc")] * 5,
        ],
    )
    tone_table.commit()
    with pytest.raises(thanosql.TrainingError) as error:
        build(tone_table, base)
    message = str(error.value)
    assert "14 of 15 rows" in message
    assert "row 1:" not in message
    for row, reason in {
        2: "NULL",
        3: "NULL",
        4: "empty",
        5: "such.wav",
        6: "note.wav",
        7: "...",
        8: "too long for its audio",
        9: "empty",
        10: "int",
    }.items():
        (line,) = [
            x for x in message.splitlines() if x.strip().startswith(f"row {row}:")
        ]
        assert reason in line
    assert "and 4 more" in message
    assert tone_table.execute("LIST MODELS").fetchall() == []


def test_what_the_vocabulary_cannot_spell_is_counted_and_reported(tone_table, base):
    tone_table.execute("UPDATE spoken SET text = text || ', 7!' WHERE rowid <= 3")
    tone_table.commit()
    with pytest.warns(thanosql.Warning, match=r"cannot spell '7' \(3\)"):
        build(tone_table, base, epochs=1)
    (dropped,) = tone_table.execute("SELECT dropped FROM thanosql_runs").fetchone()
    assert json.loads(dropped)["7"] == 3


@pytest.mark.parametrize(
    ("sql", "error", "message"),
    [
        ("SELECT * FROM spoken WHERE 0", thanosql.TrainingError, "no rows"),
        ("SELECT text FROM spoken", thanosql.OptionError, "no column 'audio'"),
        ("SELECT audio FROM spoken", thanosql.OptionError, "no column 'text'"),
        (
            "SELECT audio, length(text) AS text FROM spoken",
            thanosql.TrainingError,
            r"write CAST\(text AS TEXT\) AS text in it\n  row 1: text is a number, not",
        ),
        ("SELECT * FROM spokn", thanosql.OperationalError, "no such table: spokn"),
    ],
)
def test_a_query_that_gives_nothing_to_learn_from_is_an_error(
    tone_table, base, sql, error, message
):
    with pytest.raises(error, match=message):
        tone_table.execute(f"BUILD MODEL m USING '{base}' AS {sql}")
    assert tone_table.execute("LIST MODELS").fetchall() == []


def test_a_pickle_is_refused(tone_table, base, tmp_path):
    import torch
    from safetensors.torch import load_file

    for file in base.iterdir():
        if file.suffix == ".json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save(load_file(base / "model.safetensors"), tmp_path / "pytorch_model.bin")
    with pytest.raises(thanosql.NotSupportedError, match="safetensors"):
        build(tone_table, tmp_path)


def test_a_read_only_database_says_so_before_training(tmp_path, base):
    path = tmp_path / "x.db"
    con = thanosql.connect(path)
    con.execute("CREATE TABLE spoken (audio BLOB, text TEXT)")
    con.execute("INSERT INTO spoken VALUES (?, 'abc')", (tones("abc"),))
    con.commit()
    con.close()
    con = thanosql.connect(f"file:{path}?mode=ro", uri=True)
    with pytest.raises(thanosql.OperationalError, match="read-only"):
        build(con, base)
    con.close()


def test_an_ordinary_build_warns_of_nothing(tone_table, base):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        build(tone_table, base, epochs=1)
