"""A stored model and recordings in, transcripts and their scores out."""

from __future__ import annotations

import time
from collections import Counter, deque
from contextlib import closing
from typing import TYPE_CHECKING, Any

from thanosql import errors
from thanosql.speech.loading import loaded

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from thanosql.speech.decoding.spelling import Normalized, Spelling
    from thanosql.speech.loading import StoredFiles
    from thanosql.speech.progress import Progress
    from thanosql.speech.results import Transcription
    from thanosql.statements import EvaluateOptions, PredictOptions


def transcribe(
    stored: StoredFiles,
    audio: Iterable[Any],
    options: PredictOptions | EvaluateOptions,
    root: Path | None,
    progress: Progress,
    first_row: int = 1,
) -> Generator[list[Transcription], None, None]:
    """Yield the transcriptions of recordings, in order, a batch at a time.

    `first_row` is the number of the first recording's row, for errors.
    """
    from thanosql.speech import transcription

    recognizer = loaded(stored, options.device)
    done = 0
    with closing(
        transcription.transcribe(
            recognizer,
            audio,
            batch_size=options.batch_size,
            precision=options.precision,
            device=options.device,
            chunk_seconds=options.chunk_seconds,
            on_error=options.on_error,
            root=root,
            first_row=first_row,
        )
    ) as batches:
        for batch in batches:
            done += len(batch)
            progress("transcribe", done, None)
            yield batch


def evaluate(
    stored: StoredFiles,
    rows: Iterator[tuple[Any, Any]],
    options: EvaluateOptions,
    root: Path | None,
    progress: Progress,
    dropped: Counter[str],
) -> Sequence[Any]:
    """Return how the model reads rows of (audio, text).

    Row count, WER, the ends of its 95 % confidence interval, CER, words,
    substitutions, deletions, insertions (of words), seconds of audio, seconds it took.
    The reference is normalized to what the model can spell, as the texts it was
    trained on were; what of it is not scored is counted in `dropped`. With
    on_error='null' bad rows are left out, and their number comes last.
    """
    from thanosql.speech import metrics

    began = time.monotonic()
    spelling = loaded(stored, options.device).spelling
    references: deque[Normalized | None] = deque()  # None of a bad row
    lenient = options.on_error == "null"

    def recordings() -> Iterator[Any]:
        for row, (audio, text) in enumerate(rows, start=1):
            try:
                references.append(_reference(spelling, row, text, options.text_col))
            except errors.DataError:
                if not lenient:
                    raise
                references.append(None)
            yield audio

    count, left_out, audio_seconds = 0, 0, 0.0
    words, characters = metrics.EditCounts(), metrics.EditCounts()
    utterances: Counter[tuple[int, int]] = Counter()  # (errors, words) of each
    with closing(transcribe(stored, recordings(), options, root, progress)) as batches:
        for batch in batches:
            for each in batch:
                reference = references.popleft()
                if reference is None or each.text is None:
                    left_out += 1
                    continue
                dropped.update(reference.dropped)
                edits = metrics.word_errors([reference.text], [each.text])
                utterances[edits.errors, edits.reference_length] += 1
                words += edits
                characters += metrics.character_errors([reference.text], [each.text])
                count += 1
                audio_seconds += each.seconds
    return (
        count,
        words.rate,
        *metrics.confidence_interval(utterances),
        characters.rate,
        words.reference_length,
        words.substitutions,
        words.deletions,
        words.insertions,
        audio_seconds,
        time.monotonic() - began,
        *((left_out,) if lenient else ()),
    )


def scorer(
    stored: StoredFiles,
    options: EvaluateOptions,
    dropped: Counter[str],
) -> Callable[[int, Any, str], Sequence[Any]]:
    """Return a function that scores a transcript: row number, reference, transcript.

    It returns WER, CER, words, substitutions, deletions, insertions (of words),
    characters, errors in characters; what is not scored it counts in `dropped`.
    """
    from thanosql.speech import metrics

    spelling = loaded(stored, options.device).spelling

    def score(row: int, text: Any, transcript: str) -> Sequence[Any]:
        reference = _reference(spelling, row, text, options.text_col)
        dropped.update(reference.dropped)
        words = metrics.word_errors([reference.text], [transcript])
        characters = metrics.character_errors([reference.text], [transcript])
        return (
            words.rate,
            characters.rate,
            words.reference_length,
            words.substitutions,
            words.deletions,
            words.insertions,
            characters.reference_length,
            characters.errors,
        )

    return score


def _reference(spelling: Spelling, row: int, text: Any, text_col: str) -> Normalized:
    """Return a true transcript as the model would spell it; else name the row."""
    if not isinstance(text, str):
        kind = "NULL" if text is None else type(text).__name__
        way_out = "leave such rows out in the query's WHERE"
        if isinstance(text, int | float):
            kind = "a number"
            way_out = f"write CAST({text_col} AS TEXT) AS {text_col} in the query"
        message = f"row {row}: the reference text is {kind}; {way_out}"
        raise errors.DataError(message)
    return spelling.normalize(text)
