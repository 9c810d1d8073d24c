"""Long work: what BUILD, PREDICT and EVALUATE do with a model; the door to `speech`.

Rows and options in, a trained model, transcripts or scores out. Nothing here knows SQL.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import (
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import closing, nullcontext
from dataclasses import astuple, dataclass, fields, replace
from typing import IO, TYPE_CHECKING, Any

from thanosql import errors, store
from thanosql.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

    from thanosql.speech.checkup import Checkup
    from thanosql.speech.examination import BadRow, Examination, Utterance
    from thanosql.speech.recognizer import Recognizer
    from thanosql.speech.recordings import Recording
    from thanosql.speech.text import Spelling
    from thanosql.speech.training import TrainingConfig
    from thanosql.speech.transcription import Transcription
    from thanosql.statements import BuildOptions, EvaluateOptions, PredictOptions

Rows = Sequence[tuple[Any, ...]]
"""(audio, text) of every row, by position; kept on disk."""

_KEPT_LOADED = 2  # models; one of wav2vec2-base's size is 0.4 GB


class _LoadedModel:
    """A place for a model; whoever holds its lock first fills it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.recognizer: Recognizer | None = None


class _LoadedModels:
    """The models used last, by their files' digest: never one that was replaced."""

    def __init__(self) -> None:
        self._models: OrderedDict[str, _LoadedModel] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, models: store.ModelStore, model: store.StoredModel) -> Recognizer:
        with self._lock:
            loaded = self._models.setdefault(model.sha256, _LoadedModel())
            self._models.move_to_end(model.sha256)
            while len(self._models) > _KEPT_LOADED:
                self._models.popitem(last=False)
        # Loading one model keeps nobody waiting who wants another.
        with loaded.lock:
            if loaded.recognizer is None:
                loaded.recognizer = open_stored(models, model)
            return loaded.recognizer


_loaded = _LoadedModels()


def open_stored(models: store.ModelStore, model: store.StoredModel) -> Recognizer:
    """Return a stored model, read anew.

    It is put together in a thread while the bulk of its weights is still being read,
    in the calling one: SQLite lets no other thread in while a statement runs.
    """
    from concurrent.futures import Future, ThreadPoolExecutor

    from thanosql.speech import bases

    whole: Future[None] = Future()
    opened: list[Future[Recognizer]] = []
    with ThreadPoolExecutor(1) as beside:
        try:
            models.read(
                model,
                lambda files: opened.append(
                    beside.submit(bases.open_files, files, whole.result)
                ),
            )
        except BaseException as error:
            whole.set_exception(error)  # ends the thread as well
            raise
        whole.set_result(None)
        return opened[0].result()


def open_base(base: str, texts: Callable[[], Iterable[str]]) -> Recognizer:
    """Return a base by name, directory or hub id; `texts` is for a new vocabulary."""
    from thanosql.speech import bases

    return bases.open_base(base, texts)


def import_base(origin: str) -> Recognizer:
    """Return the model of a directory or hub id, which must be able to transcribe."""

    def no_texts() -> Iterable[str]:
        message = (
            f"{origin!r} has no vocabulary, so it cannot transcribe yet; BUILD MODEL "
            "... USING it makes one from the texts it is trained on"
        )
        raise errors.NotSupportedError(message)

    recognizer = open_base(origin, no_texts)
    # What masks a frame in training is not in every checkpoint, and not heard with.
    fresh = {n for n in recognizer.fresh if not n.endswith("masked_spec_embed")}
    if fresh:
        message = (
            f"{origin!r} has no weights for {min(fresh)}, so it cannot transcribe yet; "
            "BUILD MODEL ... USING it draws and trains them"
        )
        raise errors.DataError(message)
    return recognizer


def open_recording(path: str, root: Path | None) -> IO[bytes]:
    """Return the file that an audio value names, open; AudioError if it must not be."""
    from thanosql.speech import place

    return place.open_file(path, root)


def transcribe(
    models: store.ModelStore,
    model: store.StoredModel,
    audio: Iterable[Any],
    options: PredictOptions | EvaluateOptions,
    root: Path | None,
    first_row: int = 1,
) -> Generator[list[Transcription], None, None]:
    """Yield the transcriptions of recordings, in order, a batch at a time.

    `first_row` is the number of the first recording's row, for errors.
    """
    from thanosql.speech import transcription

    recognizer = _loaded.get(models, model)
    done = 0
    with (
        Progress() as progress,
        closing(
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
        ) as batches,
    ):
        for batch in batches:
            done += len(batch)
            progress("transcribe", done)
            yield batch


