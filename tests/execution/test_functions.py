"""The SQL functions subtitles and find_phrase."""

import html
import json
import unicodedata
from itertools import pairwise

import apsw
import pysubs2
import pytest
from hypothesis import given
from hypothesis import strategies as st

import thanosql

READING = (
    "Mr. Quilter is the apostle of the middle classes, and we are glad to welcome his "
    "gospel. Nor is Mr. Quilter's manner less interesting than his matter. He tells us "
    "that at this festive season of the year, with Christmas and roast beef looming "
    "before us, similes drawn from eating occur most readily to the mind."
)


@pytest.fixture(scope="module")
def con():
    con = thanosql.connect(":memory:")
    yield con
    con.close()


def spoken(text, pause_after=(), pause=1.0, start=0.0):
    """Return the JSON of a text said at an even pace; a pause follows some words."""
    words = []
    for word in text.split():
        end = round(start + 0.06 * len(word) + 0.1, 3)
        words.append({"word": word, "start": start, "end": end, "confidence": 0.9})
        start = round(end + (pause if word in pause_after else 0.02), 3)
    return json.dumps(words)


def written(con, words, *arguments):
    marks = ", ?" * len(arguments)
    sql = f"SELECT subtitles(?{marks})"
    return con.execute(sql, (words, *arguments)).fetchone()[0]


def read(text, form):
    """Return the cues as another program reads them: start, end and lines of each."""
    # A last line of digits alone is taken for the number of another cue.
    text += "\n0\n" if text else ""
    # A backslash in the text is not one of that program's own marks, such as \N.
    private = map(chr, range(0xE000, 0xF900))
    backslash = next(character for character in private if character not in text)
    text = text.replace("\\", backslash)
    cues = pysubs2.SSAFile.from_string(text, format_=form, keep_html_tags=True)
    unescaped = html.unescape if form == "vtt" else str

    def said(line):
        return unescaped(line).replace(backslash, "\\")

    return [
        (cue.start, cue.end, [said(line) for line in cue.text.split(r"\N")])
        for cue in cues
    ]


def found(con, words, phrase):
    (places,) = con.execute("SELECT find_phrase(?, ?)", (words, phrase)).fetchone()
    return [(place["start"], place["end"]) for place in json.loads(places)]


# Subtitles


def test_a_reading_becomes_cues_of_two_lines(con):
    words = spoken(READING, pause_after=("gospel.", "matter."), pause=0.6)
    assert [lines for _, _, lines in read(written(con, words, "srt"), "srt")] == [
        ["Mr. Quilter is the apostle", "of the middle classes,"],
        ["and we are glad to welcome his gospel."],
        ["Nor is Mr. Quilter's manner less", "interesting than his matter."],
        ["He tells us that at this", "festive season of the year,"],
        ["with Christmas and roast", "beef looming before us,"],
        ["similes drawn from eating", "occur most readily to the mind."],
    ]


@pytest.mark.parametrize("form", ["srt", "vtt"])
def test_no_words_are_a_valid_file_without_cues(con, form):
    text = written(con, "[]", form)
    assert text == {"srt": "", "vtt": "WEBVTT\n"}[form]
    assert read(text, form) == []


def test_a_file_is_written_as_its_form_wants_it(con):
    words = spoken("say a<b & c", start=3599.5)
    assert written(con, words, "srt") == (
        "1\n00:59:59,500 --> 01:00:00,500\nsay a<b & c\n"
    )
    assert written(con, words, "vtt") == (
        "WEBVTT\n\n1\n00:59:59.500 --> 01:00:00.500\nsay a&lt;b &amp; c\n"
    )


def test_cues_end_at_pauses(con):
    words = spoken("we go home now and then we come back", pause_after=("now",))
    cues = read(written(con, words, "srt"), "srt")
    assert [lines for *_, lines in cues] == [
        ["we go home now"],
        ["and then we come back"],
    ]
    # The first one stays no longer than it takes to read it.
    assert cues[0][1] < cues[1][0]


def test_the_short_title_before_a_name_ends_no_sentence(con):
    words = spoken(
        "and so we all went to see Mr. Quilter who was not at home that day at all"
    )
    for _, _, lines in read(written(con, words, "srt"), "srt"):
        assert not lines[-1].endswith("Mr.")


