"""Grammar: one function a statement, which reads what follows its first words.

To add a statement: a node, a function here that returns it, lines in `STATEMENTS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from thanosql.statements.nodes import (
    BuildModel,
    Copy,
    Describe,
    DropModel,
    Evaluate,
    ExportModel,
    FitModel,
    GetDataset,
    GetModel,
    ImportModel,
    Kind,
    List,
    Node,
    Predict,
    PrintAudio,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from thanosql.statements.parser import Parser


def _build_model(parser: Parser) -> BuildModel:
    or_replace = parser.has(parser.at - 2, "REPLACE")
    if_not_exists = parser.accept("IF", "NOT", "EXISTS")
    name = parser.name("a name for the new model")
    parser.expect("USING", f"USING and a base model after the name {name}")
    base = _base(parser, "a base model after USING")
    options, query = parser.options(), parser.as_query()
    return BuildModel(name, base, or_replace, if_not_exists, options, query)


def _fit_model(parser: Parser) -> FitModel:
    name = parser.name("a name for the trained model")
    parser.expect("USING", f"USING and a stored model after the name {name}")
    model_name = parser.name("a stored model's name after USING")
    return FitModel(name, model_name, parser.options(), parser.as_query())


def _predict(parser: Parser) -> Predict:
    name = parser.name("a model's name after PREDICT USING")
    return Predict(name, parser.options(), parser.as_query())


def _evaluate(parser: Parser) -> Evaluate:
    name = parser.name("a model's name after EVALUATE USING")
    return Evaluate(name, parser.options(), parser.as_query())


def _print_audio(parser: Parser) -> PrintAudio:
    return PrintAudio(parser.options(), parser.as_query())


def _list(kind: Kind) -> Callable[[Parser], List]:
    return lambda _parser: List(kind)


def _describe(kind: Kind) -> Callable[[Parser], Describe]:
    expected = f"a {kind}'s name after DESCRIBE {kind.upper()}"
    return lambda parser: Describe(kind, parser.name(expected))


def _drop_model(parser: Parser) -> DropModel:
    if_exists = parser.accept("IF", "EXISTS")
    return DropModel(parser.name("the name of the model to drop"), if_exists)


def _import_model(parser: Parser) -> ImportModel:
    name = parser.name("a name for the new model")
    parser.expect("FROM", f"FROM and a directory or hub id after the name {name}")
    source = parser.place("a directory or hub id in quotes after FROM")
    return ImportModel(name, source, parser.options())


def _export_model(parser: Parser) -> ExportModel:
    name = parser.name("the name of the model to export")
    parser.expect("TO", f"TO and a directory after the name {name}")
    target = parser.place("a directory in quotes after TO")
    return ExportModel(name, target, parser.options())


def _get_model(parser: Parser) -> GetModel:
    base = _base(parser, "a base model after GET MODEL")
    return GetModel(base, parser.options())


def _get_dataset(parser: Parser) -> GetDataset:
    name = parser.name("a dataset's name after GET DATASET")
    return GetDataset(name, parser.options())


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


def _base(parser: Parser, expected: str) -> str:
    base = parser.name(expected)
    if parser.here is not None and parser.here.text in ("/", "-", "."):
        parser.fail("the base model in quotes, where it is more than a word")
    return base


_KINDS: Mapping[Kind, str] = {
    "model": "MODELS",
    "table": "TABLES",
    "base": "BASES",
    "dataset": "DATASETS",
}
STATEMENTS: Mapping[tuple[str, ...], Callable[[Parser], Node]] = {
    ("BUILD", "MODEL"): _build_model,
    ("BUILD", "OR", "REPLACE", "MODEL"): _build_model,
    ("FIT", "MODEL"): _fit_model,
    ("PREDICT", "USING"): _predict,
    ("EVALUATE", "USING"): _evaluate,
    ("PRINT", "AUDIO"): _print_audio,
    **{
        ("LIST", *middle, word): _list(kind)
        for kind, plural in _KINDS.items()
        for word in (kind.upper(), plural)
        for middle in ((), ("THANOSQL",))
    },
    **{("DESCRIBE", kind.upper()): _describe(kind) for kind in _KINDS},
    ("DROP", "MODEL"): _drop_model,
    ("DELETE", "MODEL"): _drop_model,
    ("IMPORT", "MODEL"): _import_model,
    ("UPLOAD", "MODEL"): _import_model,
    ("EXPORT", "MODEL"): _export_model,
    ("GET", "MODEL"): _get_model,
    ("GET", "THANOSQL", "MODEL"): _get_model,
    ("GET", "DATASET"): _get_dataset,
    ("GET", "THANOSQL", "DATASET"): _get_dataset,
    ("COPY",): _copy,
}
"""First words of a statement, and what reads the rest of it."""

HEADS: Mapping[str, list[tuple[str, ...]]] = {
    verb: [head for head in STATEMENTS if head[0] == verb]
    for verb in {head[0] for head in STATEMENTS}
}
"""The same first words, by the very first."""
