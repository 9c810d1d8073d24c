"""The magic, in one real kernel for all tests here."""

import os
import signal

import nbformat.v4 as nbformat
import pytest
from nbclient import NotebookClient
from tones import tones

import thanosql

pytestmark = pytest.mark.thorough(seconds=3)  # each; a second interpreter

WORDS = ["abc", "bad cab", "face", "a", "head bed", "fade", "gabe", "deaf ace"]

TUTORIAL = [
    "%load_ext thanosql",
    "%%thanosql\nSELECT * FROM librispeech_train LIMIT 5",
    """%%thanosql
BUILD MODEL my_speech_recognition_model
USING Wav2Vec2En
OPTIONS (audio_col='audio', text_col='text', epochs=1, batch_size=4)
AS SELECT * FROM librispeech_train""",
    """%%thanosql
PREDICT USING my_speech_recognition_model
OPTIONS (audio_col='audio')
AS SELECT * FROM librispeech_test""",
]


class Kernel(NotebookClient):
    """A kernel that runs cells one by one and can be interrupted by what one shows."""

    interrupt_at = None

    def run(self, source):
        """Return the outputs of a cell, as they are at its end."""
        self.nb.cells.append(nbformat.new_code_cell(source))
        self.execute_cell(self.nb.cells[-1], len(self.nb.cells) - 1)
        return self.nb.cells[-1].outputs

    def process_message(self, msg, cell, cell_index):
        shown = str(msg["content"].get("data", {}).get("text/plain"))
        if self.interrupt_at is not None and shown.startswith(self.interrupt_at):
            self.interrupt_at = None
            # What interrupting a kernel is, on every system but Windows.
            os.kill(self.km.provisioner.pid, signal.SIGINT)
        return super().process_message(msg, cell, cell_index)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, base):
    """Return a folder with what the tutorial starts from, in thanosql.db."""
    folder = tmp_path_factory.mktemp("notebook")
    connection = thanosql.connect(folder / "thanosql.db", autocommit=True)
    for name, words in (("train", WORDS), ("test", WORDS[:3])):
        connection.execute(f"CREATE TABLE librispeech_{name} (audio TEXT, text TEXT)")
        for number, text in enumerate(words):
            path = folder / f"{name}{number}.wav"
            path.write_bytes(tones(text, seed=number))
            connection.execute(
                f"INSERT INTO librispeech_{name} VALUES (?, ?)", (str(path), text)
            )
    # A stored model answers to a base's name where the hub cannot be reached.
    connection.execute("IMPORT MODEL Wav2Vec2En FROM ?", (str(base),))
    connection.close()
    return folder


@pytest.fixture(scope="module")
def kernel(folder):
    """Return a kernel that works in the folder and has run the tutorial."""
    client = Kernel(
        nbformat.new_notebook(),
        timeout=120,
        kernel_name="python3",
        allow_errors=True,
        resources={"metadata": {"path": str(folder)}},
    )
    with client.setup_kernel():
        client.tutorial = [client.run(source) for source in TUTORIAL]
        yield client


@pytest.fixture
def table(kernel):
    """Return the kernel, in a database of its own: a table t of two rows."""
    kernel.run("%thanosql :memory:")
    kernel.run(
        "%%thanosql\nCREATE TABLE t (a, b); INSERT INTO t VALUES (1,'x'),(2,'y')"
    )
    return kernel


def text(outputs):
    """Return what a person reads of outputs, without markup."""
    return "".join(
        output["data"]["text/plain"]
        if "data" in output
        else output.get("text") or "\n".join(output["traceback"])
        for output in outputs
    )


def html(outputs):
    return outputs[-1]["data"]["text/html"]


# The tutorial that this package comes from


def test_the_tutorial_runs_as_it_was_written(kernel):
    loaded, selected, built, predicted = kernel.tutorial
    assert loaded == []
    assert "tables librispeech_test, librispeech_train; models Wav2Vec2En" in text(
        selected
    )
    assert html(selected).count("<tr>") == 5
    assert "train_loss" in text(built)
    assert "predicted" in text(predicted)
    assert html(predicted).count("<tr>") == 3
    outputs = [*selected, *built, *predicted]
    assert {o["output_type"] for o in outputs} <= {
        "stream",
        "display_data",
        "execute_result",
    }
    assert not [o for o in outputs if o.get("name") == "stderr"]


def test_rows_are_a_data_frame(kernel):
    kernel.run("%thanosql thanosql.db")
    assert "True" in text(
        kernel.run("""rows = %thanosql SELECT text FROM librispeech_train LIMIT 2
import pandas
type(rows) is pandas.DataFrame and list(rows["text"]) == ["abc", "bad cab"]""")
    )


# Statements and variables


def test_a_cell_is_a_script_and_shows_its_last_rows(table):
    assert text(table.run("%%thanosql\nSELECT 1; SELECT a, b FROM t; -- end")).split(
        "\n"
    ) == ["   a  b", "0  1  x", "1  2  y"]


