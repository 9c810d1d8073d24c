"""COPY: files, folders and frames become tables, whole or not at all."""

from __future__ import annotations

import datetime
import decimal
import io
import json
import os
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

import thanosql


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(connection, table="t"):
    return connection.execute(f'SELECT * FROM "{table}"').fetchall()


def declared(connection, table="t"):
    described = connection.execute(f"DESCRIBE TABLE {table}").fetchall()
    return {name: kind for name, kind, *_ in described}


def everything(connection):
    return list(connection.apsw.execute("SELECT * FROM sqlite_schema"))


def test_a_csv_file_becomes_a_table(connection, folder):
    Path("a.csv").write_text(
        '\ufeffaudio,text,seconds,n\na.wav,"hello, ""you""",1.5,3\n\nb.wav,,2,\n',
        encoding="utf-8",
    )
    cursor = connection.execute("COPY t FROM 'a.csv'")
    assert [column[0] for column in cursor.description] == ["name", "rows"]
    assert cursor.fetchall() == [("t", 2)]
    assert rows(connection) == [
        ("a.wav", 'hello, "you"', 1.5, 3),
        ("b.wav", None, 2.0, None),
    ]
    assert declared(connection) == {
        "audio": "TEXT",
        "text": "TEXT",
        "seconds": "REAL",
        "n": "INTEGER",
    }
    assert not connection.in_transaction


def test_what_would_not_read_back_as_it_was_written_stays_text(connection, folder):
    Path("a.csv").write_text(
        "zeros,long,plus,big,late,words\n007,12345678901234567890,+1,9e999,1,null\n"
        "8,1,2,1,x,NA\n"
    )
    connection.execute("COPY t FROM 'a.csv'")
    assert rows(connection) == [
        ("007", "12345678901234567890", "+1", "9e999", "1", "null"),
        ("8", "1", "2", "1", "x", "NA"),
    ]


fields = st.one_of(
    st.integers(-(10**20), 10**20).map(str),
    st.floats(allow_nan=False).map(repr),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
)


@given(st.lists(st.tuples(fields, fields), min_size=1, max_size=5))
@settings(max_examples=60, deadline=None)
def test_a_csv_field_comes_back_as_written_or_as_the_same_number(table):
    import csv
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "a.csv")
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("a", "b"), *table])
        connection = thanosql.connect(":memory:")
        connection.execute("COPY t FROM ?", (path,))
        found = rows(connection)
        connection.close()
    assert len(found) == len(table)
    for row, written in zip(found, table, strict=True):
        for value, field in zip(row, written, strict=True):
            if value is None or isinstance(value, str):
                assert (value or "") == field
            else:
                is_whole = field.removeprefix("-").isdigit()
                assert value == (int(field) if is_whole else float(field))


def test_a_tsv_file_has_quotes_as_letters(connection, folder):
    Path("a.tsv").write_text('path\tsentence\nx.mp3\t"Well," he said\n')
    connection.execute("COPY t FROM 'a.tsv'")
    assert rows(connection) == [("x.mp3", '"Well," he said')]


