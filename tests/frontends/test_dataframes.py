"""How rows look in a notebook: players, curves; without a kernel."""

import base64
import json
import re
from xml.etree import ElementTree

import pytest
from tones import tones

from thanosql.frontends import curve, dataframes


@pytest.fixture
def play(connection):
    """Return a function: audio values in, the HTML of PRINT AUDIO's rows out."""

    def play(*values, text="a<b"):
        # What PRINT AUDIO declares its column as; so may a table.
        connection.execute("CREATE TABLE r (text, audio AUDIO BLOB)")
        rows = [(text, value) for value in values]
        connection.executemany("INSERT INTO r VALUES (?, ?)", rows)
        return dataframes.frame(connection.execute("SELECT * FROM r"))._repr_html_()

    return play


def test_a_player_holds_the_recording(play, tmp_path, connection):
    wav = tones("abc")
    (tmp_path / "a.wav").write_bytes(wav)
    page = play(wav, str(tmp_path / "a.wav"), f"file://{tmp_path}/a.wav")
    sources = re.findall(r'src="data:audio/wav;base64,([^"]+)"', page)
    assert [base64.b64decode(source) for source in sources] == [wav] * 3


def test_a_root_holds_for_players_too(play, tmp_path, connection):
    (tmp_path / "root").mkdir()
    for path in ("root/in.wav", "out.wav"):
        (tmp_path / path).write_bytes(tones("abc"))
    connection.audio_root = tmp_path / "root"
    page = play("in.wav", "../out.wav", str(tmp_path / "out.wav"), "https://host/a.wav")
    assert page.count("<audio") == 1
    assert page.count("leads out of audio_root") == 2


def test_the_format_of_a_recording_is_told_by_its_first_bytes(play):
    page = play(b"RIFF1", b"fLaC1", b"OggS1", b"ID31", b"\xff\xfb1")
    kinds = re.findall(r"data:audio/(\w+)", page)
    assert kinds == ["wav", "flac", "ogg", "mpeg", "mpeg"]


def test_what_is_no_recording_does_not_get_into_the_page(play, tmp_path):
    (tmp_path / "secret").write_text("the password")
    assert "<audio" not in play(str(tmp_path / "secret"), b"bytes")


def test_what_cannot_be_played_says_so(play):
    page = play(None, "nowhere.wav", 'https://host/a.wav?x="y"', "s3://bucket/a.wav")
    assert page.count("<audio") == 1
    assert 'src="https://host/a.wav?x=&quot;y&quot;"' in page
    assert "cannot read &#x27;nowhere.wav&#x27;" in page


def test_a_page_is_not_filled_without_end(play):
    page = play(*[b"OggS" + bytes(4_000_000)] * 60)  # of which 10 MB have two
    assert page.count("<audio") == 2
    assert page.count("too much for this page") == 48
    assert "and 10 more rows" in page


def test_text_beside_a_player_is_text(play):
    assert "<td>&lt;script&gt;</td>" in play(b"", text="<script>")


WORDS = json.dumps(
    [
        {"word": "<b>go", "start": 0.5, "end": 0.8, "confidence": 0.95},
        {"word": "left", "start": 0.9, "end": 1.25, "confidence": 0.25},
        {"word": "now", "start": None, "end": None, "confidence": None},
    ]
)


@pytest.fixture
def shown(connection):
    """Return a function: rows of a table with columns in, their HTML out."""

    def shown(columns, *rows):
        marks = ", ".join("?" * len(rows[0]))
        connection.execute(f"CREATE TABLE heard ({columns})")
        connection.executemany(f"INSERT INTO heard VALUES ({marks})", rows)
        frame = dataframes.frame(connection.execute("SELECT * FROM heard"))
        assert list(frame.columns) == columns.split(", ")
        assert frame.to_numpy().tolist() == [list(row) for row in rows]
        return frame._repr_html_()

    return shown


def test_words_are_shaded_by_confidence_beside_the_player(shown):
    page = shown("audio, predicted, words", (tones("abc"), "go left", WORDS))
    assert page.count("<audio") == 1
    texts = re.findall(
        r'<span title="(.*?)" .*?(0[.]\d+)\)" role="button".*?>(.*?)<', page
    )
    assert texts == [
        ("0.50 to 0.80 s, confidence 0.95", "0.04", "&lt;b&gt;go"),
        ("0.90 to 1.25 s, confidence 0.25", "0.52", "left"),
    ]
    assert '<s title="not said">now</s>' in page
    assert "onclick" in page


