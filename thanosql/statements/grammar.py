"""Grammar: for each statement, the node it becomes and how it is read.

The text of one statement in, a `Query` with its clauses as nodes out. To add a
statement: a node, a function that reads what follows its first words, and a line in
`STATEMENTS` (docs/contributing.md shows it all).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from thanosql.statements.nodes import Node, Parameter, Query, RawOption
from thanosql.statements.parser import Parser

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def parse(sql: str) -> Query:
    """Return the statement as a query; without clauses where it is plain SQL.

    Raises StatementSyntaxError for a clause that is malformed, NotSupportedError for
    one inside CREATE VIEW or CREATE TRIGGER. What is wrong outside of clauses is left
    to SQLite.
    """
    return Parser(sql, BY_VERB).statement()


@dataclass(frozen=True)
class BuildModel(Node):
    """BUILD [OR REPLACE] MODEL [IF NOT EXISTS] name USING base [OPTIONS] AS query."""

    name: str
    base: str
    or_replace: bool
    if_not_exists: bool
    options: tuple[RawOption, ...]
    query: Query


def _build_model(parser: Parser) -> BuildModel:
    or_replace = parser.has(parser.at - 2, "REPLACE")
    if_not_exists = parser.accept("IF", "NOT", "EXISTS")
    name = parser.name("a name for the new model")
    parser.expect("USING", f"USING and a base model after the name {name}")
    base = _base(parser, "a base model after USING")
    options, query = parser.options(), parser.as_query()
    return BuildModel(name, base, or_replace, if_not_exists, options, query)


def _base(parser: Parser, expected: str) -> str:
    base = parser.name(expected)
    if parser.here is not None and parser.here.text in ("/", "-", "."):
        parser.fail("the base model in quotes, where it is more than a word")
    return base


@dataclass(frozen=True)
class FitModel(Node):
    """FIT MODEL name USING model [OPTIONS] AS query."""

    name: str
    model_name: str
    "The stored model to go on from; `name` itself to train it in place."
    options: tuple[RawOption, ...]
    query: Query


def _fit_model(parser: Parser) -> FitModel:
    name = parser.name("a name for the trained model")
    parser.expect("USING", f"USING and a stored model after the name {name}")
    model_name = parser.name("a stored model's name after USING")
    return FitModel(name, model_name, parser.options(), parser.as_query())


@dataclass(frozen=True)
class Predict(Node):
    """PREDICT USING model [OPTIONS] AS query."""

    model_name: str
    options: tuple[RawOption, ...]
    query: Query


def _predict(parser: Parser) -> Predict:
    name = parser.name("a model's name after PREDICT USING")
    return Predict(name, parser.options(), parser.as_query())


@dataclass(frozen=True)
class Evaluate(Node):
    """EVALUATE USING model [OPTIONS] AS query."""

    model_name: str
    options: tuple[RawOption, ...]
    query: Query


def _evaluate(parser: Parser) -> Evaluate:
    name = parser.name("a model's name after EVALUATE USING")
    return Evaluate(name, parser.options(), parser.as_query())


@dataclass(frozen=True)
class Align(Node):
    """ALIGN USING model [OPTIONS] AS query."""

    model_name: str
    options: tuple[RawOption, ...]
    query: Query


def _align(parser: Parser) -> Align:
    name = parser.name("a model's name after ALIGN USING")
    return Align(name, parser.options(), parser.as_query())


@dataclass(frozen=True)
class PrintAudio(Node):
    """PRINT AUDIO [OPTIONS] AS query."""

    options: tuple[RawOption, ...]
    query: Query


def _print_audio(parser: Parser) -> PrintAudio:
    return PrintAudio(parser.options(), parser.as_query())


Kind = Literal["model", "table", "base", "dataset"]
"""What LIST lists and DESCRIBE describes."""
_KINDS: Mapping[Kind, str] = {
    "model": "MODELS",
    "table": "TABLES",
    "base": "BASES",
    "dataset": "DATASETS",
}


@dataclass(frozen=True)
class List(Node):
    """LIST [THANOSQL] MODELS, TABLES, BASES or DATASETS."""

    kind: Kind


def _list(kind: Kind) -> Callable[[Parser], List]:
    return lambda _parser: List(kind)


@dataclass(frozen=True)
class Describe(Node):
    """DESCRIBE MODEL, TABLE, BASE or DATASET name."""

    kind: Kind
    name: str


def _describe(kind: Kind) -> Callable[[Parser], Describe]:
    expected = f"a {kind}'s name after DESCRIBE {kind.upper()}"
    return lambda parser: Describe(kind, parser.name(expected))


@dataclass(frozen=True)
class ExportModel(Node):
    """EXPORT MODEL name TO 'directory' [OPTIONS]."""

    name: str
    target: str | Parameter
    options: tuple[RawOption, ...]


def _export_model(parser: Parser) -> ExportModel:
    name = parser.name("the name of the model to export")
    parser.expect("TO", f"TO and a directory after the name {name}")
    target = parser.place("a directory in quotes after TO")
    return ExportModel(name, target, parser.options())


@dataclass(frozen=True)
class ImportModel(Node):
    """IMPORT MODEL name FROM 'directory or hub id' [OPTIONS], or UPLOAD MODEL."""

    name: str
    source: str | Parameter
    options: tuple[RawOption, ...]


def _import_model(parser: Parser) -> ImportModel:
    name = parser.name("a name for the new model")
    parser.expect("FROM", f"FROM and a directory or hub id after the name {name}")
    source = parser.place("a directory or hub id in quotes after FROM")
    return ImportModel(name, source, parser.options())


@dataclass(frozen=True)
class GetModel(Node):
    """GET [THANOSQL] MODEL base [OPTIONS]."""

    base: str
    options: tuple[RawOption, ...]


def _get_model(parser: Parser) -> GetModel:
    base = _base(parser, "a base model after GET MODEL")
    return GetModel(base, parser.options())


@dataclass(frozen=True)
class GetDataset(Node):
    """GET [THANOSQL] DATASET name [OPTIONS]."""

    name: str
    options: tuple[RawOption, ...]


def _get_dataset(parser: Parser) -> GetDataset:
    name = parser.name("a dataset's name after GET DATASET")
    return GetDataset(name, parser.options())


@dataclass(frozen=True)
class Copy(Node):
    """COPY table [OPTIONS] FROM 'path' [OPTIONS]."""

    table: str
    source: str | Parameter
    "A file or a folder; a parameter may hold rows, such as a DataFrame."
    options: tuple[RawOption, ...]


def _copy(parser: Parser) -> Copy:
    table = parser.name("the name of a table after COPY")
    options = parser.options()
    if not options and parser.here is not None and parser.here.text in ("-", "."):
        parser.fail("the name of the table in quotes, where it is more than a word")
    parser.expect("FROM", "FROM and a file or a folder after the table")
    source = parser.place(
        "a file or a folder in quotes after FROM, or a parameter that holds it"
    )
    return Copy(table, source, options or parser.options())


@dataclass(frozen=True)
class DropModel(Node):
    """DROP MODEL [IF EXISTS] name, or DELETE MODEL."""

    yields_rows: ClassVar[bool] = False

    name: str
    if_exists: bool


def _drop_model(parser: Parser) -> DropModel:
    if_exists = parser.accept("IF", "EXISTS")
    return DropModel(parser.name("the name of the model to drop"), if_exists)


STATEMENTS: Mapping[tuple[str, ...], Callable[[Parser], Node]] = {
    ("BUILD", "MODEL"): _build_model,
    ("BUILD", "OR", "REPLACE", "MODEL"): _build_model,
    ("FIT", "MODEL"): _fit_model,
    ("PREDICT", "USING"): _predict,
    ("EVALUATE", "USING"): _evaluate,
    ("ALIGN", "USING"): _align,
    ("PRINT", "AUDIO"): _print_audio,
    **{
        ("LIST", *middle, word): _list(kind)
        for kind, plural in _KINDS.items()
        for word in (kind.upper(), plural)
        for middle in ((), ("THANOSQL",))
    },
    **{("DESCRIBE", kind.upper()): _describe(kind) for kind in _KINDS},
    ("EXPORT", "MODEL"): _export_model,
    ("IMPORT", "MODEL"): _import_model,
    ("UPLOAD", "MODEL"): _import_model,
    ("GET", "MODEL"): _get_model,
    ("GET", "THANOSQL", "MODEL"): _get_model,
    ("GET", "DATASET"): _get_dataset,
    ("GET", "THANOSQL", "DATASET"): _get_dataset,
    ("COPY",): _copy,
    ("DROP", "MODEL"): _drop_model,
    ("DELETE", "MODEL"): _drop_model,
}
"""First words of a statement, and what reads the rest of it; in the docs' order."""

BY_VERB: Mapping[str, Mapping[tuple[str, ...], Callable[[Parser], Node]]] = {
    verb: {head: read for head, read in STATEMENTS.items() if head[0] == verb}
    for verb in {head[0] for head in STATEMENTS}
}
"""The same by the very first word."""