def test_json_lines_become_a_table_with_the_keys_of_all(connection, folder):
    lines = [
        {"audio": "a", "n": 1, "x": 1},
        {"audio": "b", "n": 2.5, "x": "one", "tags": ["ü"], "ok": True},
    ]
    Path("a.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    connection.execute("COPY t FROM 'a.jsonl'")
    assert rows(connection) == [
        ("a", 1.0, 1, None, None),
        ("b", 2.5, "one", '["ü"]', 1),
    ]
    kinds = declared(connection)
    assert kinds == {
        "audio": "TEXT",
        "n": "REAL",
        "x": None,
        "tags": "TEXT",
        "ok": "INTEGER",
    }


def test_a_parquet_file_of_recordings_becomes_blobs(connection, folder):
    audio = [{"bytes": b"RIFF", "path": "a.wav"}, {"bytes": None, "path": "b.wav"}]
    table = pa.table(
        {
            "audio": pa.array(audio),
            "n": pa.array([1, None], pa.int32()),
            "day": pa.array([datetime.date(2026, 1, 2), None]),
        }
    )
    pq.write_table(table, "a.parquet")
    connection.execute("COPY t FROM 'a.parquet'")
    assert rows(connection) == [(b"RIFF", 1, "2026-01-02"), ("b.wav", None, None)]
    assert declared(connection) == {"audio": None, "n": "INTEGER", "day": "TEXT"}


def test_the_first_sheet_of_a_workbook_becomes_a_table(connection, folder):
    book = openpyxl.Workbook()
    for row in (
        ["audio", "text", "n", "when"],
        ["a.wav", "안녕", 1, datetime.datetime(2026, 1, 2, 3, 4)],
        [None, None, None, None],
        ["b.wav", None, 2.5, None],
    ):
        book.active.append(row)
    book.create_sheet("other").append(["not this"])
    book.save("a.xlsx")
    connection.execute("COPY t FROM 'a.xlsx'")
    assert rows(connection) == [
        ("a.wav", "안녕", 1.0, "2026-01-02 03:04:00"),
        ("b.wav", None, 2.5, None),
    ]


@pytest.mark.parametrize("library", ["openpyxl", "pyarrow"])
def test_a_missing_library_is_named_with_the_way_to_have_it(
    connection, folder, monkeypatch, library
):
    monkeypatch.setitem(sys.modules, library, None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    name = {"openpyxl": "a.xlsx", "pyarrow": "a.parquet"}[library]
    Path(name).write_bytes(b"")
    with pytest.raises(
        thanosql.NotSupportedError,
        match=rf"needs {library}: pip install 'thanosql-local\[files\]'",
    ):
        connection.execute(f"COPY t FROM '{name}'")


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame, pa.table])
def test_a_frame_that_is_bound_becomes_a_table(connection, make):
    frame = make({"audio": [b"1", b"2"], "text": ["a", None], "n": [1, 2]})
    assert connection.execute("COPY t FROM ?", (frame,)).fetchall() == [("t", 2)]
    assert rows(connection) == [(b"1", "a", 1), (b"2", None, 2)]
    assert declared(connection) == {"audio": "BLOB", "text": "TEXT", "n": "INTEGER"}
    connection.execute("COPY t OPTIONS (if_exists=append) FROM :f", {"f": frame})
    assert len(rows(connection)) == 4


def test_a_frame_of_pandas_is_read_without_its_index(connection):
    frame = pd.DataFrame(
        {
            "a": pd.array([1, None], dtype="Int64"),
            "b": [1.5, np.nan],
            "c": pd.Categorical(["x", "y"]),
            "d": pd.to_datetime(["2026-01-02", None]),
            "e": [np.array([1, 2]), None],
            7: [True, False],
        },
        index=["p", "q"],
    )
    connection.execute("COPY t FROM ?", (frame,))
    assert rows(connection) == [
        (1, 1.5, "x", "2026-01-02 00:00:00", "[1, 2]", 1),
        (None, None, "y", None, None, 0),
    ]


def test_a_value_that_sqlite_cannot_hold_is_named(connection):
    for value, reason in (
        (object(), "SQLite has no type for object .* make it text"),
        (2**63, "an integer does not fit into SQLite's 64 bits"),
        (10**5_000, "an integer does not fit into SQLite's 64 bits"),
        (np.longdouble("0.1"), "SQLite has no type for longdouble"),
        ("\ud800", "a lone surrogate"),
    ):
        frame = pd.DataFrame({"a": pd.Series([1, value], dtype=object)})
        with pytest.raises(
            thanosql.DataError, match=rf"the DataFrame, row 2: {reason}.*\(column 'a'\)"
        ):
            connection.execute("COPY t FROM ?", (frame,))
    assert everything(connection) == []


def test_a_series_is_no_frame(connection):
    with pytest.raises(thanosql.ProgrammingError, match="DataFrame, not Series"):
        connection.execute("COPY t FROM ?", (pd.Series([1]),))


