"""Parser: the text of one statement and a grammar in, a `Query` with clauses out.

Only the clauses of this project are parsed; what stands around them, and every query
inside them, is SQLite's to read. A clause is its first words (``PREDICT USING``) in a
place where SQLite would take a query; the same words elsewhere are names. What follows
the first words is read by the function that the grammar has for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from thanosql.errors import NotSupportedError, StatementSyntaxError, point
from thanosql.statements.nodes import Clause, Node, Parameter, Part, Query
from thanosql.statements.reader import NAME_KINDS, Reader, Scope, WithTable
from thanosql.statements.tokens import Token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    Head = tuple[str, ...]
    Readers = Mapping[str, Mapping[Head, Callable[["Parser"], Node]]]

_Placed = TypeVar("_Placed", Token, Parameter)
_COMPOUND = frozenset(("UNION", "EXCEPT", "INTERSECT"))
# What may follow a clause that ends by itself: the rest of a compound SELECT.
_AFTER_CLAUSE = _COMPOUND | {"ORDER", "LIMIT"}
_JOINS = ("JOIN", "CROSS", "FULL", "INNER", "LEFT", "NATURAL", "OUTER", "RIGHT")
# What may follow `FROM (list models`, where that is a table and its alias.
_AFTER_TABLE = frozenset((*_JOINS, "INDEXED", "NOT", "ON", "USING"))
# Python's stack is finite; nobody nests this deep by hand.
_DEEPEST = 50


class Parser(Reader):
    """Reads one statement; the functions of the grammar read its clauses with it."""

    def __init__(self, sql: str, readers: Readers) -> None:
        """Take the statement, and the functions that read a clause, by its words."""
        super().__init__(sql)
        self._readers = readers
        # All clauses read so far; an inner one comes before the one around it.
        self.clauses: list[Clause] = []
        self.first = self._past_semicolons(0)
        self.depth = 0
        self.lasting = ""  # "view" or "trigger", inside of one
        self.scope: Scope = {}  # around the clause that is being read

    # The statement

    def statement(self) -> Query:
        """Return the whole statement as a query."""
        end, first = self.first, self._past_explain()
        while end < len(self.tokens) and self.text(end) != ";":
            end += 1
        # Plain SQL that merely has a word like `list` in it is read no further.
        if any(map(self._head, range(len(self.tokens)))):
            if self.has(first, "CREATE"):
                self._scan_created(first, end)
            else:
                self._scan({first: {}}, first, end)
        second = self._past_semicolons(end)
        if self.clauses and second < len(self.tokens):
            message = "expected one statement, not another one after the semicolon"
            raise StatementSyntaxError(message, self.sql, self.tokens[second].start)
        return self._query(0, len(self.sql), (("", 0, len(self.sql)),))

    def _past_semicolons(self, i: int) -> int:
        while self.text(i) == ";":
            i += 1
        return i

    def _past_explain(self) -> int:
        """Return the statement's first token, behind EXPLAIN [QUERY PLAN]."""
        if not self.has(self.first, "EXPLAIN"):
            return self.first
        return self.first + (3 if self.has(self.first + 1, "QUERY", "PLAN") else 1)

    def _scan_created(self, first: int, end: int) -> None:
        """Find the clauses of a CREATE; definitions of columns hold none."""
        i = first + 1
        i += self.word(i) in ("TEMP", "TEMPORARY")
        kind = self.word(i)
        if kind == "TRIGGER":
            # A statement starts after BEGIN and after each semicolon. Which END is
            # the last, and so which semicolon, only SQLite knows.
            self.lasting = "trigger"
            end = len(self.tokens)
            starts: dict[int, Scope] = {
                j + 1: {}
                for j in range(i, end)
                if self.words[j] == "BEGIN" or self.text(j) == ";"
            }
            self._scan(starts, i, end)
        elif kind in ("TABLE", "VIEW"):
            self.lasting = "view" if kind == "VIEW" else ""
            i += 4 if self.has(i + 1, "IF", "NOT", "EXISTS") else 1
            i = self.past_name(i)
            if kind == "VIEW":
                i = self.past_parentheses(i)
            if self.has(i, "AS"):
                self._scan({i + 1: {}}, i + 1, end)

    # Finding clauses

    def _scan(self, starts: dict[int, Scope], first: int, end: int) -> None:
        """Read the clauses among the tokens from `first` to before `end`.

        `starts` are the tokens where a query may start, with the WITH tables in scope
        there. More are found on the way: after a parenthesis, a WITH list, UNION.
        """
        scopes, ends = [starts.get(first, {})], [end]
        i = first
        while i < end:
            if i in starts:
                scopes[-1] = starts[i]
                if self._read_clause(i, ends[-1], scopes[-1]):
                    i = self.at
                    continue
                starts |= self._starts_behind(i, scopes[-1])
            text = self.text(i)
            if text == "(":
                scopes.append(scopes[-1])
                ends.append(min(self.closing(i), ends[-1]))
                starts.setdefault(i + 1, scopes[-1])
            elif text == ")" and len(ends) > 1:
                scopes.pop()
                ends.pop()
            elif self.words[i] in _COMPOUND:
                starts[i + 1 + self.has(i + 1, "ALL")] = scopes[-1]
            else:
                self._refuse_without_parentheses(i)
            i += 1

    def _starts_behind(self, i: int, scope: Scope) -> dict[int, Scope]:
        """Return where queries start in and after the WITH or INSERT at token i."""
        if self.has(i, "WITH"):
            tables, end = self.with_list(i, scope)
            starts = {table.body: table.scope for table in tables.values()}
            return {**starts, end: {**scope, **tables}} if tables else {}
        if self.word(i) not in ("INSERT", "REPLACE"):
            return {}
        if self.has(i + 1, "OR"):
            i += 2
        if self.word(i + 1) != "INTO":
            return {}
        i = self.past_name(i + 2)
        if self.has(i, "AS"):
            i += 2
        return {self.past_parentheses(i): scope}

    def _head(self, i: int) -> Head | None:
        """Return the first words of a clause, if they are what stands at token i."""
        for head in self._readers.get(self.word(i), ()):
            if self.has(i, *head) and (head != ("COPY",) or self._is_copy(i)):
                return head
        return None

    def _is_copy(self, i: int) -> bool:
        """Tell whether the one word COPY, which may be a name too, starts a clause."""
        begins = i in (self.first, self._past_explain())
        behind = self.word(i + 2) in ("FROM", "OPTIONS")
        return begins or (self.is_name(i + 1) and behind)

    def _is_table(self, i: int, head: Head) -> bool:
        """Tell whether the first words are a table with its alias, as in FROM (...).

        ``FROM (list models)`` could be either; it is the statement.
        """
        if head[-1] == "USING" or i == 0 or self.text(i - 1) != "(":
            return False
        i += len(head)
        return (
            self.word(i) in _AFTER_TABLE
            or self.text(i) == ","
            or (self.text(i) == ")" and head[0] != "LIST")
        )

    def _refuse_without_parentheses(self, i: int) -> None:
        """Raise for ``FROM PREDICT USING m``, which SQLite could never read."""
        head = self._head(i)
        if head is not None and head[-1] == "USING" and self.is_name(i + len(head)):
            words = " ".join(head)
            message = (
                f"{words} inside a query stands in parentheses: ({words} ... AS ...)"
            )
            raise StatementSyntaxError(message, self.sql, self.tokens[i].start)

    # Reading a clause

    def _read_clause(self, i: int, end: int, scope: Scope) -> bool:
        """Read the clause at token i, if there is one; `at` is then the token after.

        `end` is where the parentheses around it close, or the statement ends.
        """
        head = self._head(i)
        if head is None or self._is_table(i, head):
            return False
        start, words = self.tokens[i].start, " ".join(head)
        if self.lasting:
            message = (
                f"a {self.lasting} outlives the execution that {words} is part of; "
                "keep its rows with CREATE TABLE ... AS"
            )
            raise NotSupportedError(point(message, self.sql, start))
        if self.depth == _DEEPEST:
            message = f"more than {_DEEPEST} statements inside one another"
            raise StatementSyntaxError(message, self.sql, start)
        self.at, self.end, self.scope = i + len(head), end, scope
        self.depth += 1
        node = self._readers[head[0]][head](self)
        self.depth -= 1
        self.end = end
        if not node.yields_rows and i != self.first:
            message = f"{words} yields no rows; run it as a statement of its own"
            raise StatementSyntaxError(message, self.sql, start)
        if not node.yields_rows and self.here is not None:
            read = self.sql[start : self.tokens[self.at - 1].end]
            self.fail(f"the end of the statement after {read}")
        if self.here is not None and self.here.keyword not in _AFTER_CLAUSE:
            self.fail(f"the end of {words} (to query it, put it in parentheses)")
        self.clauses.append(Clause(node, start, self.tokens[self.at - 1].end))
        return True

    # Queries

    def as_query(self) -> Query:
        """Read AS and the query behind it, up to `end`.

        The query may stand in parentheses; then nothing may follow it, since ``AS
        (SELECT ...) LIMIT 3`` could mean three rows in or three rows out.
        """
        behind_options = self.text(self.at - 1) == ")"
        self.expect(
            "AS",
            "AS and a query after OPTIONS (...)"
            if behind_options
            else "OPTIONS (...) or AS and a query",
        )
        end = self.end
        while self.at < self.end and self.text(self.at) == "(":
            self._open_parenthesis()
        query = self._inner_query()
        self.at = self.end = end
        return query

    def _open_parenthesis(self) -> None:
        """Read the ( before a query and set `end` to its )."""
        closing = self.closing(self.at)
        if closing >= self.end:
            self.at = self.end
            self.fail("a ) after the query in parentheses")
        if closing + 1 < self.end:
            self.at = closing + 1
            hint = "what belongs to the query goes inside"
            if self.word(self.at) in _COMPOUND:
                hint = f"{self.word(self.at)} joins queries without parentheses"
            self.fail(f"nothing after the query in parentheses ({hint})")
        self.at, self.end = self.at + 1, closing

    def _inner_query(self) -> Query:
        """Read a query that goes up to `end`."""
        first, end, scope = self.at, self.end, self.scope
        own_tables, self.at = self.with_list(first, scope)
        is_query = self.word(self.at) in ("SELECT", "VALUES") or self._head(self.at)
        malformed = not own_tables and self.at > first
        if not (malformed or (self.here is not None and is_query)):
            self.at = min(self.at, end)
            self.fail("a query after AS (SELECT, VALUES, WITH or PREDICT)")
        self._scan({first: scope}, first, end)
        start, stop = self.tokens[first].start, self.tokens[end - 1].end
        tables = self._needed_tables(start, stop, scope, own_tables)
        if not tables:
            return self._query(start, stop, (("", start, stop),))
        if own_tables:
            first += 2 if self.has(first + 1, "RECURSIVE") else 1
        parts = [
            (", " if i else "WITH ", table.start, table.end)
            for i, table in enumerate(tables)
        ]
        glue = ", " if own_tables else " "
        parts.append((glue, self.tokens[first].start, stop))
        return self._query(start, stop, tuple(parts))

    def _needed_tables(
        self, start: int, end: int, scope: Scope, own: Mapping[str, WithTable]
    ) -> list[WithTable]:
        """Return the tables of `scope` that the query names, and those they name.

        Each name counts, even if it is a column's: a table too many costs nothing.
        """
        needed: dict[str, WithTable] = {}
        foreign: Scope = {k: v for k, v in scope.items() if k not in own}
        unread = [(start, end, foreign)]
        while unread:
            start, end, visible = unread.pop()
            for token in self._outside(self.tokens, start, end):
                name = token.name.lower() if token.kind in NAME_KINDS else ""
                if (table := visible.get(name)) is None or table is needed.get(name):
                    continue
                if name in needed or name in own:
                    message = (
                        f"the query after AS reaches two WITH tables named {name}; "
                        "rename one"
                    )
                    raise NotSupportedError(point(message, self.sql, token.start))
                needed[name] = table
                body = self.tokens[table.body].start
                unread.append((body, table.end, table.scope))
        return sorted(needed.values(), key=lambda table: table.start)

    def _query(self, start: int, end: int, parts: tuple[Part, ...]) -> Query:
        parameters = tuple(self.parameters.values())
        return Query(
            self.sql,
            start,
            end,
            tuple(c for _, i, j in parts for c in self._outermost(i, j)),
            tuple(p for _, i, j in parts for p in self._outside(parameters, i, j)),
            parameters,
            parts,
        )

    def _outermost(self, start: int, end: int) -> Iterator[Clause]:
        """Yield the clauses in ``sql[start:end]`` that no other one there holds."""
        for clause in sorted(self.clauses, key=lambda clause: clause.start):
            if start <= clause.start < end:
                start = clause.end
                yield clause

    def _outside(
        self, placed: Iterable[_Placed], start: int, end: int
    ) -> Iterator[_Placed]:
        """Yield the tokens or parameters of ``sql[start:end]`` outside of clauses."""
        clauses = [*self._outermost(start, end)]
        for each in placed:
            if start <= each.start < end:
                while clauses and clauses[0].end <= each.start:
                    del clauses[0]
                if not clauses or each.start < clauses[0].start:
                    yield each
