"""EVALUATE in detail: a row an utterance, intervals, rows that were trained on."""

import json
import warnings

import pytest
from tones import tones
from toys import fine_tuned

import thanosql
from thanosql.catalog import sample

PER_ROW = "EVALUATE USING m OPTIONS (per_row=TRUE) AS SELECT * FROM calls"


@pytest.fixture
def trained(calls):
    calls.execute(
        "BUILD MODEL n USING m OPTIONS (epochs=1, validation='SELECT * FROM calls "
        "WHERE id IN (5, 6)') AS SELECT * FROM calls WHERE id < 5"
    )
    return calls


def test_per_row_yields_the_columns_of_the_query_and_the_scores(calls):
    cursor = calls.execute(PER_ROW)
    names = [column[0] for column in cursor.description]
    assert names[:4] == ["id", "audio", "text", "predicted"]
    rows = [dict(zip(names, row, strict=True)) for row in cursor]
    assert [row["id"] for row in rows] == list(range(1, 9))
    predicted = dict(
        calls.execute(
            "SELECT id, predicted FROM (PREDICT USING m AS SELECT * FROM calls)"
        )
    )
    for row in rows:
        assert row["predicted"] == predicted[row["id"]]
        assert row["words"] == len(row["text"].split())
        assert row["characters"] == len(row["text"])
        edits = row["substitutions"] + row["deletions"] + row["insertions"]
        assert row["wer"] == edits / row["words"]
        assert row["cer"] == row["character_errors"] / row["characters"]


def test_sums_over_groups_give_exact_group_error_rates(calls):
    groups = calls.execute(
        f"""
        SELECT id % 2, sum(substitutions + deletions + insertions) * 1.0 / sum(words),
               sum(character_errors) * 1.0 / sum(characters)
        FROM ({PER_ROW}) GROUP BY id % 2 ORDER BY 1
        """
    ).fetchall()
    for group, wer, cer in groups:
        one = calls.execute(
            "SELECT wer, cer FROM (EVALUATE USING m AS "
            "SELECT * FROM calls WHERE id % 2 = ?)",
            (group,),
        ).fetchone()
        assert (wer, cer) == pytest.approx(one)


def test_the_model_runs_once_for_a_row_scored_in_a_join(calls, monkeypatch):
    from thanosql.speech.recognizers.ctc import CTCRecognizer

    seen = []
    scores = CTCRecognizer.scores
    monkeypatch.setattr(
        CTCRecognizer,
        "scores",
        lambda recognizer, batch, decoding: (
            seen.extend(batch) or scores(recognizer, batch, decoding)
        ),
    )
    sql = f"SELECT count(*) FROM calls c CROSS JOIN ({PER_ROW}) p"
    assert calls.execute(sql).fetchall() == [(64,)]
    assert len(seen) == 8


def test_the_interval_holds_the_error_rate(calls):
    cursor = calls.execute("EVALUATE USING m AS SELECT * FROM calls")
    names = [column[0] for column in cursor.description]
    score = dict(zip(names, cursor.fetchone(), strict=True))
    assert names[:5] == ["rows", "wer", "wer_low", "wer_high", "cer"]
    assert score["wer_low"] <= score["wer"] <= score["wer_high"]
    again = calls.execute("EVALUATE USING m AS SELECT * FROM calls").fetchone()
    assert again[:5] == tuple(score[name] for name in names[:5])
    one = calls.execute("EVALUATE USING m AS SELECT * FROM calls WHERE id = 1")
    assert one.fetchone()[2:4] == (None, None)
    none = calls.execute("EVALUATE USING m AS SELECT * FROM calls WHERE 0")
    assert none.fetchone()[:5] == (0, None, None, None, None)


def test_recordings_that_were_trained_on_are_announced(trained):
    sql = "EVALUATE USING n AS SELECT * FROM calls"
    with pytest.warns(thanosql.Warning, match="4 of the 8 recordings scored") as warned:
        trained.execute(sql)
    assert [warning.filename for warning in warned] == [__file__]
    with pytest.warns(thanosql.Warning, match="4 of the 8"):
        trained.execute(sql.replace(" AS ", " OPTIONS (per_row=1) AS ")).fetchall()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained.execute(f"{sql} WHERE id > 4")  # those validated on too
        trained.execute("EVALUATE USING m AS SELECT * FROM calls")


def test_what_of_the_references_is_not_scored_is_announced_once(calls):
    calls.execute("UPDATE calls SET text = '12 ' || text || ' 7' WHERE id < 4")
    calls.execute("UPDATE calls SET text = '12!' WHERE id = 4")
    calls.commit()
    announced = r"cannot spell '1' \(4\), '2' \(4\), '7' \(3\): left out of the texts"
    statements = (
        "EVALUATE USING m AS SELECT * FROM calls",
        f"SELECT count(*) FROM calls CROSS JOIN ({PER_ROW})",
    )
    for sql in statements:
        with pytest.warns(thanosql.Warning, match=announced) as warned:
            calls.execute(sql).fetchall()
        assert [warning.filename for warning in warned] == [__file__]


@pytest.fixture
def cased(calls, tmp_path):
    """Return calls with a model `cased`, and texts that differ from its in case."""
    directory = tmp_path / "cased"
    directory.mkdir()
    vocabulary = json.loads((fine_tuned(directory) / "vocab.json").read_text())
    tokens = [token for token in vocabulary if len(token) > 1] + ["|"]
    vocabulary = {token: i for i, token in enumerate([*tokens, *"ABCDEFGHIJKLM"])}
    vocabulary |= {each: len(vocabulary) + i for i, each in enumerate("abcdefghijk,.'")}
    (directory / "vocab.json").write_text(json.dumps(vocabulary))
    calls.execute("IMPORT MODEL cased FROM ?", (str(directory),))
    heard = calls.execute("PREDICT USING cased AS SELECT id, audio FROM calls")
    for id_, _, text in heard.fetchall():
        calls.execute("UPDATE calls SET text = ? WHERE id = ?", (text.swapcase(), id_))
    calls.commit()
    return calls


