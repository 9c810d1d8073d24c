"""Attention of the tokens of a text to frames in; when each word is spoken out.

A model that writes token by token listens, while it writes one, to the sound that the
token is of. The path through tokens and frames along which it listens most tells when
(dynamic time warping, as in the code published with Radford et al. 2022, "Robust speech
recognition via large-scale weak supervision"). Taken alone the path is vague where
nobody speaks, and late where somebody does, so three things are added to it:

- Frames in pauses are left out, and a word goes over a pause only at a cost.
- What is said between two pauses may be of no word, since models leave words out.
- Within speech, a word begins a little earlier than it is listened to.

docs/adr/0016-whisper.md says what each is worth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

# Levels come 100 times a second.
_SMOOTHED = 5  # levels whose mean is compared
_QUIETEST = 20  # levels together, to find how quiet a recording is
_LEAST_PAUSE = 15  # levels; a shorter one may be the closure of a consonant
_LOUD = 95  # percentile of the levels that counts as loud
_DROP = 30.0  # decibels below that, at most, a pause begins
_SHARE = 0.3  # or at this share of the way from quiet to loud, if that is more

# Gains, in the attention's standard deviations a frame.
_OVER_PAUSE = -50.0  # of a word that goes on behind a pause
_UNREAD = 0.5  # of a frame that is of no word

_LATE = 3  # frames: how long after a word began it is listened to


def sounding(levels: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return where there is sound, and not a pause or an end of silence.

    levels: (levels,), in decibels, each of 10 ms; at least one.
    """
    beside = _SMOOTHED // 2
    padded = np.pad(levels, beside, "edge")
    smooth = np.convolve(padded, np.ones(_SMOOTHED) / _SMOOTHED, "valid")
    together = min(_QUIETEST, len(levels))
    quiet = np.convolve(levels, np.ones(together) / together, "valid").min()
    loud = np.percentile(levels, _LOUD)
    below = smooth < max(quiet + _SHARE * (loud - quiet), loud - _DROP)
    found = np.ones(len(levels), bool)
    edges = np.flatnonzero(np.diff(below.astype(np.int8), prepend=0, append=0))
    for begin, end in edges.reshape(-1, 2).tolist():
        if end - begin >= _LEAST_PAUSE or not begin or end == len(levels):
            found[begin:end] = False
    return found


def spoken_frames(
    attention: NDArray[np.float32],
    words: Sequence[int],
    sound: NDArray[np.bool_],
) -> list[tuple[int, int]]:
    """Return the first frame of each word, and the one behind its last.

    attention: (tokens, frames), how much each token listens to each frame, with a
    deviation of 1 over the tokens. words: how many tokens each word has, at least one.
    sound: (frames,), False in pauses.
    """
    kept = np.flatnonzero(sound) if sound.any() else np.arange(len(sound))
    after_pause = np.diff(kept, prepend=kept[0] - 1) > 1
    ends = np.cumsum(words) - 1
    begins = np.zeros(len(attention), bool)
    begins[[0, *(ends[:-1] + 1)]] = True
    path = _best_path(attention[:, kept].astype(np.float64), begins, after_pause)
    starts = _earlier(path.first[begins], after_pause)
    following = [*starts[1:], len(kept)]
    found = []
    for start, last, after in zip(starts, path.last[ends], following, strict=True):
        stop = max(start, min(int(last), after - 1))
        found.append((int(kept[start]), int(kept[stop]) + 1))
    return found


def _earlier(starts: NDArray[np.int64], after_pause: NDArray[np.bool_]) -> list[int]:
    """Return the words' first frames without the delay of the attention.

    A word begins no earlier than the sound after a pause, or just behind the beginning
    of the word before it.
    """
    places = np.arange(len(after_pause))
    earliest = np.maximum.accumulate(np.where(after_pause, places, 0))
    found: list[int] = []
    for start in starts.tolist():
        least = max(int(earliest[start]), found[-1] + 1 if found else 0)
        found.append(max(start - _LATE, min(least, start)))
    return found


class _Path(NamedTuple):
    first: NDArray[np.int64]
    "(tokens,): the first frame of each token."
    last: NDArray[np.int64]
    "(tokens,): the last one."


class _Row(NamedTuple):
    """The best paths through one token, or through what is of no word."""

    sums: NDArray[np.float64]
    "(frames,): what the best path has gained that is there in that frame."
    entered: NDArray[np.int64]
    "(frames,): the frame in which that path came in."


def _best_path(
    attention: NDArray[np.float64],
    begins: NDArray[np.bool_],
    after_pause: NDArray[np.bool_],
) -> _Path:
    """Return the path that gains most: every token in turn, every frame in turn.

    begins: (tokens,), whether a word begins there. after_pause: (frames,). From one
    place the path goes on by a frame, a token or both. From a pause to another it may
    be in no token.
    """
    tokens, frames = attention.shape
    never = np.full(frames, -np.inf)
    at_once = never.copy()
    at_once[0] = 0.0
    over_pause = np.where(after_pause, _OVER_PAUSE, 0.0)
    unread = np.full(frames, _UNREAD)
    before = _Row(never, np.zeros(frames, np.int64))
    skipped = _through(unread, at_once)
    rows = []
    for token in range(tokens):
        following = _delayed(before.sums) if token else at_once
        if begins[token]:
            behind = np.where(after_pause, _delayed(skipped.sums), -np.inf)
            ways = np.stack([following, before.sums, behind])
        else:
            ways = np.stack([following + over_pause, before.sums, never])
        before = _through(attention[token], ways.max(0), over_pause)
        rows.append((before.entered, ways.argmax(0), skipped.entered))
        if token + 1 == tokens or begins[token + 1]:
            entering = np.where(after_pause, _delayed(before.sums), -np.inf)
            skipped = _through(unread, entering)

    path = _Path(np.zeros(tokens, np.int64), np.zeros(tokens, np.int64))
    frame = frames - 1
    if skipped.sums[frame] > before.sums[frame]:
        frame = int(skipped.entered[frame]) - 1
    for token in range(tokens - 1, -1, -1):
        entered, ways, skips = rows[token]
        path.last[token] = frame
        frame = path.first[token] = int(entered[frame])
        if ways[frame] == 0:
            frame -= 1
        elif ways[frame] == 2:
            frame = int(skips[frame - 1]) - 1
    return path


def _through(
    gains: NDArray[np.float64],
    entering: NDArray[np.float64],
    costs: NDArray[np.float64] | float = 0.0,
) -> _Row:
    """Return the best paths that come in with `entering` and stay.

    Each is (frames,). costs: what is added to the gain of a frame that is not the first
    one. All frames are done at once: who came in at one has since gained the difference
    of two sums of all gains, so the best to come in is the same for all that follow.
    """
    along = np.cumsum(gains + costs)
    worth = entering + gains - along
    best = np.maximum.accumulate(worth)
    came = np.where(worth == best, np.arange(len(gains)), 0)
    return _Row(best + along, np.maximum.accumulate(came))


def _delayed(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what the best paths had gained a frame before."""
    return np.concatenate([[-np.inf], sums[:-1]])
