"""thanosql: speech recognition as SQL, in one SQLite file.

    con = thanosql.connect("calls.db")
    cur = con.cursor()
    cur.execute("BUILD MODEL m USING WhisperTinyEn AS SELECT audio, text FROM calls")
    cur.execute("PREDICT USING m AS SELECT audio FROM new_calls").fetchall()

A PEP 249 driver: `connect` opens a SQLite database through APSW, and its cursors
understand the speech statements beside everything SQLite does.
"""

from __future__ import annotations

import sys as _sys

import apsw as _apsw

from thanosql.driver.adapters import (
    BINARY,
    DATETIME,
    NUMBER,
    PARSE_COLNAMES,
    PARSE_DECLTYPES,
    ROWID,
    STRING,
    Binary,
    Date,
    DateFromTicks,
    Time,
    TimeFromTicks,
    Timestamp,
    TimestampFromTicks,
    register_adapter,
    register_converter,
)
from thanosql.driver.blob import Blob
from thanosql.driver.connection import Connection, connect
from thanosql.driver.cursor import Cursor
from thanosql.driver.database import LEGACY_TRANSACTION_CONTROL
from thanosql.driver.rows import Row
from thanosql.errors import (
    ArgumentTypeError,
    ArgumentValueError,
    AudioError,
    DatabaseError,
    DataError,
    Error,
    IntegerRangeError,
    IntegrityError,
    InterfaceError,
    InternalError,
    ModelExistsError,
    ModelNotFoundError,
    NotSupportedError,
    OperationalError,
    OptionError,
    ProgrammingError,
    StatementSyntaxError,
    TextEncodingError,
    TrainingError,
    Warning,
)

TYPE_CHECKING = False  # the `typing` module alone costs as much as `sqlite3`
if TYPE_CHECKING:
    from typing import Any as _Any

    from thanosql.driver import aio as aio

__version__ = "0.1.0"

apilevel = "2.0"
threadsafety = 1
paramstyle = "qmark"

sqlite_version = _apsw.sqlite_lib_version()
sqlite_version_info = tuple(map(int, sqlite_version.split(".")))


def load_ipython_extension(shell: object) -> None:
    """Give a notebook `%thanosql`; IPython calls this on ``%load_ext thanosql``."""
    from thanosql.frontends import ipython  # nothing of it is for plain SQL

    ipython.load(shell)  # type: ignore[arg-type]


__all__ = [
    # PEP 249
    "apilevel",
    "threadsafety",
    "paramstyle",
    "connect",
    "Connection",
    "Cursor",
    "Warning",
    "Error",
    "InterfaceError",
    "DatabaseError",
    "DataError",
    "OperationalError",
    "IntegrityError",
    "InternalError",
    "ProgrammingError",
    "NotSupportedError",
    "Date",
    "Time",
    "Timestamp",
    "DateFromTicks",
    "TimeFromTicks",
    "TimestampFromTicks",
    "Binary",
    "STRING",
    "BINARY",
    "NUMBER",
    "DATETIME",
    "ROWID",
    # as in sqlite3
    "LEGACY_TRANSACTION_CONTROL",
    "PARSE_DECLTYPES",
    "PARSE_COLNAMES",
    "register_adapter",
    "register_converter",
    "Row",
    "Blob",
    "sqlite_version",
    "sqlite_version_info",
    # ours: caught apart
    "StatementSyntaxError",
    "OptionError",
    "ModelNotFoundError",
    "ModelExistsError",
    "AudioError",
    "TrainingError",
    "ArgumentTypeError",
    "ArgumentValueError",
    "IntegerRangeError",
    "TextEncodingError",
]


def _imported(name: str) -> _Any:
    __import__(name)  # `importlib` would be a twentieth of what this package costs
    return _sys.modules[name]


class _DocumentedNames:
    """Finds modules under the names that users import them by, wherever they lie."""

    places = {  # noqa: RUF012 - never written to
        "thanosql.aio": "thanosql.driver.aio",
        "thanosql.sample": "thanosql.catalog.sample",
        "thanosql.sample.words": "thanosql.catalog.sample.words",
    }

    @classmethod
    def find_spec(cls, name: str, *_: object) -> object:
        return type(__spec__)(name, cls()) if name in cls.places else None  # type: ignore[arg-type]

    def create_module(self, spec: _Any) -> object:
        module = _imported(self.places[spec.name])
        self.spec = module.__spec__
        return module

    def exec_module(self, module: _Any) -> None:
        module.__spec__ = self.spec  # the import system has put the other name's there


_sys.meta_path.insert(0, _DocumentedNames)  # type: ignore[arg-type]


def __getattr__(name: str) -> _Any:
    """SQLite's constants, as in `sqlite3` (``thanosql.SQLITE_DENY``), and `aio`."""
    if name.startswith("SQLITE_"):
        return getattr(_apsw, name)
    if name == "aio":
        return _imported("thanosql.driver.aio")
    message = f"module 'thanosql' has no attribute {name!r}"
    raise AttributeError(message)