@pytest.mark.parametrize("number", ["1 000 000", "12 ,5", "3 141 592 653 589"])
@pytest.mark.parametrize("before", range(12, 42, 3))
def test_a_number_stays_in_one_line(con, number, before):
    words = spoken(f"{'a' * (before // 2)} {'b' * (before // 2)} {number} of them all")
    cues = read(written(con, words, "srt", 21, 1), "srt")
    assert any(number in line for *_, lines in cues for line in lines)


def test_digits_that_are_read_out_slowly_are_several_numbers(con):
    words = spoken("7 7 7 7 7 7 7 7", pause_after=("7",), pause=1.5)
    assert len(read(written(con, words, "srt"), "srt")) == 8


def test_a_number_longer_than_a_line_is_cut_between_its_words(con):
    words = spoken("5 5 5 1 2 3 4 5 6 7 8 9")
    cues = read(written(con, words, "srt", 10, 1), "srt")
    assert [lines for *_, lines in cues] == [["5 5 5 1 2"], ["3 4 5 6 7"], ["8 9"]]


def test_a_word_longer_than_a_line_has_a_cue_of_its_own(con):
    words = spoken(f"so {'a' * 60} it is")
    cues = read(written(con, words, "srt"), "srt")
    assert [lines for *_, lines in cues] == [["so"], ["a" * 60], ["it is"]]


def test_a_word_that_lasts_too_long_is_not_shown_so_long(con):
    words = json.dumps([{"word": "hum", "start": 1, "end": 31}])
    assert read(written(con, words, "srt"), "srt") == [(1000, 8000, ["hum"])]
    assert read(written(con, words, "srt", 42, 2, 3.5), "srt") == [
        (1000, 4500, ["hum"])
    ]


def test_scripts_without_spaces_get_none_and_wide_letters_count_twice(con):
    text = "東京の天気は晴れです。明日は雨が降るでしょう。"
    cues = read(written(con, spoken(" ".join(text)), "vtt", 24, 1), "vtt")
    assert [lines for *_, lines in cues] == [
        ["東京の天気は晴れです。"],
        ["明日は雨が降るでしょう。"],
    ]
    korean = read(written(con, spoken("오늘 서울 날씨"), "srt"), "srt")
    assert korean[0][2] == ["오늘 서울 날씨"]


def test_words_that_were_not_said_are_not_shown(con):
    words = json.loads(spoken("the quick brown fox"))
    words[1].update(start=None, end=None, confidence=None)
    assert read(written(con, json.dumps(words), "srt"), "srt")[0][2] == [
        "the brown fox"
    ]


def test_words_may_come_from_rows(con):
    rows = "(VALUES ('go', 0.5, 0.8), ('left', 0.9, 1.4))"
    word = "json_object('word', column1, 'start', column2, 'end', column3)"
    query = f"SELECT subtitles(json_group_array({word}), 'srt') FROM {rows}"
    assert con.execute(query).fetchone() == (
        "1\n00:00:00,500 --> 00:00:01,500\ngo left\n",
    )


_TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=50),
    st.sampled_from(
        ["a", "the", "Mr.", "end.", "so,", "1", "000", "12,5", "<b>", "&amp;", "天"]
    ),
)


@st.composite
def _words(draw):
    """Draw words in order of their starts, which may overlap or lie apart."""
    words, start = [], 0
    for text in draw(st.lists(_TEXTS, max_size=40)):
        start += draw(st.sampled_from([0, 1, 50, 300, 900, 5000]))
        end = start + draw(st.sampled_from([0, 1, 80, 400, 3000, 9000]))
        words.append({"word": text, "start": start / 1000, "end": end / 1000})
    return words


def _bare(text):
    return "".join(text.split())


def _shown(text):
    wide = sum(unicodedata.east_asian_width(each) in "WF" for each in text)
    return len(text) + wide


@given(
    _words(),
    st.sampled_from(["srt", "vtt"]),
    st.integers(5, 50),
    st.integers(1, 4),
    st.sampled_from([1, 2.5, 7]),
)
def test_any_words_become_cues_within_the_limits(
    con, words, form, characters, lines, seconds
):
    text = written(con, json.dumps(words), form, characters, lines, seconds)
    cues = read(text, form)
    # Every word once, and in order.
    said = [" ".join(word["word"].split()) for word in words]
    assert _bare("".join("".join(each) for *_, each in cues)) == _bare("".join(said))
    # One after the other.
    times = [time for start, end, _ in cues for time in (start, end)]
    assert times == sorted(times)
    assert all(start < end for start, end, _ in cues)
    for start, end, shown in cues:
        assert end - start <= 1000 * seconds
        assert len(shown) <= lines
        if len(shown) > 1 or shown[0] not in said:
            assert all(_shown(line) <= characters for line in shown)
    # No cue is shorter than a second if the next one leaves the time.
    for (start, end, _), after in pairwise([*cues, (10**9,) * 3]):
        assert end - start >= 1000 or end == after[0]