def test_a_value_that_is_no_sqlite_type_is_named_with_its_column(connection):
    frame = pd.DataFrame({"a": [1, 2], "b": [None, object()]})
    with pytest.raises(thanosql.DataError, match=r"row 2: .* object .*\(column 'b'\)"):
        connection.execute("COPY t FROM ?", (frame,))


@pytest.mark.parametrize(
    "value",
    [
        {"a": np.zeros(5_000)},
        [np.zeros(5_000)],
        {"a": {1, 2}},
        [object()],
        {"a": float("nan")},
        [[float("inf")]],
        {1: "a"},
        [b"bytes"],
        [pd.NaT],
        [datetime.timedelta(1), pd.Timedelta("nan")],
        [decimal.Decimal("NaN")],
        [np.longdouble("0.1")],
        [np.datetime64("2026-01-02", "ns")],
        {"a": "\ud800"},
        {"array": [[1.0], [1.0, 2.0]], "sampling_rate": 16_000},
        {"array": np.zeros(3), "sampling_rate": 10**9},
        {"array": np.zeros(3), "sampling_rate": "16000"},
        {"array": np.zeros(3), "sampling_rate": None},
        np.array([1.0, np.nan]),
        {"array": np.zeros(3, complex), "sampling_rate": 16_000},
        {"array": "abc", "sampling_rate": 16_000},
        {"array": np.zeros(3), "sampling_rate": 0},
        {"array": np.zeros((2, 3, 4)), "sampling_rate": 16_000},
        {"array": np.zeros(3), "rate": 16_000},
        np.datetime64("2026-01-02", "ns"),
        {1, 2},
    ],
)
def test_a_nested_value_that_json_cannot_hold_in_full_is_refused(connection, value):
    frame = pd.DataFrame({"n": [1, 2], "audio": pd.Series([None, value], dtype=object)})
    with pytest.raises(
        thanosql.DataError, match=r"the DataFrame, row 2: .*\(column 'audio'\)"
    ):
        connection.execute("COPY t FROM ?", (frame,))
    assert everything(connection) == []


def test_a_nested_value_that_json_can_hold_is_its_text(connection):
    value = {
        "a": [1, 2.5, None, True, "ü"],
        "b": {"c": np.float32(0.5), "d": np.int64(7)},
        "e": datetime.date(2026, 1, 2),
    }
    connection.execute("COPY t FROM ?", (pd.DataFrame({"x": [value]}),))
    assert json.loads(rows(connection)[0][0]) == {
        "a": [1, 2.5, None, True, "ü"],
        "b": {"c": 0.5, "d": 7},
        "e": "2026-01-02",
    }


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.binary() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=8,
)


@given(st.lists(json_values) | st.dictionaries(st.text(), json_values))
@settings(max_examples=100, deadline=None)
def test_a_nested_value_is_stored_in_full_or_refused(value):
    connection = thanosql.connect(":memory:")
    try:
        connection.execute(
            "COPY t FROM ?", (pd.DataFrame({"x": [value]}, dtype=object),)
        )
    except thanosql.DataError:
        return
    finally:
        found = connection.execute(
            "SELECT name FROM sqlite_schema WHERE name = 't'"
        ).fetchall()
        stored = rows(connection) if found else []
        connection.close()
    assert json.loads(stored[0][0]) == value


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "int32"])
@pytest.mark.parametrize("shape", ["(n,)", "(2, n)", "(n, 2)"])
def test_an_array_with_its_rate_becomes_a_recording(connection, dtype, shape):
    samples = np.random.default_rng(0).normal(0, 0.1, 3_000)
    samples = (samples if "float" in dtype else samples * 2**14).astype(dtype)
    channels = np.stack([samples, samples[::-1]], axis=1)
    array = {"(n,)": samples, "(2, n)": channels.T, "(n, 2)": channels}[shape]
    frame = pd.DataFrame(
        {
            "audio": [
                {"path": "a.wav", "array": array, "sampling_rate": 8_000},
                {"array": array, "sampling_rate": np.int64(8_000)},
                {"path": None, "array": None, "sampling_rate": None},
            ]
        }
    )
    connection.execute("COPY t FROM ?", (frame,))
    (first,), (second,), (third,) = rows(connection)
    assert first == second
    assert third is None
    assert declared(connection) == {"audio": "BLOB"}
    found, rate = soundfile.read(io.BytesIO(first), dtype=dtype)
    assert rate == 8_000
    assert np.array_equal(found, samples if shape == "(n,)" else channels)


