"""`thanosql demo`; what it does is README's main job, run in CI."""

from thanosql.catalog import sample
from thanosql.frontends import demo, shell


def test_the_demo_touches_no_file_that_is_there(tmp_path, capsys):
    path = tmp_path / "mine.db"
    path.write_bytes(b"precious")
    assert shell.main(["demo", str(path)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert path.read_bytes() == b"precious"


def test_a_demo_that_fails_leaves_no_file(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "_DEMO", "SELECT 1 AS one;\n\nPREDICT USING nobody AS")
    path = tmp_path / "demo.db"
    assert shell.main(["demo", str(path)]) == 1
    shown = capsys.readouterr()
    assert "SELECT 1 AS one;\n\none\n  1\n" in shown.out
    assert shown.err.startswith("thanosql: expected")
    assert not path.exists()


def test_an_interrupted_demo_says_so_and_leaves_no_file(tmp_path, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "show", interrupt)
    assert shell.main(["demo", str(tmp_path / "demo.db")]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_table_aligns_numbers_right_and_text_left(connection, capsys):
    demo.show(
        connection,
        "SELECT 'a' AS text, 1.23456 AS number, x'00ff' AS audio, NULL AS absent "
        "UNION ALL SELECT 'longer', 10, NULL, NULL",
    )
    assert capsys.readouterr().out.splitlines()[2:5] == [
        "text    number  audio      absent",
        "a        1.235  <2 bytes>",
        "longer      10",
    ]


def test_the_sample_comes_as_tables(connection):
    assert sample.copy_into(connection.apsw) == 272
    assert connection.execute("SELECT count(*) FROM commands_test").fetchone() == (56,)
