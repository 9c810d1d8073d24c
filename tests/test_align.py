"""ALIGN: when the words of texts were said, as rows."""

from __future__ import annotations

import json

import pytest
from toys import whisper

import thanosql
from thanosql.catalog.sample.words import say

TEXTS = ["open door", "stop", "play red light", "call two zero seven"]


@pytest.fixture(scope="module")
def _spoken(tmp_path_factory):
    path = tmp_path_factory.mktemp("database") / "spoken.db"
    connection = thanosql.connect(path)
    connection.execute("GET MODEL TinyEn")
    connection.execute("CREATE TABLE spoken (id INTEGER PRIMARY KEY, audio, text)")
    connection.executemany(
        "INSERT INTO spoken (audio, text) VALUES (?, ?)",
        [(say(text, seed=i), text) for i, text in enumerate(TEXTS)],
    )
    connection.commit()
    yield connection
    connection.close()


@pytest.fixture
def spoken(_spoken):
    """Return a connection with a table of four recordings, as it was at first."""
    yield _spoken
    _spoken.rollback()


def aligned(connection, options="", query="SELECT id, audio, text FROM spoken"):
    return connection.execute(f"ALIGN USING TinyEn {options} AS {query}")


def test_a_row_a_word_with_the_columns_of_the_query_first(spoken):
    cursor = aligned(spoken)
    names = [name for name, *_ in cursor.description]
    assert names == ["id", "audio", "text", "word", "start", "end", "confidence"]
    rows = cursor.fetchall()
    for number, text in enumerate(TEXTS, start=1):
        of_text = [row[3:] for row in rows if row[0] == number]
        assert [word for word, *_ in of_text] == text.split()
        times = [t for _, start, end, _ in of_text for t in (start, end)]
        assert times == sorted(times)
        assert all(0 < confidence <= 1 for *_, confidence in of_text)


def test_a_row_a_recording_with_what_is_least_like_it(spoken):
    spoken.execute("UPDATE spoken SET text = 'play elephants light' WHERE id = 3")
    spoken.execute("UPDATE spoken SET text = 'nineteen elephants' WHERE id = 4")
    cursor = aligned(spoken, "OPTIONS (per_row=TRUE)")
    names = [name for name, *_ in cursor.description]
    rows = [dict(zip(names, row, strict=True)) for row in cursor]
    assert [row["matches"] for row in rows] == [1, 1, 1, 0]
    assert rows[0]["agreement"] > 0.8 > rows[2]["agreement"] > rows[3]["agreement"]
    assert (rows[2]["worst_word"], rows[2]["worst_confidence"]) == ("elephants", 0.0)
    words = json.loads(rows[2]["words"])
    assert [word["word"] for word in words] == ["play", "elephants", "light"]
    assert words[1] == {
        "word": "elephants",
        "start": None,
        "end": None,
        "confidence": 0.0,
    }
    mean = sum(word["confidence"] for word in words) / 3
    assert rows[2]["confidence"] == pytest.approx(mean, abs=2e-3)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_words_do_not_depend_on_the_batch_and_stream(spoken, batch_size):
    whole = aligned(spoken).fetchall()
    assert aligned(spoken, f"OPTIONS (batch_size={batch_size})").fetchall() == whole
    limited = spoken.execute(
        "SELECT word FROM (ALIGN USING TinyEn OPTIONS (batch_size=1) AS "
        "SELECT audio, text FROM spoken UNION ALL SELECT 'not_there.wav', 'x') LIMIT 8"
    )
    assert [word for (word,) in limited] == [row[3] for row in whole[:8]]


