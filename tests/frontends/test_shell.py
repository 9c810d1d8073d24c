"""The `thanosql` command: as a process, and at a real terminal."""

import json
import os
import platform
import re
import subprocess
import sys

import pytest
from tones import tones

import thanosql
from thanosql.frontends import shell

pexpect = pytest.importorskip("pexpect", reason="no pseudo-terminals on this system")

COMMAND = [sys.executable, "-m", "thanosql"]
ENDLESS = (
    "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c) SELECT {} FROM c"
)
_TWICE = """
import resource
from thanosql.frontends import shell
{}
def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    memory = bytearray(2**26)
    memory[:] = b"1" * len(memory)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(new_pages(), new_pages())
"""


@pytest.fixture
def path(calls):
    """Return a database file: table calls of 8 rows, model m."""
    return calls.execute("PRAGMA database_list").fetchone()[2]


def script(text, *arguments):
    """Run the command on a script; return exit status, stdout, stderr."""
    done = subprocess.run(
        [*COMMAND, *arguments], input=text, capture_output=True, text=True, timeout=120
    )
    return done.returncode, done.stdout, done.stderr


# Arguments, in this process


def test_statements_are_arguments_and_all_is_kept(path, capsys):
    assert shell.main([path, "CREATE TABLE t (a)", "INSERT INTO t VALUES (7)"]) == 0
    assert shell.main([path, "-c", "SELECT a FROM t; SELECT 8"]) == 0
    assert capsys.readouterr().out == "7\n8\n"


@pytest.mark.parametrize(
    ("mode", "printed"),
    [
        ("list", "1|a,b\n2|\n"),
        ("csv", '1,"a,b"\n2,\n'),
        ("json", '[{ "n": 1, "t": "a,b"},\n{ "n": 2, "t": null}]\n'),
        ("jsonl", '{ "n": 1, "t": "a,b"}\n{ "n": 2, "t": null}\n'),
        ("box", "│ 1 │ a,b  │"),
        ("html", "<TD>a,b</TD>"),
    ],
)
def test_rows_are_printed_in_a_mode(capsys, mode, printed):
    rows = "SELECT 1 AS n, 'a,b' AS t UNION ALL SELECT 2, NULL"
    assert shell.main(["--mode", mode, "", rows]) == 0
    shown = capsys.readouterr().out
    assert printed in shown if mode in ("box", "html") else printed == shown


@pytest.mark.parametrize(("mode", "space"), [("box", " "), ("table", ".")])
def test_words_are_readable_in_a_table_and_json_elsewhere(capsys, mode, space):
    words = [
        {"word": "go", "start": 0.5, "end": 0.8, "confidence": 0.95},
        {"word": "left", "start": 0.9, "end": 1.25, "confidence": 0.25},
        {"word": "now", "start": None, "end": None, "confidence": None},
    ]
    query = f"SELECT '{json.dumps(words)}' AS words, '[1]' AS others"
    assert shell.main(["--mode", mode, "", query]) == 0
    printed = capsys.readouterr().out
    assert "[0.50] go [0.90] left (0.25) [-] now".replace(" ", space) in printed
    assert "[1]" in printed
    assert shell.main(["--mode", mode, "", "SELECT 7 AS words, NULL AS words"]) == 0
    assert "7" in capsys.readouterr().out
    for mode in ("list", "csv", "jsonl"):
        assert shell.main(["--mode", mode, "", query]) == 0
        assert "confidence" in capsys.readouterr().out


def test_a_subtitle_file_is_printed_as_it_is(capsys):
    words = '[{"word": "go", "start": 0.5, "end": 1.75}]'
    query = f"SELECT subtitles('{words}', 'vtt')"
    assert shell.main(["--mode", "list", "", query]) == 0
    assert capsys.readouterr().out == (
        "WEBVTT\n\n1\n00:00:00.500 --> 00:00:01.750\ngo\n\n"
    )


def test_speech_statements_and_plain_ones_print_alike(path, capsys):
    assert shell.main([path, "--header", "--mode", "csv", "LIST MODELS"]) == 0
    head, row = capsys.readouterr().out.splitlines()
    assert head.startswith("name,base,")
    assert row.startswith("m,")
    transcripts = (
        "SELECT count(predicted) FROM (PREDICT USING m AS SELECT * FROM calls)"
    )
    assert shell.main([path, transcripts]) == 0
    assert capsys.readouterr().out == "8\n"


def test_an_error_points_to_its_place_and_is_the_exit_status(capsys):
    assert shell.main(["", "SELECT 1;\nSELECT * FRM t; SELECT 2"]) == 1
    shown = capsys.readouterr()
    assert shown.out == "1\n"
    assert shown.err == (
        'thanosql: near "FRM": syntax error (line 2, column 10)\n'
        "  SELECT * FRM t;\n"
        "           ^\n"
    )


def test_a_file_that_is_no_database_is_named(tmp_path, capsys):
    (tmp_path / "a.txt").write_text("not a database, but long enough to look at" * 50)
    assert shell.main([str(tmp_path / "a.txt"), "SELECT 1"]) == 1
    assert "a.txt': file is not a database" in capsys.readouterr().err


def test_wrong_arguments_are_exit_status_2(capsys):
    with pytest.raises(SystemExit) as ended:
        shell.main(["--mode", "nonsense"])
    assert ended.value.code == 2
    assert "invalid choice" in capsys.readouterr().err


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit) as ended:
        shell.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == thanosql.__version__


def test_help_comes_from_docstrings(capsys):
    assert shell.main(["", ".help speech", ".speech", ".speech predict"]) == 0
    shown = capsys.readouterr()
    assert "options of one" in shown.err
    assert "BUILD [OR REPLACE] MODEL" in shown.out
    assert re.search(r"batch_size +recordings in a batch", shown.out)
    assert shell.main(["", ".speech select"]) == 1


