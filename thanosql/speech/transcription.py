"""Transcribe: recordings in, their texts out in the same order, a batch at a time."""

from __future__ import annotations

from collections import deque
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import torch

from thanosql.errors import AudioError
from thanosql.speech.decoding.best_path import best_paths, read
from thanosql.speech.recognizers.padded import forward
from thanosql.speech.recognizers.precision import resolve, within_memory
from thanosql.speech.results import Transcription
from thanosql.speech.sound.audio import blocks
from thanosql.speech.training.batches import chunks, naming, preparing_threads
from thanosql.speech.windows import cut, layout

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from concurrent.futures import Future
    from pathlib import Path

    from thanosql.speech.recognizers.recognizer import Recognizer


@dataclass(frozen=True, slots=True)
class _Heard:
    """A window of a recording, or all of it, ready for the model."""

    features: torch.Tensor | None
    "None where the recording turns out to be bad."
    frames: slice
    "Which of its frames are the recording's."
    seconds: float
    "From the recording's beginning to this window's end."
    last: bool
    error: str | None = None


def transcribe(
    recognizer: Recognizer,
    audio: Iterable[object],
    *,
    batch_size: int,
    precision: str = "auto",
    device: str = "auto",
    chunk_seconds: float = 60.0,
    on_error: str = "raise",
    root: Path | None = None,
    first_row: int = 1,
) -> Generator[list[Transcription], None, None]:
    """Yield the transcriptions of a batch of recordings at a time, in order.

    A batch of windows that ends no recording yields none. A text depends on its
    recording alone, not on the batch. audio: what `audio.load` takes; advanced in the
    calling thread only, at most two batches ahead of the texts.
    While the model hears one batch, threads decode the next. Closing the generator
    ends them. A recording longer than `chunk_seconds` is heard in windows
    (`windows.py`), each of which takes the place of a recording in a batch.

    Raises AudioError that names the row (counted from `first_row`), when its batch is
    reached; with on_error="null" that recording's text is None instead. Raises
    OptionError for a device or a precision that is not to be had or a `chunk_seconds`
    too small for the model.
    """
    compute = resolve(device, precision, inference=True)
    at_once = batch_size
    if compute.precision == "int8" and recognizer.int8 is not recognizer:
        # Each utterance alone: what is rounded turns float noise, all that neighbours
        # change, into a little more than noise.
        recognizer, at_once = recognizer.int8, 1
    model: torch.nn.Module = recognizer.model
    plan = layout(recognizer, chunk_seconds)

    def hear(row: int, value: object) -> Generator[_Heard, None, None]:
        try:
            with closing(blocks(value, root)) as waveform:
                for window in cut(waveform, plan):
                    features = compute.stage(recognizer.features(window.waveform))
                    yield _Heard(features, window.frames, window.seconds, window.last)
        except AudioError as error:
            if on_error == "raise":
                with naming(row):
                    raise
            yield _Heard(None, slice(0), 0.0, last=True, error=str(error))

    recordings = (hear(row, value) for row, value in enumerate(audio, first_row))
    paths: list[torch.Tensor] = []  # of the recording that is being heard
    with closing(_ahead(recordings, batch_size)) as heard:
        for batch in chunks(heard, batch_size):
            # Another use of the same model may have moved it since the last batch.
            model.to(compute.device).eval()
            with (
                within_memory(len(batch)),
                torch.inference_mode(),
                compute.tf32(),
                compute.autocast(),
            ):
                inputs = [
                    each.features.to(compute.device, non_blocking=True)
                    for each in batch
                    if each.features is not None
                ]
                found = deque(
                    path
                    for group in chunks(inputs, at_once)
                    for path in best_paths(*forward(recognizer, group))
                )
            done = []
            for each in batch:
                if each.features is not None:
                    paths.append(found.popleft()[each.frames])
                if each.error is not None:  # of what was heard before, nothing is kept
                    done.append(
                        Transcription(text=None, seconds=each.seconds, error=each.error)
                    )
                    paths.clear()
                elif each.last:
                    text = read(torch.cat(paths), recognizer)
                    done.append(Transcription(text=text, seconds=each.seconds))
                    paths.clear()
            yield done


def _ahead(
    recordings: Iterable[Generator[_Heard, None, None]], count: int
) -> Generator[_Heard, None, None]:
    """Yield what is to be heard of each recording, in order.

    Threads begin with up to `count` recordings while the caller works on the one
    before, and prepare a long one's next window. `recordings` itself is advanced in the
    calling thread only, so it may read from a SQLite connection. What goes wrong in a
    recording is raised here, when it is due. Closing the generator ends the threads
    and closes the recordings.
    """
    begun: deque[Generator[_Heard, None, None]] = deque()
    # The next of each that has begun. No variable names one whose result is asked for:
    # an error's traceback holds the variables, and the future holds the error.
    waiting: deque[Future[_Heard]] = deque()
    following = iter(recordings)
    each: _Heard | None = None
    try:
        with preparing_threads() as pool:
            while True:
                for recording in islice(following, count - len(begun)):
                    begun.append(recording)
                    waiting.append(pool.submit(next, recording))
                if each is not None:
                    yield each
                if not begun:
                    return
                each = waiting.popleft().result()
                if each.last:
                    begun.popleft().close()
                else:
                    waiting.appendleft(pool.submit(next, begun[0]))
    finally:
        for recording in begun:
            recording.close()