def test_a_join_gives_the_same_rows_each_time_and_a_table_keeps_them(spoken):
    whole = [(row[0], *row[3:]) for row in aligned(spoken)]
    align = "ALIGN USING TinyEn AS SELECT id, audio, text FROM spoken"
    rows = spoken.execute(
        'SELECT n, id, word, start, "end", confidence FROM (SELECT 1 AS n UNION '
        f"SELECT 2) CROSS JOIN ({align})"
    ).fetchall()
    assert rows == [(n, *row) for n in (1, 2) for row in whole]
    spoken.execute(f"CREATE TEMP TABLE words AS {align}")
    kept = spoken.execute('SELECT id, word, start, "end", confidence FROM words')
    assert kept.fetchall() == whole


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("text = NULL", "row 2: the reference text is NULL"),
        ("text = 12", "row 2: the reference text is a number; write CAST"),
        ("text = '  '", "row 2: the text is empty"),
        ("text = '12 — 3'", "row 2: the model's vocabulary can spell nothing of"),
        ("text = replace('1234567890', '1', text || ' ') || hex(zeroblob(600))",
         "row 2: a word of the text has"),
        ("text = substr(replace(hex(zeroblob(200)), '0', 'so '), 1, 900)",
         "row 2: the text is too long for its audio"),
        ("audio = 'not_there.wav'", "row 2: cannot read 'not_there.wav'"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_or_null(spoken, change, message):
    good = [row[3:] for row in aligned(spoken) if row[0] != 2]
    spoken.execute(f"UPDATE spoken SET {change} WHERE id = 2")
    with pytest.raises(thanosql.DataError) as raised:
        aligned(spoken).fetchall()
    assert str(raised.value).startswith(message)
    rows = aligned(spoken, "OPTIONS (on_error='null')").fetchall()
    assert [row[3:-1] for row in rows if row[0] != 2] == good
    (bad,) = [row for row in rows if row[0] == 2]
    assert bad[3:-1] == (None,) * 4
    assert bad[-1].startswith(message)
    assert all(row[-1] is None for row in rows if row[0] != 2)
    whole = aligned(spoken, "OPTIONS (on_error='null', per_row=TRUE)").fetchall()
    assert whole[1][-1].startswith(message)
    assert whole[0][-1] is None


def test_rows_with_bad_texts_alone_are_all_told(spoken):
    rows = aligned(
        spoken, "OPTIONS (on_error='null')", "SELECT NULL AS text, audio FROM spoken"
    ).fetchall()
    assert [row[-1].split(":")[0] for row in rows] == [f"row {n}" for n in range(1, 5)]


def test_a_model_that_writes_by_itself_is_refused_with_the_way_out(spoken, tmp_path):
    spoken.execute("IMPORT MODEL w FROM ?", (str(whisper(tmp_path)),))
    with pytest.raises(
        thanosql.OptionError, match="ALIGN is for CTC models, such as TinyEn"
    ):
        spoken.execute("ALIGN USING w AS SELECT * FROM spoken").fetchall()


def test_a_language_model_is_refused_with_the_way_out(spoken):
    spoken.execute("BUILD MODEL lm USING NGram AS SELECT text FROM spoken")
    with pytest.raises(
        thanosql.NotSupportedError, match=r"'lm' is a language model.*name a CTC model"
    ):
        spoken.execute("ALIGN USING lm AS SELECT * FROM spoken").fetchall()


def test_a_column_of_a_name_that_is_added_is_not_hidden(spoken):
    with pytest.raises(thanosql.OptionError, match="column 'start' is one of those"):
        aligned(spoken, query="SELECT *, 1 AS start FROM spoken")
    with pytest.raises(thanosql.OptionError, match="'txt' for text_col"):
        aligned(spoken, "OPTIONS (text_col='txt')")


def test_words_planted_in_real_texts_are_marked_and_those_taken_out_shift_none(
    connection, speech
):
    connection.execute("GET MODEL TinyEn")
    clips = [(path, text.split()) for path, text in speech("librispeech", "train")]
    clips = [clip for clip in clips if len(clip[1]) >= 12][:15]
    connection.execute(
        "CREATE TABLE clips (id INTEGER PRIMARY KEY, audio, text, other)"
    )
    for i, (path, text) in enumerate(clips):
        planted = clips[(i + 7) % len(clips)][1][3:7]
        other = [*text[:2], *planted, *text[2:-3], text[-1]]  # two words taken out
        connection.execute(
            "INSERT INTO clips (audio, text, other) VALUES (?, ?, ?)",
            (path, " ".join(text), " ".join(other)),
        )

    def starts(column):
        rows = connection.execute(
            f"SELECT id, start FROM (ALIGN USING TinyEn OPTIONS (text_col='{column}') "
            "AS SELECT * FROM clips)"
        ).fetchall()
        return [[s for n, s in rows if n == i] for i in range(1, len(clips) + 1)]

    near = said = marked = 0
    for right, found in zip(starts("text"), starts("other"), strict=True):
        marked += sum(start is None for start in found[2:6])
        kept = [*found[:2], *found[6:]]
        pairs = [*zip([*right[:-3], right[-1]], kept, strict=True)]
        near += sum(
            a is not None and b is not None and abs(a - b) < 0.5 for a, b in pairs
        )
        said += len(pairs)
    assert near / said > 0.95
    assert marked / (4 * len(clips)) > 0.9
