"""What a statement is parsed into: a query, and the clauses of this project in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from thanosql.errors import NotSupportedError, ProgrammingError
from thanosql.statements.tokens import quoted

Parameters = Sequence[Any] | Mapping[str, Any]
Part = tuple[str, int, int]
"""(glue, start, end): ``sql[start:end]`` of the statement, with glue put before it."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A bind parameter, at ``sql[start:end]`` of the statement."""

    index: int
    "SQLite's number for it in the whole statement, from 1."
    name: str | None
    "The key that a mapping is asked for: a for ``:a``, 1 for ``?1``, None for ``?``."
    start: int
    end: int

    def value(self, parameters: Parameters) -> Any:
        """Return what `parameters`, those of the whole statement, bind to it."""
        if not isinstance(parameters, Mapping):
            return parameters[self.index - 1]
        if self.name is None:
            message = (
                f"parameter {self.index} is a ? and has no name, but a mapping "
                "was given; give a sequence"
            )
            raise ProgrammingError(message)
        try:
            return parameters[self.name]
        except KeyError:
            message = f"no value is given for the parameter :{self.name}"
            raise ProgrammingError(message) from None


OptionValue = str | int | float | bool | bytes | None | Parameter


@dataclass(frozen=True, slots=True)
class RawOption:
    """``name = value`` as written, not yet checked; the name starts at `start`."""

    name: str
    value: OptionValue
    start: int
    value_start: int


@dataclass(frozen=True, slots=True)
class Query:
    """A stretch of SQLite's SQL with clauses in it: ``sql[start:end]``.

    `sql` is always the whole statement. The outermost query is all of it; each other
    one is the query after the AS of a clause.
    """

    sql: str
    start: int
    end: int
    clauses: tuple[Clause, ...]
    "The outermost clauses, in the order of the text."
    parameters: tuple[Parameter, ...]
    "Those outside the clauses, in the order of the text."
    statement_parameters: tuple[Parameter, ...]
    "Those of the whole statement; the same in each of its queries."
    parts: tuple[Part, ...]
    """The text of the query, in pieces: first the tables that it takes from a WITH list
    around its clause, then its own stretch."""

    @property
    def source(self) -> str:
        """The query as written, after the WITH tables that it takes from around it."""
        return "".join(glue + self.sql[start:end] for glue, start, end in self.parts)

    def text(self, names: Sequence[str]) -> str:
        """Return SQL that SQLite runs: for clause i, ``SELECT * FROM "names[i]"``."""
        return "".join(run for run, _, _ in self._runs(names))

    def locate(self, error_offset: int, names: Sequence[str]) -> int:
        """Return the place in `sql` of a place in ``text(names)``.

        `error_offset` counts bytes of UTF-8, as SQLite does in its errors; what is
        returned counts characters.
        """
        before = self.text(names).encode()[:error_offset]
        offset = len(before.decode(errors="ignore"))
        for run, start, end in self._runs(names):
            if offset < len(run):
                return min(start + offset, end)
            offset -= len(run)
        return self.end

    def as_written(self, text: str, names: Sequence[str]) -> str:
        """Return a stretch of ``text(names)`` with the clauses as they are in `sql`."""
        for clause, name in zip(self.clauses, names, strict=False):
            text = text.replace(_stand_in(name), self.sql[clause.start : clause.end])
        return text

    def bindings(self, parameters: Parameters) -> list[Any]:
        """Return the values to bind to ``text(names)``, by SQLite's numbers there.

        `parameters` are those of the whole statement. SQLite numbers the parameters
        of each text it prepares from 1, so the numbers differ from the statement's; a
        number that no parameter here has is given None.
        """
        local = number(self.sql[p.start : p.end] for p in self.parameters)
        bound = dict(zip(local, self.parameters, strict=True))
        for index, parameter in zip(local, self.parameters, strict=True):
            if bound[index].index != parameter.index:
                first, second = (
                    self.sql[p.start : p.end] for p in (parameter, bound[index])
                )
                message = (
                    f"the parameters {first} and {second} get one number in the query "
                    "of a clause; use names, or numbers throughout"
                )
                raise NotSupportedError(message)
        return [
            bound[index].value(parameters) if index in bound else None
            for index in range(1, max(bound, default=0) + 1)
        ]

    def _runs(self, names: Sequence[str]) -> Iterator[tuple[str, int, int]]:
        """Yield the text in runs, with the start and the end of each in `sql`.

        A run that is no part of `sql` (glue, a stand-in) starts and ends at one place.
        """
        replaced = iter(zip(self.clauses, names, strict=True))
        clause, name = next(replaced, (None, ""))
        for glue, at, end in self.parts:
            yield glue, at, at
            while clause is not None and at <= clause.start < end:
                yield self.sql[at : clause.start], at, clause.start
                yield _stand_in(name), clause.start, clause.start
                at = clause.end
                clause, name = next(replaced, (None, ""))
            yield self.sql[at:end], at, end


def _stand_in(name: str) -> str:
    """Return what SQLite reads in place of a clause."""
    return f"SELECT * FROM {quoted(name)}"


@dataclass(frozen=True)
class Node:
    """A parsed statement of ours; the grammar has a subclass for each.

    They have no slots: for those `dataclass` makes each class twice, and both would be
    in `__subclasses__`, the list of statements.
    """

    yields_rows: ClassVar[bool] = True
    "Whether it may stand where SQL takes a query; else it is the whole statement."


@dataclass(frozen=True, slots=True)
class Clause:
    """A node and where it stands: ``sql[start:end]`` of the statement."""

    node: Node
    start: int
    end: int


def check_parameters(query: Query, parameters: Parameters) -> None:
    """Raise ProgrammingError unless `parameters` are what the whole statement needs.

    Like `sqlite3`, a sequence must be as long as the largest number, a mapping must
    have every name and may have more.
    """
    if isinstance(parameters, Mapping):
        for parameter in query.statement_parameters:
            parameter.value(parameters)
        return
    needed = max((p.index for p in query.statement_parameters), default=0)
    if len(parameters) != needed:
        message = (
            f"incorrect number of bindings supplied: the statement uses {needed}, "
            f"and there are {len(parameters)} supplied"
        )
        raise ProgrammingError(message)


def number(spellings: Iterable[str]) -> list[int]:
    """Return SQLite's number, from 1, for each parameter of a text, as spelled there.

    ``?`` is one past the largest so far, ``?5`` is 5; a name is one past the largest
    the first time, and the same again after that.
    """
    numbers: list[int] = []
    known: dict[str, int] = {}
    largest = 0
    for spelling in spellings:
        if spelling == "?":
            index = largest + 1
        elif spelling[0] == "?":
            index = int(spelling[1:].lstrip("0"))  # int() takes 4300 digits at most
        else:
            index = known.setdefault(spelling, largest + 1)
        largest = max(largest, index)
        numbers.append(index)
    return numbers
