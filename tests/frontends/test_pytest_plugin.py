"""The pytest plugin: its fixtures, as a user's tests get them."""

import io
import subprocess
import sys

import pytest
import soundfile
from thanosql.sample.words import vocabulary

import thanosql

CONFTEST = """
from thanosql.frontends import pytest_plugin

def pytest_configure(config):
    # From a checkout that is not installed there is no entry point.
    if not config.pluginmanager.has_plugin("thanosql"):
        config.pluginmanager.register(pytest_plugin, "thanosql")
"""


def test_a_database_in_memory_and_one_in_a_file_are_fresh_and_apart(
    thanosql_memory, thanosql_file, thanosql_path
):
    for connection in (thanosql_memory, thanosql_file):
        connection.execute("CREATE TABLE t (a)")
        connection.execute("INSERT INTO t VALUES (1)")
        connection.commit()
    assert thanosql_memory.apsw.filename == ""
    with thanosql.connect(thanosql_path) as other:
        assert other.execute("SELECT a FROM t").fetchall() == [(1,)]
    other.close()


def test_what_was_said_is_a_recording_of_the_words(thanosql_speak):
    audio = thanosql_speak("Go left")
    waveform, rate = soundfile.read(io.BytesIO(audio))
    assert (waveform.ndim, rate) == (1, 16_000)
    assert 0.6 < len(waveform) / rate < 2
    assert 0.3 < abs(waveform).max() <= 1
    assert (
        audio == thanosql_speak("go left", seed=0) != thanosql_speak("go left", seed=2)
    )


def test_every_word_is_said_in_both_voices(thanosql_speak):
    words = vocabulary()
    assert len(words) == len(set(words)) == 69
    said = {thanosql_speak(word, seed=seed) for word in words for seed in (0, 1)}
    assert len(said) == 2 * len(words)


def test_a_word_without_a_recording_is_named(thanosql_speak):
    with pytest.raises(ValueError, match=r"no recording of 'mauve'; there is one of"):
        thanosql_speak("open mauve door")


def test_the_trained_model_reads_what_was_said(thanosql_trained, thanosql_speak):
    read = thanosql_trained.execute(
        "SELECT sum(predicted = text) FROM (PREDICT USING tiny AS SELECT * FROM spoken)"
    ).fetchone()[0]
    assert read >= 57  # of 60
    assert thanosql_trained.execute(
        "PREDICT USING tiny AS SELECT ? AS audio",
        (thanosql_speak("open door", seed=77),),
    ).fetchone()[1:] == ("open door",)


def test_a_test_may_spoil_its_copy(thanosql_trained, thanosql_path):
    thanosql_trained.execute("DROP MODEL tiny")
    thanosql_trained.execute("DROP TABLE spoken")
    assert thanosql_path.exists()


def test_the_next_test_finds_the_model_again(thanosql_trained):
    assert thanosql_trained.execute("SELECT name FROM (LIST MODELS)").fetchall() == [
        ("tiny",)
    ]


def test_connections_are_closed_after_the_test(pytester):
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(
        """
        import pytest, thanosql

        kept = []

        def test_open(thanosql_memory, thanosql_file):
            kept.extend([thanosql_memory, thanosql_file])
            thanosql_file.execute("SELECT 1").fetchone()

        def test_closed():
            assert len(kept) == 2
            for connection in kept:
                with pytest.raises(thanosql.ProgrammingError, match="closed"):
                    connection.execute("SELECT 1")
        """
    )
    pytester.runpytest_inprocess().assert_outcomes(passed=2)


def test_the_fixtures_explain_themselves(pytester):
    pytester.makeconftest(CONFTEST)
    shown = pytester.runpytest_inprocess("--fixtures").stdout
    shown.fnmatch_lines(["thanosql_trained*", "*file with a trained model*"])


def test_the_plugin_can_be_switched_off(pytester):
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(
        """
        def test_with(thanosql_memory): ...
        def test_without(tmp_path): ...
        """
    )
    result = pytester.runpytest_inprocess("-p", "no:thanosql")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*fixture 'thanosql_memory' not found"])


def test_a_run_of_pytest_pays_for_the_driver_and_no_more():
    script = (
        "import sys, pytest, thanosql.frontends.pytest_plugin\n"
        "heavy = ['torch', 'numpy', 'pandas', 'transformers', 'soundfile', 'apsw.ext',"
        " 'sqlalchemy', 'wave']\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