def test_an_array_without_samples_becomes_a_recording_without(connection):
    value = {"array": np.zeros(0, np.float32), "sampling_rate": 16_000}
    connection.execute("COPY t FROM ?", (pd.DataFrame({"audio": [value]}),))
    found, rate = soundfile.read(io.BytesIO(rows(connection)[0][0]))
    assert (len(found), rate) == (0, 16_000)


def test_an_array_of_json_or_arrow_becomes_a_recording(connection, folder):
    samples = np.random.default_rng(0).normal(0, 0.1, 500)
    for array, subtype in ((samples, "DOUBLE"), (samples.astype("f4"), "FLOAT")):
        value = {"array": array.tolist(), "sampling_rate": 16_000}
        Path("a.jsonl").write_text(json.dumps({"audio": value}))
        pq.write_table(pa.table({"audio": [value]}), "a.parquet")
        for source in ("a.jsonl", "a.parquet"):
            connection.execute(f"COPY t FROM '{source}' OPTIONS (if_exists=replace)")
            blob = io.BytesIO(rows(connection)[0][0])
            assert soundfile.info(blob).subtype == subtype
            blob.seek(0)
            assert np.array_equal(soundfile.read(blob)[0], array)


def test_a_nested_column_of_parquet_that_json_cannot_hold_is_refused(
    connection, folder
):
    pq.write_table(pa.table({"x": [[b"abc"]]}), "a.parquet")
    with pytest.raises(thanosql.DataError, match=r"'a.parquet', row 1: .*column 'x'"):
        connection.execute("COPY t FROM 'a.parquet'")


def test_a_formula_of_a_workbook_is_its_result(connection, folder):
    book = openpyxl.Workbook()
    book.active.append(["a", "b"])
    book.active.append([2, "=A2*21"])
    book.save("a.xlsx")
    with pytest.raises(
        thanosql.DataError, match=r"row 2: the formula =A2\*21 has no result; open"
    ):
        connection.execute("COPY t FROM 'a.xlsx'")
    with zipfile.ZipFile("a.xlsx") as old, zipfile.ZipFile("b.xlsx", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            content = content.replace(b"<v></v>", b"<v>42</v>")
            content = content.replace(b"<v />", b"<v>42</v>").replace(
                b"<v/>", b"<v>42</v>"
            )
            new.writestr(name, content)
    connection.execute("COPY t FROM 'b.xlsx'")
    assert rows(connection) == [(2, 42)]


# A folder of audio


@pytest.fixture
def clips(folder):
    audio = np.zeros(8000, dtype=np.float32)
    for name, rate, shape in (
        ("b.wav", 16_000, audio),
        ("deep/er/a.flac", 8_000, np.stack([audio, audio], axis=1)),
        ("deep/C.OGG", 16_000, audio),
    ):
        path = folder / "clips" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, shape, rate)
    (folder / "clips/notes.txt").write_text("no audio")
    (folder / "clips/._b.wav").write_text("left by a Mac")
    (folder / "clips/loop").symlink_to(folder / "clips")
    return folder / "clips"


def test_a_folder_of_audio_becomes_a_row_a_file(connection, clips):
    assert connection.execute("COPY t FROM 'clips'").fetchall() == [("t", 3)]
    assert rows(connection) == [
        ("clips/b.wav", "b.wav", 0.5, 16_000, 1, "wav"),
        ("clips/deep/C.OGG", "C.OGG", 0.5, 16_000, 1, "ogg"),
        ("clips/deep/er/a.flac", "a.flac", 1.0, 8_000, 2, "flac"),
    ]


