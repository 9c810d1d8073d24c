"""How rows look in a notebook: players, curves; without a kernel."""

import base64
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
