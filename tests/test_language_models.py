"""Language models in SQL: made, moved, and told from models of recordings."""

import gzip
import subprocess
import sys
import threading
from contextlib import closing

import pytest

import thanosql
from thanosql import speech
from thanosql.execution.context import Context
from thanosql.speech.words import words_of
from thanosql.store.models import ModelStore

SCRIPTS = [
    "Good morning, how can I help you?",
    "I would like to change my address.",
    "I would like to cancel my order.",
    "How can I change my order?",
    "Your order is on the way.",
    "Good morning, I would like to speak to a person.",
]
BUILD = "BUILD MODEL lm USING NGram OPTIONS (validation=0) AS SELECT text FROM scripts"


def with_scripts(path):
    connection = thanosql.connect(path)
    connection.execute("CREATE TABLE scripts (id INTEGER PRIMARY KEY, text)")
    connection.executemany(
        "INSERT INTO scripts (text) VALUES (?)", [(text,) for text in SCRIPTS]
    )
    connection.commit()
    return connection


@pytest.fixture
def scripts(tmp_path):
    with closing(with_scripts(tmp_path / "scripts.db")) as connection:
        yield connection


def models(connection):
    return [row[0] for row in connection.execute("LIST MODELS")]


def facts(connection, name):
    return dict(connection.execute(f"DESCRIBE MODEL {name}").fetchall())


def opened(connection, name="lm"):
    store = ModelStore(connection.apsw)
    model = store.get(name)
    files = speech.StoredFiles(
        model.sha256, lambda: store.read_settings(model), lambda: store.read(model)
    )
    return speech.open_language_model(files)


def test_build_yields_one_row_and_stores_the_model(scripts):
    cursor = scripts.execute(BUILD)
    assert [column[0] for column in cursor.description] == [
        "order",
        "ngrams",
        "vocabulary",
        "sentences",
        "words",
        "perplexity",
        "unknown",
    ]
    ((order, ngrams, vocabulary, sentences, words, *held_out),) = cursor.fetchall()
    assert (order, sentences, words, held_out) == (3, 6, 43, [None, None])
    (row,) = scripts.execute("LIST MODELS").fetchall()
    assert row[:4] == ("lm", "NGram", "NGram", ngrams)
    told = facts(scripts, "lm")
    assert told["query"] == "SELECT text FROM scripts"
    assert told["option order"] == 3
    assert told["vocabulary"] == told["1-grams"] == vocabulary
    assert told["1-grams"] + told["2-grams"] + told["3-grams"] == ngrams
    model = opened(scripts)
    assert model.order == 3
    likely = model.log_probability(words_of(SCRIPTS[2]))
    assert likely > model.log_probability(words_of(SCRIPTS[2])[::-1])


@pytest.mark.parametrize("base", ["ngram", '"NGram"', "NGRAM", "'nGram'"])
def test_the_base_is_known_in_any_case_and_in_quotes(scripts, base):
    scripts.execute(f"BUILD MODEL lm USING {base} AS SELECT text FROM scripts")
    assert models(scripts) == ["lm"]


def test_the_row_of_a_build_is_a_query_like_any_other(scripts):
    found = scripts.execute(
        'SELECT "order", unknown FROM (BUILD MODEL lm USING NGram '
        "OPTIONS (order=2, text_col='line', validation=0.5) "
        "AS SELECT text AS line FROM scripts)"
    ).fetchone()
    assert found[0] == 2
    assert 0 <= found[1] <= 1
    assert facts(scripts, "lm")["perplexity"] > 1


def test_a_model_is_replaced_only_where_that_is_asked_for(scripts):
    scripts.execute(BUILD)
    with pytest.raises(thanosql.ModelExistsError, match="overwrite=True"):
        scripts.execute(BUILD)
    digest = facts(scripts, "lm")["sha256"]
    assert scripts.execute(BUILD.replace("lm", "IF NOT EXISTS lm", 1)).fetchall() == []
    scripts.execute(BUILD.replace("BUILD", "BUILD OR REPLACE"))
    assert facts(scripts, "lm")["sha256"] == digest
    scripts.execute(BUILD.replace("validation=0", "order=1, overwrite=TRUE"))
    assert facts(scripts, "lm")["sha256"] != digest
    scripts.execute("DROP MODEL lm")
    assert models(scripts) == []


def test_a_rolled_back_transaction_leaves_no_model(scripts):
    scripts.execute(BUILD)
    digest = facts(scripts, "lm")["sha256"]
    scripts.execute("BEGIN")
    scripts.execute("DELETE FROM scripts WHERE id > 3")
    scripts.execute(BUILD.replace("BUILD", "BUILD OR REPLACE"))
    assert facts(scripts, "lm")["sentences"] == 3
    scripts.rollback()
    assert facts(scripts, "lm")["sha256"] == digest


