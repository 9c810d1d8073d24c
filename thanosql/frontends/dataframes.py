"""Rows in a notebook: a cursor's rows in, a pandas DataFrame out.

What BUILD yields shows its curve above the table, what PRINT AUDIO yields a player in
each row, and what PREDICT yields with words has these shaded by how sure they are, with
the player beside them; in all else they are ordinary DataFrames.
"""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from thanosql import errors, speech
from thanosql.execution.clauses.recordings import AUDIO
from thanosql.frontends import curve, words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from thanosql.driver.cursor import Cursor

_MOST_ROWS = 50  # with a player
_MOST_BYTES = 10_000_000  # of recordings in one table; in base64 they grow by a third
_MOST_WORDS = 20_000  # with times, in one table; each is some 130 bytes of the page
_LONGEST = 200  # characters of a text in a row with a player
_FORMATS = (
    (b"RIFF", "audio/wav"),
    (b"fLaC", "audio/flac"),
    (b"OggS", "audio/ogg"),
    (b"ID3", "audio/mpeg"),
    (b"\xff", "audio/mpeg"),
)


def frame(cursor: Cursor) -> pd.DataFrame:
    """Return the rows that are left on a cursor whose statement yields rows."""
    names = [column[0] for column in cursor.description or ()]
    rows = cursor.fetchall()
    if {"epoch", "train_loss", "validation_loss", "wer", "cer"}.issubset(names):
        return Training(rows, columns=names)
    spoken = _with_words(names, rows)
    if AUDIO in cursor.declared_types or spoken is not None:
        recordings = Recordings(rows, columns=names)
        recordings.played = _with_audio(names, cursor.declared_types)
        recordings.spoken = spoken
        recordings.names = names
        root = cursor.connection.audio_root
        recordings.root = None if root is None else Path(root)
        return recordings
    if any(isinstance(value, bytes) for row in rows[:1] for value in row):
        return Blobs(rows, columns=names)
    return pd.DataFrame(rows, columns=names)


def _with_words(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> int | None:
    """Return the position of PREDICT's column `words`, if there is one."""
    if words.COLUMN not in names:
        return None
    position = names.index(words.COLUMN)
    values = (row[position] for row in rows if row[position] is not None)
    return None if words.parsed(next(values, None)) is None else position


def _with_audio(names: Sequence[str], declared: Sequence[str | None]) -> int | None:
    """Return the position of the column to play: PRINT AUDIO's, or by its name."""
    if AUDIO in declared:
        return declared.index(AUDIO)
    named = [name for name in ("audio", "audio_path") if name in names]
    return names.index(named[0]) if named else None


class Blobs(pd.DataFrame):
    """Rows with BLOBs, each shown by its size."""

    def _repr_html_(self) -> str | None:
        return self._sized()._repr_html_()  # type: ignore[operator, no-any-return]

    def __repr__(self) -> str:
        return repr(self._sized())

    def _sized(self) -> pd.DataFrame:
        shown = pd.DataFrame(self)
        for position, dtype in enumerate(shown.dtypes):
            if dtype.kind == "O":
                sized: Any = shown.iloc[:, position].map(_sized)
                shown.isetitem(position, sized)
        return shown


class Training(pd.DataFrame):
    """The rows of BUILD, one an epoch, shown with the curves of loss and error rate."""

    def _repr_html_(self) -> str | None:
        table: str | None = pd.DataFrame(self)._repr_html_()  # type: ignore[operator]
        epochs = [int(epoch) for epoch in self["epoch"]]
        # One epoch makes no curve, and several trainings' epochs would overlap.
        if len(epochs) < 2 or epochs != sorted(set(epochs)):
            return table
        drawn = curve.picture(
            epochs,
            (
                ("loss", (self._line("train_loss"), self._line("validation_loss"))),
                ("error rate", (self._line("wer"), self._line("cer"))),
            ),
        )
        # As an image, since some viewers remove SVG from a page.
        source = _data_url(drawn.encode(), "image/svg+xml")
        return f'<img alt="loss and error rate by epoch" src="{source}">{table}'

    def _line(self, column: str) -> curve.Line:
        heights = [None if pd.isna(v) else float(v) for v in self[column]]
        name = column.removesuffix("_loss")
        return curve.Line(name if name != column else name.upper(), heights)


class Recordings(Blobs):
    """The rows of PRINT AUDIO, or of PREDICT with words, shown with players.

    The players hold the recordings. A click on a word plays its row's from there.
    """

    _metadata = ("names", "played", "spoken", "root")
    names: Sequence[str]
    "Of the columns when the frame was made."
    played: int | None
    "The position of the column with the recordings."
    spoken: int | None
    "The position of the column with the words."
    root: Path | None
    "The only folder whose files are read, if there is one."

    def _repr_html_(self) -> str | None:
        if list(self.columns) != list(self.names):  # the positions are no longer right
            return super()._repr_html_()
        heads = "".join(f"<th>{html.escape(str(name))}</th>" for name in self.columns)
        more = len(self) - _MOST_ROWS
        return (
            '<table border="1" class="dataframe"><thead><tr style="text-align: right;">'
            f"<th></th>{heads}</tr></thead><tbody>{''.join(self._rows())}</tbody>"
            f"</table>{f'<p>and {more:,} more rows</p>' if more > 0 else ''}"
        )

    def _rows(self) -> Iterator[str]:
        room, words_left = _MOST_BYTES, _MOST_WORDS
        for index, *row in self.head(_MOST_ROWS).itertuples():
            cells = [f"<td>{html.escape(_brief(value))}</td>" for value in row]
            plays = False
            if self.played is not None:
                player, size = self._player(row[self.played], room)
                plays = player.startswith("<audio")
                cells[self.played] = f"<td>{player}</td>"
                room -= size
            if self.spoken is not None:
                said = words.parsed(row[self.spoken])
                if said is not None:
                    cells[self.spoken] = words.cell(said, words_left, plays=plays)
                    words_left = max(0, words_left - len(said))
            yield f"<tr><th>{html.escape(str(index))}</th>{''.join(cells)}</tr>"

    def _player(self, audio: Any, room: int) -> tuple[str, int]:
        """Return a player, or why there is none, and the recording's bytes in it."""
        shown = html.escape(_brief(audio))
        if isinstance(audio, str):
            if self.root is None and audio.startswith(("https://", "http://")):
                return _audio(audio, shown), 0
            try:
                with speech.open_file(audio.removeprefix("file://"), self.root) as f:
                    audio = f.read(room + 1)
            except errors.AudioError as error:
                return html.escape(str(error)), 0
        if not isinstance(audio, bytes):
            return shown, 0
        if len(audio) > room:
            return f"{shown} (too much for this page)", 0
        # A file that is no recording stays out of the page, which may be passed on.
        kind = next((kind for start, kind in _FORMATS if audio.startswith(start)), None)
        if kind is None:
            return f"{shown} (no audio that a browser plays)", 0
        return _audio(_data_url(audio, kind), shown), len(audio)


def _audio(source: str, shown: str) -> str:
    return (
        f'<audio controls preload="metadata" src="{html.escape(source)}" '
        f'title="{shown}" style="height:2.5em;vertical-align:middle"></audio>'
    )


def _data_url(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _sized(value: object) -> object:
    """Return a BLOB's size in words, any other value unchanged."""
    return f"{len(value):,} bytes" if isinstance(value, bytes) else value


def _brief(value: object) -> str:
    value = _sized(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    text = "" if value is None else str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
