"""Progress: facts about long work in, one live line on a terminal or notebook out.

Elsewhere (a file, a pipe, a service) nothing is shown.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType


class Progress:
    """One bar for one statement; a context manager, gone from the screen at its end."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._stage = ""
        # No stderr: a program of Windows without a console.
        has_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._shown = has_terminal or _in_notebook()

    def __call__(
        self, stage: str, done: float, total: float | None = None, **facts: object
    ) -> None:
        """Show that `stage` has done so much of `total`, None where it is not known."""
        if not self._shown:
            return
        if stage != self._stage:
            self._open(stage)
        self._bar.total = total
        self._bar.n = done
        if facts:
            self._bar.set_postfix(facts, refresh=False)
        self._bar.refresh() if done == total else self._bar.update(0)

    def close(self) -> None:
        """Take the bar off the screen."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._stage = ""

    def _open(self, stage: str) -> None:
        from tqdm.auto import tqdm  # only where somebody watches

        self.close()
        self._stage = stage
        self._bar = tqdm(desc=stage, leave=False, file=sys.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _in_notebook() -> bool:
    """Whether an IPython kernel runs this, whose output is not a terminal's."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in shell.config