def test_a_folder_outside_of_audio_root_is_refused(clips):
    connection = thanosql.connect(":memory:", audio_root="clips/deep")
    with pytest.raises(thanosql.ProgrammingError, match="'clips' lies outside of audi"):
        connection.execute("COPY t FROM 'clips'")
    assert everything(connection) == []
    connection.close()


def test_paths_of_a_folder_are_found_from_audio_root(clips):
    connection = thanosql.connect(":memory:", audio_root="clips")
    connection.execute("COPY t FROM 'clips/deep'")
    (found,) = connection.execute(
        "SELECT audio FROM t WHERE name = 'a.flac'"
    ).fetchone()
    assert found == "deep/er/a.flac"
    connection.close()


def test_predict_reads_what_was_copied_from_a_folder(calls, clips):
    calls.execute("COPY t FROM 'clips'")
    cursor = calls.execute("PREDICT USING m AS SELECT * FROM t")
    assert len(cursor.fetchall()) == 3


def test_a_folder_without_audio_and_a_broken_file_are_errors(connection, clips):
    (clips / "empty").mkdir()
    with pytest.raises(
        thanosql.DataError, match="no audio in the folder 'clips/empty'"
    ):
        connection.execute("COPY t FROM 'clips/empty'")
    (clips / "z.wav").write_text("this is only a note")
    with pytest.raises(thanosql.AudioError, match=r"z\.wav' is no audio"):
        connection.execute("COPY t FROM 'clips'")
    assert everything(connection) == []


def test_recordings_of_a_folder_that_cannot_be_decoded_are_named(connection, clips):
    for name in ("x.wma", "deep/y.WMA", "z.ape", "cover.jpg", "README", "._x.wma"):
        (clips / name).write_bytes(b"of another kind")
    with pytest.warns(
        thanosql.Warning,
        match=r"'clips' has 3 recordings that cannot be decoded \(2 \.wma, 1 \.ape\); ",
    ):
        connection.execute("COPY t FROM 'clips'")
    assert len(rows(connection)) == 3
    (clips / "only").mkdir()
    (clips / "only/x.wma").write_bytes(b"")
    with pytest.raises(
        thanosql.DataError, match=r"ends in .*there are 1 rec.* \.wma\)"
    ):
        connection.execute("COPY u FROM 'clips/only'")


def test_other_names_of_a_wav_and_an_mp3_are_copied(connection, clips):
    for name in ("x.wave", "y.BWF", "z.mpga"):
        (clips / name).write_bytes((clips / "b.wav").read_bytes())
    connection.execute("COPY t FROM 'clips'")
    assert len(rows(connection)) == 6


def test_a_link_to_a_recording_that_is_not_there_is_named(connection, clips):
    (clips / "gone.wav").symlink_to("nowhere.wav")
    with pytest.raises(thanosql.AudioError, match=r"gone\.wav': No such file"):
        connection.execute("COPY t FROM 'clips'")
    assert everything(connection) == []


def test_a_phones_recordings_need_a_library_that_is_named(
    connection, clips, monkeypatch
):
    monkeypatch.setitem(sys.modules, "av", None)
    for name in ("a.m4a", "b.webm", "c.aac", "d.amr"):
        (clips / name).write_bytes(b"\0\0\0\x20ftypM4A " + bytes(16))
    with pytest.warns(
        thanosql.Warning,
        match=r"4 recordings .*1 \.m4a.*pip install 'thanosql-local\[media\]'",
    ):
        connection.execute("COPY t FROM 'clips'")
    assert len(rows(connection)) == 3


def test_all_broken_files_of_a_folder_are_named_at_once(connection, clips):
    for number in range(12):
        (clips / f"a{number:02}.wav").write_text("this is only a note")
    with pytest.raises(thanosql.AudioError) as caught:
        connection.execute("COPY t FROM 'clips'")
    head, *lines, rest = str(caught.value).splitlines()
    assert head == (
        "12 of 15 recordings in the folder 'clips' cannot be read; move or delete them"
    )
    assert [line.split("'")[1] for line in lines] == [
        f"clips/a{number:02}.wav" for number in range(10)
    ]
    assert rest == "  and 2 more"
    assert everything(connection) == []


