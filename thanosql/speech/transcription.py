"""Transcribe: recordings in, their texts out, a batch at a time, in the same order."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch

from thanosql.errors import DataError
from thanosql.speech.decoding.decoding import NO_REQUEST, Request
from thanosql.speech.prefetch import chunks, prefetched
from thanosql.speech.recognizers.precision import resolve, within_memory
from thanosql.speech.results import Transcription
from thanosql.speech.sound.audio import blocks, channels
from thanosql.speech.sound.channels import Levels
from thanosql.speech.sound.files import naming
from thanosql.statements.checks import read_names

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from pathlib import Path

    from thanosql.speech.decoding.decoding import Decoder
    from thanosql.speech.recognizers.recognizer import Recognizer
    from thanosql.speech.recording import Recording, Span


@dataclass(frozen=True, slots=True)
class _Piece:
    """A window of a recording, ready for the model, or the recording's error."""

    features: torch.Tensor | None
    "None if the recording is bad, or if nobody speaks in the window."
    frames: slice
    "The window's frames that are kept; the others are context."
    spans: tuple[Span, ...]
    "Where in the recording the window's samples are from."
    seconds: float
    "From the recording's beginning to this window's end."
    last: bool
    "Whether the recording ends here."
    speech_seconds: float | None = None
    "How long somebody speaks in the window; None if nobody looked."
    decoder: Decoder | None = None
    "The one of the recording, or of its channel; None if the recording is bad."
    channel: int | None = None
    "The one that is heard; None for the mean of all."
    channels: int | None = None
    "How many of the recording are heard, each by itself; None if it is not so heard."
    mixes_speech: bool = False
    "Whether channels with different speech were averaged; known at the end."
    error: str | None = None
    "Why the recording is bad."


class _Heard:
    """The windows of one recording so far."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._windows = 0
        self._speech_seconds: float | None = None

    def hear(self, piece: _Piece, scores: Any) -> None:
        """Take the next window, and what the recognizer made of it."""
        if piece.features is None:
            self._decoder.silence()
        else:
            self._decoder.feed(scores, piece.frames, piece.spans)
            self._windows += 1
        if piece.speech_seconds is not None:
            self._speech_seconds = (self._speech_seconds or 0.0) + piece.speech_seconds

    def transcription(self, last: _Piece) -> Transcription:
        """Return the transcription, once its last window is heard."""
        found = self._decoder.finish()
        return Transcription(
            text=found.text,
            confidence=found.confidence,
            words=found.words,
            alternatives=found.alternatives,
            best_path=found.best_path,
            details=replace(
                found.details,
                windows=self._windows,
                speech_seconds=self._speech_seconds,
            ),
            alignment=found.alignment,
            seconds=last.seconds,
            channel=last.channel,
            channels=last.channels,
            mixes_speech=last.mixes_speech,
        )


def transcribe(
    recognizer: Recognizer,
    recordings: Iterable[Recording],
    *,
    batch_size: int,
    precision: str = "auto",
    device: str = "auto",
    request: Request = NO_REQUEST,
    chunk_seconds: float = 60.0,
    vad: Literal["auto"] | bool = "auto",
    on_error: str = "raise",
    root: Path | None = None,
    first_row: int = 1,
) -> Generator[list[Transcription], None, None]:
    """Yield the transcriptions of a batch of recordings at a time, in order.

    A text depends only on its recording, not on the batch. recordings: read in the
    calling thread, at most two batches ahead of the texts. While the model works on one
    batch, threads decode the audio of the next; closing the generator ends them. A
    recording longer than `chunk_seconds` is cut into windows (`Recognizer.windows`),
    and each window counts as one item of a batch. What voice activity detection, `vad`,
    finds to be without speech is not heard. A recording of which each channel is heard
    has a transcription for each, one after the other. Beside a batch's list there is an
    empty one after each window: a search may take seconds for it, and the caller may
    want to stop.

    Raises AudioError, or DataError for its hotwords, naming the row (counted from
    `first_row`) when its batch is reached; with on_error="null" that recording's text
    is None instead. Raises OptionError if the device or precision is not available
    here, if `chunk_seconds` is too small for the model, or if the model cannot do what
    is requested.
    """
    compute = resolve(device, precision, inference=True)
    if compute.precision == "int8":
        recognizer = recognizer.int8
    model: torch.nn.Module = recognizer.model
    model.to(compute.device).eval()  # moves nothing if `loading.loaded` opened it
    decoding = recognizer.decoding(request)
    plan = recognizer.windows(chunk_seconds, vad)

    def pieces(row: int, wanted: Recording) -> Generator[_Piece, None, None]:
        count = None
        heard: Iterable[int | None] = (None,)
        with naming(row):
            try:
                if wanted.channel == "each":
                    count = channels(wanted.audio, root)
                    heard = range(1, count + 1)
                elif wanted.channel != "mix":
                    heard = (wanted.channel,)
            except DataError as error:
                if on_error == "raise":
                    raise
                yield bad(str(error))
                return
            for channel in heard:
                try:
                    yield from windows(wanted, channel, count)
                except DataError as error:
                    if on_error == "raise":
                        raise
                    yield bad(str(error), channel, count)  # others may be whole

    def bad(
        reason: str, channel: int | None = None, count: int | None = None
    ) -> _Piece:
        return _Piece(
            None,
            slice(0),
            (),
            0.0,
            last=True,
            channel=channel,
            channels=count,
            error=reason,
        )

    def windows(
        wanted: Recording, channel: int | None, count: int | None
    ) -> Generator[_Piece, None, None]:
        decoder = decoding.start(wanted.words or _names(wanted.hotwords))
        levels = Levels()
        with closing(blocks(wanted.audio, root, channel, levels)) as waveform:
            for window in plan.cut(waveform):
                features = None
                if not window.silent:
                    features = compute.stage(recognizer.features(window.waveform))
                yield _Piece(
                    features,
                    window.frames,
                    window.spans,
                    window.seconds,
                    window.last,
                    window.speech_seconds,
                    decoder,
                    channel,
                    count,
                    window.last and levels.tell_of_different_speech(),
                )

    cut = (pieces(row, wanted) for row, wanted in enumerate(recordings, first_row))
    recording: _Heard | None = None  # the one that is not at its end yet
    with closing(prefetched(cut, batch_size)) as prepared:
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
                scores = recognizer.scores(inputs, decoding) if inputs else []
            # Only when all windows are fed, so that decoders can work together.
            done: list[Callable[[], Transcription]] = []
            following = iter(scores)
            for piece in batch:
                if piece.error is not None:  # the text of earlier windows is dropped
                    done.append(
                        partial(
                            Transcription,
                            text=None,
                            channel=piece.channel,
                            channels=piece.channels,
                            error=piece.error,
                        )
                    )
                    recording = None
                    continue
                assert piece.decoder is not None
                recording = recording or _Heard(piece.decoder)
                is_heard = piece.features is not None
                recording.hear(piece, next(following) if is_heard else None)
                if piece.last:
                    done.append(partial(recording.transcription, piece))
                    recording = None
                yield []
            yield [transcription() for transcription in done]


def _names(value: Any) -> tuple[str, ...]:
    """Return the hotwords that a row gives, as the option `hotwords` takes them."""
    try:
        return () if value is None else read_names(value)
    except ValueError:
        message = (
            f"its hotwords are {value!r:.60}, not words and names between commas, or a "
            "JSON array of them"
        )
        raise DataError(message) from None
