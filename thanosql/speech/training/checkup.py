"""What is remarkable about recordings that can be used: waveforms in, findings out."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from thanosql.speech.sound.audio import original_rate

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SILENT = 10 ** (-60 / 20)  # peak, of 1; a quiet room's noise is louder


@dataclass(slots=True)
class Checkup:
    """Takes note of each row's recording, from whichever thread, as `examine` decodes.

    Two recordings that sound the same are found by a digest of their waveforms, so that
    one file under two names is.
    """

    root: Path | None
    rates: dict[int, int] = field(default_factory=dict)
    "Row to samples a second in the file."
    silent: set[int] = field(default_factory=set)
    _digests: dict[int, bytes] = field(default_factory=dict)

    def notice(self, row: int, value: object, waveform: NDArray[np.float32]) -> None:
        """Take note of one recording: (samples,), 16 kHz."""
        self.rates[row] = original_rate(value, self.root)
        if float(np.abs(waveform).max(initial=0)) < SILENT:
            self.silent.add(row)
        self._digests[row] = hashlib.blake2b(
            waveform.tobytes(), digest_size=16
        ).digest()

    def rate_counts(self) -> Counter[int]:
        """Return how many rows have each rate."""
        return Counter(self.rates.values())

    def duplicates(self) -> list[tuple[int, int]]:
        """Return each row that sounds as an earlier one, and that one."""
        first: dict[bytes, int] = {}
        found = []
        for row, digest in sorted(self._digests.items()):
            if first.setdefault(digest, row) != row:
                found.append((row, first[digest]))
        return found
