"""%sql and %%sql, by JupySQL itself (it took ipython-sql's place), in a real shell."""

import sys
import warnings

import pandas
import pytest

import thanosql

UsageError = pytest.importorskip("IPython.core.error").UsageError
pytest.importorskip("sql", reason="JupySQL is not here")

PREDICT = "PREDICT USING tiny OPTIONS (batch_size=2) AS SELECT audio, {} FROM spoken"


@pytest.fixture(scope="module")
def interactive_shell(tmp_path_factory):
    from IPython.core.interactiveshell import InteractiveShell

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        patch.setenv("PLOOMBER_STATS_ENABLED", "false")  # JupySQL phones home
        # What JupySQL imports is deprecated here and there; none of it is ours.
        warnings.simplefilter("ignore")
        shell = InteractiveShell.instance()
        shell.history_manager.enabled = False
        shell.run_line_magic("load_ext", "sql")
        shell.run_line_magic("config", "SqlMagic.feedback = 0")
        shell.run_line_magic("config", "SqlMagic.displaycon = False")
        yield shell
        InteractiveShell.clear_instance()


class Notebook:
    """Cells in, their results out; an error in a cell is raised."""

    def __init__(self, shell):
        self.shell = shell

    def run(self, cell):
        done = self.shell.run_cell(cell)
        done.raise_error()
        return done.result

    def __getitem__(self, name):
        return self.shell.user_ns[name]


@pytest.fixture
def notebook_on(interactive_shell):
    """Return a function: a notebook whose %sql speaks to an engine or a connection."""
    from sql.connection import ConnectionManager

    def notebook_on(con):
        interactive_shell.user_ns.update(con=con)
        notebook = Notebook(interactive_shell)
        notebook.run("%sql con")
        return notebook

    yield notebook_on
    for each in list(ConnectionManager.connections.values()):
        each.close()
    ConnectionManager.connections.clear()
    ConnectionManager.current = None
    interactive_shell.reset()
    for name in ("last_type", "last_value", "last_traceback"):
        vars(sys).pop(name, None)  # IPython keeps a cell's error, and all it held


@pytest.fixture(params=["engine", "connection"])
def notebook(request, notebook_on, thanosql_trained, engine):
    return notebook_on(
        {"engine": engine, "connection": thanosql_trained}[request.param]
    )


def test_a_cell_predicts(notebook, spoken):
    result = notebook.run(f"%%sql\n{PREDICT.format('text')}\nORDER BY rowid\nLIMIT 5;")
    assert list(result.keys) == ["audio", "text", "predicted"]
    frame = result.DataFrame()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.text) == [text for (text,) in spoken[:5]]


def test_a_result_is_read_on_as_it_is_used(notebook, spoken):
    # JupySQL executes, commits, and fetches two rows; the rest when asked.
    notebook.run(f"%sql result << {PREDICT.format('text')}")
    assert len(notebook["result"]) == len(spoken) == 60
    assert list(notebook["result"].dict()["text"]) == [text for (text,) in spoken]


def test_the_commit_after_execute_leaves_predict_open(
    notebook_on, thanosql_trained, seen
):
    seen.add_to(thanosql_trained)
    notebook = notebook_on(thanosql_trained)
    notebook.run(f"%sql result << {PREDICT.format('seen(text) AS text')}")
    assert seen.count < 20
    assert len(notebook["result"].DataFrame()) == 60
    assert seen.count == 60


def test_statements_without_rows_are_no_error(notebook):
    notebook.run("%sql CREATE TABLE notes (a)")
    notebook.run("%sql INSERT INTO notes VALUES (1), (2)")
    notebook.run("%sql DROP MODEL IF EXISTS nothing")
    assert [tuple(row) for row in notebook.run("%sql SELECT a FROM notes")] == [
        (1,),
        (2,),
    ]


def test_a_cell_builds(notebook, thanosql_path):
    result = notebook.run(
        "%%sql epochs <<\n"
        "BUILD MODEL again USING tiny OPTIONS (max_steps=1, validation=0)\n"
        "AS SELECT audio, text FROM spoken LIMIT 4"
    )
    assert result is None
    assert list(notebook["epochs"].dict()["epoch"]) == [1]
    with thanosql.connect(thanosql_path) as other:
        names = other.execute("SELECT name FROM (LIST MODELS)").fetchall()
    other.close()
    assert names == [("again",), ("tiny",)]


def test_variables_fill_a_statement_in(notebook):
    notebook.run("last = 3")
    result = notebook.run("%sql SELECT count(*) FROM spoken WHERE rowid <= {{last}}")
    assert [tuple(row) for row in result] == [(3,)]


def test_an_error_says_what_is_wrong(notebook):
    # JupySQL raises an error of IPython's for SQLAlchemy's, and ours as it is.
    with pytest.raises(
        (UsageError, RuntimeError, thanosql.ModelNotFoundError)
    ) as caught:
        notebook.run("%sql PREDICT USING tini AS SELECT audio FROM spoken")
    assert "did you mean 'tiny'" in str(caught.value)


def test_tables_are_listed_without_those_of_models(notebook_on, engine):
    shown = str(notebook_on(engine).run("%sqlcmd tables"))
    assert "spoken" in shown
    assert "thanosql_models" not in shown


def test_nothing_of_a_connection_is_taken_for_duckdb(thanosql_memory):
    for each in (thanosql_memory, thanosql_memory.execute("SELECT 1")):
        assert not any(hasattr(each, name) for name in ("df", "pl"))