# Phrases


def test_a_phrase_is_found_wherever_it_is_said(con):
    words = spoken("Stop. Go, Left! then GO left")
    assert found(con, words, "go left") == [(0.42, 1.12), (1.5, 2.08)]
    assert found(con, words, "right") == []
    assert found(con, words, "go left then go left now") == []
    assert found(con, "[]", "go") == []


@pytest.mark.parametrize(
    ("said", "phrase"),
    [
        ("a well-known man", "Well known"),
        ("the Quilter's house", "quilter"),
        ("DON’T go", "don't"),  # noqa: RUF001 - meant
        ("Stra\u00dfe", "STRASSE"),
        ("cafe\u0301", "caf\u00e9"),
        ("東 京 へ 行 く", "東京"),
        ("東京へ行く", "京へ"),
        ("ภา ษา ไทย", "ภาษาไทย"),
        ("1,000 men", "1 000"),
        ("AT&T called", "at t"),
        ("नमस्ते दुनिया", "दुनिया"),
    ],
)
def test_case_and_punctuation_do_not_matter(con, said, phrase):
    assert len(found(con, spoken(said), phrase)) == 1


@pytest.mark.parametrize(
    ("said", "phrase"),
    [
        ("an ice cream", "a nice"),
        ("doors", "door"),
        ("caf\u00e9", "cafe"),
        ("go", "go left"),
    ],
)
def test_other_words_are_not_found(con, said, phrase):
    assert found(con, spoken(said), phrase) == []


def test_places_may_overlap(con):
    assert len(found(con, spoken("ha ha ha"), "ha ha")) == 2


@given(_words(), st.data())
def test_what_was_said_is_found_at_its_time(con, words, data):
    if not words:
        return
    begin = data.draw(st.integers(0, len(words) - 1))
    end = data.draw(st.integers(begin + 1, len(words)))
    phrase = " ".join(word["word"] for word in words[begin:end])
    if (
        not words[begin]["word"][:1].isalnum()
        or not words[end - 1]["word"][-1:].isalnum()
    ):
        return
    place = (words[begin]["start"], words[end - 1]["end"])
    assert place in found(con, json.dumps(words), phrase)


# In SQL


def test_null_in_gives_null_out(con):
    nulls = "SELECT subtitles(NULL, 'srt'), subtitles('[]', NULL)"
    assert con.execute(nulls).fetchone() == (None, None)
    assert written(con, "[]", "srt", 42, 2, None) is None
    nulls = "SELECT find_phrase(NULL, 'a'), find_phrase('[]', NULL)"
    assert con.execute(nulls).fetchone() == (None, None)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("subtitles('nothing', 'srt')", "subtitles: words are no JSON: Expecting"),
        ("find_phrase('{', 'a')", "find_phrase: words are no JSON: .*char 1"),
        (f"find_phrase('{'[' * 100_000}', 'a')", "words are no JSON"),
        ("subtitles('{}', 'srt')", "subtitles: words are a JSON array"),
        ("subtitles(7, 'srt')", "subtitles: words are JSON text, .* not int"),
    ],
)
def test_words_that_are_none_are_named(con, call, message):
    with pytest.raises(thanosql.DataError, match=message):
        con.execute(f"SELECT {call}").fetchone()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("7", "word 2 is no object"),
        ('{"word": "b"}', "word 2 has no 'start'"),
        ('{"word": "b", "start": 1}', "word 2 has no 'end'"),
        ('{"word": 7, "start": 1, "end": 2}', "word 2: 'word' is a text, not 7"),
        (
            '{"word": "b", "start": "1", "end": 2}',
            "word 2: 'start' is a time in seconds, not '1'",
        ),
        ('{"word": "b", "start": null, "end": 2}', "word 2: 'start' .* not None"),
        ('{"word": "b", "start": 1, "end": null}', "word 2: 'end' .* not None"),
        ('{"word": "b", "start": NaN, "end": 2}', "word 2: 'start' .* not nan"),
        ('{"word": "b", "start": true, "end": 2}', "word 2: 'start' .* not True"),
        ('{"word": "b", "start": -1, "end": 2}', "word 2: 'start' .* not -1"),
        ('{"word": "b", "start": 1, "end": 1e300}', "word 2: 'end' .* not 1e\\+300"),
        ('{"word": "b", "start": 3, "end": 2}', "word 2 ends before it starts"),
        (f'{{"word": {[1] * 999}, "start": 3, "end": 4}}', "word 2: 'word' .{,110}$"),
    ],
)
@pytest.mark.parametrize("call", ["subtitles(?, 'srt')", "find_phrase(?, 'a')"])
def test_a_wrong_word_is_named_by_its_number(con, call, word, message):
    words = f'[{{"word": "a", "start": 0, "end": 1}}, {word}]'
    with pytest.raises(thanosql.DataError, match=f"{call.split('(')[0]}: {message}"):
        con.execute(f"SELECT {call}", (words,)).fetchone()