def test_words_without_a_recording_are_text_that_plays_nothing(shown):
    page = shown("name, words", ("a<b", WORDS), ("c", "no JSON"))
    assert "confidence 0.25" in page
    assert "onclick" not in page
    assert "role=" not in page
    assert "a&lt;b" in page
    assert "no JSON" in page


def test_words_of_a_recording_that_cannot_be_played_are_no_buttons(shown):
    page = shown("audio_path, words", ("nowhere.wav", WORDS))
    assert "cannot read" in page
    assert "onclick" not in page


def test_words_that_are_no_words_are_an_ordinary_column(shown):
    # EVALUATE has a column of that name, with their number.
    assert "<audio" not in shown("audio, words", (b"RIFF", 7))


@pytest.mark.parametrize(
    "value",
    ["[1]", '["a"]', "[", '[{"word": 1}]', '[{"word": "a", "start": "<b>"}]', "7"]
    + [f'[{{"word": "a", "start": {start}}}]' for start in ("NaN", 10**400, -1)],
)
def test_other_json_is_an_ordinary_column(shown, value):
    assert "<span" not in shown("words", (value,))


def test_a_frame_whose_columns_were_changed_in_place_is_a_plain_table(connection):
    frame = dataframes.frame(connection.execute("SELECT ? AS words", (WORDS,)))
    assert "<span" in frame._repr_html_()
    frame.insert(0, "number", 7)
    assert "<span" not in frame._repr_html_()
    del frame["words"]
    assert "<td>7</td>" in frame._repr_html_()


def test_a_page_has_no_words_without_end(shown):
    word = {"word": "a", "start": 1, "end": 2, "confidence": 1}
    many = json.dumps([word] * 15_000)
    page = shown("words", (many,), (many,), (many,))
    assert page.count("<span") == 20_000
    assert "a</span> and 10,000 more words</td>" in page
    assert "> and 15,000 more words</td>" in page


def test_words_of_scripts_without_spaces_have_none(shown):
    words = [{"word": each, "start": 1, "end": 2} for each in "東京"]
    page = shown("words", (json.dumps(words),))
    assert re.sub("<[^>]+>", "", page).endswith("東京")


def test_only_a_training_has_a_curve(connection):
    epochs = (
        "SELECT column1 AS epoch, column2 AS train_loss, column3 AS validation_loss, "
        "column4 AS wer, column5 AS cer FROM (VALUES {})"
    )
    for values, has_curve in (
        ("(1, 3.0, 2.9, 1.0, 0.9), (2, 1.5, NULL, NULL, NULL)", True),
        ("(1, 3.0, 2.9, 1.0, 0.9)", False),
        ("(1, 3.0, 2.9, 1.0, 0.9), (1, 3.0, 2.9, 1.0, 0.9)", False),
    ):
        shown = dataframes.frame(
            connection.execute(epochs.format(values))
        )._repr_html_()
        assert ("<img" in shown) is has_curve
        assert "train_loss" in shown


def test_a_curve_is_svg_inside_its_frame():
    lines = [curve.Line("train", [4.0, 2.0, None]), curve.Line("a<b", [1.0, 3.0, 0.0])]
    empty = [curve.Line("WER", [None] * 3)]
    svg = curve.picture([1, 2, 3], [("loss", lines), ("error rate", empty)])
    root = ElementTree.fromstring(svg)
    circles = list(root.iter("{http://www.w3.org/2000/svg}circle"))
    assert len(circles) == 5
    width, height = float(root.get("width")), float(root.get("height"))
    assert all(0 < float(circle.get("cx")) < width for circle in circles)
    assert all(0 < float(circle.get("cy")) < height for circle in circles)
    # The later line is drawn first; what is high in value has a low y.
    heights = [float(circle.get("cy")) for circle in circles]
    drawn = [1.0, 3.0, 0.0, 4.0, 2.0]
    assert sorted(drawn, key=lambda v: heights[drawn.index(v)]) == [4, 3, 2, 1, 0]
    assert "error rate" not in svg