# Tables that are there already


def test_if_exists_says_what_becomes_of_a_table(connection, folder):
    Path("a.csv").write_text("b,a\n1,x\n")
    connection.execute("CREATE TABLE T (a TEXT, b INTEGER, c DEFAULT 'z')")
    connection.commit()
    with pytest.raises(thanosql.ProgrammingError, match="'t' exists already; set if_"):
        connection.execute("COPY t FROM 'a.csv'")
    connection.execute("COPY t OPTIONS (if_exists='append') FROM 'a.csv'")
    assert rows(connection) == [("x", 1, "z")]
    connection.execute("COPY t FROM 'a.csv' OPTIONS (if_exists=replace)")
    assert rows(connection) == [(1, "x")]
    Path("a.csv").write_text("b,aa\n1,x\n")
    with pytest.raises(thanosql.ProgrammingError, match="no column 'aa'; did you mean"):
        connection.execute("COPY t OPTIONS (if_exists='append') FROM 'a.csv'")
    connection.execute("COPY new OPTIONS (if_exists='append') FROM 'a.csv'")
    assert rows(connection, "new") == [(1, "x")]


def test_what_triggers_write_is_not_counted_as_copied(connection, folder):
    Path("a.csv").write_text("a\n1\n2\n3\n")
    connection.executescript(
        """
        CREATE TABLE t (a);
        CREATE TABLE log (a);
        CREATE TRIGGER noting AFTER INSERT ON t
          BEGIN INSERT INTO log VALUES (new.a), (-new.a); END;
        """
    )
    copied = connection.execute("COPY t OPTIONS (if_exists='append') FROM 'a.csv'")
    assert copied.fetchall() == [("t", 3)]
    assert len(rows(connection, "log")) == 6


@pytest.mark.parametrize("if_exists", ["append", "replace"])
@pytest.mark.parametrize("begin", ["", "BEGIN"])
def test_an_error_half_way_leaves_the_table_as_it_was(
    connection, folder, if_exists, begin
):
    connection.execute("CREATE TABLE t (a INTEGER CHECK (a < 5000))")
    connection.execute("INSERT INTO t VALUES (1)")
    connection.commit()
    if begin:
        connection.execute(begin)
        connection.execute("INSERT INTO t VALUES (2)")
    before = rows(connection), everything(connection)
    lines = "\n".join(map(str, range(6000)))
    Path("a.csv").write_text(f"a\n{lines}\n")
    frame = pd.DataFrame({"a": [*range(3000), object()]}, dtype=object)
    source = "a.csv" if if_exists == "append" else frame
    with pytest.raises(thanosql.Error):
        connection.execute(
            f"COPY t FROM ? OPTIONS (if_exists='{if_exists}')", (source,)
        )
    assert (rows(connection), everything(connection)) == before
    assert connection.in_transaction == bool(begin)


def test_copy_belongs_to_the_open_transaction(connection, folder):
    Path("a.csv").write_text("a\n1\n")
    connection.execute("BEGIN")
    connection.execute("COPY t FROM 'a.csv'")
    connection.rollback()
    assert everything(connection) == []
    connection.execute("CREATE TABLE u (a)")
    connection.execute("INSERT INTO u VALUES (1)")
    with pytest.warns(thanosql.Warning, match="the table becomes part of the trans"):
        connection.execute("COPY t FROM 'a.csv'")


def test_copy_does_not_warn_of_a_transaction_that_autocommit_has_ended(
    connection, folder
):
    Path("a.csv").write_text("a\n1\n")
    connection.execute("CREATE TABLE u (a)")
    connection.execute("INSERT INTO u VALUES (1)")
    connection.autocommit = True  # which commits
    connection.execute("SAVEPOINT mine")
    connection.execute("COPY t FROM 'a.csv'")
    connection.execute("RELEASE mine")
    assert rows(connection, "t") == [(1,)]


