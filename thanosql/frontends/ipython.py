"""The notebook's magic: a cell of SQL in, the last statement's rows as a DataFrame out.

    %load_ext thanosql
    %thanosql calls.db
    %%thanosql
    rows << SELECT * FROM calls WHERE day = :day

docs/notebook.md is its manual.
"""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections import ChainMap, deque
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from IPython.core.completer import SimpleCompletion, context_matcher
from IPython.core.magic import (
    Magics,
    line_cell_magic,
    magics_class,
    needs_local_scope,
    no_var_expand,
)

from thanosql import errors
from thanosql.driver.routes import past_blanks
from thanosql.frontends import completion, interactive
from thanosql.statements.tokens import Token, tokenize

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from IPython.core.completer import CompletionContext, SimpleMatcherResult
    from IPython.core.interactiveshell import InteractiveShell

    from thanosql.driver.connection import Connection

_DEFAULT = "thanosql.db"
_STATEMENTS = frozenset(
    ("ANALYZE", "BEGIN", "COMMIT", "END", "REINDEX", "ROLLBACK", "VACUUM")
)
_SCHEMES = ("sqlite", "thanosql", "sqlite+thanosql")
_TABLES = """
    SELECT name
    FROM pragma_table_list
    WHERE schema = 'main' AND type IN ('table', 'view')
      AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
      AND name NOT LIKE 'thanosql\\_%' ESCAPE '\\'
    ORDER BY name
"""


def load(shell: InteractiveShell) -> None:
    """Give a notebook the magic; again does nothing, and the database stays open."""
    if "thanosql" in shell.magics_manager.magics["line"]:
        return
    magics = ThanosqlMagics(shell)
    shell.register_magics(magics)

    @context_matcher()  # type: ignore[untyped-decorator]
    def thanosql_matcher(context: CompletionContext) -> SimpleMatcherResult:
        return magics.complete(context)

    shell.Completer.custom_matchers.append(thanosql_matcher)


@magics_class
class ThanosqlMagics(Magics):
    """`%thanosql` and `%%thanosql`, with the database that they work in."""

    def __init__(self, shell: InteractiveShell) -> None:
        super().__init__(shell)
        self._variables = shell.user_ns
        self._connection: Connection | None = None

    @no_var_expand
    @needs_local_scope
    @line_cell_magic
    def thanosql(
        self,
        line: str,
        cell: str | None = None,
        local_ns: Mapping[str, Any] | None = None,
    ) -> pd.DataFrame | None:
        """Open a database, or run statements and return the last one's rows.

            %thanosql                 say which database is open
            %thanosql calls.db        open it: a path, :memory: or a thanosql:/// URL
            %thanosql SELECT 1        run statements
            %%thanosql                run those of the cell

        The rows of ``name << statement`` are assigned to that variable; ``:name`` in a
        statement stands for a variable's value, bound as a parameter.
        """
        variables = ChainMap(dict(local_ns or {}), self._variables)
        try:
            with interactive.short_warnings(sys.stderr.write):
                # tqdm warns so where a library shows its bars without ipywidgets.
                warnings.filterwarnings("ignore", "IProgress not found")
                database = _database(line.strip())
                if database:
                    self._open(*database)
                # The line of the magic is the first one of its cell.
                script = f"{'' if database else line}\n{cell or ''}"
                if past_blanks(script):
                    return self._run(script, variables)
                if cell is None and not database:
                    print(_about(self._opened()))
        except (errors.Error, KeyboardInterrupt) as error:
            self._shorten(error)
            raise
        return None

    def complete(self, context: CompletionContext) -> SimpleMatcherResult:
        """Return what may stand at the cursor of a cell or line of this magic."""
        lines = context.full_text.split("\n")[: context.cursor_line + 1]
        lines[-1] = lines[-1][: context.cursor_position]
        if not lines[0].lstrip().startswith("%%thanosql"):
            found = re.match(r".*?%thanosql\s+(.*)", lines[-1])
            lines = ["", found[1]] if found else []
        before = "\n".join(lines[1:])
        words = completion.complete(self._connection, before) if len(lines) > 1 else []
        return {
            "completions": [SimpleCompletion(word, type="sql") for word in words],
            "matched_fragment": before[completion.word_start(before) :],
            "suppress": bool(words),
        }

    # The database

    def _opened(self) -> Connection:
        return self._connection or self._open(_DEFAULT)

    def _open(
        self,
        database: str,
        audio_root: str | None = None,
        ray_address: str | None = None,
    ) -> Connection:
        opened = interactive.connect(database, audio_root, ray_address)
        if self._connection is not None:
            self._connection.close()
        self._connection = opened
        print(_about(opened))
        return opened

    # Statements

    def _run(self, script: str, variables: Mapping[str, Any]) -> pd.DataFrame | None:
        """Run statements; return the last one's rows if they are not assigned."""
        connection = self._opened()
        cursor = connection.cursor()
        statements = list(interactive.split(script))
        for number, statement in enumerate(statements, start=1):
            tokens = tokenize(statement)
            name = _assigned(tokens)
            end = tokens[2].end if name else 0
            with interactive.explaining(connection, statement):
                cursor.execute(
                    interactive.blanked(statement, end),
                    _bound(statement, tokens, variables),
                )
                rows = None
                if cursor.description is None:
                    if cursor.rowcount >= 0:
                        print(f"{cursor.rowcount:,} rows changed")
                elif name or number == len(statements):
                    from thanosql.frontends.dataframes import frame  # pandas

                    rows = frame(cursor)
                else:
                    deque(cursor, maxlen=0)
            if name:
                self._variables[name] = rows
        return None if name else rows

    def _shorten(self, error: BaseException) -> None:
        """Have IPython show an error without the traceback, which is this package's."""
        lines = [f"{type(error).__name__}: {error}"]
        if self._connection is not None and self._connection.in_transaction:
            lines.append("a transaction is open; COMMIT or ROLLBACK ends it")
        vars(error)["_render_traceback_"] = lambda: lines


