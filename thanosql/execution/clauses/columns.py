"""The columns of a query that options name: where they stand, and their values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from thanosql import errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from thanosql import statements
    from thanosql.execution.source import Source


def audio_column(source: Source, name: str | None, query: str = "the query") -> int:
    """Return the place of the audio column: `name`, else audio, else audio_path."""
    if name is not None:
        return column(source, name, "audio_col", query)
    for usual in ("audio", "audio_path"):
        position = source.position(usual)
        if position is not None:
            return position
    return column(source, "audio", "audio_col", query)


def column(source: Source, name: str, option: str, query: str) -> int:
    """Return the place of the column that `option` names, or raise OptionError.

    query: what the error calls the query.
    """
    position = source.position(name)
    if position is None:
        names = [each for each, _ in source.columns]
        hint = errors.nearest(name, names) or f"; it has {', '.join(names)}"
        message = f"{query} has no column {name!r} for {option}{hint}"
        raise errors.OptionError(message)
    return position


class Pairs:
    """The (audio, text) of a query's rows, in the columns that options name."""

    def __init__(
        self,
        source: Source,
        options: statements.BuildOptions | statements.EvaluateOptions,
        query: str = "the query",
    ) -> None:
        self._source = source
        self.audio = audio_column(source, options.audio_col, query)
        self.text = column(source, options.text_col, "text_col", query)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return ((row[self.audio], row[self.text]) for row in self._source)
