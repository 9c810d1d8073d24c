"""The query after AS: SQL in, its columns and rows out, read again for every scan.

Rows, and transcripts, that a statement needs for longer are kept in temporary files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, overload

import apsw

from thanosql import errors, statements
from thanosql.execution.relation import Column, folded, unambiguous
from thanosql.speech.results import Alternative, Details, Transcription, Word
from thanosql.store.runs import digest
from thanosql.store.training_folders import DIGEST_BYTES

if TYPE_CHECKING:
    from thanosql.speech.recording import Recording


class Source:
    """The columns and the rows of a query.

    Iterating runs the query anew, with SQLite's ordinary isolation: on one
    connection a reader may see what the same connection writes meanwhile. After
    `keep` it reads a copy instead, made at that moment. `called` is what errors call
    the query.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        sql: str,
        bindings: Any,
        called: str = "the query",
    ) -> None:
        self._called = called
        self._connection = connection
        self._sql = sql
        self._bindings = bindings
        self._kept: KeptRows | None = None
        self._open: set[apsw.Cursor] = set()
        self.columns = self._describe()

    def __iter__(self) -> Iterator[Sequence[Any]]:
        if self._kept is not None:
            yield from self._kept
            return
        cursor = self._connection.cursor()
        self._open.add(cursor)
        try:
            for row in cursor.execute(self._sql, self._bindings, can_cache=False):
                if len(row) != len(self.columns):  # SELECT *, and an ALTER TABLE since
                    message = (
                        "the columns of the query have changed since the statement "
                        "began; run it again"
                    )
                    raise errors.OperationalError(message)
                yield row
        except apsw.Error as error:
            # Translated here: its offset is in this query's text, which the caller
            # would take for an offset in the statement's.
            raise errors.from_apsw(error) from error
        except (TypeError, ValueError, OverflowError, KeyError) as error:
            explained = errors.from_binding(error)  # of a text that is no UTF-8, too
            if explained is error:
                raise
            raise explained from error
        finally:
            self._open.discard(cursor)
            cursor.close()

    def close(self) -> None:
        """End the iterations that are under way, and with them SQLite's lock.

        The garbage collector would end them too late: the traceback of an error keeps
        them alive for as long as somebody keeps the error.
        """
        while self._open:
            self._open.pop().close()

    def keep(self) -> None:
        """Copy the rows now, so that rows written later are not among them."""
        self._kept = KeptRows(self, len(self.columns))

    def position(self, column: str) -> int | None:
        """Return the place of the column of that name, in any case, or None."""
        names = [folded(name) for name, _ in self.columns]
        wanted = folded(column)
        return names.index(wanted) if wanted in names else None

    def audio_position(self, name: str | None) -> int:
        """Return the place of the audio column: `name`, else audio, else audio_path."""
        if name is None and self.position("audio") is None:
            usual = self.position("audio_path")
            if usual is not None:
                return usual
        return self.position_for("audio_col", name or "audio")

    def position_for(self, option: str, name: str) -> int:
        """Return the place of the column that an option names, or raise OptionError."""
        position = self.position(name)
        if position is None:
            names = [each for each, _ in self.columns]
            hint = errors.nearest(name, names) or f"; it has {', '.join(names)}"
            message = f"{self._called} has no column {name!r} for {option}{hint}"
            raise errors.OptionError(message)
        return position

    def _describe(self) -> tuple[Column, ...]:
        """Prepare the query, without running it, for its columns."""
        description: list[Column] = []

        def trace(cursor: apsw.Cursor, sql: str, _bindings: object) -> bool:
            # The parser lets no statement follow a query after AS. The text of the
            # option validation may hold one, and APSW would run it.
            rest = self._sql[len(sql) :]
            if follows := [t for t in statements.tokenize(rest) if t.text != ";"]:
                message = (
                    "a query is one statement, after AS as in the option validation, "
                    f"and another follows it: {rest[follows[0].start :]!r:.60}"
                )
                raise errors.OptionError(message)
            if not cursor.is_readonly:
                message = "the query after AS may only read"
                raise errors.ProgrammingError(message)
            description.extend(cursor.get_description())
            return False

        cursor = self._connection.cursor()
        cursor.exec_trace = trace
        try:
            cursor.execute(self._sql, self._bindings, can_cache=False)
        except apsw.ExecTraceAbort:
            pass
        finally:
            cursor.close()
        return unambiguous(description)


