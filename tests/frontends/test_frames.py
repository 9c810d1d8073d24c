"""pandas, Polars and Arrow: rows as tables, by what those packages offer themselves."""

import importlib
import json

import pandas
import polars
import pyarrow
import pytest
import sqlalchemy

PREDICT = """PREDICT USING tiny OPTIONS (batch_size=2)
             AS SELECT audio, seen(text) AS text FROM spoken"""


@pytest.fixture
def counted(thanosql_trained, seen):
    seen.add_to(thanosql_trained)
    return thanosql_trained


def test_pandas_reads_through_an_engine_without_a_warning(engine, spoken):
    frame = pandas.read_sql(
        "PREDICT USING tiny AS SELECT audio, text FROM spoken", engine
    )
    assert list(frame.columns) == ["audio", "text", "predicted"]
    assert list(frame.text) == [text for (text,) in spoken]
    assert (frame.text == frame.predicted).mean() > 0.9


WORDS = """PREDICT USING tiny OPTIONS (words=TRUE)
           AS SELECT audio FROM spoken LIMIT 3"""


def check_words(words, predicted, confidence):
    """Check a row of PREDICT with words, whose JSON is read by the standard library."""
    assert type(words) is str
    assert type(confidence) is float
    said = json.loads(words)
    assert " ".join(word["word"] for word in said) == predicted
    assert all(0 <= word["start"] < word["end"] for word in said)


def test_words_are_json_text_and_confidences_are_numbers_everywhere(engine, counted):
    frame = pandas.read_sql(WORDS, engine)
    assert frame.confidence.dtype == "float64"
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(WORDS).mappings().all()
    table = polars.read_database(WORDS, counted)
    assert table.schema["confidence"] == polars.Float64
    for row in [*frame.to_dict("records"), *rows, *table.to_dicts()]:
        check_words(row["words"], row["predicted"], row["confidence"])
    assert len(frame) == len(rows) == len(table) == 3


def test_a_row_a_word_is_text_and_numbers_in_pandas(engine):
    frame = pandas.read_sql(WORDS.replace("words=", "per_word="), engine)
    assert list(frame.columns) == ["audio", "word", "start", "end", "confidence"]
    assert {str(frame[name].dtype) for name in frame.columns[2:]} == {"float64"}
    assert (frame.start < frame.end).all()


def test_pandas_binds_parameters_through_an_engine(engine):
    frame = pandas.read_sql(
        sqlalchemy.text("SELECT text FROM spoken WHERE rowid <= :last"),
        engine,
        params={"last": 3},
    )
    assert len(frame) == 3


def test_pandas_reads_predict_in_chunks_as_it_runs(engine, seen):
    with engine.connect() as connection:
        seen.add_to(connection.connection.dbapi_connection)
        chunks = pandas.read_sql(PREDICT, connection, chunksize=2)
        assert len(next(chunks)) == 2
        assert seen.count < 20
        assert sum(map(len, chunks)) == 58
    assert seen.count == 60


def test_pandas_writes_what_build_and_predict_read(engine, thanosql_speak):
    frame = pandas.DataFrame(
        {"audio": [thanosql_speak("go left", seed=8)], "text": ["go left"]}
    )
    assert frame.to_sql("calls", engine, index=False) == 1
    frame.to_sql("calls", engine, index=False, if_exists="append")
    predicted = pandas.read_sql("PREDICT USING tiny AS SELECT * FROM calls", engine)
    assert list(predicted.predicted) == ["go left", "go left"]


def test_pandas_cannot_take_the_place_of_a_table_of_models(engine):
    with pytest.raises(sqlalchemy.exc.OperationalError, match="already exists"):
        pandas.DataFrame({"a": [1]}).to_sql(
            "thanosql_models", engine, if_exists="replace"
        )
    assert len(pandas.read_sql("LIST MODELS", engine)) == 1


def test_a_statement_without_rows_is_for_execute(engine):
    with pytest.raises(sqlalchemy.exc.ResourceClosedError, match="not return rows"):
        pandas.read_sql("DROP MODEL IF EXISTS nothing", engine)


def test_a_frame_of_a_cursor_needs_no_engine_and_warns_of_nothing(counted, spoken):
    cursor = counted.execute(PREDICT)
    frame = pandas.DataFrame(cursor, columns=[name for name, *_ in cursor.description])
    assert list(frame.columns) == ["audio", "text", "predicted"]
    assert list(frame.text) == [text for (text,) in spoken]


