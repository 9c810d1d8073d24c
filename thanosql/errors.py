"""Errors: all that can go wrong as PEP 249 classes, and APSW's translated to them.

Every class derives from its namesake in the standard library's ``sqlite3`` too, so
code written for ``sqlite3`` (pandas rolls back on ``sqlite3.Error`` only) catches ours.

    Warning
    Error
    |- InterfaceError
    `- DatabaseError
       |- DataError            AudioError, IntegerRangeError, TextEncodingError
       |- OperationalError     TrainingError
       |- IntegrityError
       |- InternalError
       |- ProgrammingError     StatementSyntaxError, OptionError,
       |                       ModelNotFoundError, ModelExistsError,
       |                       ArgumentTypeError, ArgumentValueError
       `- NotSupportedError

Where `sqlite3` raises a class of Python's own (OverflowError for an integer beyond 64
bits, say), ours derives from that too, and stays inside PEP 249's tree.
"""

from __future__ import annotations

import functools
import sqlite3
import sys

import apsw

TYPE_CHECKING = False  # the `typing` module alone costs as much as `sqlite3`
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, ParamSpec, TypeVar

    P = ParamSpec("P")
    R = TypeVar("R")


class Warning(sqlite3.Warning, UserWarning):
    """Something important that stops nothing; also a category for `warnings.warn`."""


class Error(sqlite3.Error):
    """Base of every error raised here."""


class InterfaceError(Error, sqlite3.InterfaceError):
    """The interface is misused, rather than the database."""


class DatabaseError(Error, sqlite3.DatabaseError):
    """The database, or what is in it, is at fault."""


class DataError(DatabaseError, sqlite3.DataError):
    """A value cannot be processed."""


class OperationalError(DatabaseError, sqlite3.OperationalError):
    """The database's operation failed, not necessarily by the caller's doing."""


class IntegrityError(DatabaseError, sqlite3.IntegrityError):
    """A constraint would be broken."""


class InternalError(DatabaseError, sqlite3.InternalError):
    """SQLite met an inner inconsistency."""


class ProgrammingError(DatabaseError, sqlite3.ProgrammingError):
    """The caller's statement, parameters or order of calls are wrong."""


class NotSupportedError(DatabaseError, sqlite3.NotSupportedError):
    """The database cannot do what was asked."""


class StatementSyntaxError(ProgrammingError):
    """A statement cannot be parsed; says where, with the line and a caret.

    ``sql`` is the statement, ``offset`` the character's place in it (from 0),
    ``line`` and ``column`` the same for a person (from 1).
    """

    def __init__(self, message: str, sql: str = "", offset: int = 0) -> None:
        self.sql = sql
        self.offset = offset
        self.line, self.column = line_and_column(sql, offset)
        super().__init__(point(message, sql, offset))
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.sql, self.offset)


class OptionError(ProgrammingError):
    """An option is unknown, or its value is of a wrong type or out of range."""


class ModelNotFoundError(ProgrammingError):
    """No stored model, or no base model, has that name."""


class ModelExistsError(ProgrammingError):
    """A stored model has that name already."""


class AudioError(DataError):
    """A recording cannot be found, read or used."""


class IntegerRangeError(DataError, OverflowError):
    """An integer does not fit into SQLite's 64 bits, or is too large an argument."""


class TextEncodingError(DataError, UnicodeEncodeError):
    """A text holds a lone surrogate, which UTF-8 cannot express."""


class ArgumentTypeError(ProgrammingError, TypeError):
    """An argument of a call is of a wrong type."""


class ArgumentBufferError(ArgumentTypeError, BufferError):
    """An argument of a call has bytes that do not lie side by side."""


class ArgumentValueError(ProgrammingError, ValueError):
    """An argument of a call has a value that is not allowed."""


class TrainingError(OperationalError):
    """A training cannot start, or did not lead to a usable model."""


def line_and_column(sql: str, offset: int) -> tuple[int, int]:
    """Return the line and the column, both from 1, of a character in `sql`."""
    before = sql[:offset]
    return before.count("\n") + 1, offset - before.rfind("\n")


def point(message: str, sql: str, offset: int) -> str:
    """Return `message` with the place, the line of `sql` and a caret below it."""
    line, column = line_and_column(sql, offset)
    shown = sql.split("\n")[line - 1]
    # Tabs are kept, so that the caret stands where the terminal puts the character.
    indent = "".join("\t" if c == "\t" else " " for c in shown[: column - 1])
    return f"{message} (line {line}, column {column})\n  {shown}\n  {indent}^"