def test_dot_commands_change_the_connection_that_statements_use(path, tmp_path, capsys):
    other = tmp_path / "other.db"
    commands = [".parameter set word 'face'", "SELECT id FROM calls WHERE text = :word"]
    assert shell.main([path, *commands, f".open {other}", "CREATE TABLE o (a)"]) == 0
    assert capsys.readouterr().out == "3\n"
    assert shell.main([str(other), "SELECT name FROM sqlite_schema"]) == 0
    assert capsys.readouterr().out == "o\n"


def test_audio_paths_start_where_the_argument_says(path, tmp_path, capsys):
    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / "here.wav").write_bytes(tones("face"))
    heard = "SELECT count(predicted) FROM (PREDICT USING m AS SELECT '{}' AS audio)"
    # Also in a database that is opened later.
    statements = [heard.format("here.wav"), f".open {path}", heard.format("here.wav")]
    assert shell.main(["--audio-root", str(clips), path, *statements]) == 0
    assert capsys.readouterr().out == "1\n1\n"
    assert shell.main(["--audio-root", str(clips), path, heard.format("../a.wav")]) == 1
    assert "leads out of audio_root" in capsys.readouterr().err
    assert shell.main(["--audio-root", str(clips / "no"), path]) == 1
    assert "audio_root is no directory" in capsys.readouterr().err


def test_transactions_are_the_scripts(path, capsys):
    statements = ["BEGIN", "DELETE FROM calls", "DROP MODEL m", "ROLLBACK"]
    assert shell.main([path, *statements, "LIST MODELS", ".changes on"]) == 0
    assert capsys.readouterr().out.startswith("m|")


# Scripts, in a process


def test_a_script_stops_at_its_first_error():
    status, out, err = script("SELECT 1;\nSELECT x;\nSELECT 3;\n")
    assert (status, out) == (1, "1\n")
    assert "Line 2" in err
    assert "no such column: x (line 1, column 8)" in err


def test_the_end_of_a_script_ends_its_last_statement():
    assert script("SELECT 1;\nSELECT\n2 -- two") == (0, "1\n2\n", "")
    assert script(".exit 3\nSELECT 1") == (3, "", "")
    status, out, err = script("SELECT 'unclosed")
    assert (status, out) == (1, "")
    assert "Incomplete" in err


def test_nobody_reading_on_is_no_error():
    run = subprocess.Popen(
        [*COMMAND, "", ENDLESS.format("i")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert run.stdout.readline() == b"1\n"
    run.stdout.close()
    assert run.wait(60) == 141
    assert run.stderr.read() == b""
    run.stderr.close()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
@pytest.mark.parametrize(
    ("first", "kept"), [("", False), ("shell.main(['', '.print'])", True)]
)
def test_the_command_alone_keeps_memory_that_it_frees(first, kept):
    done = subprocess.run(
        [sys.executable, "-c", _TWICE.format(first)], capture_output=True, check=True
    )
    pages, pages_again = map(int, done.stdout.split())
    assert (pages_again < pages / 2) is kept


# A terminal


@pytest.fixture
def terminal(path, tmp_path):
    """Return the command at a terminal, at its first prompt."""
    environment = {**os.environ, "HOME": str(tmp_path), "TERM": "dumb", "NO_COLOR": "1"}
    child = pexpect.spawn(
        COMMAND[0],
        [*COMMAND[1:], path],
        env=environment,
        encoding="utf-8",
        timeout=120,
        dimensions=(40, 120),
    )
    child.expect("thanosql> ")
    yield child
    child.close(force=True)


def answer(terminal, line):
    """Enter a line; return what is printed before the next prompt."""
    terminal.sendline(line)
    terminal.expect("thanosql> ")
    return terminal.before


def test_a_person_enters_statements(terminal, tmp_path):
    assert "│ abc " in answer(terminal, "SELECT text FROM calls WHERE id = 1;")
    terminal.sendline("SELECT *")
    terminal.expect(r"\.\.\.> ")
    assert "(line 2, column 3)" in answer(terminal, "  FRM calls;")
    assert "did you mean 'm'" in answer(terminal, "DROP MODEL mm;")
    terminal.send("SELECT 'given up'\x03")
    terminal.expect("thanosql> ")
    terminal.sendline(".quit")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0
    assert "DROP MODEL mm;" in (tmp_path / ".thanosql_history").read_text()


def test_tab_completes_statements_options_and_names(terminal):
    for typed, completed in (
        ("EVAL\t", "EVALUATE USING "),
        ("PREDICT USING m OPTIONS (ba\t", "batch_size="),
        ("EVALUATE USING m OPTIONS (normalize='en\t", "normalize='english'"),
        ("SELECT * FROM cal\t", "FROM calls"),
        ("drop m\t", "drop model "),
    ):
        terminal.send(typed)
        terminal.expect_exact(completed)
        terminal.send("\x03")
        terminal.expect("thanosql> ")


def test_an_interrupt_leads_back_to_the_prompt(terminal):
    terminal.sendline(f"{ENDLESS.format('count(*)')};")
    terminal.expect("FROM c;")
    terminal.send("\x03")
    terminal.expect("interrupted; nothing of it is kept")
    terminal.expect("thanosql> ")
    build = "BUILD MODEL endless USING m OPTIONS (epochs=10000) AS SELECT * FROM calls;"
    terminal.sendline(build)
    terminal.expect(r"train \d+ of 10,000")
    terminal.send("\x03")
    terminal.expect("interrupted; nothing of it is kept")
    terminal.expect("thanosql> ")
    assert "endless" not in answer(terminal, ".mode csv\rLIST MODELS;")