@pytest.mark.parametrize("body", ["-- SELECT 1", "/* a; b */;\n", "\n", ";"])
def test_a_cell_without_a_statement_does_nothing(table, body):
    assert table.run(f"%%thanosql\n{body}") == []


def test_a_write_says_how_many_rows_it_changed(table):
    assert text(table.run("%thanosql UPDATE t SET b = 'z'")) == "2 rows changed\n"


def test_rows_are_assigned_and_not_shown(table):
    source = "%%thanosql\none << SELECT 1 AS i;\n-- and\ntwo << SELECT * FROM t"
    assert table.run(source) == []
    assert text(table.run("len(one), list(two['b'])")) == "(1, ['x', 'y'])"


def test_the_value_of_a_variable_is_bound_and_never_pasted(table):
    table.run("""import numpy, pathlib
quote = "x'; DROP TABLE t; --"; two = numpy.int64(2); path = pathlib.Path("p/q")""")
    shown = text(
        table.run(
            "%thanosql SELECT :quote AS q, :two + 1 AS n, :path AS p, "
            "':quote {two} $two' AS s"
        )
    )
    assert "x'; DROP TABLE t; --" in shown
    assert "3" in shown
    assert "p/q" in shown
    assert ":quote {two} $two" in shown
    assert "x" in text(table.run("%thanosql SELECT * FROM t"))


def test_a_functions_own_variables_are_seen(table):
    source = """def ask(a):
    get_ipython().run_line_magic("thanosql", "answer << SELECT b FROM t WHERE a = :a")
    return answer["b"][0]
ask(2)"""
    assert text(table.run(source)) == "'y'"


def test_a_missing_variable_is_named(table):
    table.run("wanted = 1")
    shown = text(table.run("%%thanosql\nSELECT *\nFROM t WHERE a = :wantd"))
    assert shown.splitlines() == [
        "ProgrammingError: there is no variable 'wantd' for :wantd; did you mean "
        "'wanted'? (line 3, column 18)",
        "  FROM t WHERE a = :wantd",
        "                   ^",
    ]
    assert "write :name" in text(table.run("%thanosql SELECT ?"))


# Errors


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        (
            "SELECT 1;\nSELECT b, c FROM t",
            "OperationalError: no such column: c (line 3, column 11)\n"
            "  SELECT b, c FROM t\n"
            "            ^",
        ),
        (
            "\nPREDICT USING m OPTIONS (batchsize=1)\nAS SELECT 1",
            "OptionError: PREDICT has no option 'batchsize'; did you mean 'batch_size'?"
            " (line 3, column 26)\n",
        ),
        (
            "SELECT 1; PREDICT USING m OPTONS (batch_size=1) AS SELECT 1",
            "StatementSyntaxError: ",
        ),
    ],
)
def test_an_error_is_its_message_alone(table, cell, shown):
    outputs = table.run(f"%%thanosql\n{cell}")
    assert text(outputs).startswith(shown)
    assert "Traceback" not in text(outputs)
    assert outputs[-1]["output_type"] == "error"  # so that a notebook run stops there


def test_an_error_can_be_caught(table):
    source = """import thanosql
try:
    get_ipython().run_line_magic("thanosql", "DROP MODEL nobody")
except thanosql.ModelNotFoundError as error:
    print("caught", error)"""
    assert text(table.run(source)).startswith("caught no model named 'nobody'")


def test_a_warning_is_a_line_each_time(table):
    source = """import warnings
from thanosql import errors
def build(a): errors.warn("the row is short")
get_ipython().find_line_magic("thanosql").__self__._connection.apsw \\
    .create_scalar_function("build", build)"""
    table.run(source)
    for _ in range(2):
        outputs = table.run("%thanosql SELECT build(1)")
        assert outputs[0]["text"] == "Warning: the row is short\n"


# Transactions


def test_a_statement_is_kept_at_once(table, folder):
    table.run("%thanosql kept.db")
    table.run(
        "%%thanosql\nCREATE TABLE k (a); INSERT INTO k VALUES (1); SELECT * FRM k"
    )
    other = thanosql.connect(folder / "kept.db")
    assert other.execute("SELECT * FROM k").fetchall() == [(1,)]
    other.close()


def test_an_open_transaction_is_pointed_out_after_an_error(table):
    shown = text(table.run("%%thanosql\nBEGIN; DELETE FROM t; SELECT * FROM u"))
    assert shown.endswith("a transaction is open; COMMIT or ROLLBACK ends it")
    table.run("%thanosql rollback")
    assert "x" in text(table.run("%thanosql SELECT * FROM t"))


# Databases


def test_loading_again_keeps_the_database_open(table):
    assert table.run("%reload_ext thanosql") == []
    assert text(table.run("%thanosql")) == "in memory: tables t\n"


