from __future__ import annotations

from itertools import pairwise

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thanosql.statements.nodes import number
from thanosql.statements.tokens import tokenize


@pytest.mark.parametrize(
    ("sql", "kinds"),
    [
        ("SELECT é$1_", "word word"),
        ("'a''b' 'a\\' ''", "string string string"),
        ('"a""b" `c``d` [e f]', "quoted quoted quoted"),
        ("x'00fF' X'' x'1'", "blob blob blob"),
        ("1 1. .5 1e9 1.5E-9 0x1F 1_000", "number " * 7),
        ("1abc 0x", "number number"),
        ("1..2", "number number"),
        ("1e+", "number other"),
        ("? ?12 :a @b $c::d(e f", "variable " * 5 + "other word word"),
        ("$a::b(c) :é #1 ?1x", "variable " * 4 + "word"),
        (": $ ::", "other " * 4),
        ("a->>'b'||c", "word other other other string other other word"),
        ("-- 'a\n1 -- b", "number"),
        ("/* 'a */ 1 /* /* */ 2 */", "number number other other"),
        ("/**/1/*/2*/3/*", "number number other other"),
        ("1 /* 2", "number"),
        ("\ufeffSELECT\t\n\f\r 1", "word number"),
        ("1 \v2", "number number"),
        ("\v2", "other number"),
        ("a\u00a0b", "word"),
        ("'a''b", "unclosed"),
        ('1 "a', "number unclosed"),
        ("[a", "unclosed"),
    ],
)
def test_kinds_are_those_sqlite_sees(sql, kinds):
    assert [token.kind for token in tokenize(sql)] == kinds.split()


def test_a_keyword_is_a_bare_word_in_any_case():
    # upper() makes an I of the dotless i, and an S of the long s.
    sql = "list List \"list\" 'list' l\u0131st li\u017ft"
    assert [t.keyword for t in tokenize(sql)] == ["LIST", "LIST", "", "", "", ""]


@given(st.one_of(st.text(), st.text("'\"`[]x*/-1.e_?:$@#( \n\v\\a")))
def test_tokens_and_the_gaps_between_them_are_the_text(sql):
    end = 0
    for token in tokenize(sql):
        gap = sql[end : token.start]
        assert not tokenize(gap)
        assert token.text == sql[token.start : token.end] != ""
        end = token.end
    assert not tokenize(sql[end:])


# SQLite stops at NUL, and bytes have no lone surrogates.
characters = st.characters(codec="utf-8", exclude_characters="\0")


@given(st.text(characters, min_size=1), st.sampled_from("'\"`"))
def test_quoted_text_means_what_it_means_to_sqlite(text, quote):
    quoted = quote + text.replace(quote, quote * 2) + quote
    (token,) = tokenize(quoted)
    assert token.name == text
    cursor = apsw.Connection(":memory:").execute(f"SELECT 1 AS {quoted}")
    assert cursor.get_description()[0][0] == token.name


numerals = st.from_regex(r"[0-9_.eExXaf+-]{1,8}", fullmatch=True)
literals = st.one_of(
    numerals,
    st.integers(0, 2**63 - 1).map(str),
    st.floats(0, allow_infinity=False).map(str),
    st.binary().map(lambda value: f"X'{value.hex()}'"),
    st.from_regex(r"[xX]'[0-9a-fA-Fg ]{0,5}'", fullmatch=True),
)


@given(literals)
def test_literals_mean_what_they_mean_to_sqlite(literal):
    tokens = tokenize(literal)
    if len(tokens) != 1 or tokens[0].kind not in ("number", "blob"):
        return
    try:
        expected = apsw.Connection(":memory:").execute(f"SELECT {literal}").get
    except apsw.SQLError:
        with pytest.raises(ValueError, match=r"float|int|hex|Odd"):
            _ = tokens[0].value
    else:
        assert tokens[0].value == expected
        assert type(tokens[0].value) is type(expected)


operands = st.sampled_from(
    ["'a''b'", "1", "1.5", ".5e1", "0x1f", "x'61'", "NULL", "(1)", "abs(-1)", "'[2]'"]
)
operators = st.sampled_from(
    ["+", "-", "*", "/", "||", "<>", "<<", ">=", "==", " IS NOT ", " IN(1),"]
)
comments = st.sampled_from(["", " /*'*/", " --'\n", "\n"])


@given(st.lists(st.tuples(operands, operators, comments), max_size=5), operands)
def test_sqlite_reads_the_tokens_as_it_reads_the_text(terms, last):
    """Tokens with comments between them are the same expressions."""
    sql = "SELECT " + "".join(map("".join, terms)) + last
    tokens = tokenize(sql)
    spread = tokens[0].text
    for before, token in pairwise(tokens):
        # An operator of several characters stays in one piece.
        is_one = before.end == token.start and before.kind == token.kind == "other"
        spread += ("" if is_one else "/*'*/ --\"\n") + token.text
    connection = apsw.Connection(":memory:")
    assert connection.execute(spread).get == connection.execute(sql).get


spellings = st.sampled_from(
    ["?", ":a", "@a", "$a", "$a::b(c)", "?1", "?02", "?3", "?7"]
)


@given(st.lists(spellings, min_size=1, max_size=8))
def test_parameters_are_numbered_as_sqlite_numbers_them(spellings):
    sql = f"SELECT json_array({', '.join(spellings)})"
    numbers = number(token.text for token in tokenize(sql) if token.kind == "variable")
    values = list(range(1, max(numbers) + 1))
    row = apsw.Connection(":memory:").execute(sql, values).get
    assert row == "[" + ",".join(map(str, numbers)) + "]"
