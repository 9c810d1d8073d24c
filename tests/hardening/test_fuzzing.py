"""Statements made up at random: PEP 249's errors only, and no trace of a failed one."""

import datetime
import decimal
import fractions
import itertools
import math
import re

import counting
import hypothesis
import numpy as np
import pandas as pd
import pytest
from damage import content
from hypothesis import strategies as st

import thanosql
from thanosql.speech.opening import hub

AUDIO = "SELECT audio, text FROM calls WHERE id = 1"
QUERIES = st.sampled_from(
    [
        AUDIO,
        "SELECT * FROM calls WHERE 0",
        "SELECT 'no.wav' AS audio, 'a' AS text",
        "SELECT NULL AS audio, NULL AS text",
        "SELECT x'00' AS audio, 3 AS text",
        "SELECT audio, text, audio FROM calls WHERE id = 2",
        "SELECT ? AS audio, :b AS text",
        "SELECT 1",
        "VALUES (1, 2)",
        "SELECT * FROM nowhere",
        "WITH c AS (SELECT * FROM calls) SELECT * FROM c WHERE id < 2",
        "SELECT abs(-9223372036854775808) AS audio, text FROM calls",
        "DELETE FROM calls RETURNING *",
        "SELECT",
        "(SELECT 1)",
        "LIST MODELS",
        f"PREDICT USING m AS {AUDIO}",
        "SELECT * FROM (DESCRIBE MODEL m)",
        "",
        "SELECT ';' AS audio; SELECT 2",
    ]
)
NAMES = st.sampled_from(
    [
        "m",
        "M",
        '"m"',
        "[m]",
        "'m'",
        "`m`",
        "n",
        '"a b"',
        "''",
        '""',
        "select",
        "1",
        "?",
        "m.m",
        ":name",
        "x'00'",
        '"\x00"',
        "'it''s'",
        "é",
        "NULL",
        "thanosql_models",
    ]
)
# Never a name with a slash: no hub is asked, and nothing is written elsewhere.
PLACES = st.sampled_from(["'here'", "'no such'", "''", "?", ":name", "3", "m", "'~'"])
OPTION_NAMES = st.sampled_from(
    [
        "batch_size",
        "BATCH_SIZE",
        "audio_col",
        "text_col",
        "result_col",
        "precision",
        "device",
        "overwrite",
        "epochs",
        "seed",
        "validation",
        "max_steps",
        "bacth",
        "learning_rate",
        "warmup",
        "time_limit",
        "'seed'",
        '""',
        "1",
        "?",
        "on_error",
    ]
)
LITERALS = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["TRUE", "false", "NULL", "auto", "cuda:99999", "'cpu'", "x'ff'"]),
    st.sampled_from(["?", "?1", "?99999", ":a", "@b", "$c", "1e999", "-", "+ 1", "0x"]),
    st.sampled_from(
        ["1_0", "9" * 5000, "'text'", '"audio"', "(SELECT 1)", "", "--x\n"]
    ),
)
OPTIONS = st.one_of(
    st.just(""),
    st.lists(st.tuples(OPTION_NAMES, LITERALS), max_size=3).map(
        lambda pairs: f"OPTIONS ({', '.join(f'{n} = {v}' for n, v in pairs)})"
    ),
    st.sampled_from(["OPTIONS", "OPTIONS (", "OPTIONS ()", "OPTIONS (,)", "OPTIONS 1"]),
)


def words(*parts):
    """Join strategies and words into one text, by spaces."""
    strategies = [st.just(p) if isinstance(p, str) else p for p in parts]
    return st.tuples(*strategies).map(" ".join)


CLAUSES = st.one_of(
    words("PREDICT USING", NAMES, OPTIONS, "AS", QUERIES),
    words("EVALUATE USING", NAMES, OPTIONS, "AS", QUERIES),
    # Nothing is trained: of the query no row is left, or a bad one.
    words("BUILD MODEL", NAMES, "USING", NAMES, OPTIONS, "AS", QUERIES, "LIMIT 0"),
    words(
        "BUILD OR REPLACE MODEL m USING m", OPTIONS, "AS SELECT NULL AS audio, 1 text"
    ),
    words("IMPORT MODEL", NAMES, "FROM", PLACES, OPTIONS),
    words("EXPORT MODEL", NAMES, "TO", PLACES, OPTIONS),
    words("DESCRIBE MODEL", NAMES),
    words("DROP MODEL", st.sampled_from(["", "IF EXISTS"]), NAMES),
    st.sampled_from(["LIST MODELS", "list thanosql model", "LIST", "DELETE MODEL m"]),
)
STATEMENTS = st.one_of(
    CLAUSES,
    CLAUSES.map(lambda c: f"SELECT * FROM ({c})"),
    CLAUSES.map(lambda c: f"WITH w AS ({c}) SELECT * FROM w, w AS v"),
    CLAUSES.map(lambda c: f"INSERT INTO log {c}"),
    CLAUSES.map(lambda c: f"INSERT INTO log SELECT * FROM ({c})"),
    CLAUSES.map(lambda c: f"CREATE TABLE t AS {c}"),
    CLAUSES.map(lambda c: f"CREATE VIEW v AS {c}"),
    CLAUSES.map(lambda c: f"EXPLAIN QUERY PLAN {c}"),
    CLAUSES.map(lambda c: f"UPDATE calls SET text = 'x' WHERE id IN ({c})"),
    CLAUSES.map(lambda c: f"DELETE FROM calls WHERE EXISTS ({c})"),
    CLAUSES.map(lambda c: f"{c}; DELETE FROM calls"),
    CLAUSES.map(lambda c: f"/* {c} */ {c} -- {c}"),
    words(CLAUSES, "UNION ALL", CLAUSES),
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.sampled_from(
        [
            *(
                object(),
                pd.NA,
                pd.NaT,
                np.int64(3),
                np.float32(math.nan),
                np.array([1]),
            ),
            *(decimal.Decimal(1), fractions.Fraction(1, 3), 1j, "\ud800", "\0", "m"),
            *(datetime.date(2026, 1, 1), [1], {}, {1}, int, len, ..., "here", 2**63),
        ]
    ),
)
PARAMETERS = st.one_of(
    st.just(()),
    st.lists(VALUES, max_size=3),
    st.dictionaries(st.sampled_from(["a", "b", "c", "name", "1"]), VALUES),
)
CHARACTERS = st.text(
    st.one_of(st.characters(), st.sampled_from("'\"`[]();,=?:@$#-/*\0\ud800\ufeff\\")),
    max_size=6,
)