def test_explain_copies_nothing(connection, folder):
    Path("a.csv").write_text("a\n1\n")
    connection.execute("EXPLAIN COPY t FROM 'a.csv'").fetchall()
    assert everything(connection) == []
    assert connection.execute(
        "SELECT rows FROM (COPY t FROM 'a.csv') WHERE name = 't'"
    ).fetchall() == [(1,)]


def test_names_are_quoted_whatever_they_are(connection, folder):
    Path("a.csv").write_text('select,"a ""b""; --",음성\n1,2,3\n')
    connection.execute("""COPY "my table; DROP" FROM 'a.csv'""")
    assert rows(connection, "my table; DROP") == [(1, 2, 3)]
    names = [
        c[0] for c in connection.execute('SELECT * FROM "my table; DROP"').description
    ]
    assert names == ["select", 'a "b"; --', "음성"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n\n3\n", "'a.csv', line 4: 1 field, where the header has 2"),
        ("a,b\n1,2,3\n", "line 2: 3 fields, where the header has 2"),
        ('a,b\n1,"two\nlines"\n1,"x"y\n', "line 4: ',' expected after '\"'"),
        ('a,b\n1,2\n"never closed,\n4\n', "line 3: unexpected end of data"),
        ("a,,c\n", "line 1: column 2 has no name; give it one"),
        ("a,A\n", "line 1: two columns are named 'A'"),
        ("", "'a.csv' is empty; its first line names the columns"),
        ("a\n1\nb\xe9\n", "line 3: not utf-8; set encoding"),
    ],
)
def test_a_malformed_csv_file_is_an_error_that_names_the_line(
    connection, folder, content, message
):
    Path("a.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(thanosql.DataError) as caught:
        connection.execute("COPY t FROM 'a.csv'")
    assert message in str(caught.value)
    assert everything(connection) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1}\n{"a": 1\n', "'a.jsonl', line 2: Expecting ',' delimiter"),
        ('{"a": 1}\n[1]\n', "line 2: '[1]' is no JSON object"),
        ('{"a": NaN}\n', "line 1: NaN is no JSON"),
        (f'{{"a": {2**64}}}\n', "line 1: an integer does not fit into SQLite"),
        ('{"a": 1}\n' + "[" * 100_000, "line 2: "),
        ("\n", "'a.jsonl' is empty"),
    ],
)
def test_malformed_json_lines_are_an_error_that_names_the_line(
    connection, folder, content, message
):
    Path("a.jsonl").write_text(content)
    with pytest.raises(thanosql.DataError) as caught:
        connection.execute("COPY t FROM 'a.jsonl'")
    assert message in str(caught.value)
    assert everything(connection) == []


def test_a_parquet_file_that_is_damaged_behind_its_head_is_said_to_be(
    connection, folder
):
    table = pa.table({"a": [str(number) * 5 for number in range(5000)]})
    pq.write_table(table, "a.parquet")
    content = bytearray(Path("a.parquet").read_bytes())
    for place in range(4, len(content) - 3000):
        content[place] ^= 0x5A
    Path("a.parquet").write_bytes(content)
    with pytest.raises(thanosql.Error, match=r"to be copied: [^N]"):
        connection.execute("COPY t FROM 'a.parquet'")
    assert everything(connection) == []


def test_columns_that_only_differ_in_letters_beyond_ascii_are_two(connection):
    connection.execute("COPY t FROM ?", (pd.DataFrame({"ä": [1], "Ä": [2]}),))
    frame = pd.DataFrame({"Ä": [4], "ä": [3]})
    connection.execute("COPY t OPTIONS (if_exists='append') FROM ?", (frame,))
    assert connection.execute("SELECT ä, Ä FROM t").fetchall() == [(1, 2), (3, 4)]


def test_a_dataframe_without_columns_is_told_to_have_none(connection):
    with pytest.raises(thanosql.DataError, match="the DataFrame: no column"):
        connection.execute("COPY t FROM ?", (pd.DataFrame(),))


