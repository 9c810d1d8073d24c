"""Databases that somebody crafted: no code runs, nothing outside is written."""

import hashlib
import itertools
import json
import os
import re
from pathlib import Path

import apsw
import pytest
from damage import content

import thanosql
from thanosql.store.guard import GuardedTables
from thanosql.store.records import Status, TrainingRun
from thanosql.store.runs import Ledger

PREDICT = "SELECT predicted FROM (PREDICT USING m AS SELECT * FROM calls)"


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch):
    """Have every model read from its database."""
    from thanosql.speech import loading

    monkeypatch.setattr(loading, "_loaded", loading._LoadedModels())


@pytest.fixture
def crafted(calls):
    """Return a function that runs SQL on the database, as its author might have."""

    def craft(script, *parameters):
        calls.apsw.execute("PRAGMA foreign_keys = OFF")
        calls.apsw.execute(script, parameters or None)
        return calls

    return craft


def redigest(connection):
    """Make the digest in the row of model m that of its files, as an author would."""
    digest = hashlib.sha256()
    files = {}
    for name, data in connection.apsw.execute(
        "SELECT path, data FROM thanosql_files ORDER BY path, chunk"
    ):
        files[name] = files.get(name, b"") + data
    for name, data in files.items():
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    connection.apsw.execute(
        "UPDATE thanosql_models SET sha256 = ?", (digest.hexdigest(),)
    )


NAMES = [
    "../out.json",
    "/tmp/out.json",
    "a/../../out.json",
    "a/b.json",
    "..\\out.json",
    "C:out.json",
    "C:\\out.json",
    "out.json\0.txt",
    "",
    ".",
    "..",
    ".bashrc",
    "code.py",
    "pytorch_model.bin",
    "a.json/",
    "con fig.json",
    'a".json',
    "a'.json",
    "a\n.json",
    "-rf.json",
    "~.json",
    "\u202ea.json",
    "CONFIG.JSON",
    "Config.json",
    None,
    3,
    b"config.json",
]


