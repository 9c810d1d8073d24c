"""PREDICT and EVALUATE with a language model, hotwords and alternatives."""

from __future__ import annotations

import json

import pytest

import thanosql

COMMANDS = "SELECT rowid AS n, audio, text FROM commands_test"


@pytest.fixture(scope="module")
def commands(tmp_path_factory):
    """Return a connection: the commands, TinyEn, and a language model `lm` of them."""
    path = tmp_path_factory.mktemp("commands") / "commands.db"
    with thanosql.connect(path) as connection:
        connection.execute("GET DATASET sample")
        connection.execute("GET MODEL TinyEn")
        connection.execute(
            "BUILD MODEL lm USING NGram AS SELECT text FROM commands_train"
        )
    yield connection
    connection.close()


def rows_of(connection, statement, *parameters):
    cursor = connection.execute(statement, *parameters)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def test_a_language_model_mends_what_is_heard_and_evaluate_says_how_much(commands):
    some = f"{COMMANDS} WHERE rowid <= 14"
    (plain,) = rows_of(commands, f"EVALUATE USING TinyEn AS {some}")
    (helped,) = rows_of(
        commands, f"EVALUATE USING TinyEn OPTIONS (language_model='lm') AS {some}"
    )
    assert "wer_without" not in plain
    assert helped["wer_without"] == plain["wer"]
    assert helped["wer"] < plain["wer"] / 2
    assert [*helped][:6] == [*[*plain][:5], "wer_without"]


def test_texts_do_not_depend_on_the_batch(commands):
    def texts(size):
        rows = commands.execute(
            f"PREDICT USING TinyEn OPTIONS (language_model='lm', hotwords='garden', "
            f"batch_size={size}) AS {COMMANDS} WHERE rowid <= 8"
        )
        return [row[-1] for row in rows]

    assert texts(1) == texts(3) == texts(8)


def test_a_word_the_model_misspells_is_right_where_it_is_a_hotword(commands):
    sixth = f"{COMMANDS} WHERE rowid = 6"
    (plain,) = rows_of(commands, f"PREDICT USING TinyEn AS {sixth}")
    assert "television" in plain["text"]
    assert "television" not in plain["predicted"]
    (named,) = rows_of(
        commands, f"PREDICT USING TinyEn OPTIONS (hotwords='television') AS {sixth}"
    )
    assert "television" in named["predicted"]


def test_no_recording_gains_a_hotword_that_it_lacks(commands):
    rows = commands.execute(
        'PREDICT USING TinyEn OPTIONS (hotwords=\'["Quilter", "Kyiv", '
        '"Mister Cottonwood"]\') AS SELECT audio FROM commands_train LIMIT 100'
    ).fetchall()
    words = {word for _, text in rows for word in text.split()}
    assert len(rows) == 100
    assert len(words) > 100
    assert not words & {"quilter", "kyiv", "mister", "cottonwood"}


def test_each_row_brings_its_own_hotwords(commands):
    rows = rows_of(
        commands,
        "PREDICT USING TinyEn OPTIONS (hotwords_col='names', batch_size=2) AS "
        "SELECT c.rowid AS n, names, audio FROM commands_test c LEFT JOIN (SELECT 6 AS "
        "n, 'television, Kyiv' AS names UNION VALUES (7, '[null]'), (8, '')) v "
        "ON v.n = c.rowid WHERE c.rowid BETWEEN 5 AND 8",
    )
    plain = commands.execute(
        f"PREDICT USING TinyEn OPTIONS (beam_size=32) AS {COMMANDS} "
        "WHERE rowid BETWEEN 5 AND 8"
    )
    for row, (*_, text) in zip(rows, plain, strict=True):
        assert (row["predicted"] == text) == (row["n"] != 6)
    assert "television" in rows[1]["predicted"]


def test_the_same_recording_with_other_hotwords_is_heard_again(commands):
    texts = {
        text
        for *_, text in commands.execute(
            "SELECT * FROM (VALUES (1), (2)) CROSS JOIN (PREDICT USING TinyEn OPTIONS "
            "(hotwords_col='names') AS SELECT names, audio FROM commands_test c, "
            "(SELECT NULL AS names UNION ALL SELECT 'television') WHERE c.rowid = 6)"
        )
    }
    assert len(texts) == 2


