"""How to execute a statement, by its text alone: SQL in, its route out, remembered.

No regular expressions: `re` would be a third of what `import thanosql` costs.
"""

from __future__ import annotations

from thanosql import errors

TYPE_CHECKING = False  # the `typing` module alone costs as much as `sqlite3`
if TYPE_CHECKING:
    from thanosql.statements import Query

_BLANKS = " \t\n\v\f\r;\ufeff"
_WRITES = ("INSERT", "UPDATE", "DELETE", "REPLACE", "WITH")
_CONTROLS = ("BEGIN", "COMMIT", "END", "ROLLBACK")
# A text is parsed only if it has one of these verbs and one of the words beside it; the
# parser then finds by tokens whether there is a clause. docs/options.py writes the
# table from the grammar, and a test compares the two. The grammar is not imported here:
# plain SQL would pay more for that than for this whole package.
# <!-- verbs -->
_SECOND_WORDS: dict[str, tuple[str, ...]] = {
    "BUILD": ("MODEL",),
    "FIT": ("MODEL",),
    "PREDICT": ("USING",),
    "EVALUATE": ("USING",),
    "ALIGN": ("USING",),
    "PRINT": ("AUDIO",),
    "LIST": ("MODEL", "TABLE", "BASE", "DATASET"),
    "DESCRIBE": ("MODEL", "TABLE", "BASE", "DATASET"),
    "EXPORT": ("MODEL",),
    "IMPORT": ("MODEL",),
    "UPLOAD": ("MODEL",),
    "GET": ("MODEL", "DATASET"),
    "COPY": ("COPY",),
    "DROP": ("MODEL",),
    "DELETE": ("MODEL",),
}
# <!-- end -->

_REMEMBERED = 256  # statements
_REMEMBERED_LENGTH = 4096  # characters; longer texts are rarely run twice


class Route:
    """How a statement is to be executed."""

    __slots__ = ("may_write_rows", "query", "transaction_control")

    def __init__(
        self,
        may_write_rows: bool = False,
        transaction_control: str = "",
        query: Query | None = None,
    ) -> None:
        self.may_write_rows = may_write_rows
        self.transaction_control = transaction_control  # BEGIN, COMMIT...
        self.query = query  # parsed, where the statement holds speech clauses


READ = Route()
"""One SELECT or VALUES without speech clauses: it runs without a `Trace`."""
OTHER = Route()
"""Any other statement that changes no rows by itself: DDL, PRAGMA, EXPLAIN..."""

known_routes: dict[str, Route] = {}
"""The routes of statements seen lately."""


def find_route(sql: str) -> Route:
    """Return the route of a statement that is not in `known_routes`, and remember it.

    Raises StatementSyntaxError for a malformed speech clause.
    """
    if not isinstance(sql, str):
        message = f"a statement is a str, not {type(sql).__name__}"
        raise errors.ArgumentTypeError(message)
    check_text(sql)
    # A longer word that begins with one of these begins no statement of SQLite's.
    first = past_blanks(sql)[:8].upper()
    may_write_rows = first.startswith(_WRITES)
    control = next((word for word in _CONTROLS if first.startswith(word)), "")
    query = speech(sql)
    if may_write_rows or control or query is not None:
        route = Route(may_write_rows, control, query)
    # With a semicolon inside, there may be a second statement: the trace finds that.
    elif first.startswith(("SELECT", "VALUES")) and ";" not in sql.rstrip(_BLANKS):
        route = READ
    else:
        route = OTHER
    if len(sql) < _REMEMBERED_LENGTH:
        if len(known_routes) >= _REMEMBERED:
            known_routes.clear()
        known_routes[sql] = route
    return route


def check_text(sql: str) -> None:
    """Raise for a NUL, where SQLite would stop reading, and for a lone surrogate."""
    if "\0" in sql:
        message = "the statement contains a NUL character; bind text that has one"
        raise errors.ArgumentValueError(message)
    try:
        sql.encode()
    except UnicodeEncodeError as error:
        message = "the statement has a lone surrogate, which is no text; bind bytes"
        raise errors.not_text(error, message) from error


def speech(sql: str) -> Query | None:
    """Return the parsed statement if it holds speech clauses, else None."""
    if not may_be_speech(sql):
        return None
    from thanosql import statements  # only once a speech word is seen

    query = statements.parse(sql)
    return query if query.clauses else None


def may_be_speech(sql: str) -> bool:
    """Return whether `sql` has the letters of a speech clause's first two words."""
    folded = sql.upper()
    return any(
        verb in folded and any(word in folded for word in words)
        for verb, words in _SECOND_WORDS.items()
    )


def past_blanks(sql: str) -> str:
    """Return `sql` from its first word on, without the comments before it."""
    rest = sql.lstrip(_BLANKS)
    while rest.startswith(("--", "/*")):
        rest = rest.partition("\n" if rest[0] == "-" else "*/")[2].lstrip(_BLANKS)
    return rest
