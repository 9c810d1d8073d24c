"""Statements: SQL text in, frozen nodes and checked options out.

Nothing here knows SQLite's driver, the models or the store.
"""

from thanosql.statements.mistakes import meant
from thanosql.statements.nodes import (
    BuildModel,
    Clause,
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
    Parameter,
    Predict,
    PrintAudio,
    Query,
    RawOption,
    check_parameters,
)
from thanosql.statements.options import (
    BuildOptions,
    CopyOptions,
    EvaluateOptions,
    ExportOptions,
    FitOptions,
    GetDatasetOptions,
    GetModelOptions,
    ImportOptions,
    Options,
    PredictOptions,
    PrintAudioOptions,
    as_dict,
    bind,
)
from thanosql.statements.parser import parse
from thanosql.statements.tokens import quoted, tokenize

__all__ = [
    # text to nodes
    "parse",
    "meant",
    "quoted",
    "tokenize",
    "Query",
    "Clause",
    "Parameter",
    "check_parameters",
    # nodes
    "Node",
    "Kind",
    "BuildModel",
    "FitModel",
    "Predict",
    "Evaluate",
    "PrintAudio",
    "List",
    "Describe",
    "DropModel",
    "ImportModel",
    "ExportModel",
    "GetModel",
    "GetDataset",
    "Copy",
    # options
    "RawOption",
    "Options",
    "BuildOptions",
    "FitOptions",
    "PredictOptions",
    "EvaluateOptions",
    "PrintAudioOptions",
    "ImportOptions",
    "ExportOptions",
    "GetModelOptions",
    "GetDatasetOptions",
    "CopyOptions",
    "bind",
    "as_dict",
]
