"""A statement that SQLite refused in, the first words that were probably meant out.

``BIULD MODEL m ...`` is no clause, so it goes to SQLite, whose error only says that
there is a syntax error near BIULD.
"""

from __future__ import annotations

from difflib import SequenceMatcher

from thanosql.statements.grammar import BY_VERB, STATEMENTS
from thanosql.statements.tokens import Token, tokenize

_LIKE_ENOUGH = 0.7  # share of letters that a word and the one meant have in common
# What may stand before a clause that does not begin the statement.
_BEFORE = ("(", "AS", ";", "EXPLAIN", "PLAN")
_ELSEWHERE = {"SHOW": "LIST", "DESC": "DESCRIBE"}  # what other databases say
_SQLITES_OWN = ("DELETE", "DROP")  # verbs of SQL, too: no MODEL has to follow


def meant(sql: str, offset: int) -> str:
    """Return the first words that were meant at or before ``sql[offset]``, or "".

    They are those of the statement that is spelled most like it. If none is like
    enough, and the word there is one of our verbs, they are those of all statements
    with that verb: "LIST MODELS, ... or LIST DATASETS".
    """
    tokens = tokenize(sql)
    here = next((i for i, token in enumerate(tokens) if token.end > offset), 0)
    best, likeness = "", 0.0
    # SQLite may have read two words as a table and its alias before it stumbled.
    for i in range(max(0, here - 4), here + 1):
        if i == 0 or _text(tokens[i - 1]) in _BEFORE:
            for head in STATEMENTS:
                like = _likeness(tokens[i:], head)
                if like > likeness:
                    best, likeness = " ".join(head), like
    if not best and tokens and (here == 0 or _text(tokens[here - 1]) in _BEFORE):
        *others, best = _beginnings(tokens[here].keyword) or [""]
        best = f"{', '.join(others)} or {best}" if others else best
    return best


def _beginnings(verb: str) -> list[str]:
    """Return the first words of all statements with that verb, each in one spelling."""
    verb = _ELSEWHERE.get(verb, verb)
    return [
        " ".join(head)
        for head in BY_VERB.get(verb, ())
        if verb not in _SQLITES_OWN
        and "THANOSQL" not in head
        and (*head[:-1], f"{head[-1]}S") not in STATEMENTS  # LIST MODEL
    ]


def _likeness(tokens: tuple[Token, ...], head: tuple[str, ...]) -> float:
    """Return how like a clause's first words the tokens are, from 0 to 1."""
    if len(tokens) < len(head):
        return 0.0
    if head == ("COPY",) and "FROM" not in {token.keyword for token in tokens}:
        return 0.0
    ratios = [
        _ratio(token.keyword, word) for token, word in zip(tokens, head, strict=False)
    ]
    # Below 1: words that are all spelled right are not what SQLite refused.
    return sum(ratios) / len(ratios) if _LIKE_ENOUGH <= min(ratios) < 1 else 0.0


def _ratio(word: str, meant: str) -> float:
    """Return how like two words are, from 0 to 1, which is the same word."""
    if _ELSEWHERE.get(word) == meant:
        return _LIKE_ENOUGH
    return SequenceMatcher(None, word, meant).ratio()


def _text(token: Token) -> str:
    return token.keyword or token.text
