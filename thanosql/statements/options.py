"""Options: what stands in OPTIONS (...) in, a checked frozen dataclass out.

The dataclasses are the only list of options: names, defaults, what is allowed and the
documentation's tables come from their fields (`dataclasses.fields`). The metadata of a
field are ``doc``, ``unit`` ("" where there is none), ``aliases``, ``accepts``, whose
``str`` says in words what is allowed, and ``shapes_weights``, which is False if a
training yields the same model at any value of the option.
"""

from __future__ import annotations

import dataclasses
import reprlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from thanosql.errors import OptionError, nearest, point
from thanosql.statements.checks import (
    Accepted,
    byte_count,
    either,
    matching,
    names,
    number,
    one_of,
    or_null,
    thresholds,
    true_or_false,
    whole_number,
)
from thanosql.statements.nodes import Parameter, RawOption

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def _option(
    default: Any,
    accepts: Accepted,
    doc: str,
    *,
    unit: str = "",
    aliases: tuple[str, ...] = (),
    shapes_weights: bool = True,
) -> Any:
    metadata = {
        "doc": doc,
        "accepts": accepts,
        "unit": unit,
        "aliases": aliases,
        "shapes_weights": shapes_weights,
    }
    return field(default=default, metadata=metadata)


_NAME = matching("a name", r"(?s).+")
_COLUMN = matching("the name of a column", r"(?s).+")
_FLAG = true_or_false()
_FROM_ONE = whole_number(1)
_POSITIVE = number("a number above 0", lambda value: value > 0)
_TEXT = matching("a text", r"(?s).*\S.*")


def _language(doc: str) -> Any:
    accepts = matching("a language's code or English name", r"[A-Za-z-]{2,20}")
    return _option(None, or_null(accepts), doc)


def _task(doc: str) -> Any:
    return _option(None, or_null(one_of("transcribe", "translate")), doc)


def _precision_for_inference() -> Any:
    return _option(
        "auto",
        one_of("auto", "fp32", "bf16", "fp16", "int8"),
        "number format of the model's arithmetic; `auto` is what the device is fast "
        "in; `int8`, on a CPU only, is faster and a little less exact",
    )


def _on_error() -> Any:
    return _option(
        "raise",
        one_of("raise", "null"),
        "what a bad row does: end the statement, or become NULL, with the reason in "
        "one more column, `error`",
    )


def _audio_column() -> Any:
    return _option(
        None,
        or_null(_COLUMN),
        "column with the recordings; `audio` if not given, else `audio_path`",
        aliases=("audio_path",),
        shapes_weights=False,  # the recordings themselves are compared
    )


def _workers(doc: str) -> Any:
    return _option(None, or_null(_FROM_ONE), doc, shapes_weights=False)


