"""Completion: which words may come next, wherever a person asks."""

from dataclasses import fields

import pytest

from thanosql.frontends.completion import OPTIONS, complete
from thanosql.statements.grammar import STATEMENTS


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("EVALUATE USING m OPTIONS (normalize=", ["'basic'", "'english'", "'none'"]),
        ("EVALUATE USING m OPTIONS (normalize='e", ["english'"]),
        ("EVALUATE USING m OPTIONS (batch_size=8, Normalize = 'n", ["none'"]),
        ("PREDICT USING m OPTIONS (task='", ["transcribe'", "translate'"]),
        ("PREDICT USING m OPTIONS (vad=", ["'auto'", "TRUE", "FALSE"]),
        ("PREDICT USING m OPTIONS (vad=f", ["false"]),
        ("PREDICT USING m OPTIONS (details=T", ["TRUE"]),
        ("BUILD MODEL n USING m OPTIONS (freeze_encoder='", ["auto'"]),
        ("PREDICT USING m OPTIONS (vad='auto', det", ["details="]),
    ],
)
def test_options_and_their_values_are_completed(before, expected):
    assert complete(None, before) == expected


@pytest.mark.parametrize(
    "before",
    [
        "PREDICT USING m OPTIONS (prompt='by normalize=",  # within a text
        "PREDICT USING m OPTIONS (no_option=",
        "SELECT * FROM t WHERE vad=",
    ],
)
def test_no_value_is_offered_where_none_is_known(before):
    assert "'auto'" not in complete(None, before)
    assert "'basic'" not in complete(None, before)


@pytest.mark.parametrize("first_words", sorted(STATEMENTS), ids=" ".join)
def test_every_statement_is_completed_from_its_first_letters(first_words):
    first, rest = first_words[0], " ".join(first_words[1:])
    assert f"{first} {rest}".strip() + " " in complete(None, first[:3])
    if rest:
        assert f"{rest} " in complete(None, f"SELECT * FROM ({first} ")


@pytest.mark.parametrize("statement", sorted(OPTIONS))
def test_every_option_of_a_statement_is_offered(statement):
    # BUILD MODEL ... USING NGram says itself where the name stands.
    named = statement.replace("...", "m") if "..." in statement else f"{statement} m"
    offered = complete(None, f"{named} OPTIONS (")
    assert offered == [f"{field.name}=" for field in fields(OPTIONS[statement])]
