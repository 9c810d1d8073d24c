"""Transcribe: recordings in, their texts out in the same order, a batch at a time."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from thanosql.speech.audio import load, seconds
from thanosql.speech.batching import chunks, naming, prefetched
from thanosql.speech.decoding import greedy_decode
from thanosql.speech.forward import forward
from thanosql.speech.precision import resolve

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from pathlib import Path

    from thanosql.speech.recognizer import Recognizer


@dataclass(frozen=True, slots=True)
class Transcription:
    """What a recording says."""

    text: str
    seconds: float
    "How long the recording is."


def transcribe(
    recognizer: Recognizer,
    audio: Iterable[object],
    *,
    batch_size: int,
    precision: str = "auto",
    device: str = "auto",
    root: Path | None = None,
    first_row: int = 1,
) -> Generator[list[Transcription], None, None]:
    """Yield the transcriptions of a batch of recordings at a time, in order.

    A text depends on its recording alone, not on the batch. audio: what `audio.load`
    takes; advanced in the calling thread only, at most two batches ahead of the texts.
    While the model hears one batch, threads decode the next. Closing the generator
    ends them.

    Raises AudioError that names the row (counted from `first_row`), when its batch is
    reached, and OptionError for a device or a precision that is not to be had.
    """
    compute = resolve(device, precision)
    model: torch.nn.Module = recognizer.model

    def prepare(numbered: tuple[int, object]) -> tuple[torch.Tensor, float]:
        row, value = numbered
        with naming(row):
            waveform = load(value, root)
            features = recognizer.features(waveform)
        return compute.stage(features), seconds(waveform)

    numbered = chunks(enumerate(audio, start=first_row), batch_size)
    with closing(prefetched(numbered, prepare)) as batches:
        for batch in batches:
            # Another use of the same model may have moved it since the last batch.
            model.to(compute.device).eval()
            with torch.inference_mode(), compute.tf32(), compute.autocast():
                inputs = [
                    features.to(compute.device, non_blocking=True)
                    for features, _ in batch
                ]
                logits, lengths = forward(recognizer, inputs)
            texts = greedy_decode(logits, lengths, recognizer)
            yield [
                Transcription(text, seconds)
                for text, (_, seconds) in zip(texts, batch, strict=True)
            ]
