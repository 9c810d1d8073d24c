"""Checks of option values: a rule in, an `Accepted` out that reads a value by it."""

from __future__ import annotations

import json
import math
import numbers
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Accepted:
    """The values that an option takes."""

    text: str
    "The same in words; completes the sentence: the option takes ..."
    read: Callable[[Any], Any]
    "Returns the value as the field's type; raises ValueError if it is not allowed."
    literals: tuple[str, ...] = ()
    "Those that have a name, as SQL writes them: 'auto', TRUE."

    def __str__(self) -> str:
        return self.text


def _is_number(value: Any) -> bool:
    # NumPy's numbers are Real, too.
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def number(text: str, is_allowed: Callable[[float], bool]) -> Accepted:
    """Accept finite numbers for which `is_allowed` is true."""

    def read(value: Any) -> float:
        if not (_is_number(value) and math.isfinite(value) and is_allowed(value)):
            raise ValueError
        return float(value)

    return Accepted(text, read)


def whole_number(least: int, most: int = 2**63 - 1) -> Accepted:
    """Accept whole numbers from `least` to `most`, which SQLite's integers end at."""

    def read(value: Any) -> int:
        if not (_is_number(value) and least <= value <= most and value == int(value)):
            raise ValueError
        return int(value)

    bounds = f", {least} or more" if most == 2**63 - 1 else f" from {least} to {most}"
    return Accepted(f"a whole number{bounds}", read)


def thresholds() -> Accepted:
    """Accept whole numbers in a text, of which the first is 0 and none is less."""

    def read(value: Any) -> str:
        if value == 0 and _is_number(value):
            value = "0"
        if not isinstance(value, str) or not re.fullmatch(r"[0-9]+( +[0-9]+)*", value):
            raise ValueError
        found = [int(number) for number in value.split()]
        if found[0] != 0 or found != sorted(found) or found[-1] >= 2**63:
            raise ValueError
        return " ".join(map(str, found))

    return Accepted("numbers such as '0 0 1', the first 0 and none falling", read)


def byte_count(text: str) -> Accepted:
    """Accept a number of bytes, or a size such as '500MB' or '2GiB'."""
    prefixes = {"": 1} | {
        prefix + binary: (1024 if binary else 1000) ** power
        for power, prefix in enumerate("kmgt", start=1)
        for binary in ("", "i")
    }

    def read(value: Any) -> int:
        if isinstance(value, str):
            size = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([kmgt]?i?)b", value.lower())
            if size is None or size[2] not in prefixes:
                raise ValueError
            value = round(float(size[1]) * prefixes[size[2]])
        return whole_number(0).read(value)  # type: ignore[no-any-return]

    return Accepted(text, read)


def one_of(*words: str) -> Accepted:
    """Accept one of these words in any case; it is read in lower case."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or value.lower() not in words:
            raise ValueError
        return value.lower()

    return Accepted(", ".join(words), read, tuple(f"'{word}'" for word in words))


def matching(text: str, pattern: str) -> Accepted:
    """Accept texts that match a regular expression as a whole."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or re.fullmatch(pattern, value) is None:
            raise ValueError
        return value

    return Accepted(text, read)


def read_names(value: Any) -> tuple[str, ...]:
    """Return the names of a text: between commas, or a JSON array of texts.

    A null in the array is none; json_group_array makes one where a LEFT JOIN finds no
    row. Raises ValueError if it is neither.
    """
    if not isinstance(value, str):
        raise ValueError
    found = value.split(",")
    if value.lstrip().startswith("["):
        try:
            found = [name for name in json.loads(value) if name is not None]
        except RecursionError:
            raise ValueError from None
        if not all(isinstance(name, str) for name in found):
            raise ValueError
    return tuple(name for each in found if (name := " ".join(each.split())))


def names() -> Accepted:
    """Accept a text that holds names."""
    return Accepted(
        "words and names between commas, or a JSON array of them", read_names
    )


def true_or_false() -> Accepted:
    """Accept a truth value, or 1 or 0."""

    def read(value: Any) -> bool:
        if value not in (True, False):  # 1 == True, 0 == False
            raise ValueError
        return bool(value)

    return Accepted("TRUE or FALSE", read, ("TRUE", "FALSE"))


def either(first: Accepted, second: Accepted) -> Accepted:
    """Accept what `first` accepts, and what `second` does."""

    def read(value: Any) -> Any:
        try:
            return first.read(value)
        except ValueError:
            return second.read(value)

    literals = (*first.literals, *second.literals)
    return Accepted(f"{first} or {second}", read, literals)


def or_null(accepted: Accepted) -> Accepted:
    """Accept NULL as well."""

    def read(value: Any) -> Any:
        return None if value is None else accepted.read(value)

    return Accepted(f"{accepted}, or NULL", read, accepted.literals)
