"""Progress: facts about long work in, one live line on a terminal or in a notebook out.

Elsewhere (a file, a pipe, a service) nothing is shown.
"""

from __future__ import annotations

import html
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_SHOWN_EVERY = 0.2  # seconds; in a notebook each change is a message to the browser


class Progress:
    """One display for one statement; a context manager that ends it.

    A terminal's line vanishes. A notebook cannot take back an output, so there a small
    one stays, which says how long the work took.
    """

    def __init__(self, check: Callable[[], None] = lambda: None) -> None:
        """Show nothing yet; check: called at each call, raises to stop the work."""
        self._check = check
        # A Windows program without a console has no stderr.
        has_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._display: _TerminalDisplay | _NotebookDisplay | None = None
        if _in_notebook():
            self._display = _NotebookDisplay()
        elif has_terminal:
            self._display = _TerminalDisplay()
        self._began = time.monotonic()
        self._shown = -_SHOWN_EVERY
        self._stages: dict[str, float] = {}  # when each began

    def __call__(
        self, stage: str, done: float, total: float | None = None, **facts: object
    ) -> None:
        """Show that `stage` has done so much of `total`, which is None if unknown."""
        self._check()
        if self._display is None:
            return
        now = time.monotonic()
        stage_began = self._stages.setdefault(stage, now)
        is_soon = now - self._shown < _SHOWN_EVERY
        if is_soon or now - self._began < self._display.patience:
            return
        self._shown = now
        words = [f"{stage} {done:,.0f}"]
        if total:
            words[0] += f" of {total:,.0f}"
        words.append(_duration(now - self._began))
        if total and 0 < done < total:
            # Stages alternate, so the time since this one began is that of others too.
            left = (now - stage_began) * (total - done) / done
            words.append(f"about {_duration(left)} left")
        for name, value in facts.items():
            brief = f"{value:.3g}" if isinstance(value, float) else str(value)
            words.append(f"{name.replace('_', ' ')} {brief}")
        self._display.show(", ".join(words), done, total or None)

    def close(self) -> None:
        """End the display."""
        if self._display is not None:
            took = _duration(time.monotonic() - self._began)
            self._display.close(f"{', '.join(self._stages)}: {took}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _TerminalDisplay:
    """A line of stderr."""

    patience = 0.0  # seconds of work before anything is shown

    def __init__(self) -> None:
        self._bar: Any = None

    def show(self, line: str, done: float, total: float | None) -> None:
        if self._bar is None:
            from tqdm import tqdm  # only where somebody watches

            # Leaves room for the ^C that a terminal shows behind the line.
            columns = shutil.get_terminal_size().columns - 4
            self._bar = tqdm(leave=False, file=sys.stderr, ncols=columns)
        self._bar.bar_format = "|{bar:20}| {desc}" if total else "{desc}"
        self._bar.total, self._bar.n = total, done
        self._bar.set_description_str(line)

    def close(self, summary: str) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class _NotebookDisplay:
    """An output of the cell, in plain HTML: no widgets, no script."""

    patience = 0.5

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, line: str, done: float, total: float | None) -> None:
        share = f' value="{done / total}"' if total else ""
        self._put(f"<progress{share}></progress> {html.escape(line)}", line)

    def close(self, summary: str) -> None:
        if self._handle is not None:
            self._put(f'<span style="opacity: 0.6">{summary}</span>', summary)
            self._handle = None

    def _put(self, markup: str, text: str) -> None:
        bundle = {"text/html": f"<small>{markup}</small>", "text/plain": text}
        if self._handle is not None:
            self._handle.update(bundle, raw=True)
            return
        from IPython.display import display

        show: Any = display
        self._handle = show(bundle, raw=True, display_id=True)


def _duration(seconds: float) -> str:
    """Return seconds as a person reads them: 7 s, 3:05 min, 1:03:05 h."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02}:{rest:02} h"
    return f"{minutes}:{rest:02} min" if minutes else f"{rest} s"


def _in_notebook() -> bool:
    """Whether an IPython kernel runs this, whose output is not a terminal's."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config