@pytest.mark.parametrize("name", ["a.parquet", "a.xlsx"])
def test_a_file_that_is_not_what_its_name_says_is_an_error(connection, folder, name):
    Path(name).write_text("a,b\n1,2\n")
    with pytest.raises(thanosql.DataError, match=f"'{name}' cannot be read"):
        connection.execute(f"COPY t FROM '{name}'")


@pytest.mark.parametrize(
    ("statement", "error", "message"),
    [
        (
            "COPY t FROM 'a.doc'",
            thanosql.NotSupportedError,
            "'a.doc' is of an unknown type; known are .csv",
        ),
        ("COPY t FROM 'no.csv'", thanosql.OperationalError, "'no.csv': No such file"),
        (
            "COPY t OPTIONS (encoding='utf9') FROM 'a.csv'",
            thanosql.OptionError,
            "no text encoding 'utf9'",
        ),
        (
            "COPY t OPTIONS (encoding='base64') FROM 'a.csv'",
            thanosql.OptionError,
            "no text encoding 'base64'",
        ),
        (
            "COPY t OPTIONS (if_exist='fail') FROM 'a.csv'",
            thanosql.OptionError,
            "did you mean 'if_exists'",
        ),
        (
            "COPY t OPTIONS (if_exists='merge') FROM 'a.csv'",
            thanosql.OptionError,
            "fail, replace, append, not 'merge'",
        ),
        ("COPY t OPTIONS (format=csv) FROM '.'", thanosql.ProgrammingError, "a folder"),
        (
            "COPY t OPTIONS (format=audio) FROM 'a.csv'",
            thanosql.ProgrammingError,
            "no f",
        ),
        ("COPY v FROM 'a.csv'", thanosql.ProgrammingError, "'v' is a view"),
        (
            "COPY Thanosql_models OPTIONS (if_exists=append) FROM 'a.csv'",
            thanosql.ProgrammingError,
            "names that begin with thanosql_",
        ),
        ("COPY sqlite_x FROM 'a.csv'", thanosql.OperationalError, "reserved"),
        ("COPY my-table FROM 'a.csv'", thanosql.StatementSyntaxError, "in quotes"),
    ],
)
def test_bad_input_leaves_the_database_as_it_was(
    connection, folder, statement, error, message
):
    Path("a.csv").write_text("a\n1\n")
    connection.execute("CREATE VIEW v AS SELECT 1")
    before = everything(connection)
    with pytest.raises(error, match=message):
        connection.execute(statement)
    assert everything(connection) == before
    assert not connection.in_transaction


@pytest.mark.parametrize(
    "path", ["a\0.csv", "~nobody-here/a.csv", "pipe.csv", "\udcff.csv"]
)
def test_a_path_that_leads_to_no_file_is_an_error_of_ours(connection, folder, path):
    os.mkfifo("pipe.csv")
    with pytest.raises(thanosql.Error):
        connection.execute("COPY t FROM ?", (path,))
    assert everything(connection) == []


def test_what_is_no_frame_is_refused(connection):
    with pytest.raises(
        thanosql.ProgrammingError, match="or a DataFrame, not int; pandas"
    ):
        connection.execute("COPY t FROM ?", (1,))


def test_a_format_and_an_encoding_may_be_said(connection, folder):
    Path("a.txt").write_bytes("text\n안녕\n".encode("cp949"))
    connection.execute("COPY t OPTIONS (format=csv, encoding='cp949') FROM 'a.txt'")
    assert rows(connection) == [("안녕",)]


def test_memory_does_not_grow_with_the_file(folder):
    peaks = []
    for count in (2_000, 40_000):
        with Path("a.csv").open("w") as file:
            file.write("audio,text,n\n")
            file.writelines(f"clips/{i}.wav,some words,{i}\n" for i in range(count))
        connection = thanosql.connect("a.db")
        tracemalloc.start()
        connection.execute("COPY t OPTIONS (if_exists=replace) FROM 'a.csv'")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        connection.close()
    assert peaks[1] < 1.5 * peaks[0]
