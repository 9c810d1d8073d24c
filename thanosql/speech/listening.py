"""A recognizer and recordings in; transcripts, or their scores, out."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any

from thanosql import errors
from thanosql.speech.decoding.spelling import Normalized
from thanosql.speech.results import RowScores, Scores, Transcription
from thanosql.statements import PredictOptions

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable
    from pathlib import Path

    from thanosql.speech.decoding.decoding import LanguageModel
    from thanosql.speech.progress import Progress
    from thanosql.speech.recognizers.recognizer import Recognizer
    from thanosql.speech.recording import FileCopy, Recording
    from thanosql.statements import EvaluateOptions


def transcribe(
    recognizer: Recognizer,
    recordings: Iterable[Recording],
    options: PredictOptions | EvaluateOptions,
    root: Path | None,
    progress: Progress,
    first_row: int = 1,
    language_model: LanguageModel | None = None,
) -> Generator[list[Transcription], None, None]:
    """Yield the transcriptions of recordings, in order, a batch at a time.

    first_row: the row number of the first recording, for errors. language_model: the
    one that the options name.
    """
    from thanosql.speech import transcription
    from thanosql.speech.decoding.decoding import Request

    predict = options if isinstance(options, PredictOptions) else None
    done = 0
    progress("transcribe", done, None)  # loading the model may have taken seconds
    with closing(
        transcription.transcribe(
            recognizer,
            recordings,
            batch_size=options.batch_size,
            precision=options.precision,
            device=options.device,
            request=Request(
                options.language,
                options.task,
                options.prompt,
                options.beam_size,
                words=predict is not None and (predict.words or predict.per_word),
                alternatives=None if predict is None else predict.alternatives,
                language_model=language_model,
                lm_weight=options.lm_weight,
                word_bonus=options.word_bonus,
                hotwords=options.hotwords or (),
                own_hotwords=options.hotwords_col is not None,
                hotword_weight=options.hotword_weight,
                best_path=predict is None,
            ),
            chunk_seconds=options.chunk_seconds,
            vad=options.vad,
            on_error=options.on_error,
            root=root,
            first_row=first_row,
        )
    ) as batches:
        for batch in batches:
            done += len(batch)
            progress("transcribe", done, None)
            yield batch


def copied(path: str, root: Path | None) -> FileCopy:
    """Return a copy of the recording at a path or URL; AudioError if it is not there.

    root: the folder that the path must not lead out of.
    """
    from thanosql.speech.sound import audio

    return audio.copied(path, root)


class Scorer:
    """Compares transcripts with reference texts, and adds up the edits.

    A reference is brought to what the model can spell, as the texts that it was trained
    on were; `dropped` counts the characters that are therefore not scored. Only
    `english` takes it as it is, since a model that spells no digits says numbers in
    words, which `english` reads. Then both sides are normalized as the options say.
    Memory does not grow with the number of rows.
    """

    def __init__(self, recognizer: Recognizer, options: EvaluateOptions) -> None:
        """Begin with no rows."""
        from thanosql.speech import metrics
        from thanosql.speech.normalization import NORMALIZERS

        self.dropped: Counter[str] = Counter()
        self._spelling = recognizer.spelling
        self._options = options
        self._normalize = NORMALIZERS[options.normalize]
        self._rows = 0
        self._audio_seconds = 0.0
        self._words = self._characters = self._without = metrics.EditCounts()
        self._utterances: Counter[tuple[int, int]] = Counter()  # (errors, words)

    def score(self, row: int, text: Any, found: Transcription) -> RowScores:
        """Return the scores of one row, and add them to the total.

        text: the reference; DataError names the row if it is not a text, or one that
        cannot be normalized.
        """
        from thanosql.speech import metrics

        spelled = self._spelled(row, text)
        try:
            reference = self._normalize(spelled.text)
            hypothesis = self._normalize(found.text or "")
        except errors.DataError as error:
            message = f"row {row}: {error}"
            raise errors.DataError(message) from None
        words = metrics.word_errors([reference], [hypothesis])
        characters = metrics.character_errors([reference], [hypothesis])
        self.dropped.update(spelled.dropped)
        self._rows += 1
        self._audio_seconds += found.seconds
        self._words += words
        self._characters += characters
        if found.best_path is not None:
            without = self._normalize(found.best_path)
            self._without += metrics.word_errors([reference], [without])
        self._utterances[words.errors, words.reference_length] += 1
        return RowScores(
            wer=words.rate,
            cer=characters.rate,
            words=words.reference_length,
            substitutions=words.substitutions,
            deletions=words.deletions,
            insertions=words.insertions,
            characters=characters.reference_length,
            character_errors=characters.errors,
        )

    def scores(self, *, seconds: float, left_out: int) -> Scores:
        """Return the scores of all rows.

        seconds: how long the work took; left_out: how many rows were bad.
        """
        from thanosql.speech import metrics

        low, high = metrics.confidence_interval(self._utterances)
        return Scores(
            rows=self._rows,
            wer=self._words.rate,
            wer_low=low,
            wer_high=high,
            cer=self._characters.rate,
            wer_without=self._without.rate,
            words=self._words.reference_length,
            substitutions=self._words.substitutions,
            deletions=self._words.deletions,
            insertions=self._words.insertions,
            audio_seconds=self._audio_seconds,
            seconds=seconds,
            normalize=self._options.normalize,
            left_out=left_out,
        )

    def _spelled(self, row: int, text: Any) -> Normalized:
        """Return a reference as the model would spell it; an error names the row."""
        if not isinstance(text, str):
            message = f"row {row}: {not_text(text, self._options.text_col)}"
            raise errors.DataError(message)
        if self._options.normalize == "english":
            return Normalized(text)
        return self._spelling.normalize(text)


LEAVE_OUT = "leave such rows out in the query's WHERE"


def not_text(value: object, column: str) -> str:
    """Return what is wrong with a value of a text column that is no text."""
    if isinstance(value, int | float):
        return (
            "the reference text is a number; "
            f"write CAST({column} AS TEXT) AS {column} in the query"
        )
    kind = "NULL" if value is None else type(value).__name__
    return f"the reference text is {kind}; {LEAVE_OUT}"
