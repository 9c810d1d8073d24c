"""Lexer: SQL text in, the tokens that SQLite would see out.

It follows SQLite's tokenize.c, with two differences: an operator of several characters
is one token a character, and nothing is an error here, since SQLite reads what is not
a clause again.
"""

from __future__ import annotations

import binascii
import re
from typing import NamedTuple

# What may begin a name, and what may go on in one: all but these ASCII characters.
# SQLite takes every character beyond ASCII for a letter, even a no-break space.
_LETTER = r"[^\x00-@\[-^`{-\x7f]"
_INSIDE = r"[^\x00-\#%-/:-@\[-^`{-\x7f]"

# With the possessive quantifiers (*+) an unclosed quote takes the rest of the text, as
# in SQLite; with others, backtracking would find a shorter quoted text.
_TOKEN = re.compile(
    rf"""
    # White space and comments have no name. SQLite knows \v only behind other space.
    (?: [ \t\n\f\r] [ \t-\r]*+ | \ufeff | --[^\n]*+
      | /\*(?!\Z) [^*]*+ (?: \*(?!/) [^*]*+ )*+ (?:\*/)? )++
    | (?P<blob> [xX]'[^']*+' )
    | (?P<word> {_LETTER} {_INSIDE}*+ )
    | (?P<number>
        (?: 0[xX][0-9a-fA-F][0-9a-fA-F_]*+
          | (?: [0-9][0-9_]*+ (?: \.[0-9_]*+ )? | \.[0-9][0-9_]*+ )
            (?: [eE][+-]?[0-9][0-9_]*+ )?+
        ) {_INSIDE}*+ )
    | (?P<string> '[^']*+ (?: ''[^']*+ )*+ ' )
    | (?P<quoted> "[^"]*+ (?: ""[^"]*+ )*+ " | `[^`]*+ (?: ``[^`]*+ )*+ `
        | \[[^\]]*+\] )
    | (?P<variable> \?[0-9]*+
        | [:@$\#] (?: :: )*+ {_INSIDE} (?: {_INSIDE} | :: )*+ (?: \([^)\t-\r\ ]*+\) )? )
    | (?P<unclosed> ['"`\[] .*+ )
    | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)


class Token(NamedTuple):
    """One token; ``sql[start:end]`` is `text`.

    `kind` is the name of its group above: ``word`` (keyword or bare name), ``quoted``
    (a name in ``"``, backquotes or ``[]``), ``string``, ``blob``, ``number``,
    ``variable`` (a bind parameter), ``unclosed`` (from a quote to the end of the text)
    or ``other`` (one character of an operator or of punctuation, or a stray one).
    """

    kind: str
    text: str
    start: int
    end: int

    @property
    def keyword(self) -> str:
        """The bare word in capitals; "" for everything else."""
        # Only ASCII: upper() would turn a dotless i into the I of LIST.
        return self.text.upper() if self.kind == "word" and self.text.isascii() else ""

    @property
    def name(self) -> str:
        """The name that a word, a quoted name or a string spells."""
        quote = self.text[0]
        if self.kind == "word":
            return self.text
        if quote == "[":
            return self.text[1:-1]
        return self.text[1:-1].replace(quote * 2, quote)

    @property
    def value(self) -> str | int | float | bytes:
        """The value of a literal, or a name's spelling; others raise ValueError."""
        if self.kind in ("word", "quoted", "string"):
            return self.name
        if self.kind == "blob":
            return binascii.unhexlify(self.text[2:-1])
        if self.text[:2] in ("0x", "0X"):
            return int(self.text[2:], 16)
        try:
            return int(self.text)
        except ValueError:
            return float(self.text)


def quoted(name: str) -> str:
    """Return `name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def tokenize(sql: str) -> tuple[Token, ...]:
    """Return the tokens of `sql`, without white space and comments."""
    return tuple(
        Token(kind, match.group(), *match.span())
        for match in _TOKEN.finditer(sql)
        if (kind := match.lastgroup) is not None
    )