def test_an_exported_model_is_imported_with_the_same_scores(
    scripts, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    scripts.execute(BUILD)
    row = scripts.execute("EXPORT MODEL lm TO 'folder'").fetchone()
    size = (tmp_path / "folder/lm.arpa").stat().st_size
    assert row == ("lm", "folder", 1, size)
    scripts.execute("EXPORT MODEL lm TO 'one.arpa'")
    for place in ("folder", "one.arpa", "folder/lm.arpa"):
        with pytest.raises(thanosql.ProgrammingError, match="overwrite=True"):
            scripts.execute(f"EXPORT MODEL lm TO '{place}'")
    scripts.execute("EXPORT MODEL lm TO 'folder' OPTIONS (overwrite=TRUE)")
    said = ["good", "morning", "person", "unheard"]
    expected = opened(scripts).log_probability(said)
    for name, place in (("a", "folder"), ("b", "one.arpa")):
        (row,) = scripts.execute(f"IMPORT MODEL {name} FROM '{place}'").fetchall()
        assert row[2:4] == ("NGram", facts(scripts, "lm")["ngrams"])
        assert opened(scripts, name).log_probability(said) == expected
    assert facts(scripts, "a")["perplexity"] is None


def test_a_folder_may_be_called_as_an_arpa_file_is(scripts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.arpa").mkdir()
    scripts.execute(BUILD)
    scripts.execute("EXPORT MODEL lm TO 'folder.arpa'")
    scripts.execute("IMPORT MODEL x FROM 'folder.arpa'")
    assert models(scripts) == ["lm", "x"]


def test_a_compressed_file_is_known_in_any_case_of_letters(scripts, tmp_path):
    scripts.execute(BUILD)
    scripts.execute("EXPORT MODEL lm TO ?", (str(tmp_path / "lm.arpa"),))
    content = gzip.compress((tmp_path / "lm.arpa").read_bytes())
    (tmp_path / "LM.ARPA.GZ").write_bytes(content)
    scripts.execute("IMPORT MODEL x FROM ?", (str(tmp_path / "LM.ARPA.GZ"),))
    assert models(scripts) == ["lm", "x"]


def test_what_cannot_be_imported_or_exported_is_told(scripts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scripts.execute(BUILD)
    with pytest.raises(thanosql.OperationalError, match="No such file"):
        scripts.execute("IMPORT MODEL x FROM 'none.arpa'")
    (tmp_path / "bad.arpa").write_text("no model\n")
    with pytest.raises(thanosql.DataError, match=r"bad\.arpa, line 2: the file ends"):
        scripts.execute("IMPORT MODEL x FROM 'bad.arpa'")
    (tmp_path / "two").mkdir()
    for name in ("a.arpa", "b.arpa.gz"):
        (tmp_path / "two" / name).write_text("")
    with pytest.raises(thanosql.ProgrammingError, match=r"a\.arpa, b\.arpa\.gz; name"):
        scripts.execute("IMPORT MODEL x FROM 'two'")
    with pytest.raises(thanosql.ProgrammingError, match="are not compressed; name one"):
        scripts.execute("EXPORT MODEL lm TO 'lm.arpa.gz'")
    assert not (tmp_path / "lm.arpa.gz").exists()
    with pytest.raises(thanosql.ProgrammingError, match="it is a file"):
        scripts.execute("EXPORT MODEL lm TO 'scripts.db'")
    assert models(scripts) == ["lm"]


@pytest.mark.parametrize(
    ("statement", "way_out"),
    [
        (
            "PREDICT USING lm AS SELECT text AS audio FROM scripts",
            "language_model='lm'",
        ),
        ("EVALUATE USING lm AS SELECT text, id FROM scripts", "language_model='lm'"),
        ("FIT MODEL x USING lm AS SELECT text FROM scripts", "count all texts anew"),
        ("BUILD MODEL x USING lm AS SELECT text FROM scripts", "start from a model of"),
    ],
)
def test_a_language_model_transcribes_nothing_by_itself(scripts, statement, way_out):
    scripts.execute(BUILD)
    with pytest.raises(thanosql.NotSupportedError, match="'lm' is a language") as told:
        scripts.execute(statement)
    assert way_out in str(told.value)


def test_the_base_is_listed_and_is_no_model_to_store(scripts):
    listed = {row[0]: row for row in scripts.execute("LIST BASES")}
    assert listed["NGram"][1] == "n-grams of a text column"
    assert dict(scripts.execute("DESCRIBE BASE ngram"))["name"] == "NGram"
    for statement in ("GET MODEL NGram", "IMPORT MODEL x FROM 'ngram'"):
        with pytest.raises(thanosql.NotSupportedError, match="counts a language model"):
            scripts.execute(statement)
    with pytest.raises(thanosql.ModelNotFoundError, match="base of language models"):
        scripts.execute("PREDICT USING NGram AS SELECT text AS audio FROM scripts")


@pytest.mark.parametrize(
    ("base", "options", "told"),
    [
        ("NGram", "epochs=3", "no option epochs: it is for models of recordings"),
        ("NGram", "audio_path='a'", "no option audio_path: it is for models of rec"),
        ("NGram", "odrer=3", "did you mean 'order'?"),
        ("NGram", "order=7", "order takes a whole number from 1 to 6, not 7"),
        ("NGram", "order=0", "order takes a whole number from 1 to 6, not 0"),
        ("NGram", "prune='1'", "prune takes numbers such as '0 0 1'"),
        ("NGram", "prune='0 2 1'", "prune takes numbers such as '0 0 1'"),
        ("NGram", "prune=1", "prune takes numbers such as '0 0 1'"),
        ("NGram", "order=2, prune='0 0 1'", "prune has 3 numbers, and order=2"),
        ("NGram", "validation=1", "a share from 0 to below 1"),
        ("NGram", "text_col='txet'", "no column 'txet' for text_col; did you mean 'te"),
        ("TinyEn", "order=3", "no option order: it is for language models"),
        ("TinyEn", "prune='0'", "no option prune: it is for language models"),
    ],
)
def test_options_of_the_other_kind_are_refused_with_the_reason(
    scripts, base, options, told
):
    with pytest.raises(thanosql.OptionError) as caught:
        scripts.execute(
            f"BUILD MODEL x USING {base} OPTIONS ({options}) "
            "AS SELECT text, text AS audio FROM scripts"
        )
    assert told in str(caught.value)


def test_rows_that_are_no_texts_are_named_and_nothing_is_stored(scripts):
    scripts.execute("UPDATE scripts SET text = NULL WHERE id = 2")
    scripts.execute("UPDATE scripts SET text = x'00' WHERE id = 5")
    scripts.commit()
    with pytest.raises(thanosql.TrainingError) as caught:
        scripts.execute(BUILD)
    assert str(caught.value).splitlines()[1:] == [
        "  row 2: text is NULL",
        "  row 5: text is bytes, not text",
    ]
    with pytest.raises(thanosql.TrainingError, match="no rows"):
        scripts.execute(f"{BUILD} WHERE FALSE")
    assert models(scripts) == []
    assert not scripts.in_transaction


def test_texts_without_a_word_are_left_out_with_a_warning(scripts):
    scripts.execute("UPDATE scripts SET text = ' … ' WHERE id < 3")
    scripts.commit()
    with pytest.warns(thanosql.Warning, match="2 of the texts have no word"):
        scripts.execute(BUILD)
    assert facts(scripts, "lm")["sentences"] == 4


@pytest.mark.parametrize("stage", ["count 2-grams", "estimate"])
def test_an_interrupt_stops_a_build_and_leaves_nothing(scripts, monkeypatch, stage):
    progress = Context.progress

    def interrupting(context):
        show = progress(context)

        class Interrupting:
            def __enter__(self):
                return self

            def __exit__(self, *_):
                show.close()

            def __call__(self, at, *numbers):
                if at == stage:
                    thread = threading.Thread(target=scripts.interrupt)
                    thread.start()
                    thread.join()
                show(at, *numbers)

        return Interrupting()

    monkeypatch.setattr(Context, "progress", interrupting)
    with pytest.raises(thanosql.OperationalError, match="interrupted"):
        scripts.execute(BUILD)
    assert not scripts.in_transaction
    monkeypatch.undo()
    assert models(scripts) == []
    scripts.execute(BUILD)


_CTRL_C = """
import os, signal, sys
import thanosql
from thanosql.execution.progress import Progress

show = Progress.__call__

def interrupt(self, at, *numbers, **facts):
    if at == "count 3-grams":
        os.kill(os.getpid(), signal.SIGINT)
    show(self, at, *numbers, **facts)

Progress.__call__ = interrupt
con = thanosql.connect(sys.argv[1])
try:
    con.execute(sys.argv[2])
except KeyboardInterrupt:
    print("interrupted", con.in_transaction)
print(con.execute("LIST MODELS").fetchall(), "torch" in sys.modules)
"""


def test_ctrl_c_stops_a_build_which_needs_no_torch(scripts, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _CTRL_C, str(tmp_path / "scripts.db"), BUILD],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.splitlines() == ["interrupted False", "[] False"], done.stderr


def test_others_may_write_while_a_build_counts(scripts, tmp_path, monkeypatch):
    other = thanosql.connect(tmp_path / "scripts.db", timeout=0)
    build = speech.build_language_model

    def writing(texts, *arguments, **settings):
        def all_read():
            yield from texts
            other.execute("INSERT INTO scripts (text) VALUES ('one more')")
            other.commit()

        return build(all_read(), *arguments, **settings)

    monkeypatch.setattr(speech, "build_language_model", writing)
    scripts.execute(BUILD)
    assert facts(scripts, "lm")["sentences"] == 6
    assert other.execute("SELECT count(*) FROM scripts").fetchone() == (7,)
    other.close()


def test_an_open_language_model_is_opened_once(scripts):
    scripts.execute(BUILD)
    assert opened(scripts) is opened(scripts)


def test_completion_knows_the_options_of_language_models(scripts):
    from thanosql.frontends.completion import complete

    begun = "BUILD MODEL lm USING NGram OPTIONS ("
    assert complete(scripts, begun) == [
        "text_col=",
        "order=",
        "prune=",
        "validation=",
        "overwrite=",
    ]
    assert "epochs=" in complete(scripts, begun.replace("NGram", "TinyEn"))
    assert complete(scripts, "BUILD MODEL lm USING NG") == ["NGram"]