@pytest.mark.parametrize(
    "url",
    [
        "other.db",
        "'other.db'",
        "sqlite:///other.db",
        "thanosql:///other.db",
        "file:other.db?mode=rwc",
    ],
)
def test_a_database_is_a_path_or_a_url(table, folder, url):
    assert text(table.run(f"%thanosql {url}")) == "other.db: empty\n"
    table.run("%thanosql :memory:")
    (folder / "other.db").unlink(missing_ok=True)


def test_a_url_may_name_an_audio_root(table, folder):
    (folder / "clips 1").mkdir()
    (folder / "clips 1" / "here.wav").write_bytes(tones("face"))
    assert "Wav2Vec2En" in text(
        table.run("%thanosql thanosql:///thanosql.db?audio_root=clips%201")
    )
    heard = "%thanosql PREDICT USING Wav2Vec2En AS SELECT 'here.wav' AS audio"
    assert "predicted" in text(table.run(heard))
    table.run("%thanosql thanosql.db")
    assert "unless audio_root names another folder" in text(table.run(heard))


def test_a_cell_may_name_its_database(table, folder):
    assert "1" in text(table.run("%%thanosql sqlite:///:memory:\nSELECT 1 AS one"))


@pytest.mark.parametrize(
    ("database", "why"),
    [
        ("postgresql://host/db", "is no database here"),
        ("thanosql://host/calls.db", "is no database here"),
        ("thanosql:/calls.db", "is no database here"),
        ("thanosql:calls.db", "is no database here"),
        ("sqlite:///thanosql.db?mode=ro", "may end with ?audio_root=DIR"),
        ("thanosql:///new.db?audio_root=nowhere", "no directory: 'nowhere'"),
        ("nowhere/at/all.db", "unable to open database file"),
        ("train0.wav", "file is not a database"),
    ],
)
def test_a_database_that_cannot_be_opened_leaves_the_one_before(
    table, folder, database, why
):
    files = set(folder.iterdir())
    assert why in text(table.run(f"%thanosql {database}"))
    assert text(table.run("%thanosql")) == "in memory: tables t\n"
    assert set(folder.iterdir()) == files


# What BUILD and PRINT AUDIO show


def test_a_training_shows_its_curve_and_is_a_data_frame(kernel):
    kernel.run("%thanosql thanosql.db")
    built = kernel.run("""%%thanosql
built << BUILD OR REPLACE MODEL two USING Wav2Vec2En OPTIONS (epochs=2, validation=0.3)
AS SELECT * FROM librispeech_train""")
    assert all(output["output_type"] == "display_data" for output in built)
    shown = kernel.run("built")
    assert html(shown).startswith('<img alt="loss and error rate by epoch" src="data:')
    assert "<script" not in html(shown)
    assert html(shown).count("<tr>") == 2
    assert text(kernel.run("type(built.head(1)).__name__")) == "'DataFrame'"


def test_an_interrupt_stops_a_training_and_leaves_the_database(kernel):
    kernel.run("%thanosql thanosql.db")
    kernel.interrupt_at = "train"
    outputs = kernel.run("""%%thanosql
INSERT INTO librispeech_test SELECT * FROM librispeech_test LIMIT 0;
BUILD MODEL endless USING Wav2Vec2En OPTIONS (epochs=10000)
AS SELECT * FROM librispeech_train""")
    assert kernel.interrupt_at is None
    assert outputs[-1]["traceback"] == [
        "KeyboardInterrupt: the statement was interrupted; nothing of it is kept"
    ]
    # The live line stays as a short one: an output cannot be taken back.
    assert "train" in outputs[1]["data"]["text/plain"]
    assert "endless" not in text(kernel.run("%thanosql LIST MODELS"))


def test_an_interrupt_stops_a_long_query(table):
    source = """import threading, os, signal
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
endless = "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c)"
get_ipython().run_line_magic("thanosql", f"{endless} SELECT count(*) FROM c")"""
    assert "the statement was interrupted" in text(table.run(source))


def test_blobs_are_shown_by_their_size(table):
    outputs = table.run("%thanosql SELECT x'00010203' AS audio, 'a<b' AS text")
    assert "4 bytes" in text(outputs)
    assert "4 bytes" in html(outputs)
    assert "a&lt;b" in html(outputs)


# Completion


def test_statements_options_and_names_are_completed(kernel):
    kernel.run("%thanosql thanosql.db")
    for before, expected in (
        ("%%thanosql\nEVAL", "EVALUATE USING "),
        ("%%thanosql\nSELECT 1;\nPREDICT USING my", "my_speech_recognition_model"),
        ("%thanosql PREDICT USING m OPTIONS (ba", "batch_size="),
        ("%thanosql SELECT * FROM libri", "librispeech_test"),
    ):
        source = f"""from IPython.core.completer import provisionalcompleter
with provisionalcompleter():
    found = get_ipython().Completer.completions({before!r}, {len(before)})
    print([completion.text for completion in found])"""
        assert expected in text(kernel.run(source))