def evaluate(
    models: store.ModelStore,
    model: store.StoredModel,
    rows: Iterator[tuple[Any, Any]],
    options: EvaluateOptions,
    root: Path | None,
) -> Sequence[Any]:
    """Return how the model reads rows of (audio, text).

    Row count, WER, the ends of its 95 % confidence interval, CER, words,
    substitutions, deletions, insertions (of words), seconds of audio, seconds it took.
    The reference is normalized to what the model can spell, as the texts it was
    trained on were. With on_error='null' bad rows are left out, and their number comes
    last.
    """
    from thanosql.speech import metrics

    began = time.monotonic()
    spelling = _loaded.get(models, model).spelling
    references: deque[str | None] = deque()  # None of a bad row
    lenient = options.on_error == "null"

    def recordings() -> Iterator[Any]:
        for row, (audio, text) in enumerate(rows, start=1):
            try:
                references.append(_reference(spelling, row, text))
            except errors.DataError:
                if not lenient:
                    raise
                references.append(None)
            yield audio

    count, left_out, audio_seconds = 0, 0, 0.0
    words, characters = metrics.EditCounts(), metrics.EditCounts()
    utterances: Counter[tuple[int, int]] = Counter()  # (errors, words) of each
    with closing(transcribe(models, model, recordings(), options, root)) as batches:
        for batch in batches:
            for each in batch:
                reference = references.popleft()
                if reference is None or each.text is None:
                    left_out += 1
                    continue
                edits = metrics.word_errors([reference], [each.text])
                utterances[edits.errors, edits.reference_length] += 1
                words += edits
                characters += metrics.character_errors([reference], [each.text])
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
    models: store.ModelStore, model: store.StoredModel
) -> Callable[[int, Any, str], Sequence[Any]]:
    """Return a function that scores a transcript: row number, reference, transcript.

    It returns WER, CER, words, substitutions, deletions, insertions (of words),
    characters, errors in characters.
    """
    from thanosql.speech import metrics

    spelling = _loaded.get(models, model).spelling

    def score(row: int, text: Any, transcript: str) -> Sequence[Any]:
        reference = _reference(spelling, row, text)
        words = metrics.word_errors([reference], [transcript])
        characters = metrics.character_errors([reference], [transcript])
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


def _reference(spelling: Spelling, row: int, text: Any) -> str:
    """Return a true transcript as the model would spell it; else name the row."""
    if not isinstance(text, str):
        kind = "NULL" if text is None else type(text).__name__
        message = (
            f"row {row}: the reference text is {kind}; leave such rows out in the "
            "query's WHERE"
        )
        raise errors.DataError(message)
    return spelling.normalize(text).text


def inspect(path: Path) -> Recording:
    """Return what the header of an audio file says, or raise AudioError."""
    from thanosql.speech import recordings

    return recordings.inspect(path)


def inspect_folder(folder: Path) -> Iterator[tuple[Path, Recording]]:
    """Yield every audio file below a folder, by name, and what its header says.

    Raises AudioError for the first that cannot be read.
    """
    from thanosql.speech import recordings

    # Links to folders are not followed, so the walk ends. Hidden files are no data:
    # macOS leaves a ._name.wav beside each file it copies to a foreign disk.
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in recordings.SUFFIXES
        and not path.name.startswith(".")
        and path.is_file()
    )
    if not paths:
        known = ", ".join(sorted(recordings.SUFFIXES))
        message = f"no audio in the folder {str(folder)!r}: no file ends in {known}"
        raise errors.DataError(message)
    with Progress() as progress:
        for done, path in enumerate(paths, start=1):
            progress("inspect", done, len(paths))
            yield path, recordings.inspect(path)


@dataclass(frozen=True, slots=True)
class Material:
    """A base and the rows to train it on, looked at."""

    recognizer: Recognizer
    rows: Rows
    validation_rows: Rows
    "Those that `held_out` belong to."
    learned: Sequence[Utterance]
    held_out: Sequence[Utterance]
    dropped: Mapping[str, int]
    "Characters of the texts that the vocabulary cannot spell, counted."
    bad: Sequence[BadRow] = ()
    bad_held_out: Sequence[BadRow] = ()

    @property
    def seconds(self) -> float:
        """Of audio, in all."""
        return sum(u.seconds for u in (*self.learned, *self.held_out))

    def digests(self) -> tuple[str, str]:
        """Return a digest of the base, and one of the recordings as they were heard."""
        from thanosql.speech import checkpoint

        return (
            checkpoint.fingerprint(self.recognizer),
            checkpoint.recordings_digest(self.learned, self.held_out),
        )


