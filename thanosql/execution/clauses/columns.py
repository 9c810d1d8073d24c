"""The columns that statements over recordings put behind the query's, and their values.

What PREDICT, EVALUATE and ALIGN tell alike has the same names, digits and JSON.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from thanosql import errors, statements
from thanosql.execution.relation import folded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from thanosql.execution.relation import Column
    from thanosql.execution.source import Source
    from thanosql.speech.results import AlignedWord, Alignment, Transcription, Word

WORDS: tuple[Column, ...] = (
    ("word", "TEXT"),
    ("start", "REAL"),
    ("end", "REAL"),
    ("confidence", "REAL"),
)
"Those of a row a word."


def predicted(options: statements.PredictOptions) -> tuple[Column, ...]:
    """Return the columns that PREDICT puts behind the query's."""
    if options.per_word:
        heard = WORDS
    else:
        of_words = (("words", "TEXT"), ("confidence", "REAL")) if options.words else ()
        heard = ((options.result_col, "TEXT"), *of_words)
    return (
        *((("channel", "INTEGER"),) if options.channel == "each" else ()),
        *heard,
        *((("alternatives", "TEXT"),) if options.alternatives else ()),
        *((("details", "TEXT"),) if options.details else ()),
        *error_column(options),
    )


def by_recording(
    number: int, found: Iterable[Transcription], result_col: str
) -> Iterator[dict[str, Any]]:
    """Yield the values of a row's columns, by name, for each transcription of it."""
    for each in found:
        yield {
            "channel": each.channel,
            result_col: each.text,
            "words": None if each.text is None else words(each.words),
            "confidence": rounded(each.confidence),
            "alternatives": _alternatives(each),
            "details": _details(each),
            "error": error(number, each),
        }


def by_word(number: int, found: Iterable[Transcription]) -> Iterator[dict[str, Any]]:
    """Yield the values of a row's columns, by name, for each word of its recording.

    The words of several channels are in order of time. Where the recording is bad, one
    row says so.
    """
    spoken = [(said.start, each, said) for each in found for said in each.words]
    spoken.sort(key=itemgetter(0))
    for _, each, said in spoken:
        yield {
            "channel": each.channel,
            **word(said),
            "details": _details(each),
            "error": None,
        }
    for each in found:
        if each.error is not None:
            empty = dict.fromkeys(name for name, _ in WORDS)
            reason = error(number, each)
            yield {"channel": each.channel, **empty, "details": None, "error": reason}


def _alternatives(found: Transcription) -> str | None:
    """Return a recording's best texts, as a JSON list of objects; None if it is bad."""
    if found.text is None:
        return None
    values = [
        {"text": each.text, "confidence": rounded(each.confidence)}
        for each in found.alternatives
    ]
    return json.dumps(values, ensure_ascii=False)


def words(said: Iterable[Word | AlignedWord]) -> str:
    """Return words as a JSON list of objects."""
    return json.dumps([word(each) for each in said], ensure_ascii=False)


def word(said: Word | AlignedWord) -> dict[str, Any]:
    """Return a word by the names of its columns, and of its keys in JSON."""
    return {
        "word": said.text,
        "start": rounded(said.start, 3),
        "end": rounded(said.end, 3),
        "confidence": rounded(said.confidence),
    }


def rounded(value: float | None, digits: int = 4) -> float | None:
    """Return a number with so many digits behind the point; None for None."""
    return None if value is None else round(value, digits)


def error_column(
    options: statements.PredictOptions
    | statements.EvaluateOptions
    | statements.AlignOptions,
) -> tuple[Column, ...]:
    """Return the column that says what is wrong with a row, if it is asked for."""
    return (("error", "TEXT"),) if options.on_error == "null" else ()


def error(number: int, found: Transcription | Alignment) -> str | None:
    """Return why a row is bad, with its number.

    `found.error` does not have the number: rows with one recording share `found`.
    """
    return None if found.error is None else f"row {number}: {found.error}"


def _details(found: Transcription) -> str | None:
    """Return how a recording was heard, as a JSON object; None if it is bad."""
    if found.text is None:
        return None
    values = {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in asdict(found.details).items()
    }
    return json.dumps(values, ensure_ascii=False)


def check_new(
    source: Source, added: Sequence[Column], result_col: str | None = None
) -> None:
    """Raise OptionError if the query has a column of the name of one that is added.

    result_col: the one whose name the options choose; None if none of them is.
    """
    names = [name for name, _ in added]
    if result_col in names and source.position(result_col) is not None:
        message = (
            f"the query has a column {result_col!r} already; "
            "set result_col to another name for the transcripts"
        )
        raise errors.OptionError(message)
    taken = [name for name in names if source.position(name) is not None]
    if taken or len({folded(name) for name in names}) < len(names):
        way_out = "rename it in the query" if taken else "set another result_col"
        message = (
            f"a column {taken[0] if taken else result_col!r} is one of those that are "
            f"added; {way_out}"
        )
        raise errors.OptionError(message)