@pytest.mark.parametrize("call", ["subtitles(?, 'srt')", "find_phrase(?, 'a')"])
def test_words_in_another_order_are_refused(con, call):
    words = json.dumps(json.loads(spoken("a b c"))[::-1])
    message = r"word 2 starts at 0\.18 s, before .*; order the words by start"
    with pytest.raises(thanosql.DataError, match=message):
        con.execute(f"SELECT {call}", (words,)).fetchone()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("subtitles('[]', 'ass')", "subtitles: the form is 'srt' or 'vtt', not 'ass'"),
        (
            "subtitles('[]', 'srt', 0)",
            "characters a line is a number from 1 to 200, not 0",
        ),
        (
            "subtitles('[]', 'srt', 42.5)",
            "characters a line is a whole number, not 42.5",
        ),
        (
            "subtitles('[]', 'srt', 42, 'two')",
            "lines is a number from 1 to 10, not 'two'",
        ),
        (
            "subtitles('[]', 'srt', 42, 2, 0.5)",
            "seconds is a number from 1 to 60, not 0.5",
        ),
        ("find_phrase('[]', '...')", "the phrase '...' has no letter and no digit"),
    ],
)
def test_arguments_out_of_range_are_named(con, call, message):
    with pytest.raises(thanosql.ProgrammingError, match=message):
        con.execute(f"SELECT {call}").fetchone()


def test_a_wrong_number_of_arguments_is_sqlites_error(con):
    with pytest.raises(thanosql.OperationalError, match="wrong number of arguments"):
        con.execute("SELECT subtitles('[]')")


def test_a_lone_surrogate_is_an_error_that_names_the_function(con):
    words = '[{"word": "\\ud800", "start": 0, "end": 1}]'
    with pytest.raises(thanosql.DataError, match=r"subtitles\(\) has a lone surrogate"):
        con.execute("SELECT subtitles(?, 'srt')", (words,)).fetchone()


def test_they_work_in_views_columns_and_indexes_of_a_file(tmp_path):
    words = spoken("open the door")
    con = thanosql.connect(tmp_path / "t.db")
    con.executescript(
        """
        CREATE TABLE heard (words TEXT, srt TEXT AS (subtitles(words, 'srt')) STORED);
        CREATE INDEX said_door ON heard (find_phrase(words, 'door'));
        CREATE VIEW doors AS SELECT find_phrase(words, 'door') AS door FROM heard;
        """
    )
    con.execute("INSERT INTO heard VALUES (?)", (words,))
    con.commit()
    con.close()
    con = thanosql.connect(tmp_path / "t.db")
    con.execute("PRAGMA trusted_schema = OFF")
    assert con.execute("SELECT srt FROM heard").fetchone()[0].startswith("1\n")
    assert con.execute("SELECT json_array_length(door) FROM doors").fetchone() == (1,)
    sql = (
        "EXPLAIN QUERY PLAN SELECT 1 FROM heard WHERE find_phrase(words, 'door') = '[]'"
    )
    assert "said_door" in con.execute(sql).fetchone()[3]
    con.close()


def test_a_connection_that_has_them_may_be_opened_again_while_it_reads():
    opened = apsw.Connection(":memory:")
    first = thanosql.connect(opened)
    reading = first.execute("SELECT subtitles('[]', 'vtt') UNION ALL SELECT 1")
    next(reading)
    again = thanosql.connect(opened)
    assert again.execute("SELECT find_phrase('[]', 'a')").fetchone() == ("[]",)
    assert next(reading) == (1,)
    first.close()
