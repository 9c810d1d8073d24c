"""What plain SQL must not pay for."""

import subprocess
import sys

import pytest

HEAVY = ["torch", "numpy", "pandas", "transformers", "soundfile", "tqdm"]
HEAVY += ["apsw.ext", "IPython", "thanosql.execution.functions.subtitles"]
HEAVY += ["ray", "thanosql.cluster"]


@pytest.mark.parametrize(
    "statements",
    [
        "pass",
        "con = thanosql.connect(':memory:'); con.execute('SELECT 1').fetchall()",
        "con = thanosql.connect(':memory:'); "
        "con.execute('LIST MODELS').fetchall(); "
        "con.execute('SELECT 1 AS list').fetchall()",
    ],
    ids=["import", "plain SQL", "listing models"],
)
def test_nothing_heavy_is_imported_for(statements):
    script = (
        f"import sys, thanosql; {statements}; "
        f"print([m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_sql_functions_import_nothing_heavy():
    calls = "SELECT subtitles('[]', 'srt'), find_phrase('[]', 'a')"
    script = (
        "import sys, thanosql; con = thanosql.connect(':memory:'); "
        f'con.execute("{calls}").fetchall(); '
        "print([m for m in ['torch', 'numpy', 'pandas', 'thanosql.speech'] "
        "if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
