"""Transcribe: recordings in, their texts out in the same order, a batch at a time."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from thanosql.errors import AudioError
from thanosql.speech.prefetch import chunks, prefetched
from thanosql.speech.recognizers.precision import resolve, within_memory
from thanosql.speech.results import Transcription
from thanosql.speech.sound.audio import blocks
from thanosql.speech.sound.files import naming
from thanosql.speech.sound.windows import cut

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from pathlib import Path

    from thanosql.speech.decoding.decoding import Decoder
    from thanosql.speech.recognizers.recognizer import Recognizer


@dataclass(frozen=True, slots=True)
class _Piece:
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

    A text depends on its recording alone, not on the batch. audio: what `audio.load`
    takes; advanced in the calling thread only, at most two batches ahead of the texts.
    While the model works on one batch, threads decode the audio of the next. Closing
    the generator ends them. A recording longer than `chunk_seconds` is cut into windows
    (`Recognizer.windows`), each of which takes the place of a recording in a batch; a
    batch in which no recording ends yields none.

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
    model.to(compute.device).eval()  # a stored model is there already
    decoding = recognizer.decoding
    plan = recognizer.windows(chunk_seconds)

    def pieces(row: int, value: object) -> Generator[_Piece, None, None]:
        try:
            with closing(blocks(value, root)) as waveform:
                for window in cut(waveform, plan):
                    features = compute.stage(recognizer.features(window.waveform))
                    yield _Piece(features, window.frames, window.seconds, window.last)
        except AudioError as error:
            if on_error == "raise":
                with naming(row):
                    raise
            yield _Piece(None, slice(0), 0.0, last=True, error=str(error))

    recordings = (pieces(row, value) for row, value in enumerate(audio, first_row))
    decoder: Decoder | None = None  # of the recording whose windows are coming
    with closing(prefetched(recordings, batch_size)) as prepared:
        for batch in chunks(prepared, batch_size):
            with (
                within_memory(len(batch)),
                torch.inference_mode(),
                compute.tf32(),
                compute.autocast(),
            ):
                inputs = [
                    compute.move(p.features) for p in batch if p.features is not None
                ]
                scores = [
                    each
                    for group in chunks(inputs, at_once)
                    for each in recognizer.scores(group, decoding)
                ]
            done = []
            following = iter(scores)
            for piece in batch:
                if piece.features is not None:
                    decoder = decoder or decoding.start()
                    decoder.feed(next(following)[piece.frames])
                if piece.error is not None:  # of the windows before, nothing is kept
                    done.append(Transcription(text=None, error=piece.error))
                    decoder = None
                elif piece.last and decoder is not None:
                    found = decoder.finish()
                    done.append(
                        Transcription(
                            text=found.text,
                            confidence=found.confidence,
                            words=found.words,
                            seconds=piece.seconds,
                        )
                    )
                    decoder = None
            yield done
