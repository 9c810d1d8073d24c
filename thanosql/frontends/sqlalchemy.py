"""SQLAlchemy's dialect `thanosql://`: SQLAlchemy's calls in, our driver's out.

    engine = sqlalchemy.create_engine("thanosql:///calls.db")
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("PREDICT USING m AS SELECT * FROM calls")

It is SQLAlchemy's own SQLite dialect on another driver: types, SQL, pools, isolation
levels and what other packages do for the name "sqlite" (Alembic's migrations, say) are
the same. What differs is here: opening the database, and that reflection leaves out the
tables that models are stored in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import exc, util
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import reflection

from thanosql import errors
from thanosql.execution import tables
from thanosql.frontends import package

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import ModuleType

    from sqlalchemy import URL
    from sqlalchemy.engine import Connection
    from sqlalchemy.engine.interfaces import ConnectArgsType

_CONNECT_ARGUMENTS: Mapping[str, Callable[[Any], Any]] = {
    "uri": util.asbool,
    "timeout": float,
    "isolation_level": str,
    "cached_statements": int,
    "detect_types": int,
    "audio_root": str,
    "ray_address": str,
}
"""What a URL may hold after "?"; `connect_args` takes all that `connect` does."""


class ThanosqlDialect(SQLiteDialect_pysqlite):
    """`thanosql://` and `sqlite+thanosql://`; made by `sqlalchemy.create_engine`.

    In the URL, beside arguments of `thanosql.connect`, ``model_tables=true`` has
    reflection show the tables that models are stored in.
    """

    driver = "thanosql"
    supports_statement_cache = True
    show_model_tables = False

    @classmethod
    def import_dbapi(cls) -> ModuleType:
        """Return the driver."""
        return package()

    def create_connect_args(self, url: URL) -> ConnectArgsType:
        """Return what `thanosql.connect` is called with."""
        if url.username or url.password or url.host or url.port:
            message = (
                f"a thanosql URL names a file, not a host: {url}; write "
                "thanosql:///relative/path.db, thanosql:////absolute/path.db or "
                "thanosql:// for a database in memory"
            )
            raise exc.ArgumentError(message)
        query = dict(url.query)
        self.show_model_tables = util.asbool(query.pop("model_tables", False))
        arguments = {
            name: convert(query.pop(name))
            for name, convert in _CONNECT_ARGUMENTS.items()
            if name in query
        }
        # A pool hands a connection from thread to thread, one at a time.
        arguments["check_same_thread"] = not self._is_url_file_db(url)
        database = url.database or ":memory:"
        if arguments.get("uri"):
            # The rest is SQLite's: file:calls.db?mode=ro
            rest = "&".join(f"{name}={query[name]}" for name in sorted(query))
            return [f"{database}?{rest}" if rest else database], arguments
        if query:
            message = (
                f"unknown in a thanosql URL: {', '.join(sorted(query))}; it takes "
                f"{', '.join(_CONNECT_ARGUMENTS)} and model_tables, and with uri=true "
                "what SQLite takes in a file: URI"
            )
            raise exc.ArgumentError(message)
        return [database], arguments

    def is_disconnect(self, error: Any, connection: Any, cursor: Any) -> bool:
        """Return whether an error means that the connection was closed."""
        return isinstance(error, errors.ProgrammingError) and "closed" in str(error)

    # Reflection

    @reflection.cache
    def get_table_names(
        self,
        connection: Connection,
        schema: str | None = None,
        sqlite_include_internal: bool = False,
        **kw: Any,
    ) -> list[str]:
        """Return the tables of a schema, without those that models are stored in."""
        names = super().get_table_names(  # type: ignore[no-untyped-call]
            connection, schema, sqlite_include_internal, **kw
        )
        return [name for name in names if not self._is_hidden(name)]

    @reflection.cache
    def has_table(
        self,
        connection: Connection,
        table_name: str,
        schema: str | None = None,
        **kw: Any,
    ) -> bool:
        """Return whether there is such a table, and it is shown."""
        if self._is_hidden(table_name):
            return False
        return bool(
            super().has_table(  # type: ignore[no-untyped-call]
                connection, table_name, schema, **kw
            )
        )

    def _is_hidden(self, table_name: str) -> bool:
        is_ours = table_name.lower().startswith(tables.PREFIX)
        return is_ours and not self.show_model_tables