@st.composite
def mangled(draw):
    """Draw a statement with some of its characters gone, or others in their place."""
    text = draw(STATEMENTS)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(CHARACTERS) + text[at + draw(st.integers(0, 6)) :]
    return text


@pytest.fixture
def database(_calls, tmp_path, monkeypatch):
    """Return a connection in a transaction, in a folder of its own, without a hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "download", lambda name: pytest.fail(f"asked for {name}"))
    connection = thanosql.connect(":memory:")
    source = thanosql.connect(_calls)
    with connection.apsw.backup("main", source.apsw, "main") as backup:
        backup.step()
    source.close()
    connection.apsw.execute("CREATE TABLE log (a, b, c); BEGIN")
    yield connection
    connection.close()


def run(connection, sql, parameters=()):
    """Execute; True if that went well. What failed must have left no trace."""
    connection.apsw.execute("SAVEPOINT fuzz")
    before = content(connection)
    try:
        list(itertools.islice(connection.execute(sql, parameters), 50))
    except thanosql.Error:
        succeeded = False
    else:
        succeeded = True
    assert succeeded or content(connection) == before
    connection.apsw.execute("ROLLBACK TO fuzz; RELEASE fuzz")
    modules = "SELECT name FROM pragma_module_list WHERE name LIKE 'thanosql%'"
    assert connection.apsw.execute(modules).fetchall() == []
    return succeeded


@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")
@pytest.mark.thorough(seconds=60)
@pytest.mark.parametrize("kind", ["grammar", "mangled", "text"])
def test_a_made_up_statement_runs_or_fails_by_the_book(kind, database):
    statements = {
        "grammar": STATEMENTS,
        "mangled": mangled(),
        "text": st.text(max_size=60).map(lambda t: f"PREDICT USING m AS {t}"),
    }[kind]

    @hypothesis.settings(
        max_examples=5000,
        derandomize=True,
        deadline=20_000,
        suppress_health_check=list(hypothesis.HealthCheck),
        database=None,
    )
    @hypothesis.given(statements, PARAMETERS)
    def fuzz(sql, parameters):
        run(database, sql, parameters)

    assert run(database, f"PREDICT USING m AS {AUDIO}")  # the model is loaded
    fuzz()
    # The connection is still good for something.
    assert run(database, f"PREDICT USING m AS {AUDIO}")


@pytest.mark.parametrize(
    "value",
    [object(), pd.NA, np.array([1, 2]), 1j, 10**400, "\ud800", math.nan, [], b"", int],
)
@pytest.mark.parametrize(
    "option",
    [
        "overwrite",
        "batch_size",
        "learning_rate",
        "device",
        "audio_col",
        "validation",
        "freeze_feature_encoder",
        "max_steps",
    ],
)
def test_an_option_takes_no_value_of_a_foreign_type(option, value, database):
    sql = f"BUILD MODEL n USING m OPTIONS ({option} = ?) AS {AUDIO} LIMIT 0"
    assert not run(database, sql, (value,))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT '\ud800'",
        "PREDICT USING m AS SELECT '\ud800' AS audio",
        "DROP MODEL \ud800",
        "IMPORT MODEL n FROM '\udcff'",
        "PREDICT USING m AS SELECT 1 \0",
    ],
)
def test_text_that_is_not_unicode_is_an_error_of_ours(sql, database):
    assert not run(database, sql)


@pytest.mark.parametrize(
    "sql",
    [
        "PREDICT USING m AS {(}SELECT 1{)}",
        "SELECT * FROM {(}LIST MODELS{)}",
        "PREDICT USING m AS SELECT {'}",
        "PREDICT USING m AS SELECT 1 {/*}",
        "PREDICT USING m AS SELECT 1 {--\n}",
        "PREDICT USING m OPTIONS ({a=1,}) AS SELECT 1",
        "LIST MODELS {;}",
        "WITH {a AS (LIST MODELS),} SELECT 1",
        "{WITH a AS (}LIST MODELS{)}",
        "{PREDICT USING m AS }SELECT 1",
        "SELECT 1 {UNION LIST MODELS }",
        "LIST MODELS {\ufeff}",
        "PREDICT USING {m}",
        "PREDICT USING m AS SELECT {?,}1",
    ],
)
def test_a_statement_twice_as_long_is_no_more_than_twice_the_work(sql, database):
    def work(size):
        long = re.sub(r"\{(.*?)\}", lambda m: m[1] * size, sql, flags=re.DOTALL)
        with counting.calls() as calls:
            run(database, long)
        return calls.total()

    work(1)  # what is imported and prepared once
    assert work(2_000) < 2.2 * work(1_000)
