"""Values of any library in, values and types of SQLite out; faults named by line."""

from __future__ import annotations

import json
import math
import struct
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NoReturn

from thanosql import errors
from thanosql.execution.relation import Relation, folded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

Numbered = tuple[int, "Sequence[Any]"]
"""The line (or row) of a file, from 1, and what stands there."""


def typed(
    names: Sequence[str], rows: Callable[[], Iterator[Numbered]], what: Path | str
) -> Relation:
    """Return the rows with the types that fit all their values."""
    found: list[set[str]] = [set() for _ in names]
    for number, values in rows():
        for kinds, value in zip(
            found, sql_row(names, values, what, number), strict=True
        ):
            if value is not None:
                kinds.add(_TYPES[type(value)])
    types = [
        "TEXT"
        if not kinds
        else "REAL"
        if kinds == {"INTEGER", "REAL"}
        else next(iter(kinds))
        if len(kinds) == 1
        else None
        for kinds in found
    ]

    def scan() -> Iterator[Sequence[Any]]:
        for number, values in rows():
            yield sql_row(names, values, what, number)

    return Relation(tuple(zip(names, types, strict=True)), scan)


_TYPES = {int: "INTEGER", float: "REAL", str: "TEXT", bytes: "BLOB"}


def sql_row(
    names: Sequence[str], values: Sequence[Any], what: Path | str, number: int
) -> list[Any]:
    """Return the values as SQLite's types; DataError names row and column of others."""
    try:
        return [
            value
            if value is None or (type(value) is str and value.isascii())
            else _sql(value)
            for value in values
        ]
    except _UnheldError:
        for name, value in zip(names, values, strict=True):
            try:
                _sql(value)
            except _UnheldError as error:
                fail(what, number, f"{error} (column {name!r})")
        raise


class _UnheldError(Exception):
    """A value that SQLite cannot hold, and why."""