def test_alternatives_are_json_behind_the_words(commands):
    (row,) = rows_of(
        commands,
        "PREDICT USING TinyEn OPTIONS (alternatives=3, words=TRUE, details=TRUE, "
        f"language_model='lm') AS {COMMANDS} WHERE rowid = 2",
    )
    added = ["predicted", "words", "confidence", "alternatives", "details"]
    assert [*row] == ["n", "audio", "text", *added]
    found = json.loads(row["alternatives"])
    assert len({each["text"] for each in found}) == len(found) == 3
    assert found[0]["text"] == row["predicted"]
    shares = [each["confidence"] for each in found]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) <= 1
    words = json.loads(row["words"])
    assert " ".join(word["word"] for word in words) == row["predicted"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("language_model='none'", "no model named 'none'"),
        ("language_model='TinyEn'", "'TinyEn' is a model of recordings"),
        ("lm_weight=1", "lm_weight weighs a language_model, and there is none"),
        ("hotword_weight=1", "hotword_weight weighs hotwords or hotwords_col"),
        ("hotwords='Kyiv, Київ'", r"cannot spell the hotword 'Київ'.*'ї'"),
        ("hotwords='[1]'", "hotwords takes words and names between commas"),
        ("hotwords='[\"a\"'", "hotwords takes words and names between commas"),
        ("hotwords_col='names'", "no column 'names' for hotwords_col"),
        ("alternatives=2, per_word=TRUE", "choose one"),
        ("alternatives=0", "a whole number, 1 or more"),
        ("lm_weight=-1, language_model='lm'", "a number from 0 to 10"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_name(commands, options, message):
    with pytest.raises(thanosql.ProgrammingError, match=message):
        commands.execute(f"PREDICT USING TinyEn OPTIONS ({options}) AS {COMMANDS}")


@pytest.mark.parametrize("names", ["'Київ'", "'[1]'", "12", "x'00'"])
def test_hotwords_of_a_row_that_are_none_name_it(commands, names):
    query = (
        f"SELECT CASE rowid WHEN 2 THEN {names} END AS names, audio "
        "FROM commands_test WHERE rowid <= 3"
    )
    with pytest.raises(thanosql.DataError, match=r"row 2: .*hotword"):
        commands.execute(
            f"PREDICT USING TinyEn OPTIONS (hotwords_col='names') AS {query}"
        ).fetchall()
    rows = commands.execute(
        "SELECT predicted, error FROM (PREDICT USING TinyEn OPTIONS "
        f"(hotwords_col='names', on_error='null') AS {query})"
    ).fetchall()
    assert [text is None for text, _ in rows] == [False, True, False]
    assert rows[1][1].startswith("row 2: ")


def test_a_language_model_of_another_alphabet_is_refused(commands):
    commands.execute("BUILD MODEL other USING NGram AS SELECT 'да нет' AS text")
    with pytest.raises(thanosql.OptionError, match="alphabet"):
        commands.execute(
            f"PREDICT USING TinyEn OPTIONS (language_model='other') AS {COMMANDS}"
        )


@pytest.mark.parametrize(
    ("options", "way_out"),
    [
        ("language_model='lm'", "name words and names in prompt"),
        ("hotwords='Quilter'", "name words and names in prompt"),
        ("hotwords_col='text'", "name words and names in prompt"),
        ("alternatives=2", "writes one text"),
        ("word_bonus=1", "has learned"),
    ],
)
def test_whisper_refuses_what_searches_frames(commands, options, way_out):
    commands.execute("GET MODEL WhisperTinyEn OPTIONS (overwrite=TRUE)")
    option = options.partition("=")[0]
    with pytest.raises(thanosql.OptionError, match=f"option {option} .*{way_out}"):
        commands.execute(
            f"PREDICT USING WhisperTinyEn OPTIONS ({options}) AS {COMMANDS}"
        )