def prepare(
    open_base: Callable[[Callable[[], Iterable[str]]], Recognizer],
    rows: Rows,
    held_out: Rows | None,
    options: BuildOptions,
    root: Path | None,
    interrupted: Callable[[], bool],
    checkup: Checkup | None = None,
) -> Material:
    """Open a base and look at all rows of (audio, text).

    `open_base` is given what yields the texts, for a base without a vocabulary.
    `held_out` are the rows of a validation query; without one a share of `rows` is
    taken. `interrupted` says whether to stop. `checkup` takes note of what is
    remarkable; without one, bad rows are an error, that lists them.
    """
    from thanosql.speech import examination
    from thanosql.speech.conditions import seeded

    if not rows:
        message = "the query gives no rows to train on"
        raise errors.TrainingError(message)
    with seeded(options.seed):
        recognizer = open_base(
            lambda: (text for _, text in rows if isinstance(text, str))
        )
    with Progress() as shown:
        progress = _stopping(shown, interrupted)
        examined = examination.examine(recognizer, rows, root, progress, checkup)
        if checkup is None:
            if examined.bad:
                raise examination.bad_rows_error(examined.bad, len(rows))
            _warn_of_dropped(examined)
        learned: Sequence[Utterance] = examined.utterances
        validation: Sequence[Utterance] = ()
        bad_held_out: Sequence[BadRow] = ()
        if held_out is not None:
            checked = examination.examine(recognizer, held_out, root, progress)
            bad_held_out = checked.bad
            if checked.bad and checkup is None:
                raise examination.bad_rows_error(
                    checked.bad, len(held_out), "the validation query"
                )
            validation = checked.utterances
        elif isinstance(options.validation, float) and learned:
            learned, validation = examination.hold_out(
                learned, options.validation, options.seed
            )
    return Material(
        recognizer,
        rows,
        rows if held_out is None else held_out,
        learned,
        validation,
        dict(examined.dropped),
        examined.bad,
        bad_held_out,
    )


def checkup(root: Path | None) -> Checkup:
    """Return what takes note of recordings in `prepare`."""
    from thanosql.speech.checkup import Checkup

    return Checkup(root)


def estimated_seconds(
    material: Material, options: BuildOptions, root: Path | None
) -> float | None:
    """Return how long a training will take, by its second and third step.

    Their time, by the seconds of audio in them, is taken for all epochs; validation,
    forwards only, for a third of it. The recognizer is of no use after this. None
    where there are no three steps.
    """
    from thanosql.speech import training

    steps: list[tuple[float, float]] = []

    def tell(stage: str, done: float, total: float, **facts: float) -> None:
        if stage == "train":
            steps.append((time.monotonic(), facts["audio_seconds"]))

    config = replace(_config(options), epochs=1, max_steps=3, time_limit=None)
    with closing(
        training.train(
            material.recognizer, material.rows, material.learned, (), config, root, tell
        )
    ) as epochs:
        next(epochs)
    if len(steps) < 3:
        return None
    pace = (steps[2][0] - steps[0][0]) / (steps[2][1] - steps[0][1])
    count = -(-len(material.learned) // options.batch_size) * options.epochs
    share = min(1.0, (options.max_steps or count) / count)
    learned = sum(u.seconds for u in material.learned)
    held_out = sum(u.seconds for u in material.held_out)
    seconds = pace * options.epochs * share * (learned + held_out / 3)
    return min(seconds, options.time_limit or seconds)


def _config(options: BuildOptions) -> TrainingConfig:
    from thanosql.speech import training

    wanted = {
        field.name: getattr(options, field.name)
        for field in fields(training.TrainingConfig)
    }
    # Fresh weights are trained in any case, so "auto" needs no look at them.
    wanted["freeze_feature_encoder"] = options.freeze_feature_encoder is not False
    return training.TrainingConfig(**wanted)


def train(
    material: Material,
    options: BuildOptions,
    root: Path | None,
    folder: Path | None,
    interrupted: Callable[[], bool],
) -> Generator[Sequence[Any], None, None]:
    """Train the recognizer, yielding a row an epoch; the last column: the best so far.

    `folder` keeps its checkpoint, and is gone on from where it holds one already.
    """
    from thanosql.speech import training
    from thanosql.speech.checkpoint import Checkpoints

    with (
        Progress() as shown,
        nullcontext() if folder is None else Checkpoints(folder) as checkpoints,
        closing(
            training.train(
                material.recognizer,
                material.rows,
                material.learned,
                material.held_out,
                _config(options),
                root,
                _stopping(shown, interrupted),
                validation_rows=material.validation_rows,
                checkpoints=checkpoints,
            )
        ) as epochs,
    ):
        for epoch in epochs:
            yield astuple(epoch)


def checkpointed_epochs(folder: Path) -> int:
    """Return after how many epochs the checkpoint in a folder was made; 0: none."""
    from thanosql.speech import checkpoint

    return checkpoint.epochs(folder)


def _stopping(
    progress: Progress, interrupted: Callable[[], bool]
) -> Callable[..., None]:
    """Return what shows progress, and stops the work where that is asked for."""

    def tell(stage: str, done: float, total: float, **facts: float) -> None:
        if interrupted():
            message = "interrupted"
            raise errors.OperationalError(message)
        progress(stage, done, total, **facts)

    return tell


def _warn_of_dropped(examined: Examination) -> None:
    """Tell which characters of the texts the model will never write."""
    letters = {c: n for c, n in examined.dropped.items() if c.isalnum()}
    if letters:
        listed = ", ".join(f"{c!r} ({n})" for c, n in list(letters.items())[:10])
        errors.warn(
            f"the model's vocabulary cannot spell {listed}"
            f"{' and others' if len(letters) > 10 else ''}: left out of the texts; "
            "spell them out in the query, or start from a base that has them"
        )
