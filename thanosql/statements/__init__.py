"""Statements: SQL text in, frozen nodes and checked options out.

Nothing here knows SQLite's driver, the models or the store.
"""

from thanosql.statements.nodes import (
    BuildModel,
    Clause,
    DescribeModel,
    DropModel,
    Evaluate,
    ExportModel,
    ImportModel,
    ListModels,
    Node,
    Parameter,
    Predict,
    Query,
    RawOption,
    check_parameters,
)
from thanosql.statements.options import (
    BuildOptions,
    EvaluateOptions,
    ExportOptions,
    ImportOptions,
    Options,
    PredictOptions,
    as_dict,
    bind,
)
from thanosql.statements.parser import parse

__all__ = [
    # text to nodes
    "parse",
    "Query",
    "Clause",
    "Parameter",
    "check_parameters",
    # nodes
    "Node",
    "BuildModel",
    "Predict",
    "Evaluate",
    "ListModels",
    "DescribeModel",
    "DropModel",
    "ImportModel",
    "ExportModel",
    # options
    "RawOption",
    "Options",
    "BuildOptions",
    "PredictOptions",
    "EvaluateOptions",
    "ImportOptions",
    "ExportOptions",
    "bind",
    "as_dict",
]