def test_an_empty_result_is_a_frame_with_columns(thanosql_memory):
    cursor = thanosql_memory.execute("LIST MODELS")
    frame = pandas.DataFrame(cursor, columns=[name for name, *_ in cursor.description])
    assert len(frame) == 0
    assert frame.columns[0] == "name"


def test_pandas_warns_of_a_bare_connection_and_reads_it_all_the_same(counted, seen):
    with pytest.warns(UserWarning, match="pandas only supports SQLAlchemy"):
        chunks = pandas.read_sql(PREDICT, counted, chunksize=2)
    assert len(next(chunks)) == 2
    assert seen.count < 20
    chunks.close()


def test_pandas_rolls_back_what_failed_on_a_bare_connection(thanosql_memory):
    thanosql_memory.execute("CREATE TABLE t (a)")
    thanosql_memory.execute("INSERT INTO t VALUES (1)")
    with (
        pytest.warns(UserWarning, match="pandas only supports SQLAlchemy"),
        pytest.raises(pandas.errors.DatabaseError, match="no model named 'm'"),
    ):
        pandas.read_sql("PREDICT USING m AS SELECT 1 AS audio", thanosql_memory)
    assert not thanosql_memory.in_transaction


def test_polars_reads_a_connection_and_an_engine(counted, engine, spoken):
    for source in (counted, engine):
        frame = polars.read_database(PREDICT.replace("seen(text)", "text"), source)
        assert frame.columns == ["audio", "text", "predicted"]
        assert frame["text"].to_list() == [text for (text,) in spoken]


def test_polars_reads_predict_in_batches_as_it_runs(counted, seen):
    frames = polars.read_database(
        PREDICT, counted.cursor(), iter_batches=True, batch_size=2
    )
    assert next(frames).height == 2
    assert seen.count < 20
    assert sum(frame.height for frame in frames) == 58


def test_arrow_comes_by_way_of_polars(counted):
    table = polars.read_database(PREDICT, counted).to_arrow()
    assert isinstance(table, pyarrow.Table)
    assert table.column_names == ["audio", "text", "predicted"]
    assert table.num_rows == 60


# Declared types that SQLite does not enforce


@pytest.fixture(params=["thanosql", "sqlite3"])
def loose(request, tmp_path):
    """Yield a connection to values that are not what their columns declare."""
    module = importlib.import_module(request.param)
    con = module.connect(tmp_path / "loose.db")
    con.execute(
        "CREATE TABLE loose (i INTEGER, b BLOB, d DATE, p DECIMAL(10, 2), t TIMESTAMP)"
    )
    con.execute(
        "INSERT INTO loose VALUES "
        "(2.5, 'text', '2026-11-29', 1.005, 'yesterday'), (3, 'more', 5, 7, NULL)"
    )
    con.commit()
    yield con
    con.close()


@pytest.mark.parametrize(
    ("column", "values"),
    [("i", [2.5, 3.0]), ("b", ["text", "more"]), ("p", [1.005, 7.0])],
)
def test_polars_gets_the_values_and_not_what_was_declared(loose, column, values):
    frame = polars.read_database(f"SELECT {column} FROM loose", loose)
    assert frame[column].to_list() == values
    batches = polars.read_database(
        f"SELECT {column} FROM loose", loose, iter_batches=True, batch_size=1
    )
    assert [row for batch in batches for row in batch[column].to_list()] == values


def test_polars_gets_a_date_that_is_a_text_as_the_text(loose):
    query = "SELECT d, t FROM loose WHERE d LIKE '2026%'"
    frame = polars.read_database(query, loose)
    assert frame.rows() == [("2026-11-29", "yesterday")]


def test_pandas_gets_the_values_and_not_what_was_declared(loose):
    cursor = loose.cursor()
    cursor.execute("SELECT * FROM loose")
    frame = pandas.DataFrame(cursor, columns=[name for name, *_ in cursor.description])
    assert frame.i.to_list() == [2.5, 3.0]
    assert frame.b.to_list() == ["text", "more"]
    assert frame.d.to_list() == ["2026-11-29", 5]
    assert frame.p.to_list() == [1.005, 7.0]
