"""Completion: the text before a person's cursor in, words that may come next out.

The words before decide what may come: models and bases after USING, the statement's
options inside of OPTIONS (...), after such an option's name the values that it may
have, tables after FROM. Anywhere else it is the words that begin a statement, SQL's own
words, tables and columns.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import fields
from typing import TYPE_CHECKING, get_args

import apsw

from thanosql import errors, statements
from thanosql.catalog.bases import NGRAM
from thanosql.statements import quoted
from thanosql.statements.grammar import STATEMENTS
from thanosql.statements.tokens import Token, tokenize

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from thanosql.driver.connection import Connection

_TABLES = """
    SELECT name
    FROM pragma_table_list
    WHERE name NOT LIKE 'sqlite_%'
"""
_COLUMNS = """
    SELECT DISTINCT info.name
    FROM pragma_table_list AS list, pragma_table_info(list.name, list.schema) AS info
    WHERE list.name NOT LIKE 'sqlite_%'
"""
OPTIONS: dict[str, type[statements.Options]] = {
    options.statement: options
    for options in (*get_args(statements.Options), statements.FitOptions)
}
"""The options of each statement, by its first words."""


def complete(connection: Connection | None, before: str) -> list[str]:
    """Return the whole words that may stand where the last word of `before` begins."""
    found = in_context(connection, before)
    if found is not None:
        return found
    sql = (f"{word} " for word in sorted(apsw.keywords))
    names = (*_rows(connection, _TABLES), *_rows(connection, _COLUMNS))
    return matching(before, (*beginnings(before), *names, *sql))


def beginnings(before: str, at_least: int = 0) -> list[str]:
    """Return the words that begin a speech statement, or go on with its beginning.

    at_least: how many of its words must be there already.
    """
    words = [token.keyword for token in tokenize(before[: word_start(before)])]
    found = [
        f"{' '.join(head[said:])} "
        for said in range(2, at_least - 1, -1)
        for head in sorted(STATEMENTS)
        if head[:said] == tuple(words[len(words) - said :]) and len(head) > said
    ]
    return matching(before, found)


def in_context(connection: Connection | None, before: str) -> list[str] | None:
    """Return what may come if the words before decide it; None if they do not."""
    tokens = tokenize(before[: word_start(before)])
    words = [token.keyword for token in tokens]
    last, last_but_one = ("", "", *words)[-1], ("", "", *words)[-2]
    if last == "USING":
        training = {"BUILD", "FIT"}.intersection(words)
        names = _rows(connection, "LIST MODELS")
        return matching(
            before, (*names, *(_rows(connection, "LIST BASES") if training else ()))
        )
    if last == "MODEL" and last_but_one in ("DESCRIBE", "DROP", "DELETE", "EXPORT"):
        return matching(before, _rows(connection, "LIST MODELS"))
    if last in ("FROM", "JOIN", "INTO", "UPDATE", "TABLE"):
        return matching(before, _rows(connection, _TABLES))
    options = _open_options(tokens)
    if options is not None and tokens[-1].text in ("(", ","):
        return matching(before, (f"{field.name}=" for field in fields(options)))
    values = [] if options is None else _values(options, tokens)
    if values:
        return matching(before, values)
    if word_start(before) < len(before):
        return beginnings(before, at_least=1) or None
    return None


def matching(before: str, candidates: Iterable[str]) -> list[str]:
    """Return the candidates that begin with the last word of `before`.

    A keyword is returned in small letters if that word is in small letters.
    """
    word = before[word_start(before) :]
    fits = (each for each in candidates if each.casefold().startswith(word.casefold()))
    return [
        each.lower() if each.isupper() and word.islower() else each
        for each in dict.fromkeys(fits)
    ]


def word_start(before: str) -> int:
    """Return where the word at the end of `before` starts; its length if none is."""
    found = re.search(r"\w*\Z", before)
    return len(before) if found is None else found.start()


def _open_options(tokens: Sequence[Token]) -> type[statements.Options] | None:
    """Return the options of the OPTIONS ( that no parenthesis has closed yet."""
    depth = 0
    for i in range(len(tokens) - 1, 0, -1):
        depth += (tokens[i].text == ")") - (tokens[i].text == "(")
        if depth < 0:
            if tokens[i - 1].keyword != "OPTIONS":
                return None
            words = [token.keyword for token in tokens[:i]]
            found = next(_options_of(words), None)
            if found is statements.BuildOptions and words[-2] == NGRAM.upper():
                return statements.NGramOptions
            return found
    return None


def _options_of(words: Sequence[str]) -> Iterator[type[statements.Options]]:
    """Yield the options of the statement that begins last among the words."""
    for i in range(len(words) - 1, -1, -1):
        for beginning, options in OPTIONS.items():
            if " ".join(words[i:]).startswith(beginning):
                yield options


def _values(options: type[statements.Options], tokens: Sequence[Token]) -> list[str]:
    """Return the values with a name of the option that the tokens end with.

    If a quote is open, what follows it.
    """
    quote = tokens[-1].text if tokens[-1].kind == "unclosed" else ""
    said = tokens[:-1] if quote else tokens
    if said[-1].text != "=":
        return []
    name = said[-2].text.lower()
    return [
        literal.removeprefix(quote)
        for field in fields(options)
        if name in (field.name, *field.metadata["aliases"])
        for literal in field.metadata["accepts"].literals
        if literal.startswith(quote)
    ]


def _rows(connection: Connection | None, sql: str) -> list[str]:
    """Return the names in the first column; none without a database, or on an error."""
    if connection is None:
        return []
    with suppress(errors.Error):
        names = (str(row[0]) for row in connection.execute(sql))
        return sorted(name if name.isidentifier() else quoted(name) for name in names)
    return []
