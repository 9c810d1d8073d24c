"""Completion: which words may come next, wherever a person asks."""

import pytest

from thanosql.frontends.completion import complete


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