class Pairs:
    """The (audio, text) of a source's rows, in the columns that options name."""

    def __init__(
        self,
        source: Source,
        options: statements.BuildOptions | statements.EvaluateOptions,
    ) -> None:
        self._source = source
        self.audio = source.audio_position(options.audio_col)
        self.text = source.position_for("text_col", options.text_col)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return ((row[self.audio], row[self.text]) for row in self._source)


class KeptRows(Sequence[tuple[Any, ...]]):
    """Rows in a temporary file, by position; memory does not grow with their number.

    The first `hidden` columns are stored, but left out of the rows that are read.
    """

    def __init__(
        self, rows: Iterable[Sequence[Any]], width: int, *, hidden: int = 0
    ) -> None:
        columns = [f"c{i}" for i in range(width)]
        self._shown = ", ".join(columns[hidden:])
        self._connection = _temporary(f"CREATE TABLE kept ({', '.join(columns)})")
        marks = ", ".join("?" * width)
        self._connection.cursor().executemany(
            f"INSERT INTO kept VALUES ({marks})", rows
        )
        self._length: int = self._connection.execute("SELECT count(*) FROM kept").get

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> tuple[Any, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[Any, ...]]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._length))]
        if not -self._length <= index < self._length:
            message = "row index out of range"
            raise IndexError(message)
        return next(
            self._connection.execute(
                f"SELECT {self._shown} FROM kept WHERE rowid = ?",
                (index % self._length + 1,),
            )
        )

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(
            self._connection.execute(f"SELECT {self._shown} FROM kept ORDER BY rowid")
        )


class KeptPairs(KeptRows):
    """Rows of (audio, text), each with a digest of both, in a temporary file."""

    def __init__(self, pairs: Iterable[tuple[Any, Any]]) -> None:
        # Digests first: SQLite reads a row only up to the last column asked for.
        rows = ((digest(audio), digest(text), audio, text) for audio, text in pairs)
        super().__init__(rows, 4, hidden=2)

    def texts(self) -> Iterator[str]:
        """Yield the texts, without values of other types."""
        return (text for _, text in self if isinstance(text, str))

    def row_digests(self) -> Iterator[bytes]:
        """Yield a short digest of each row."""
        for audio, text in self._connection.execute(
            "SELECT c0, c1 FROM kept ORDER BY rowid"
        ):
            yield digest(audio + text)[:DIGEST_BYTES]

    def digests_of(self, row: int) -> tuple[bytes, bytes]:
        """Return the digests of a row's audio value and text; rows count from 1."""
        found: tuple[bytes, bytes] = next(
            self._connection.execute("SELECT c0, c1 FROM kept WHERE rowid = ?", (row,))
        )
        return found


class TranscriptCache:
    """Transcriptions of recordings, found by the recording, in a temporary file."""

    def __init__(self) -> None:
        self._connection = _temporary(
            "CREATE TABLE kept (recording BLOB PRIMARY KEY, found TEXT) WITHOUT ROWID"
        )

    def get(self, recording: Recording) -> list[Transcription] | None:
        """Return the transcriptions of a recording, or None where none are kept."""
        found = self._connection.execute(
            "SELECT found FROM kept WHERE recording = ?", (_digest(recording),)
        ).get
        return None if found is None else [_transcription(f) for f in json.loads(found)]

    def put(self, recording: Recording, found: Sequence[Transcription]) -> None:
        """Keep the transcriptions of a recording, of which there is one a channel."""
        self._connection.execute(
            "INSERT OR REPLACE INTO kept VALUES (?, ?)",
            (_digest(recording), json.dumps([asdict(each) for each in found])),
        )


def _digest(recording: Recording) -> bytes:
    """Return what stands for a recording and all that is known of it beforehand."""
    return digest(recording.audio) + digest((recording.channel, recording.hotwords))


def _transcription(values: dict[str, Any]) -> Transcription:
    """Return a transcription whose fields, and those of its parts, are in a dict."""
    values["words"] = tuple(Word(**each) for each in values["words"])
    values["alternatives"] = tuple(Alternative(**e) for e in values["alternatives"])
    values["details"] = Details(**values["details"])
    return Transcription(**values)


def _temporary(schema: str) -> apsw.Connection:
    """Return a database in a temporary file, with a table and an open transaction.

    SQLite makes the file (for the database named ""), deletes it on closing, and writes
    to it only once its page cache is full. Nothing is committed: nobody else reads it.
    """
    connection = apsw.Connection("")
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("BEGIN")
    connection.execute(schema)
    return connection
