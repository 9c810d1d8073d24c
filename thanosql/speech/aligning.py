"""A recognizer, recordings and their texts in; when each word was said, out."""

from __future__ import annotations

from collections import deque
from contextlib import closing
from typing import TYPE_CHECKING, Any

from thanosql import errors
from thanosql.speech.listening import LEAVE_OUT, not_text
from thanosql.speech.recording import Recording
from thanosql.speech.results import Alignment

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence
    from pathlib import Path

    from thanosql.speech.progress import Progress
    from thanosql.speech.recognizers.recognizer import Recognizer, Writing
    from thanosql.statements import AlignOptions

_LONGEST = 1_000  # letters of a word; the longest that are in use have 50


def align(
    recognizer: Recognizer,
    pairs: Iterable[tuple[Any, Any]],
    options: AlignOptions,
    root: Path | None,
    progress: Progress,
    first_row: int = 1,
) -> Generator[list[Alignment], None, None]:
    """Yield the alignments of recordings with their texts, in order, some at a time.

    pairs: the audio and the text of each row. first_row: the row number of the first,
    for errors. A row whose recording or text is bad raises DataError, which names it,
    when its turn comes; with on_error="null" its alignment has the reason instead.
    """
    from thanosql.speech import transcription
    from thanosql.speech.decoding.decoding import Request
    from thanosql.speech.decoding.words import split_words

    # For each row that is read and not yet yielded: why its text is bad, or None.
    faults: deque[str | None] = deque()
    done = 0

    def recordings() -> Iterator[Recording]:
        for audio, text in pairs:
            words = tuple(split_words(text)) if isinstance(text, str) else ()
            faults.append(_fault(text, words, recognizer.spelling, options.text_col))
            if faults[-1] is None:
                yield Recording(audio, words=words)

    def bad() -> Iterator[Alignment]:
        """Yield the rows with bad texts, up to the next one with a good text."""
        while faults and (fault := faults[0]) is not None:
            yield finished(Alignment(error=fault), errors.DataError)

    def finished(found: Alignment, kind: type[errors.DataError]) -> Alignment:
        nonlocal done
        faults.popleft()
        if found.error is not None and options.on_error == "raise":
            message = f"row {first_row + done}: {found.error}"
            raise kind(message)
        done += 1
        return found

    progress("align", done, None)  # loading the model may have taken seconds
    with closing(
        transcription.transcribe(
            recognizer,
            recordings(),
            batch_size=options.batch_size,
            precision=options.precision,
            device=options.device,
            request=Request(align=True),
            chunk_seconds=options.chunk_seconds,
            vad=False,
            on_error="null",  # which of a row's faults is told, `finished` decides
            root=root,
        )
    ) as batches:
        for batch in batches:
            aligned: list[Alignment] = []
            for found in batch:
                aligned += bad()
                if found.alignment is not None:
                    aligned.append(finished(found.alignment, errors.DataError))
                else:
                    unheard = Alignment(error=found.error)
                    aligned.append(finished(unheard, errors.AudioError))
            progress("align", done, None)
            yield aligned
    yield list(bad())


def _fault(
    text: Any, words: Sequence[str], spelling: Writing, column: str
) -> str | None:
    """Return why a text cannot be aligned, or None if it can."""
    if not isinstance(text, str):
        return not_text(text, column)
    if not words:
        return f"the text is empty; {LEAVE_OUT}"
    longest = max(words, key=len)
    if len(longest) > _LONGEST:
        return (
            f"a word of the text has {len(longest):,} letters, beginning "
            f"{longest[:20]!r}; put spaces between its words"
        )
    if not any(spelling.normalize(word).text for word in words):
        return (
            f"the model's vocabulary can spell nothing of the text {text[:40]!r}; "
            "spell it out in the query, or take a model of its language"
        )
    return None