def _worker_cpus() -> Any:
    return _option(
        None,
        or_null(_FROM_ONE),
        "that a worker takes; its share of the cluster's if not given",
        unit="cores",
        shapes_weights=False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _SpeechOptions:
    """Options of all statements that run a model over a query's recordings."""

    audio_col: str | None = _audio_column()
    batch_size: int = _option(16, _FROM_ONE, "recordings in a batch", unit="rows")
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = _option(
        "auto",
        one_of("auto", "fp32", "bf16", "fp16"),
        "number format of the model's arithmetic; `auto` is what the device is fast in",
    )
    device: str = _option(
        "auto",
        matching("auto, cpu, cuda, cuda:N", r"auto|cpu|cuda(:[0-9]+)?"),
        "where the model runs; `auto` is a GPU if there is one",
        shapes_weights=False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildOptions(_SpeechOptions):
    """Options of BUILD MODEL."""

    statement: ClassVar[str] = "BUILD MODEL"

    text_col: str = _option(
        "text",
        _COLUMN,
        "column with the transcripts",
        shapes_weights=False,  # the texts themselves are compared
    )
    epochs: int = _option(
        5, _FROM_ONE, "times that every row is trained on", aliases=("max_epochs",)
    )
    learning_rate: float | None = _option(
        None,
        or_null(_POSITIVE),
        "of AdamW, at its highest; if not given, the base's own, else 1e-4; 1e-3 of an "
        "adapter",
    )
    warmup: float = _option(
        0.1,
        number("a number from 0 to 1", lambda value: 0 <= value <= 1),
        "share of the steps in which the learning rate rises from 0",
    )
    weight_decay: float = _option(
        0.01, number("a number, 0 or more", lambda value: value >= 0), "of AdamW"
    )
    max_grad_norm: float = _option(
        1.0, _POSITIVE, "norm that the gradient of a step is clipped to"
    )
    objective: Literal["auto", "ctc", "seq2seq", "transducer"] = _option(
        "auto",
        one_of("auto", "ctc", "seq2seq", "transducer"),
        "what is trained: `auto`: the model as it is; `ctc`: of a model that writes "
        "text, such as Whisper, the encoder alone, with a head that scores the "
        "characters of the texts",
    )
    freeze_feature_encoder: Literal["auto"] | bool = _option(
        "auto",
        either(one_of("auto"), _FLAG),
        "keep the convolutions as they are; `auto`: if their weights are trained ones",
    )
    freeze_encoder: Literal["auto"] | bool = _option(
        "auto",
        either(one_of("auto"), _FLAG),
        "train only what comes after the encoder; `auto`: for a model that writes text "
        "by itself, such as Whisper, on less than an hour of recordings",
    )
    adapter: bool | int | None = _option(
        None,
        or_null(either(_FLAG, whole_number(2, 1024))),
        "train and store only a small difference to the weights of the base's "
        "attention, of this rank (LoRA), TRUE: 8; if not given, FIT goes on with an "
        "adapter as an adapter",
    )
    language: str | None = _language(
        "of the texts, for a model of several languages; its own if not given"
    )
    task: Literal["transcribe", "translate"] | None = _task(
        "whether the texts are in the recordings' language or in English, for a model "
        "that can do both; its own if not given"
    )
    window: Literal["exact", "short"] | None = _option(
        None,
        or_null(one_of("exact", "short")),
        "of a model that hears 30 s at a time, such as Whisper: `exact` fills them "
        "with silence, `short` only the next full second, to which the model must be "
        "trained; its own if not given",
    )
    speed_perturbation: bool = _option(
        False,
        _FLAG,
        "play each recording at another speed in each epoch, 0.88 to 1.12 of its own",
    )
    noise_perturbation: bool = _option(
        False,
        _FLAG,
        "hear most recordings with another noise in each epoch, in another room, "
        "through another microphone",
    )
    spec_augment: Literal["auto"] | bool = _option(
        "auto",
        either(one_of("auto"), _FLAG),
        "mask stretches of time and frequency (SpecAugment); `auto`: as the base's "
        "config says",
    )
    feature_cache: int = _option(
        10**9,
        byte_count("a size such as '500MB' or '2GiB', or a number of bytes, 0 or more"),
        "memory for features that need not be computed again in each epoch; 0 for none",
        unit="bytes",
        shapes_weights=False,
    )
    seed: int = _option(0, whole_number(0), "same seed, same rows: same model")
    validation: float | str = _option(
        0.1,
        either(
            number("a share from 0 to below 1", lambda value: 0 <= value < 1),
            matching("a query in quotes", r"(?s).*\S.*"),
        ),
        "share of the rows to validate on, or a query for other rows",
    )
    overwrite: bool = _option(
        False, _FLAG, "replace a model of the same name", shapes_weights=False
    )
    check_only: bool = _option(
        False,
        _FLAG,
        "report what is to be known of the rows, and train nothing",
        shapes_weights=False,
    )
    resume: bool = _option(
        False,
        _FLAG,
        "go on with an interrupted training of the same model and rows",
        shapes_weights=False,
    )
    gradient_checkpointing: bool = _option(
        False,
        _FLAG,
        "compute twice what would be kept: slower, in less memory",
        shapes_weights=False,
    )
    max_steps: int | None = _option(
        None, or_null(_FROM_ONE), "end after so many steps", unit="steps"
    )
    time_limit: float | None = _option(
        None, or_null(_POSITIVE), "end after so much time", unit="seconds"
    )
    workers: int | None = _workers(
        "processes on a Ray cluster that train side by side; this process alone if not "
        "given"
    )
    worker_cpus: int | None = _worker_cpus()


@dataclass(frozen=True, slots=True, kw_only=True)
class FitOptions(BuildOptions):
    """Options of FIT MODEL: those of BUILD MODEL."""

    statement: ClassVar[str] = "FIT MODEL"


@dataclass(frozen=True, slots=True, kw_only=True)
class NGramOptions:
    """Options of BUILD MODEL ... USING NGram, which counts a language model."""

    statement: ClassVar[str] = "BUILD MODEL ... USING NGram"

    text_col: str = _option("text", _COLUMN, "column with the texts")
    order: int = _option(
        3, whole_number(1, 6), "the most words that are counted together", unit="words"
    )
    prune: str = _option(
        "0",
        thresholds(),
        "for n-grams of one word, of two and so on: those that are there so often or "
        "less are left out; the last number is for all longer ones, too",
    )
    validation: float = _option(
        0.1,
        number("a share from 0 to below 1", lambda value: 0 <= value < 1),
        "share of the texts that the perplexity is measured on; the model has them too",
    )
    overwrite: bool = _option(False, _FLAG, "replace a model of the same name")


@dataclass(frozen=True, slots=True, kw_only=True)
class _ListeningOptions(_SpeechOptions):
    """Options of all statements that transcribe."""

    chunk_seconds: float = _option(
        60.0,
        _POSITIVE,
        "longer recordings are heard in windows of so much, which overlap; by a model "
        "that writes text by itself, such as Whisper, in windows of at most 30 s, "
        "which are cut at pauses and do not overlap",
        unit="seconds",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = (
        _precision_for_inference()
    )
    language: str | None = _language(
        "of the recordings, for a model of several languages; `auto` lets the model "
        "find it; the model's own if not given, else `auto`"
    )
    task: Literal["transcribe", "translate"] | None = _task(
        "`translate` writes English, for a model that can; the model's own if not "
        "given, else `transcribe`"
    )
    prompt: str | None = _option(
        None,
        or_null(_TEXT),
        "a text as might come before, for a model that writes text by itself: it "
        "goes on in the same spelling and style",
    )
    beam_size: int | None = _option(
        None,
        or_null(_FROM_ONE),
        "texts that are weighed at once; if not given, 1 or what the model says of "
        "itself, and 32 for a CTC model with any of the following options",
    )
    language_model: str | None = _option(
        None,
        or_null(_NAME),
        "stored language model that helps a CTC model to choose words",
    )
    lm_weight: float | None = _option(
        None,
        or_null(number("a number from 0 to 10", lambda value: 0 <= value <= 10)),
        "how much the language model counts beside the recognizer, which counts 1; 0.5 "
        "if not given",
    )
    word_bonus: float | None = _option(
        None,
        or_null(number("a number from -10 to 10", lambda value: -10 <= value <= 10)),
        "what a text gains for each word, in nats; 1 beside a language model, else 0",
    )
    hotwords: tuple[str, ...] | None = _option(
        None, or_null(names()), "what a CTC model is to expect in every recording"
    )
    hotwords_col: str | None = _option(
        None,
        or_null(_COLUMN),
        "column with more of them, for each recording its own; NULL for none",
    )
    hotword_weight: float | None = _option(
        None,
        or_null(number("a number from 0 to 20", lambda value: 0 <= value <= 20)),
        "what a text gains for each letter of a hotword, in nats; 1 if not given, 0.5 "
        "beside a language model",
    )
    vad: Literal["auto"] | bool = _option(
        "auto",
        either(one_of("auto"), _FLAG),
        "find speech first, and hear nothing else (voice activity detection); `auto`: "
        "for a model that writes text by itself, such as Whisper",
    )
    on_error: Literal["raise", "null"] = _on_error()
    workers: int | None = _workers(
        "processes on a Ray cluster that transcribe side by side; this process alone "
        "if not given"
    )
    worker_cpus: int | None = _worker_cpus()


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictOptions(_ListeningOptions):
    """Options of PREDICT."""

    statement: ClassVar[str] = "PREDICT"

    channel: int | Literal["mix", "each"] = _option(
        "mix",
        either(one_of("mix", "each"), _FROM_ONE),
        "which of a recording's channels is heard, from 1; `mix`: the mean of all; "
        "`each`: a row a channel, and one more column, `channel`",
    )
    result_col: str = _option("predicted", _COLUMN, "name of the new column")
    words: bool = _option(
        False,
        _FLAG,
        "two more columns: `words`, a JSON list of the words with their times, and "
        "`confidence`, of the whole text",
    )
    per_word: bool = _option(
        False,
        _FLAG,
        "a row a word in place of one a recording: `word`, `start`, `end`, "
        "`confidence`",
    )
    alternatives: int | None = _option(
        None,
        or_null(_FROM_ONE),
        "one more column, `alternatives`: a JSON list of that many of the best texts "
        "of a CTC model, each with its confidence",
    )
    details: bool = _option(
        False,
        _FLAG,
        "one more column, `details`: a JSON object of how the recording was heard",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions(_ListeningOptions):
    """Options of EVALUATE."""

    statement: ClassVar[str] = "EVALUATE"

    channel: int | Literal["mix"] = _option(
        "mix",
        either(one_of("mix"), _FROM_ONE),
        "which of a recording's channels is heard, from 1; `mix`: the mean of all",
    )
    text_col: str = _option("text", _COLUMN, "column with the true transcripts")
    per_row: bool = _option(
        False, _FLAG, "a row an utterance, in place of one row for all"
    )
    result_col: str = _option(
        "predicted", _COLUMN, "name of the transcripts' column, with `per_row`"
    )
    normalize: Literal["basic", "english", "none"] = _option(
        "basic",
        one_of("basic", "english", "none"),
        "what does not count: `basic`: case and punctuation; `english`: how numbers, "
        "titles and contractions are written, too; `none`: everything counts",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignOptions(_SpeechOptions):
    """Options of ALIGN."""

    statement: ClassVar[str] = "ALIGN"

    text_col: str = _option("text", _COLUMN, "column with the texts")
    per_row: bool = _option(False, _FLAG, "a row a recording, in place of a row a word")
    chunk_seconds: float = _option(
        60.0,
        _POSITIVE,
        "longer recordings are heard in windows of so much, which overlap",
        unit="seconds",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = (
        _precision_for_inference()
    )
    on_error: Literal["raise", "null"] = _on_error()


@dataclass(frozen=True, slots=True, kw_only=True)
class PrintAudioOptions:
    """Options of PRINT AUDIO."""

    statement: ClassVar[str] = "PRINT AUDIO"

    audio_col: str | None = _audio_column()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """Options of IMPORT MODEL."""

    statement: ClassVar[str] = "IMPORT MODEL"

    overwrite: bool = _option(False, _FLAG, "replace a model of the same name")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """Options of EXPORT MODEL."""

    statement: ClassVar[str] = "EXPORT MODEL"

    overwrite: bool = _option(False, _FLAG, "write into a directory that holds files")
    adapter: bool = _option(
        False,
        _FLAG,
        "of an adapter, write the difference alone, in the format of PEFT, in place of "
        "the whole model",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GetModelOptions:
    """Options of GET MODEL."""

    statement: ClassVar[str] = "GET MODEL"

    model_name: str | None = _option(
        None, or_null(_NAME), "name of the stored model; the base's own if not given"
    )
    overwrite: bool = _option(False, _FLAG, "replace a model of the same name")


@dataclass(frozen=True, slots=True, kw_only=True)
class GetDatasetOptions:
    """Options of GET DATASET."""

    statement: ClassVar[str] = "GET DATASET"

    overwrite: bool = _option(False, _FLAG, "replace tables of the same names")
    mirror: str | None = _option(
        None,
        or_null(matching("a URL or a folder", r"(?s).+")),
        "where to take the files from, in place of the dataset's own home: another "
        "server, or a folder with files downloaded elsewhere",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyOptions:
    """Options of COPY."""

    statement: ClassVar[str] = "COPY"

    if_exists: Literal["fail", "replace", "append"] = _option(
        "fail",
        one_of("fail", "replace", "append"),
        "what to do with a table that is there already",
    )
    format: Literal["csv", "tsv", "jsonl", "parquet", "xlsx", "audio"] | None = _option(
        None,
        or_null(one_of("csv", "tsv", "jsonl", "parquet", "xlsx", "audio")),
        "what the file is; if not given, what its name ends in",
    )
    encoding: str = _option(
        "utf-8", matching("the name of a text encoding", r"\S+"), "of csv, tsv, jsonl"
    )


Options = (
    BuildOptions
    | NGramOptions
    | PredictOptions
    | EvaluateOptions
    | AlignOptions
    | PrintAudioOptions
    | ImportOptions
    | ExportOptions
    | GetModelOptions
    | GetDatasetOptions
    | CopyOptions
)
_AnyOptions = TypeVar("_AnyOptions", bound=Options)


def bind(
    cls: type[_AnyOptions],
    raw: Sequence[RawOption],
    value_of: Callable[[Parameter], object],
    sql: str,
) -> _AnyOptions:
    """Return the options as `cls`, each checked, the others at their defaults.

    `value_of` gives what is bound to a parameter; `sql` is the statement, for errors.
    Raises OptionError, which names the option and what is allowed and points at it.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}
    spellings = {name: name for name in fields} | {
        alias: name for name, f in fields.items() for alias in f.metadata["aliases"]
    }
    values: dict[str, Any] = {}
    for option in raw:
        name = spellings.get(option.name.lower())
        if name is None:
            known = nearest(option.name, spellings) or f"; it takes {', '.join(fields)}"
            message = f"{cls.statement} has no option {option.name!r}{known}"
            raise OptionError(point(message, sql, option.start))
        if name in values:
            message = f"option {name} is given twice"
            raise OptionError(point(message, sql, option.start))
        value: object = option.value
        if isinstance(value, Parameter):
            value = value_of(value)
        accepts = fields[name].metadata["accepts"]
        try:
            values[name] = accepts.read(value)
        except (ValueError, OverflowError, TypeError):
            # Overflow of an int beyond floats; TypeError of pandas' NA, compared.
            message = f"option {name} takes {accepts}, not {_shown(value)}"
            raise OptionError(point(message, sql, option.value_start)) from None
    return cls(**values)


def check_workers(options: BuildOptions | PredictOptions | EvaluateOptions) -> None:
    """Raise OptionError if it is said what workers take, and there are none."""
    if options.worker_cpus is not None and options.workers is None:
        message = (
            "option worker_cpus is what each of the workers takes, and there are none; "
            "set workers too"
        )
        raise OptionError(message)


def shaping_weights(
    options: BuildOptions,
) -> dict[str, str | int | float | bool | None]:
    """Return, by name, the options that the trained weights depend on."""
    return {
        f.name: getattr(options, f.name)
        for f in dataclasses.fields(options)
        if f.metadata["shapes_weights"]
    }


def as_dict(options: Options) -> dict[str, str | int | float | bool | None]:
    """Return every option by name, as values that JSON knows."""
    return dataclasses.asdict(options)


def _shown(value: object) -> str:
    """Return a value as one would write it in SQL, if that is short."""
    constants = {None: "NULL", True: "TRUE", False: "FALSE"}
    if value is None or isinstance(value, bool):
        return constants[value]
    return reprlib.repr(value)