def _database(line: str) -> tuple[str, str | None, str | None] | None:
    """Return the database that a magic's line names, its audio_root and ray_address.

    None for a statement.
    """
    if line[:1] in ("'", '"') and line.find(line[0], 1) == len(line) - 1:
        line = line[1:-1]
    elif not line or len(line.split()) > 1 or line.rstrip(";").upper() in _STATEMENTS:
        return None
    scheme, _, rest = line.partition(":")
    if scheme == "file" or not (scheme in _SCHEMES or rest.startswith("//")):
        return line, None, None
    path, _, query = rest.partition("?")
    arguments = dict(parse_qsl(query, keep_blank_values=True))
    audio_root = arguments.pop("audio_root", None)
    ray_address = arguments.pop("ray_address", None)
    if (
        scheme not in _SCHEMES
        or not (path == "//" or path.startswith("///"))
        or arguments
    ):
        message = (
            f"{line!r} is no database here; write thanosql:///relative/path.db, "
            "thanosql:////absolute/path.db or a path; a URL may end with "
            "?audio_root=DIR or ?ray_address=ADDRESS"
        )
        raise errors.ProgrammingError(message)
    return path[3:] or ":memory:", audio_root, ray_address


def _about(connection: Connection) -> str:
    """Return the name of the database and what is in it."""
    parts = []
    for kind, query in (("tables", _TABLES), ("models", "LIST MODELS")):
        names = [row[0] for row in connection.execute(query)]
        more = f" and {len(names) - 10:,} more" if len(names) > 10 else ""
        if names:
            parts.append(f"{kind} {', '.join(names[:10])}{more}")
    file = Path(connection.apsw.filename).name or "in memory"
    return f"{file}: {'; '.join(parts) or 'empty'}"


def _assigned(tokens: Sequence[Token]) -> str:
    """Return the variable that a statement's rows go to, by ``name <<``, or ""."""
    words = [token.text for token in tokens[:3]]
    return words[0] if words[1:] == ["<", "<"] and words[0].isidentifier() else ""


def _bound(
    sql: str, tokens: Sequence[Token], variables: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the values of the variables that a statement's parameters name."""
    bound: dict[str, Any] = {}
    for token in tokens:
        if token.kind != "variable":
            continue
        name = token.text[1:]
        if not name.isidentifier():
            message = f"{token.text} names no variable; write :name"
            raise errors.ProgrammingError(errors.point(message, sql, token.start))
        if name not in variables:
            hint = errors.nearest(name, variables)
            message = f"there is no variable {name!r} for {token.text}{hint}"
            raise errors.ProgrammingError(errors.point(message, sql, token.start))
        bound[name] = _plain(variables[name])
    return bound


def _plain(value: Any) -> Any:
    """Return a path as text, any other value unchanged."""
    return os.fspath(value) if isinstance(value, os.PathLike) else value
