"""Statements: SQL text in, frozen nodes and checked options out.

Nothing here knows SQLite's driver, the models or the store. Every node is a name of
this package, and so is every class of options.
"""

from thanosql.statements.grammar import *  # noqa: F403 - and what is added there
from thanosql.statements.grammar import parse as parse
from thanosql.statements.mistakes import meant as meant
from thanosql.statements.nodes import Clause as Clause
from thanosql.statements.nodes import Node as Node
from thanosql.statements.nodes import Parameter as Parameter
from thanosql.statements.nodes import Query as Query
from thanosql.statements.nodes import RawOption as RawOption
from thanosql.statements.nodes import check_parameters as check_parameters
from thanosql.statements.options import *  # noqa: F403
from thanosql.statements.tokens import quoted as quoted
from thanosql.statements.tokens import tokenize as tokenize
