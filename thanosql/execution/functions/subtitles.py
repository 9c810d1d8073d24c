"""The SQL function `subtitles`: a transcript's words in, an SRT or VTT file's text out.

Where a cue ends and the next begins is chosen for all cues together, by dynamic
programming as a paragraph's lines are (Knuth and Plass, "Breaking paragraphs into
lines", 1981): breaks go to sentence ends and pauses, and cues are neither short nor
nearly empty. Within a cue the lines are chosen in the same way.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, NamedTuple

from thanosql.errors import ProgrammingError
from thanosql.execution.functions.words import Spoken, space_between, spoken

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_SHORTEST = 1.0  # seconds that a cue is shown, if the next one leaves them
_READ = 17.0  # characters that a viewer reads in a second
_PAUSE = 0.5  # seconds; digits parted by more are two numbers
_MOST_CHARACTERS, _MOST_LINES, _MOST_SECONDS = 200, 10, 60

_CLOSED = r"""["'”’»›」』)\]]*$"""  # noqa: RUF001 - meant
_SENTENCE_END = re.compile(rf"[.!?…。！？؟।]{_CLOSED}")  # noqa: RUF001 - meant
_CLAUSE_END = re.compile(rf"[,;:—–、，；：،]{_CLOSED}")  # noqa: RUF001 - meant
_ABBREVIATION = re.compile(r"\W*[^\W\d_]\w{0,2}\.$")  # Mr., Dr., J.


class _Limits(NamedTuple):
    """What a cue may hold."""

    characters: int  # of a line
    lines: int
    seconds: float


class _Cue(NamedTuple):
    """A text, whose lines are parted by newlines, and the milliseconds it is shown."""

    text: str
    start: int
    end: int


def subtitles(
    words: object,
    form: object,
    characters: object = 42,
    lines: object = 2,
    seconds: object = 7,
) -> str | None:
    """Return the text of a subtitle file of the form 'srt' or 'vtt'.

    A cue has at most `lines` lines of `characters` characters, of which wide ones
    (Chinese, Japanese, Korean) count as two, and lasts at most `seconds`. A longer word
    has a cue of its own. A cue stays for a second, and until it can be read, where the
    next one leaves the time. None if an argument is None.

    Raises DataError for words that are not PREDICT's, ProgrammingError for the others.
    """
    if None in (words, form, characters, lines, seconds):
        return None
    if form not in ("srt", "vtt"):
        message = f"subtitles: the form is 'srt' or 'vtt', not {form!r}"
        raise ProgrammingError(message)
    limits = _Limits(
        _whole("characters a line", characters, _MOST_CHARACTERS),
        _whole("lines", lines, _MOST_LINES),
        _number("seconds", seconds, _MOST_SECONDS),
    )
    said = spoken("subtitles", words)
    cues = _timed(_cues(_units(said, limits), limits), limits)
    return _srt(cues) if form == "srt" else _vtt(cues)


def _number(name: str, value: object, most: int) -> float:
    if not isinstance(value, (int, float)) or not 1 <= value <= most:
        message = f"subtitles: {name} is a number from 1 to {most}, not {value!r}"
        raise ProgrammingError(message)
    return value


def _whole(name: str, value: object, most: int) -> int:
    number = _number(name, value, most)
    if number != int(number):
        message = f"subtitles: {name} is a whole number, not {value!r}"
        raise ProgrammingError(message)
    return int(number)


# Which words stay together


def _units(words: Sequence[Spoken], limits: _Limits) -> list[Spoken]:
    """Return the words, with the digits of one number ("1 000") joined to one unit.

    A number that would be too long for a line or a cue is cut where it is.
    """
    units: list[Spoken] = []
    for word in words:
        if units and _is_one_number(units[-1], word):
            number = _together((units[-1], word))
            if (
                _width(number.text) <= limits.characters
                and number.end - number.start <= limits.seconds
            ):
                units[-1] = number
                continue
        units.append(word)
    return units


def _is_one_number(left: Spoken, right: Spoken) -> bool:
    return (
        left.text[-1].isdigit()
        and re.match(r"[.,]?\d", right.text) is not None
        and right.start - left.end < _PAUSE
    )


def _together(units: Sequence[Spoken]) -> Spoken:
    text = units[0].text
    for unit in units[1:]:
        text += space_between(text, unit.text) + unit.text
    return Spoken(text, units[0].start, max(unit.end for unit in units))


def _width(text: str) -> int:
    """Return how many characters wide a text is shown, at least 1."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    marks = sum(unicodedata.category(character) == "Mn" for character in text)
    return max(len(text) + wide - marks, 1)


# Where a cue ends, and a line


def _cues(units: Sequence[Spoken], limits: _Limits) -> list[Spoken]:
    """Return the cues, each with its lines: those that cost least, all together."""
    strengths = [_strength(*pair) for pair in pairwise(units)]
    # To run over a sentence end or a pause costs; summed from the beginning.
    over = [0.0, *accumulate(4 * max(0.0, each - 0.5) for each in strengths)]
    room = limits.characters * limits.lines
    costs = [0.0] + [float("inf")] * len(units)  # of the best cues up to here
    begins = [0] * (len(units) + 1)  # where the last of them begins
    for begin in range(len(units)):
        for end, width in _reach(units, begin, limits):
            cost = costs[begin] + over[end - 1] - over[begin]
            cost += 1 + 0.5 * (1 - width / room) ** 2
            if end < len(units):
                shown = units[end].start - units[begin].start
                cost += 4 * max(0.0, 1 - strengths[end - 1]) ** 2
                cost += 3 * max(0.0, _SHORTEST - shown)
            if cost < costs[end]:
                costs[end], begins[end] = cost, begin
    cues = []
    end = len(units)
    while end:
        cues.append(
            _in_lines(units[begins[end] : end], strengths[begins[end] : end], limits)
        )
        end = begins[end]
    return cues[::-1]


def _strength(left: Spoken, right: Spoken) -> float:
    """Return how well a break stands between two units: 1 is a sentence's end.

    A pause of a second counts as much.
    """
    pause = max(0.0, right.start - left.end)
    if _CLAUSE_END.search(left.text):
        return 0.5 + pause
    ends = _SENTENCE_END.search(left.text) and not _ABBREVIATION.match(left.text)
    return bool(ends) + pause


def _reach(
    units: Sequence[Spoken], begin: int, limits: _Limits
) -> Iterator[tuple[int, int]]:
    """Yield the end of each cue that may begin at a unit, and its width without lines.

    Lines are filled in turn, which takes the fewest. The first of these cues has one
    unit, which may be too long.
    """
    lines, filled, total = 1, 0, 0
    end_time = 0.0
    for end in range(begin, len(units)):
        unit = units[end]
        width = _width(unit.text)
        end_time = max(end_time, unit.end)
        if end == begin:
            filled = total = width
        else:
            if width > limits.characters:
                return
            if end_time - units[begin].start > limits.seconds:
                return
            added = len(space_between(units[end - 1].text, unit.text)) + width
            if filled + added <= limits.characters:
                filled += added
            elif lines < limits.lines:
                lines, filled = lines + 1, width
            else:
                return
            total += added
        yield end + 1, total
        if filled > limits.characters:
            return


def _in_lines(
    units: Sequence[Spoken], strengths: Sequence[float], limits: _Limits
) -> Spoken:
    """Return the units of a cue as one, with newlines where its lines end.

    As few lines as there can be, of about one length, and broken after a clause rather
    than within.
    """
    best: list[tuple[int, float, int]] = [(0, 0.0, 0)]  # lines, their cost, last begin
    for end in range(1, len(units) + 1):
        ways = []
        for begin in range(end - 1, -1, -1):
            width = _width(_together(units[begin:end]).text)
            if width > limits.characters and begin < end - 1:
                break
            lines, cost, _ = best[begin]
            cost += (width / limits.characters) ** 2
            if begin:
                cost += 0.2 * max(0.0, 1 - strengths[begin - 1])
            ways.append((lines + 1, cost, begin))
        best.append(min(ways))
    lines_back = []
    end = len(units)
    while end:
        begin = best[end][2]
        lines_back.append(_together(units[begin:end]).text)
        end = begin
    return _together(units)._replace(text="\n".join(reversed(lines_back)))


# When a cue is shown, and how it is written


def _timed(cues: Sequence[Spoken], limits: _Limits) -> list[_Cue]:
    """Return the cues with the milliseconds that they are shown, one at a time."""
    timed: list[_Cue] = []
    longest = round(1000 * limits.seconds)
    for number, cue in enumerate(cues):
        start = max(round(1000 * cue.start), timed[-1].end if timed else 0)
        to_read = max(_SHORTEST, _width(cue.text) / _READ)
        end = max(round(1000 * cue.end), start + round(1000 * to_read))
        end = min(end, start + longest)
        if number + 1 < len(cues):
            end = min(end, round(1000 * cues[number + 1].start))
        timed.append(_Cue(cue.text, start, max(end, start + 1)))
    return timed


def _srt(cues: Sequence[_Cue]) -> str:
    return "\n".join(
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{cue.text}\n"
        for number, cue in enumerate(cues, start=1)
    )


def _vtt(cues: Sequence[_Cue]) -> str:
    # The numbers need not be there, but readers made for SRT take a last line of digits
    # for one.
    escaped = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
    return "WEBVTT\n" + "".join(
        f"\n{number}\n{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n"
        f"{cue.text.translate(escaped)}\n"
        for number, cue in enumerate(cues, start=1)
    )


def _clock(milliseconds: int, point: str) -> str:
    seconds, milliseconds = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{seconds:02}{point}{milliseconds:03}"
