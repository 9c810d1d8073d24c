"""Take notes of usable recordings: waveforms in; rates, silence, duplicates out."""

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

SILENT = 10 ** (-60 / 20)  # a peak of -60 dB; the noise of a quiet room is louder


@dataclass(slots=True)
class Checkup:
    """Takes note of each row's recording while `examine` decodes it, in any thread.

    Duplicates are found by a digest of the waveform, so one file under two names is
    found too.
    """

    root: Path | None
    rates: dict[int, int] = field(default_factory=dict)
    "Row -> sample rate of the file, in Hz."
    silent: set[int] = field(default_factory=set)
    "Rows whose peak is below `SILENT`."
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
        """Return the number of rows of each sample rate."""
        return Counter(self.rates.values())

    def duplicates(self) -> list[tuple[int, int]]:
        """Return pairs: a row, and the first row with the same waveform."""
        first: dict[bytes, int] = {}
        found = []
        for row, digest in sorted(self._digests.items()):
            if first.setdefault(digest, row) != row:
                found.append((row, first[digest]))
        return found
