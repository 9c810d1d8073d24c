"""Reader: tokens in, the parts of clauses out: names, values, lists.

It knows no clause; the parser, which is built on it, finds those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from thanosql.errors import StatementSyntaxError
from thanosql.statements.nodes import OptionValue, Parameter, RawOption, number
from thanosql.statements.tokens import Token, tokenize

NAME_KINDS = ("word", "quoted", "string")
# Where a name is expected, a bare one of these means that the name is missing.
_NO_NAMES = frozenset(
    ("AS", "EXISTS", "FROM", "IF", "NOT", "OPTIONS", "SELECT", "TO", "USING", "WITH")
)
_CONSTANTS: Mapping[str, bool | None] = {"TRUE": True, "FALSE": False, "NULL": None}


@dataclass(frozen=True, slots=True, eq=False)
class WithTable:
    """One table of a WITH list, at ``sql[start:end]``."""

    start: int
    end: int
    body: int
    "The first token of its query."
    scope: Scope
    "The WITH tables that it may name: those before it and those around it."


Scope = Mapping[str, WithTable]
"""The WITH tables that a query may name, by their names in small letters."""


class Reader:
    """The tokens of a statement and a place among them.

    The methods that take an index look at any token; the others read on from the
    token at `at`, up to before `end`, and raise StatementSyntaxError there.
    """

    def __init__(self, sql: str) -> None:
        self.sql = sql
        self.tokens = tokenize(sql)
        self.words = [token.keyword for token in self.tokens]
        self.parameters = _parameters(sql, self.tokens)
        self.at = 0
        self.end = len(self.tokens)
        self._closing = _closing(self.tokens)

    # Looking

    def word(self, i: int) -> str:
        """Return the keyword at token i; "" for any other token."""
        return self.words[i] if i < len(self.words) else ""

    def has(self, i: int, *words: str) -> bool:
        """Tell whether these words, bare and in any case, stand at token i."""
        return self.words[i : i + len(words)] == list(words)

    def text(self, i: int) -> str:
        """Return the text of token i; "" behind the last."""
        return self.tokens[i].text if i < len(self.tokens) else ""

    def is_name(self, i: int) -> bool:
        """Tell whether token i may be a name."""
        return i < len(self.tokens) and self.tokens[i].kind in NAME_KINDS

    def closing(self, i: int) -> int:
        """Return where the parenthesis that opens at token i closes."""
        return self._closing[i]

    def past_parentheses(self, i: int) -> int:
        """Return the token after the parentheses that open at token i, or i."""
        return self._closing[i] + 1 if self.text(i) == "(" else i

    def past_name(self, i: int) -> int:
        """Return the token after the name, or ``schema.name``, at token i."""
        return i + (3 if self.text(i + 1) == "." else 1)

    def with_list(self, i: int, scope: Scope) -> tuple[dict[str, WithTable], int]:
        """Return the tables of the WITH list at token i by name, and where it ends.

        No tables if there is no WITH, or a malformed list, which SQLite will refuse.
        """
        tables: dict[str, WithTable] = {}
        separator = "WITH"
        while separator in (self.word(i), self.text(i)):
            first = i + 1
            if separator == "WITH" and self.has(first, "RECURSIVE"):
                first += 1
            i = self.past_parentheses(first + 1)
            is_as = self.is_name(first) and self.has(i, "AS")
            i += 2 if self.has(i + 1, "NOT") else 1
            i += self.has(i, "MATERIALIZED")
            body, i = i + 1, self.past_parentheses(i)
            if not is_as or not body < i <= len(self.tokens):
                return {}, i
            start, end = self.tokens[first].start, self.tokens[i - 1].end
            name = self.tokens[first].name.lower()
            tables[name] = WithTable(start, end, body, {**scope, **tables})
            separator = ","
        return tables, i

    # Reading

    @property
    def here(self) -> Token | None:
        """The next token, if there is one."""
        return self.tokens[self.at] if self.at < self.end else None

    def accept(self, *wanted: str) -> bool:
        """Read these words or characters if the first is there; all must follow."""
        if not self._is_here(wanted[0]):
            return False
        for each in wanted:
            self.expect(each, " ".join(wanted))
        return True

    def expect(self, wanted: str, expected: str) -> None:
        """Read a word or a character; `expected` says to a person what it is."""
        if not self._is_here(wanted):
            self.fail(expected)
        self.at += 1

    def name(self, expected: str) -> str:
        """Read a name: bare, quoted or a string."""
        if (
            self.here is None
            or self.here.kind not in NAME_KINDS
            or self.words[self.at] in _NO_NAMES
            or not self.here.name
        ):
            self.fail(expected)
        name = self.here.name
        self.at += 1
        return name

    def place(self, expected: str) -> str | Parameter:
        """Read a directory or a hub id: in quotes, or a parameter."""
        token = self.here
        if token is not None and token.kind == "variable":
            self.at += 1
            return self.parameters[token.start]
        if token is None or token.kind == "word":
            self.fail(expected)
        return self.name(expected)

    def options(self) -> tuple[RawOption, ...]:
        """Read ``OPTIONS (name = value, ...)`` if it is there."""
        if not self.accept("OPTIONS"):
            return ()
        self.expect("(", "( after OPTIONS")
        options: list[RawOption] = []
        closed = self.accept(")")
        while not closed:
            start = self.at
            name = self.name("the name of an option")
            self.expect("=", f"= and a value after the option {name!r}")
            value_start = self.at
            value = self._value(name)
            places = (self.tokens[i].start for i in (start, value_start))
            options.append(RawOption(name, value, *places))
            closed = self.accept(")")
            if not closed:
                what = f", or ) after the value of {name!r} (a word, or in quotes)"
                self.expect(",", what)
        return tuple(options)

    def fail(self, expected: str) -> NoReturn:
        """Raise StatementSyntaxError: something else was expected here."""
        if self.at < len(self.tokens):
            token = self.tokens[self.at]
            offset = token.start
            text = token.text if len(token.text) <= 30 else token.text[:27] + "..."
            quote = "" if token.kind in ("string", "quoted", "blob") else "'"
            message = f"expected {expected}, not {quote}{text}{quote}"
            if token.kind == "unclosed":
                message = f"expected {expected}; the quote here is never closed"
        else:
            offset = self.tokens[-1].end
            message = f"expected {expected}, not the end of the statement"
        raise StatementSyntaxError(message, self.sql, offset)

    def _is_here(self, wanted: str) -> bool:
        here = self.here
        return here is not None and wanted in (here.keyword, here.text)

    def _value(self, option: str) -> OptionValue:
        negative = self.accept("-")
        signed = negative or self.accept("+")
        kinds = "number" if signed else "literal, a word or a parameter"
        expected = f"a {kinds} as the value of {option!r}"
        token = self.here
        if token is None or (signed and token.kind != "number"):
            self.fail(expected)
        value: OptionValue
        if token.kind == "variable":
            value = self.parameters[token.start]
        elif self.words[self.at] in _CONSTANTS:
            value = _CONSTANTS[self.words[self.at]]
        elif token.kind in ("other", "unclosed"):
            self.fail(expected)
        else:
            try:
                value = token.value
            except ValueError:  # 1abc, x'1'
                self.fail(expected)
        self.at += 1
        return -value if negative and isinstance(value, int | float) else value


def _parameters(sql: str, tokens: Sequence[Token]) -> dict[int, Parameter]:
    """Return the parameters by where they start, numbered over the whole statement."""
    variables = [token for token in tokens if token.kind == "variable"]
    for token in variables:
        digits = token.text[1:].lstrip("0")
        if token.text[0] == "?" != token.text and not 1 <= len(digits) <= 6:
            message = "a parameter's number is from ?1 to ?32766"
            raise StatementSyntaxError(message, sql, token.start)
    numbers = number(token.text for token in variables)
    return {
        token.start: Parameter(index, token.text[1:] or None, token.start, token.end)
        for token, index in zip(variables, numbers, strict=True)
    }


def _closing(tokens: Sequence[Token]) -> dict[int, int]:
    """Return for each opening parenthesis its closing one, or the end of the text."""
    closing: dict[int, int] = {}
    opened: list[int] = []
    for i, token in enumerate(tokens):
        if token.text == "(":
            opened.append(i)
        elif token.text == ")" and opened:
            closing[opened.pop()] = i
    return closing | dict.fromkeys(opened, len(tokens))
