"""EVALUATE in detail: a row an utterance, intervals, rows that were trained on."""

import warnings

import pytest
from tones import tones

import thanosql

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