@pytest.mark.parametrize("statement", ["EXPORT MODEL m TO 'target'", PREDICT])
def test_a_file_name_leads_nowhere(statement, crafted, tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    connection = crafted("SELECT 1")
    connection.executescript(
        """
        CREATE TABLE renamed (model_id, path, chunk, data);
        INSERT INTO renamed SELECT * FROM thanosql_files;
        DROP TABLE thanosql_files;
        ALTER TABLE renamed RENAME TO thanosql_files;
        """
    )
    before = sorted(tmp_path.iterdir())
    for name in NAMES:
        connection.apsw.execute(
            "INSERT INTO thanosql_files SELECT model_id, ?, chunk, data "
            "FROM thanosql_files WHERE path = 'vocab.json'",
            (name,),
        )
        with pytest.raises(thanosql.DatabaseError, match="in the database are damaged"):
            connection.execute(statement).fetchall()
        rowid = connection.apsw.last_insert_rowid()
        connection.apsw.execute("DELETE FROM thanosql_files WHERE rowid = ?", (rowid,))
    assert sorted(tmp_path.iterdir()) == before
    assert list((tmp_path / "work").iterdir()) == []


def test_export_writes_through_no_link_and_into_no_pipe(calls, tmp_path):
    target, outside = tmp_path / "target", tmp_path / "outside"
    target.mkdir()
    outside.write_text("as it was")
    (target / "config.json").symlink_to(outside)
    (target / "vocab.json").hardlink_to(outside)
    os.mkfifo(target / "model.safetensors")
    calls.execute(
        "EXPORT MODEL m TO ? OPTIONS (overwrite=TRUE)", (str(target),)
    ).fetchall()
    assert outside.read_text() == "as it was"
    assert json.loads((target / "config.json").read_text())["vocab_size"] == 32
    assert all(p.is_file() and not p.is_symlink() for p in target.iterdir())


DAMAGES = [
    "UPDATE thanosql_files SET data = zeroblob(length(data)) WHERE path LIKE '%s'",
    "UPDATE thanosql_files SET data = x'' WHERE path LIKE '%s'",
    "UPDATE thanosql_files SET data = hex(data) WHERE path LIKE '%s'",
    "UPDATE thanosql_files SET data = 7 WHERE path LIKE '%s'",
    "UPDATE thanosql_files SET chunk = 1 WHERE path LIKE '%s'",
    "UPDATE thanosql_files SET chunk = -1 WHERE path LIKE '%s'",
    "UPDATE thanosql_files SET chunk = 'x' WHERE path LIKE '%s'",
    "DELETE FROM thanosql_files WHERE path LIKE '%s'",
    "INSERT INTO thanosql_files SELECT model_id, path, 1, x'00' "
    "FROM thanosql_files WHERE path LIKE '%s'",
    "DELETE FROM thanosql_files",
    "DROP TABLE thanosql_files",
    "UPDATE thanosql_models SET sha256 = 'x'",
    "UPDATE thanosql_models SET id = 99",
]


def test_files_that_are_not_what_was_stored_are_not_used(crafted):
    connection = crafted("BEGIN")
    for damage, name in itertools.product(
        DAMAGES, ("model.safetensors", "config.json")
    ):
        crafted("SAVEPOINT whole")
        crafted(damage.replace("%s", name))
        before = content(connection)
        for statement in (
            PREDICT,
            "EXPORT MODEL m TO 'nowhere/at/all'",
            "EVALUATE USING m AS SELECT * FROM calls",
            "BUILD MODEL n USING m AS SELECT * FROM calls",
        ):
            with pytest.raises(thanosql.DatabaseError):
                connection.execute(statement).fetchall()
        assert content(connection) == before
        crafted("ROLLBACK TO whole")
    assert len(connection.execute(PREDICT).fetchall()) == 8


VALUES = [
    *(None, b"\xff", "", "{", "[]", '{"a": [1]}', '{"a": {"b": 1}}', '{"a": 1e999}'),
    *('{"a": 123456789012345678901234567890}', '{"\\ud800": 1}', "[" * 10_000),
    *(2**62, -1, 1.5, "x\0y", "x" * 10_000),
]
COLUMNS = (
    *("name", "base", "architecture", "parameters", "versions", "query"),
    *("options", "bytes", "sha256", "run_id", "created_at"),
)


def test_a_damaged_row_is_shown_or_refused_and_can_be_removed(crafted):
    connection = crafted("SELECT 1")
    connection.executescript(
        """
        CREATE TABLE whole AS SELECT * FROM thanosql_models;
        DROP TABLE thanosql_models;
        CREATE TABLE thanosql_models AS SELECT * FROM whole;
        """
    )
    crafted("BEGIN")
    messages = []
    for name, value in itertools.product(COLUMNS, VALUES):
        crafted("DELETE FROM thanosql_models")
        crafted("INSERT INTO thanosql_models SELECT * FROM whole")
        connection.apsw.execute(f"UPDATE thanosql_models SET {name} = ?", (value,))
        for statement in ("LIST MODELS", "DESCRIBE MODEL m"):
            try:
                connection.execute(statement).fetchall()
            except thanosql.DatabaseError as error:
                messages.append(str(error))
    refused = len(messages)
    assert all("damaged" in m or "no model named" in m for m in messages)
    assert 100 < refused < 2 * len(COLUMNS) * len(VALUES)
    connection.execute("DELETE FROM thanosql_models")
    assert connection.execute("LIST MODELS").fetchall() == []


@pytest.mark.parametrize("if_exists", ["", "IF EXISTS "])
@pytest.mark.parametrize("damage", ["versions = 'nope'", "base = CAST(x'ff' AS TEXT)"])
def test_a_model_whose_row_is_damaged_is_dropped_with_its_files(
    crafted, base, damage, if_exists
):
    connection = crafted(f"UPDATE thanosql_models SET {damage}")
    with pytest.raises(thanosql.DatabaseError):
        connection.execute("LIST MODELS").fetchall()
    connection.execute(f"DROP MODEL {if_exists}M")
    assert connection.execute("SELECT * FROM thanosql_files").fetchall() == []
    connection.execute(f"IMPORT MODEL m FROM '{base}'")
    assert len(connection.execute(PREDICT).fetchall()) == 8


def test_the_way_out_of_a_damaged_row_leads_out(crafted):
    connection = crafted("UPDATE thanosql_models SET name = 'a \"model', bytes = 'x'")
    with pytest.raises(thanosql.DatabaseError, match="damaged") as caught:
        connection.execute("LIST MODELS").fetchall()
    way_out = str(caught.value).partition("; ")[2].removesuffix(" removes it")
    connection.execute(way_out)
    assert connection.execute("LIST MODELS").fetchall() == []
    assert connection.execute("SELECT * FROM thanosql_files").fetchall() == []


def test_text_that_is_not_utf_8_is_an_operational_error(crafted):
    connection = crafted("UPDATE thanosql_models SET base = CAST(x'ff' AS TEXT)")
    with pytest.raises(thanosql.OperationalError, match="not UTF-8"):
        connection.execute("LIST MODELS").fetchall()
    for sql in (
        "SELECT CAST(x'ff' AS TEXT)",
        "PREDICT USING m AS SELECT CAST(x'ff' AS TEXT) AS audio",
    ):
        with pytest.raises(thanosql.OperationalError, match="not UTF-8"):
            connection.execute(sql).fetchall()


def test_a_view_in_place_of_a_table_is_not_read(crafted):
    connection = crafted("SELECT 1")
    called = []
    connection.apsw.create_scalar_function("spy", lambda *a: called.append(a))
    connection.executescript(
        """
        ALTER TABLE thanosql_models RENAME TO hidden;
        CREATE VIEW thanosql_models AS SELECT *, spy(id) AS x FROM hidden;
        """
    )
    for statement in ("LIST MODELS", PREDICT, "DROP MODEL m", "EXPORT MODEL m TO 'x'"):
        with pytest.raises(thanosql.DatabaseError, match="is a view"):
            connection.execute(statement).fetchall()
    assert called == []


def test_a_column_that_is_computed_calls_nothing_and_takes_no_memory(crafted):
    connection = crafted("SELECT 1")
    called = []
    connection.apsw.create_scalar_function(
        "spy", lambda *a: called.append(a), deterministic=True
    )
    connection.executescript(
        """
        CREATE TABLE copy (model_id, path, chunk, data AS (zeroblob(999999999)));
        INSERT INTO copy SELECT model_id, path, chunk FROM thanosql_files;
        DROP TABLE thanosql_files;
        ALTER TABLE copy RENAME TO thanosql_files;
        """
    )
    with pytest.raises(thanosql.DatabaseError, match=r"column 'data' .* is computed"):
        connection.execute(PREDICT)
    connection.executescript(
        """
        DROP TABLE thanosql_files;
        CREATE TABLE thanosql_files (model_id, path, chunk, data AS (spy()));
        INSERT INTO thanosql_files SELECT 1, 'config.json', 0;
        """
    )
    called.clear()  # SQLite computes a constant when it likes
    with pytest.raises(thanosql.DatabaseError, match=r"column 'data' .* is computed"):
        connection.execute(PREDICT)
    assert called == []


COLUMNS_OF_MODELS = (
    "id, name, base, architecture, parameters, bytes, sha256, query, options, "
    "versions, run_id, created_at"
)
REMADE = f"""
CREATE TABLE kept AS SELECT * FROM thanosql_models;
DROP TABLE thanosql_models;
CREATE TABLE thanosql_models ({COLUMNS_OF_MODELS}{{}});
INSERT INTO thanosql_models ({COLUMNS_OF_MODELS}) SELECT * FROM kept;
"""


@pytest.mark.parametrize(
    ("objects", "named"),
    [
        (
            "CREATE TRIGGER t1 AFTER INSERT ON thanosql_models "
            "BEGIN INSERT INTO log VALUES (spy(new.name), 1); END",
            "'thanosql_models' has a trigger, 't1'",
        ),
        (
            "CREATE TRIGGER t2 BEFORE DELETE ON Thanosql_Files "
            "BEGIN DELETE FROM calls; END",
            "has a trigger, 't2'",
        ),
        (REMADE.format(", CHECK (spy(name))"), "'thanosql_models' has a CHECK"),
        (
            REMADE.format(", x DEFAULT (spy(1))"),
            "column 'x' of 'thanosql_models' has a default",
        ),
        (
            'CREATE INDEX [an odd " name] ON thanosql_models (spy(name))',
            "'thanosql_models' has an index that computes",
        ),
        (
            "CREATE INDEX i ON thanosql_runs (status) WHERE spy(status)",
            "'thanosql_runs' has an index that computes, 'i'",
        ),
    ],
)
def test_what_the_file_would_run_is_refused_before_anything_is_written(
    crafted, base, objects, named
):
    connection = crafted("SELECT 1")
    called = []
    connection.apsw.create_scalar_function(
        "spy", lambda *a: called.append(a) or 1, deterministic=True
    )
    connection.executescript(f"CREATE TABLE log (what, who); {objects}")
    called.clear()  # SQLite computes what is there already
    before = content(connection)
    for statement in (
        f"IMPORT MODEL n FROM '{base}'",
        "DROP MODEL m",
        "BUILD MODEL n USING m OPTIONS (max_steps=1) AS SELECT * FROM calls",
        f"BUILD MODEL n USING '{base}' OPTIONS (max_steps=1) AS SELECT * FROM calls",
    ):
        with pytest.raises(thanosql.DatabaseError, match=re.escape(named)):
            connection.execute(statement)
    assert content(connection) == before
    assert called == []


def test_a_trigger_that_comes_while_a_model_trains_does_not_end_the_training(crafted):
    connection = crafted(
        "CREATE TRIGGER t AFTER INSERT ON thanosql_runs BEGIN SELECT 1; END"
    )
    run = TrainingRun("0" * 32, "n", "m", "SELECT 1", {}, "cpu", 1, 0, 1.0, {})
    ledger = Ledger(run, Path(connection.apsw.filename))
    query = "SELECT status FROM thanosql_runs"
    assert connection.execute(query).fetchall() == []
    crafted("DROP TRIGGER t")
    ledger.end(Status.FAILED, "for the test")
    assert connection.execute(query).fetchall() == [("failed",)]


def test_models_can_be_read_where_the_file_has_triggers(crafted):
    connection = crafted(
        "CREATE TRIGGER t AFTER INSERT ON thanosql_models BEGIN SELECT 1; END"
    )
    assert len(connection.execute(PREDICT).fetchall()) == 8
    assert [name for name, *_ in connection.execute("LIST MODELS")] == ["m"]


def test_temp_triggers_and_plain_indexes_of_the_user_work(crafted, base):
    connection = crafted("CREATE TABLE log (what)")
    connection.executescript(
        """
        CREATE INDEX plain ON thanosql_models (base, name DESC);
        CREATE TEMP TRIGGER t3 AFTER INSERT ON thanosql_models
          BEGIN INSERT INTO log VALUES (new.name); END;
        """
    )
    connection.execute("IMPORT MODEL n FROM ?", (str(base),))
    connection.execute("DROP MODEL m")
    assert connection.execute("SELECT * FROM log").fetchall() == [("n",)]


def test_the_user_s_own_triggers_and_views_work_as_before(calls):
    calls.apsw.create_scalar_function("twice", lambda x: 2 * x)
    calls.executescript(
        """
        CREATE VIEW v AS SELECT audio, twice(id) AS doubled FROM calls;
        CREATE TABLE log (what);
        CREATE TRIGGER t AFTER UPDATE ON calls
          BEGIN INSERT INTO log VALUES (twice(new.id)); END;
        """
    )
    calls.execute("LIST MODELS").fetchall()
    rows = calls.execute(
        "SELECT doubled, predicted FROM (PREDICT USING m AS SELECT * FROM v)"
    ).fetchall()
    assert [row[0] for row in rows] == [2 * i for i in range(1, 9)]
    calls.execute("UPDATE calls SET text = 'x' WHERE id = 3")
    assert calls.execute("SELECT * FROM log").fetchall() == [(6,)]


def test_tables_in_the_temp_schema_do_not_stand_before_ours(calls):
    expected = calls.execute(PREDICT).fetchall()
    for name in ("models", "files", "runs", "epochs"):
        calls.execute(f"CREATE TEMP TABLE thanosql_{name} (x)")
    assert calls.execute(PREDICT).fetchall() == expected
    calls.execute("DROP MODEL m")
    assert calls.execute("LIST MODELS").fetchall() == []


def test_a_view_of_the_file_cannot_read_what_a_statement_yields(calls):
    calls.execute("CREATE VIEW v AS SELECT * FROM thanosql_list_1 UNION ALL SELECT 1")
    calls.serial = itertools.count(1)
    cursor = calls.execute("SELECT name FROM (LIST MODELS), (SELECT 1 UNION SELECT 2)")
    with pytest.raises(thanosql.OperationalError, match="unsafe use of virtual table"):
        calls.execute("SELECT * FROM v")
    assert cursor.fetchall() == [("m",), ("m",)]


def test_weights_that_give_no_numbers_give_no_text(crafted):
    connection = crafted("SELECT 1")
    rowid, data = connection.apsw.execute(
        "SELECT rowid, data FROM thanosql_files WHERE path = 'model.safetensors'"
    ).fetchone()
    connection.apsw.execute(
        "UPDATE thanosql_files SET data = ? WHERE rowid = ?",
        (data[:-4] + b"\xff\xff\xff\x7f", rowid),
    )
    redigest(connection)
    with pytest.raises(thanosql.DataError, match="hold NaN"):
        connection.execute(PREDICT)


def test_tensors_of_a_stored_model_may_not_overlap(crafted):
    connection = crafted("SELECT 1")
    rowid, data = connection.apsw.execute(
        "SELECT rowid, data FROM thanosql_files WHERE path = 'model.safetensors'"
    ).fetchone()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    names = [n for n, e in header.items() if e.get("shape") == [32]][:2]
    header[names[1]]["data_offsets"] = header[names[0]]["data_offsets"]
    written = json.dumps(header).encode()
    spoiled = len(written).to_bytes(8, "little") + written + data[8 + size :]
    connection.apsw.execute(
        "UPDATE thanosql_files SET data = ? WHERE rowid = ?", (spoiled, rowid)
    )
    redigest(connection)
    with pytest.raises(thanosql.DataError, match="is to lie at"):
        connection.execute(PREDICT)


def test_a_stored_config_beyond_reason_is_refused(crafted):
    connection = crafted("SELECT 1")
    rowid, data = connection.apsw.execute(
        "SELECT rowid, data FROM thanosql_files WHERE path = 'config.json'"
    ).fetchone()
    config = json.loads(data) | {"num_hidden_layers": 10**6}
    connection.apsw.execute(
        "UPDATE thanosql_files SET data = ? WHERE rowid = ?",
        (json.dumps(config).encode(), rowid),
    )
    redigest(connection)
    with pytest.raises(thanosql.DataError, match="num_hidden_layers = 1000000"):
        connection.execute(PREDICT)


VIEW = """
ALTER TABLE thanosql_models RENAME TO hidden;
CREATE VIEW thanosql_models AS SELECT *, spy(id) AS x FROM hidden;
"""


@pytest.fixture
def spied(calls):
    """Return a connection, and what its SQL function spy was called with."""
    called = []
    calls.apsw.create_scalar_function("spy", lambda *a: called.append(a))
    return calls, called


def read_refused(tables):
    with pytest.raises(thanosql.DatabaseError, match="is a view"):
        tables.reading()


def test_tables_that_were_looked_at_are_looked_at_again_when_the_schema_changes(spied):
    connection, called = spied
    tables = GuardedTables(connection.apsw)
    tables.reading()
    connection.apsw.execute(VIEW)
    read_refused(tables)
    assert called == []


def test_another_connection_s_change_of_the_schema_is_noticed(spied):
    connection, called = spied
    tables = GuardedTables(connection.apsw)
    tables.reading()
    other = apsw.Connection(connection.apsw.filename)
    other.create_scalar_function("spy", lambda *_: None)
    other.execute(VIEW)
    other.close()
    read_refused(tables)
    assert called == []


def test_what_was_found_in_a_transaction_that_is_undone_is_not_remembered(spied):
    connection, called = spied
    database = connection.apsw
    tables = GuardedTables(database)
    version = "PRAGMA schema_version"
    database.execute("BEGIN; CREATE TABLE t (a); CREATE TABLE u (a)")
    tables.reading()
    seen = database.execute(version).get
    database.execute("ROLLBACK")
    database.execute(VIEW)
    while database.execute(version).get < seen:
        database.execute(f"CREATE TABLE t{database.execute(version).get} (a)")
    assert database.execute(version).get == seen
    read_refused(tables)
    assert called == []


def test_another_database_in_the_connection_s_place_is_looked_at(spied, tmp_path):
    connection, called = spied
    memory = thanosql.connect(":memory:")
    memory.apsw.create_scalar_function("spy", lambda *a: called.append(a))
    whole = connection.apsw.serialize("main")
    memory.apsw.deserialize("main", whole)
    assert len(memory.execute(PREDICT).fetchall()) == 8
    version = connection.execute("PRAGMA schema_version").fetchone()[0]
    connection.apsw.execute(VIEW)
    connection.apsw.execute(f"PRAGMA schema_version = {version}")
    memory.apsw.deserialize("main", connection.apsw.serialize("main"))
    with pytest.raises(thanosql.DatabaseError, match="is a view"):
        memory.execute(PREDICT).fetchall()
    assert called == []
    memory.close()


def test_a_predict_looks_at_the_tables_once(calls):
    statements = []
    calls.apsw.trace_v2(
        apsw.SQLITE_TRACE_STMT, lambda event: statements.append(event["sql"])
    )
    calls.execute(PREDICT).fetchall()
    assert sum("sqlite_schema" in statement for statement in statements) == 1
