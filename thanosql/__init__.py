"""thanosql: speech recognition as SQL, in one SQLite file.

    con = thanosql.connect("calls.db")
    cur = con.cursor()
    cur.execute("BUILD MODEL m USING Wav2Vec2En AS SELECT audio, text FROM calls")
    cur.execute("PREDICT USING m AS SELECT audio FROM new_calls").fetchall()

A PEP 249 driver: `connect` opens a SQLite database through APSW, and its cursors
understand the speech statements beside everything SQLite does.
"""

import apsw

from thanosql.connection import (
    LEGACY_TRANSACTION_CONTROL,
    Connection,
    connect,
)
from thanosql.cursor import Cursor
from thanosql.errors import (
    AudioError,
    DatabaseError,
    DataError,
    Error,
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
    TrainingError,
    Warning,
)

__version__ = "0.1.0"

apilevel = "2.0"
threadsafety = 1
paramstyle = "qmark"

Binary = memoryview
sqlite_version = apsw.sqlite_lib_version()
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
    "LEGACY_TRANSACTION_CONTROL",
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
    # ours: caught apart
    "StatementSyntaxError",
    "OptionError",
    "ModelNotFoundError",
    "ModelExistsError",
    "AudioError",
    "TrainingError",
]