@pytest.mark.parametrize("normalize", ["basic", "none"])
def test_case_counts_if_it_is_told_to(cased, normalize):
    options = f"normalize='{normalize}'"
    sql = f"EVALUATE USING cased OPTIONS ({options}) AS SELECT * FROM calls"
    cursor = cased.execute(sql)
    names = [column[0] for column in cursor.description]
    total = dict(zip(names, cursor.fetchone(), strict=True))
    assert total["normalize"] == normalize
    assert total["words"] > 0
    assert (total["cer"] > 0) == (total["wer"] > 0) == (normalize == "none")
    rows = cased.execute(sql.replace("(norm", "(per_row=TRUE, norm"))
    names = [column[0] for column in rows.description]
    rows = [dict(zip(names, row, strict=True)) for row in rows]
    # What the model writes is shown as it writes it.
    assert all(row["predicted"] == row["text"].swapcase() for row in rows)
    assert sum(row["words"] for row in rows) == total["words"]
    assert any(row["wer"] for row in rows) == (normalize == "none")


def test_a_training_scores_without_case_and_says_so(cased):
    cased.execute(
        "BUILD MODEL n USING cased OPTIONS (epochs=1, learning_rate=1e-12, validation="
        "'SELECT * FROM calls WHERE id < 5') AS SELECT * FROM calls WHERE id > 4"
    )
    facts = dict(cased.execute("DESCRIBE MODEL n").fetchall())
    assert (facts["wer"], facts["cer"], facts["normalize"]) == (0, 0, "basic")
    assert "normalize" not in dict(cased.execute("DESCRIBE MODEL cased").fetchall())


def test_english_scores_numbers_and_titles_however_they_are_written(connection):
    sample.copy_into(connection.apsw)
    connection.execute("GET MODEL TinyEn")
    said = "tell my doctor that i will be home at nine"
    connection.execute(
        "CREATE TABLE one AS SELECT audio, text FROM commands_test WHERE text = ?",
        (said,),
    )

    def scores(text, normalize):
        return connection.execute(
            "SELECT wer, cer, words FROM (EVALUATE USING TinyEn "
            "OPTIONS (normalize=?1) AS SELECT audio, ?2 AS text FROM one)",
            (normalize, text),
        ).fetchone()

    written = "Tell my Dr. that I'll be home at 9!"
    assert scores(written, "english") == scores(said, "english")
    with pytest.warns(thanosql.Warning, match="cannot spell '9'"):
        assert scores(written, "basic") > scores(said, "basic")
    digits = "9" * 5000
    with pytest.raises(thanosql.DataError, match="row 1: a number has too many digits"):
        scores(digits, "english")


def test_a_fitted_model_was_trained_on_what_its_parents_were(trained):
    trained.execute("INSERT INTO calls VALUES (20, ?, 'cab')", (tones("cab", seed=20),))
    trained.commit()
    trained.execute(
        "FIT MODEL n USING n OPTIONS (epochs=1, validation=0) "
        "AS SELECT * FROM calls WHERE id = 20"
    )
    with pytest.warns(thanosql.Warning, match="5 of the 9"):
        trained.execute("EVALUATE USING n AS SELECT * FROM calls")


def test_the_rows_of_a_run_are_kept_as_digests(trained):
    rows = trained.execute(
        'SELECT "row", validation, length(audio), length(text) FROM thanosql_rows '
        'ORDER BY validation, "row"'
    ).fetchall()
    assert rows == [(i, 0, 16, 16) for i in (1, 2, 3, 4)] + [
        (i, 1, 16, 16) for i in (1, 2)
    ]


@pytest.mark.parametrize(
    ("sql", "error", "message"),
    [
        (
            "EVALUATE USING m AS SELECT audio FROM calls",
            thanosql.OptionError,
            "no column 'text' for text_col",
        ),
        (
            "EVALUATE USING m OPTIONS (normalize='german') AS SELECT * FROM calls",
            thanosql.OptionError,
            "option normalize takes basic, english, none, not 'german'",
        ),
        (
            "EVALUATE USING m AS SELECT audio, NULL AS text FROM calls",
            thanosql.DataError,
            "row 1: the reference text is NULL; leave such rows out",
        ),
        (
            "EVALUATE USING m OPTIONS (per_row=1) AS "
            "SELECT audio, 1 AS text FROM calls",
            thanosql.DataError,
            r"row 1: the reference text is a number; write CAST\(text AS TEXT\) AS",
        ),
        (
            "EVALUATE USING m OPTIONS (per_row=1) "
            "AS SELECT audio, text, 1 AS wer FROM calls",
            thanosql.OptionError,
            "a column 'wer' is one of those that are added",
        ),
        (
            "EVALUATE USING m OPTIONS (per_row=1, result_col=words) "
            "AS SELECT * FROM calls",
            thanosql.OptionError,
            "a column 'words' is one of those that are added",
        ),
        (
            "EVALUATE USING m OPTIONS (per_row=1, result_col=text) "
            "AS SELECT * FROM calls",
            thanosql.OptionError,
            "the query has a column 'text' already",
        ),
    ],
)
def test_what_cannot_be_scored_is_an_error(calls, sql, error, message):
    with pytest.raises(error, match=message):
        calls.execute(sql).fetchall()
