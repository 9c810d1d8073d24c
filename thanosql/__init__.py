"""thanosql: speech recognition as SQL, in one SQLite file.

    con = thanosql.connect("calls.db")
    cur = con.cursor()
    cur.execute("BUILD MODEL m USING Wav2Vec2En AS SELECT audio, text FROM calls")
    cur.execute("PREDICT USING m AS SELECT audio FROM new_calls").fetchall()

A PEP 249 driver: `connect` opens a SQLite database through APSW, and its cursors
understand the speech statements beside everything SQLite does.
"""

import apsw as _apsw

from thanosql.blob import Blob
from thanosql.connection import (
    LEGACY_TRANSACTION_CONTROL,
    Connection,
    connect,
)
from thanosql.cursor import Cursor
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
from thanosql.rows import Row
from thanosql.types import (
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


def __getattr__(name: str) -> int:
    """SQLite's constants, which `sqlite3` has too: ``thanosql.SQLITE_DENY``."""
    if name.startswith("SQLITE_"):
        value: int = getattr(_apsw, name)
        return value
    message = f"module 'thanosql' has no attribute {name!r}"
    raise AttributeError(message)
