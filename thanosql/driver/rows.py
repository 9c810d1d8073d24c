"""A row with names: a description and a tuple of values in, `Row` out."""

from __future__ import annotations

from thanosql import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Protocol

    Columns = tuple[tuple[str, str | None], ...]
    Description = tuple[tuple[Any, ...], ...]
    RowFactory = Callable[[Any, tuple[Any, ...]], Any]

    class Described(Protocol):
        """What a row needs of a cursor."""

        @property
        def description(self) -> Description | None:
            """The columns, as in PEP 249."""


class Row:
    """A row whose values are found by position and by column name, in any case.

    For `Connection.row_factory`; as `sqlite3.Row`, it is no tuple.
    """

    __slots__ = ("_description", "_values")

    def __init__(self, cursor: Described, values: tuple[Any, ...]) -> None:
        if not isinstance(values, tuple):
            message = f"a row is made of a tuple, not of {type(values).__name__}"
            raise errors.ArgumentTypeError(message)
        self._description = cursor.description or ()
        self._values = values

    def keys(self) -> list[str]:
        """Return the columns' names."""
        return [column[0] for column in self._description]

    def __getitem__(self, key: int | slice | str) -> Any:
        if not isinstance(key, str):
            return self._values[key]
        folded = key.casefold()
        for column, value in zip(self._description, self._values, strict=False):
            if column[0].casefold() == folded:
                return value
        message = f"no column named {key!r}; there are {', '.join(self.keys())}"
        raise IndexError(message)  # what sqlite3.Row raises

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Row):
            return NotImplemented
        return self.keys() == other.keys() and self._values == other._values

    def __hash__(self) -> int:
        return hash((tuple(self.keys()), self._values))

    def __repr__(self) -> str:
        shown = zip(self.keys(), self._values, strict=False)
        return f"Row({', '.join(f'{name}={value!r}' for name, value in shown)})"