def _sql(value: Any) -> Any:
    """Return the value as one of SQLite's types; raise _UnheldError if it is none."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        if -(2**63) <= value < 2**63:
            return int(value)
        message = "an integer does not fit into SQLite's 64 bits; make it text"
        raise _UnheldError(message)
    if isinstance(value, float):
        return None if math.isnan(value) else float(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, datetime):
        return value.isoformat(" ")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, dict):
        return _recording(value) if _is_recording(value) else _json(value)
    if isinstance(value, list | tuple):
        return _json(value)
    if hasattr(value, "tolist"):  # a number or an array of NumPy's
        found = value.tolist()
        # Of a long double it makes the same again; of nanoseconds since 1970, a number.
        if type(found) is not type(value) and not (
            isinstance(found, int) and getattr(value.dtype, "kind", None) in ("m", "M")
        ):
            return _sql(found)
    message = (
        f"SQLite has no type for {type(value).__name__} {value!r:.40}; make it text, "
        "bytes or a number"
    )
    raise _UnheldError(message)


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        message = "a lone surrogate is no text; correct it, or make it bytes"
        raise _UnheldError(message) from None
    return str(value)


def _json(value: dict[str, Any] | list[Any] | tuple[Any, ...]) -> str:
    return _text(json.dumps(_plain(value), ensure_ascii=False))


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; raise _UnheldError if JSON cannot hold it all."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, date | time) and value == value:  # NaT, a datetime, is not
        return str(value)
    if isinstance(value, Decimal) and value.is_finite():
        return str(value)
    if isinstance(value, timedelta) and value == value:
        return value.total_seconds()
    if getattr(value, "shape", None) == ():  # a number of NumPy's
        number = value.tolist()
        kind = getattr(value.dtype, "kind", None)  # nanoseconds would be an int
        if isinstance(number, bool | int | float) and kind not in ("m", "M"):
            return _plain(number)
    message = (
        f"JSON, as which nested values are stored, cannot hold {type(value).__name__} "
        f"{value!r:.40} in full; make it a column of its own, or text"
    )
    raise _UnheldError(message)


# Recordings, as the columns of Hugging Face's datasets have them


def _is_recording(value: dict[Any, Any]) -> bool:
    keys = value.keys()
    if keys <= {"path", "array", "sampling_rate"}:
        return "array" in keys and "sampling_rate" in keys
    return keys == {"path", "bytes"} and not isinstance(value["bytes"], str)


def _recording(value: dict[str, Any]) -> Any:
    """Return an encoded file, that of `bytes` or one made of `array`; else the path."""
    if value.get("array") is not None:
        return _wav(value["array"], value["sampling_rate"])
    found = value.get("bytes")
    found = value.get("path") if found is None else found
    return None if found is None else _sql(found)


def _wav(array: Any, rate: Any) -> bytes:
    """Return samples as a WAV file that has them exactly: integers, or floats.

    array: (samples,) or (channels, samples), as datasets has them; or the other way
    round: there are fewer channels than samples.
    """
    import numpy as np  # slow to import, and only needed for samples

    try:
        samples = np.asarray(array)
        if isinstance(array, list) and samples.dtype == np.float64:
            # From Arrow or JSON: float32, where that holds the samples exactly.
            narrow = samples.astype(np.float32)
            samples = narrow if np.array_equal(narrow, samples) else samples
    except (TypeError, ValueError, RuntimeError) as error:
        message = f"no recording: {error}"
        raise _UnheldError(message) from None
    tag = {"<i2": 1, "<i4": 1, "<f4": 3, "<f8": 3}.get(
        samples.dtype.newbyteorder("<").str
    )
    if samples.ndim not in (1, 2) or tag is None or samples.nbytes >= 2**31:
        message = (
            f"no recording: an array of {samples.dtype} of shape {samples.shape}; "
            "(samples,) or (channels, samples) is expected, of float32, float64, int16 "
            "or int32"
        )
        raise _UnheldError(message)
    if samples.ndim == 2 and samples.shape[0] <= samples.shape[1]:
        samples = samples.T
    channels = samples.shape[1] if samples.ndim == 2 else 1
    width, hertz = samples.itemsize, _whole(rate)
    if not 0 < hertz * channels * width < 2**32:
        message = f"no recording: {channels} channels of {rate!r:.20} samples a second"
        raise _UnheldError(message)
    data = samples.astype(samples.dtype.newbyteorder("<")).tobytes()
    head = struct.pack(
        "<4sIHHIIHH4sI",
        *(b"fmt ", 16, tag, channels, hertz, hertz * channels * width),
        *(channels * width, 8 * width, b"data", len(data)),
    )
    return (
        struct.pack("<4sI4s", b"RIFF", 4 + len(head) + len(data), b"WAVE") + head + data
    )


def _whole(number: Any) -> int:
    """Return a whole number as an int; 0 for what is none."""
    try:
        return int(number) if int(number) == number else 0
    except (TypeError, ValueError, OverflowError):
        return 0


def column_names(
    names: Iterable[Any], where: Path | str, line: int | None
) -> tuple[str, ...]:
    """Return the columns' names as text, each once; else raise DataError."""
    seen: dict[bytes, str] = {}
    for number, name in enumerate(names, start=1):
        text = "" if name is None else str(name)
        if not text.strip():
            reason = (
                f"column {number} has no name; give it one (pandas writes a nameless "
                "index: to_csv(index=False))"
            )
            fail(where, line, reason)
        if folded(text) in seen:
            reason = f"two columns are named {text!r}; rename one (case does not count)"
            fail(where, line, reason)
        seen[folded(text)] = text
    if not seen:
        fail(where, line, "no column, and a table has one or more")
    return tuple(seen.values())


def fail(
    where: Path | str, line: int | None, reason: str, cause: BaseException | None = None
) -> NoReturn:
    """Raise DataError for what is wrong at a line of a file, or a row of a frame."""
    name = where if isinstance(where, str) else repr(where.name)
    word = "row" if isinstance(where, str) or where.suffix == ".xlsx" else "line"
    place = name if line is None else f"{name}, {word} {line}"
    message = f"{place}: {reason}"
    raise errors.DataError(message) from cause


def fail_undecodable(path: Path, encoding: str, error: UnicodeDecodeError) -> NoReturn:
    """Raise DataError with the line, which decoding in blocks does not tell."""
    bad = None
    with path.open("rb") as file:
        for line, content in enumerate(file, start=1):
            try:
                content.decode(encoding)
            except UnicodeDecodeError:
                bad = line
                break
    name = encoding.removesuffix("-sig")
    reason = f"not {name}; set encoding to what it is, such as 'cp949' or 'latin-1'"
    fail(path, bad, reason, error)
