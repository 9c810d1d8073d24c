"""A training's curve: its epochs in, a small SVG picture out.

There is no plotting library: to import one would cost more than two panels of lines.
The greys and colours are of middle lightness, so as to show on white and on black.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDTH, _HEIGHT = 300, 170  # of a panel, in pixels
_LEFT, _TOP, _RIGHT, _BOTTOM = 44, 26, 288, 146  # of the field with the lines
_COLOURS = ("#3b82c4", "#d9822b")
_GREY = "#888"


class Line(NamedTuple):
    """A line's name, and its height at each epoch; None where a value is missing."""

    name: str
    heights: Sequence[float | None]


def picture(epochs: Sequence[int], panels: Sequence[tuple[str, Sequence[Line]]]) -> str:
    """Return SVG with a panel for each (title, lines); one with no point is left out.

    epochs: two or more, in rising order.
    """
    panels = [
        (title, [line for line in lines if any(h is not None for h in line.heights)])
        for title, lines in panels
    ]
    with_points = [(title, lines) for title, lines in panels if lines]
    width = _WIDTH * len(with_points)
    drawn = "".join(
        f'<g transform="translate({_WIDTH * number})">{_panel(*panel, epochs)}</g>'
        for number, panel in enumerate(with_points)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{_HEIGHT}" '
        f'font-family="sans-serif" font-size="11">{drawn}</svg>'
    )


def _panel(title: str, lines: Sequence[Line], epochs: Sequence[int]) -> str:
    highest = max(h for line in lines for h in line.heights if h is not None) or 1.0
    first, last = epochs[0], epochs[-1]
    parts = [
        _text(_LEFT, 14, title, anchor="start"),
        f'<path d="M{_LEFT} {_TOP}V{_BOTTOM}H{_RIGHT}" fill="none" stroke="{_GREY}"/>',
        _text(_LEFT - 4, _TOP + 4, f"{highest:.3g}"),
        _text(_LEFT - 4, _BOTTOM + 4, "0"),
        _text(_LEFT, _BOTTOM + 16, f"epoch {first}", anchor="start"),
        _text(_RIGHT, _BOTTOM + 16, str(last)),
    ]
    at = _RIGHT
    for line, colour in reversed(list(zip(lines, _COLOURS, strict=False))):
        points = [
            (
                _LEFT + (_RIGHT - _LEFT) * (epoch - first) / (last - first),
                _BOTTOM - (_BOTTOM - _TOP) * height / highest,
            )
            for epoch, height in zip(epochs, line.heights, strict=True)
            if height is not None
        ]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        parts.append(
            f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>'
            for x, y in points
        ]
        parts.append(_text(at, 14, line.name, colour))
        at -= 7 * len(line.name) + 8
    return "".join(parts)


def _text(x: int, y: int, text: str, colour: str = _GREY, anchor: str = "end") -> str:
    return (
        f'<text x="{x}" y="{y}" fill="{colour}" text-anchor="{anchor}">'
        f"{html.escape(text)}</text>"
    )
