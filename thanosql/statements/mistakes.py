"""A statement that SQLite refused in, the first words that were probably meant out.

``BIULD MODEL m ...`` is no clause, so it is SQLite that refuses it, with nothing to
say but that there is a syntax error near BIULD.
"""

from __future__ import annotations

from difflib import SequenceMatcher

from thanosql.statements.grammar import STATEMENTS
from thanosql.statements.tokens import Token, tokenize

_LIKE_ENOUGH = 0.7  # share of letters that a word and the one meant have in common
_BEFORE = ("(", "AS", ";")  # what stands before a clause, where it is not the first


def meant(sql: str, offset: int) -> str:
    """Return the first words nearly spelled at or before ``sql[offset]``, or ""."""
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
    return best


def _likeness(tokens: tuple[Token, ...], head: tuple[str, ...]) -> float:
    """Return how like the tokens are to the first words of a clause; 0 if not."""
    if len(tokens) < len(head):
        return 0.0
    if head == ("COPY",) and "FROM" not in {token.keyword for token in tokens}:
        return 0.0
    ratios = [
        SequenceMatcher(None, token.keyword, word).ratio()
        for token, word in zip(tokens, head, strict=False)
    ]
    # What is spelled right is not what SQLite stumbled over.
    return sum(ratios) / len(ratios) if _LIKE_ENOUGH <= min(ratios) < 1 else 0.0


def _text(token: Token) -> str:
    return token.keyword or token.text