def warn(message: str) -> None:
    """Warn, as from the line of the caller's code that called this package.

    Python shows a warning once for each line, so the line must be the caller's.
    """
    import warnings  # only when there is something to say

    frame, level = sys._getframe(1), 2
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("thanosql."):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, Warning, stacklevel=level)


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the known name most like `name`, or ""."""
    import difflib  # only when a name was mistaken

    by_folded = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(name.casefold(), by_folded, n=1)
    return f"; did you mean {by_folded[close[0]]!r}?" if close else ""


# Result codes map as in the standard library's `sqlite3` (Modules/_sqlite/util.c).
# Below them are APSW's classes that stand for no result code.
_PEP_249: dict[type[apsw.Error], type[Error]] = {
    apsw.ConstraintError: IntegrityError,
    apsw.MismatchError: IntegrityError,
    apsw.TooBigError: DataError,
    apsw.MisuseError: InterfaceError,
    apsw.RangeError: InterfaceError,
    apsw.InternalError: InternalError,
    apsw.NotFoundError: InternalError,
    apsw.CorruptError: DatabaseError,
    apsw.NotADBError: DatabaseError,
    apsw.FormatError: DatabaseError,
    apsw.EmptyError: DatabaseError,
    apsw.SQLError: OperationalError,
    apsw.PermissionsError: OperationalError,
    apsw.AbortError: OperationalError,
    apsw.BusyError: OperationalError,
    apsw.LockedError: OperationalError,
    apsw.NoMemError: OperationalError,
    apsw.ReadOnlyError: OperationalError,
    apsw.InterruptError: OperationalError,
    apsw.IOError: OperationalError,
    apsw.FullError: OperationalError,
    apsw.CantOpenError: OperationalError,
    apsw.ProtocolError: OperationalError,
    apsw.SchemaChangeError: OperationalError,
    apsw.NoLFSError: OperationalError,
    apsw.AuthError: DatabaseError,
    # no result code
    apsw.BindingsError: ProgrammingError,
    apsw.ExecutionCompleteError: ProgrammingError,
    apsw.ConnectionClosedError: ProgrammingError,
    apsw.CursorClosedError: ProgrammingError,
    apsw.ThreadingViolationError: ProgrammingError,
    apsw.IncompleteExecutionError: ProgrammingError,
    apsw.ConnectionNotClosedError: ProgrammingError,
    apsw.ForkingViolationError: ProgrammingError,
    apsw.ExecTraceAbort: OperationalError,
    apsw.ExtensionLoadingError: OperationalError,
    apsw.VFSNotImplementedError: NotSupportedError,
    apsw.VFSFileClosedError: ProgrammingError,
    apsw.NoFTS5Error: NotSupportedError,
    apsw.InvalidContextError: ProgrammingError,
    apsw.Error: DatabaseError,
}


def from_apsw(error: apsw.Error) -> Error:
    """Return the PEP 249 error for what APSW raised, with its SQLite result codes.

    Like in `sqlite3`, ``sqlite_errorcode`` is the extended result code and
    ``sqlite_errorname`` its name, where SQLite itself raised it.
    """
    mapped = _PEP_249[next(c for c in type(error).__mro__ if c in _PEP_249)]
    code: Any = getattr(error, "extendedresult", None)
    message = str(error)
    if code == apsw.SQLITE_BUSY_SNAPSHOT:
        message = (
            f"{message}: another connection has written since this one began to read; "
            "rollback(), and close cursors that are half read, before writing"
        )
    names = {**apsw.mapping_result_codes, **apsw.mapping_extended_result_codes}
    name = str(names.get(code, "SQLITE_UNKNOWN"))
    if message == "not an error":  # what SQLite says where it has nothing to say
        message = f"SQLite refused the call: {name}"
    translated = mapped(message)
    if code is not None:
        translated.sqlite_errorcode = code
        translated.sqlite_errorname = name
    return translated


def not_text(error: UnicodeEncodeError, message: str) -> TextEncodingError:
    """Return the error for text that UTF-8 cannot express, with its place."""
    return TextEncodingError(*error.args[:4], message)  # type: ignore[call-arg]


def from_binding(error: BaseException) -> BaseException:
    """Return the PEP 249 error for one of Python's that APSW raised over a parameter.

    To be called by the function that called APSW: the traceback's length then tells
    whether the caller's own code (an SQL function, a mapping, an iterator) raised the
    error. If so, it is returned unchanged.
    """
    if _frames(error) != 1:
        return error
    text = str(error)
    match error:
        case KeyError():
            return ProgrammingError(
                f"no value is given for the parameter :{error.args[0]}"
            )
        case OverflowError():
            message = "an integer does not fit into SQLite's 64 bits; bind it as text"
            return IntegerRangeError(message)
        case UnicodeEncodeError():
            return not_text(error, "a lone surrogate is no text; bind bytes instead")
        case UnicodeDecodeError():
            message = (
                "a text in the database is not UTF-8; read it with CAST(... AS BLOB): "
                f"{text}"
            )
            return OperationalError(message)
        case TypeError() if "dict or a sequence" in text:
            return ArgumentTypeError("parameters are a sequence or a mapping")
    return from_argument(error)


def from_argument(error: BaseException) -> BaseException:
    """Return the PEP 249 error for one of Python's about an argument of a call."""
    text = str(error)
    text = text[:1].lower() + text[1:]
    match error:
        case OverflowError():
            return IntegerRangeError(f"an integer is too large: {text}")
        case UnicodeEncodeError():
            return not_text(error, "a lone surrogate is no text")
        case BufferError():
            return ArgumentBufferError(text)
        case TypeError():
            return ArgumentTypeError(text)
        case ValueError():
            return ArgumentValueError(text)
    return error


def translating(method: Callable[P, R]) -> Callable[P, R]:
    """Make a method that calls APSW raise PEP 249's errors.

    It translates what APSW raises, and what the method raises over an argument. An
    error raised in a function that the caller has given comes through unchanged.
    """

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except apsw.Error as error:
            raise from_apsw(error) from error
        except (OverflowError, TypeError, ValueError, BufferError) as error:
            # Two frames: this one and the method's. One: the method was called with
            # too many or too few arguments. More: the caller's function raised it.
            if isinstance(error, Error) or _frames(error) != 2:
                raise
            raise from_argument(error) from error

    return call


def _frames(error: BaseException) -> int:
    """Return how many frames lie between where an error was raised and caught.

    1: the function that caught it had called APSW, which raised it. If APSW called the
    caller's code, there are more: Python code has a frame, and APSW adds one for a
    function written in C.
    """
    frames, traceback = 0, error.__traceback__
    while traceback is not None:
        frames, traceback = frames + 1, traceback.tb_next
    return frames
