"""A base and rows of (audio, text) in; a trained model out, an epoch at a time.

`prepare` examines all rows first and returns the `Material` that the other functions
take.
"""

from __future__ import annotations

import time
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, cast

from thanosql import errors
from thanosql.speech.dropped import warn_of_dropped
from thanosql.speech.rows import bad_rows_error

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence
    from pathlib import Path
    from typing import Any

    from thanosql.speech.decoding.decoding import Request
    from thanosql.speech.progress import Progress
    from thanosql.speech.recognizers.recognizer import Recognizer
    from thanosql.speech.results import EpochResult
    from thanosql.speech.rows import BadRow
    from thanosql.speech.training.checkup import Checkup
    from thanosql.speech.training.utterances import Utterances
    from thanosql.statements import BuildOptions

    # (audio, text) of every row, by position; kept on disk.
    Rows = Sequence[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Material:
    """An open base and the examined rows to train it on."""

    recognizer: Recognizer
    request: Request
    "The language and the task of the texts, where the model knows several."
    window: Literal["exact", "short"] | None
    "What the model hears; None if it hears each recording as long as it is."
    rows: Rows
    validation_rows: Rows
    "The rows that `held_out` refers to: `rows`, or those of the validation query."
    device: str
    "The device that the options choose on this machine."
    learned: Utterances
    "The utterances to train on."
    held_out: Utterances
    "The utterances to validate on."
    dropped: Mapping[str, int]
    "Characters of the texts that the vocabulary cannot spell, counted."
    bad: Sequence[BadRow] = ()
    bad_held_out: Sequence[BadRow] = ()

    @property
    def seconds(self) -> float:
        """The duration of all recordings together."""
        return sum(self.learned.seconds) + sum(self.held_out.seconds)

    def digests(self) -> tuple[str, str]:
        """Return a digest of the base, and one of the decoded recordings."""
        from thanosql.speech.training import checkpoint

        return (
            checkpoint.fingerprint(self.recognizer),
            checkpoint.recordings_digest(self.learned, self.held_out),
        )


def prepare(
    open_start: Callable[[], Recognizer],
    rows: Rows,
    held_out: Rows | None,
    options: BuildOptions,
    root: Path | None,
    progress: Progress,
    checkup: Checkup | None = None,
) -> Material:
    """Open the model that the training starts from, and examine all rows.

    open_start: opens a base or a stored model. It is called with torch's generator
    seeded, so that fresh weights depend only on the seed. held_out: the rows of a
    validation query; if None, a share of `rows` is held out. checkup: takes note of
    each recording. With one, bad rows are returned; without one, they are an error that
    lists them.
    """
    from thanosql.speech.decoding.decoding import Request
    from thanosql.speech.recognizers.adapter import Told
    from thanosql.speech.recognizers.precision import resolve
    from thanosql.speech.training import examination, utterances
    from thanosql.speech.training.conditions import seeded

    if not rows:
        message = "the query gives no rows to train on"
        raise errors.TrainingError(message)
    # Before the rows: examining hours of recordings takes minutes.
    device = resolve(options.device, options.precision).device
    with seeded(options.seed):
        recognizer = open_start()
        if options.adapter:
            _adapt(recognizer, options)
    if options.objective not in ("auto", recognizer.objective):
        raise _not_its_objective(recognizer.objective, options)
    asked = Request(language=options.language, task=options.task)
    request = recognizer.adopt(asked)
    window = recognizer.adopt_window(options.window)
    if recognizer.adapter is not None:
        recognizer.adapter.told = Told(request.language, request.task, window)
    examined = examination.examine(recognizer, rows, root, progress, checkup)
    if checkup is None:
        if examined.bad:
            raise bad_rows_error(examined.bad, len(rows), options.text_col)
        warn_of_dropped(examined.dropped)
    learned = examined.utterances
    validation = utterances.Utterances()
    bad_held_out: Sequence[BadRow] = ()
    if held_out is not None:
        checked = examination.examine(recognizer, held_out, root, progress)
        bad_held_out = checked.bad
        if checked.bad and checkup is None:
            raise bad_rows_error(
                checked.bad,
                len(held_out),
                options.text_col,
                "the validation query",
            )
        validation = checked.utterances
    elif isinstance(options.validation, float) and learned:
        learned, validation = utterances.hold_out(
            learned, options.validation, options.seed
        )
    known = utterances.trained_on(validation, learned)
    if known and checkup is None:
        errors.warn(
            f"{known} of the {len(validation)} recordings to validate on are trained "
            "on too, so their error rates say little about new ones; validate on others"
        )
    return Material(
        recognizer,
        request,
        window,
        rows,
        rows if held_out is None else held_out,
        str(device),
        learned,
        validation,
        dict(examined.dropped),
        examined.bad,
        bad_held_out,
    )


def _not_its_objective(own: str, options: BuildOptions) -> errors.OptionError:
    way_out = "leave it out"
    if options.objective == "ctc":
        way_out = "BUILD MODEL ... USING it makes a CTC model of its encoder"
    message = (
        f"option objective is {options.objective!r}, and the model is trained by "
        f"{own!r}; {way_out}"
    )
    return errors.OptionError(message)


def _adapt(recognizer: Recognizer, options: BuildOptions) -> None:
    """Give a base an adapter of its attention, if it has none; train nothing else."""
    from thanosql.speech.recognizers import adapter

    layers = adapter.projections(recognizer.model)
    if recognizer.adapter is not None:
        layers = dict(recognizer.adapter.layers)
    trained = [
        each
        for each in layers
        if not (options.freeze_encoder is True and recognizer.encodes(each))
    ]
    if not trained:
        message = (
            "option adapter: nothing is left to adapt, since all attention is in the "
            "encoder, and freeze_encoder=True keeps that as it is; leave it out"
        )
        raise errors.OptionError(message)
    if recognizer.adapter is not None:
        return
    # Some checkpoints lack masked_spec_embed, which is for training alone.
    drawn = {n for n in recognizer.fresh if not n.endswith("masked_spec_embed")}
    if drawn:
        message = (
            f"option adapter: the base has no weights yet for {min(drawn)}, and an "
            "adapter is a difference to weights; BUILD a model without adapter first "
            "(freeze_encoder=True trains only its last layers), then an adapter USING "
            "that model"
        )
        raise errors.NotSupportedError(message)
    rank = int(options.adapter or 0)
    recognizer.adapter = adapter.add(recognizer.model, trained, rank)


def chosen(
    material: Material, options: BuildOptions, learning_rate: float
) -> BuildOptions:
    """Return the options with what those that were left open come to for these rows.

    learning_rate: the base's own.
    """
    from thanosql.speech.training.conditions import freezes_encoder

    freezes = freezes_encoder(material.recognizer, material.learned, options)
    return replace(
        options,
        freeze_encoder=freezes,
        objective=material.recognizer.objective,
        learning_rate=options.learning_rate
        or material.recognizer.learning_rate
        or learning_rate,
        language=material.request.language,
        task=cast("Literal['transcribe', 'translate'] | None", material.request.task),
        window=material.window,
    )


def parameter_counts(material: Material, options: BuildOptions) -> tuple[int, int]:
    """Return how many parameters the model has, and how many of them are trained."""
    from thanosql.speech.training.conditions import freezes_encoder, frozen

    recognizer = material.recognizer
    with frozen(
        recognizer,
        feature_encoder=options.freeze_feature_encoder is not False,
        encoder=freezes_encoder(recognizer, material.learned, options),
    ):
        return (
            recognizer.model.num_parameters(),
            recognizer.model.num_parameters(only_trainable=True),
        )


def checkup(root: Path | None) -> Checkup:
    """Return an empty `Checkup`, for `prepare` to fill."""
    from thanosql.speech.training.checkup import Checkup

    return Checkup(root)


def estimated_seconds(
    material: Material, options: BuildOptions, root: Path | None
) -> float | None:
    """Return the estimated seconds of a training; None for fewer than three steps.

    It trains for three steps, which change the recognizer's weights: do not use it
    afterwards. The second and third step give the time per second of audio. Validation,
    which needs no backward pass, is counted at a third of that.
    """
    from thanosql.speech.recognizers import precision
    from thanosql.speech.training import train

    steps: list[tuple[float, float]] = []

    def tell(stage: str, done: float, total: float | None, **facts: float) -> None:
        if stage == "train":
            # A GPU may still be computing: Python only queues the step.
            precision.wait_for(material.recognizer.device)
            steps.append((time.monotonic(), facts["audio_seconds"]))

    three_steps = replace(options, epochs=1, max_steps=3, time_limit=None)
    with closing(
        train.train(
            material.recognizer,
            material.rows,
            material.learned,
            material.held_out[:0],
            three_steps,
            root,
            tell,
            head_first=False,
        )
    ) as epochs:
        next(epochs)
    if len(steps) < 3:
        return None
    pace = (steps[2][0] - steps[0][0]) / (steps[2][1] - steps[0][1])
    count = -(-len(material.learned) // options.batch_size) * options.epochs
    share = min(1.0, (options.max_steps or count) / count)
    learned = sum(material.learned.seconds)
    held_out = sum(material.held_out.seconds)
    seconds = pace * options.epochs * share * (learned + held_out / 3)
    return min(seconds, options.time_limit or seconds)


def train(
    material: Material,
    options: BuildOptions,
    root: Path | None,
    folder: Path | None,
    progress: Progress,
) -> Generator[EpochResult, None, None]:
    """Train the recognizer, yielding the result of each epoch.

    folder: keeps the checkpoint. If it holds one already, the training goes on from it.
    """
    from thanosql.speech.training import train
    from thanosql.speech.training.checkpoint import Checkpoints

    with (
        nullcontext() if folder is None else Checkpoints(folder) as checkpoints,
        closing(
            train.train(
                material.recognizer,
                material.rows,
                material.learned,
                material.held_out,
                options,
                root,
                progress,
                validation_rows=material.validation_rows,
                checkpoints=checkpoints,
            )
        ) as epochs,
    ):
        yield from epochs


def checkpointed_epochs(folder: Path) -> int:
    """Return the number of epochs before the checkpoint in a folder; 0 if none."""
    from thanosql.speech.training import checkpoint

    return checkpoint.epochs(folder)
