"""What statements do with a language model: BUILD, IMPORT, EXPORT and DESCRIBE."""

from __future__ import annotations

import dataclasses
import tempfile
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw

from thanosql import errors, speech, statements
from thanosql.catalog.bases import NGRAM
from thanosql.execution.relation import Relation
from thanosql.store.records import ModelRecord
from thanosql.store.transactions import PATIENCE, check_snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from thanosql.execution.context import Context
    from thanosql.speech.ngram.files import Facts
    from thanosql.store.records import StoredModel

FILE = "lm.arpa"
"""What EXPORT calls the file that it writes into a directory."""

_SUFFIXES = (".arpa", ".arpa.gz")
_COLUMNS = (
    ("order", "INTEGER"),
    ("ngrams", "INTEGER"),
    ("vocabulary", "INTEGER"),
    ("sentences", "INTEGER"),
    ("words", "INTEGER"),
    ("perplexity", "REAL"),
    ("unknown", "REAL"),
)


def is_ngram(base: str) -> bool:
    """Whether that is the base of language models; it is so in any case of letters."""
    return base.casefold() == NGRAM.casefold()


def is_language_model(model: StoredModel) -> bool:
    """Whether a stored model is one of texts and not of recordings."""
    return model.architecture == NGRAM


def check_transcribes(model: StoredModel, statement: str) -> None:
    """Raise NotSupportedError for a language model, with what it is for."""
    if is_language_model(model):
        ways = {
            "BUILD MODEL": "start from a model of recordings; BUILD MODEL ... USING "
            f"{NGRAM} counts a language model anew",
            "FIT MODEL": f"count all texts anew with BUILD MODEL ... USING {NGRAM}",
            "ALIGN": "name a CTC model, such as TinyEn",
        }
        way_out = ways.get(
            statement,
            f"name a model of recordings, and {model.name!r} in its OPTIONS "
            f"(language_model={model.name!r})",
        )
        message = (
            f"{model.name!r} is a language model, which {statement} cannot use by "
            f"itself; {way_out}"
        )
        raise errors.NotSupportedError(message)


def named(
    context: Context, options: statements.PredictOptions | statements.EvaluateOptions
) -> StoredModel | None:
    """Return the language model that a statement's options name, or None.

    Raises OptionError if it is none, or if there is nothing that another option weighs.
    """
    names = options.hotwords or options.hotwords_col
    for option, value, weighed in (
        ("lm_weight", options.language_model, "a language_model"),
        ("hotword_weight", names, "hotwords or hotwords_col"),
    ):
        if getattr(options, option) is not None and not value:
            message = (
                f"option {option} weighs {weighed}, and there is none; name it too"
            )
            raise errors.OptionError(message)
    if options.language_model is None:
        return None
    model = context.models.get(options.language_model)
    if not is_language_model(model):
        message = (
            f"option language_model: {model.name!r} is a model of recordings; name one "
            f"that BUILD MODEL ... USING {NGRAM} has counted"
        )
        raise errors.OptionError(message)
    return model


def build(context: Context, node: statements.BuildModel) -> Relation:
    """BUILD MODEL ... USING NGram: yield one row, what was counted."""
    check_options(node, statements.NGramOptions, statements.BuildOptions)
    options = context.options(statements.NGramOptions, node.options)
    thresholds = [int(count) for count in options.prune.split()]
    if len(thresholds) > options.order:
        message = (
            f"option prune has {len(thresholds)} numbers, and order={options.order}; "
            "give one for each length at most"
        )
        raise errors.OptionError(message)
    thresholds += thresholds[-1:] * (options.order - len(thresholds))
    source = context.source(node.query, for_effect=True)
    text = source.position_for("text_col", options.text_col)
    rows: list[Sequence[Any]] = []

    def count() -> None:
        models, overwrite = context.models, options.overwrite or node.or_replace
        if node.if_not_exists and models.find(node.name) is not None:
            return
        models.check_new(node.name, overwrite=overwrite)
        context.warn_if_transaction_is_implicit("the model")
        if context.database.txn_state("main") != apsw.SQLITE_TXN_NONE:
            check_snapshot(context.database)  # now, not after a million words
        with tempfile.TemporaryDirectory(prefix="thanosql-") as directory:
            with context.progress() as progress:
                # Read to their end and kept in a file: no lock is held while counting.
                facts, wordless = speech.build_language_model(
                    (row[text] for row in source),
                    Path(directory),
                    order=options.order,
                    prune=thresholds,
                    validation=options.validation,
                    text_col=options.text_col,
                    progress=progress,
                )
            if wordless:
                errors.warn(f"{wordless} of the texts have no word and were left out")
            record = dataclasses.replace(
                _record(node.name, NGRAM, facts),
                query=node.query.source,
                options=statements.as_dict(options),
            )
            models.save(
                record,
                Path(directory),
                overwrite=overwrite,
                patience=PATIENCE,
                check=context.check_interrupted,
            )
        rows.append(_row(facts))

    context.effect(count)
    return Relation(_COLUMNS, lambda: iter(rows))


def check_options(
    node: statements.BuildModel,
    taken: type[statements.Options],
    others: type[statements.Options],
) -> None:
    """Raise OptionError for an option of the other kind of BUILD, and say why."""
    names, other_names = (
        {f.name for f in dataclasses.fields(cls)}.union(
            *(f.metadata["aliases"] for f in dataclasses.fields(cls))
        )
        for cls in (taken, others)
    )
    why = (
        "it is for models of recordings; texts are counted, and once"
        if taken is statements.NGramOptions
        else f"it is for language models, which USING {NGRAM} counts"
    )
    for option in node.options:
        name = option.name.lower()
        if name in other_names - names:
            message = f"{taken.statement} has no option {name}: {why}"
            raise errors.OptionError(
                errors.point(message, node.query.sql, option.start)
            )


def arpa_file(place: str) -> Path | None:
    """Return the ARPA file that IMPORT's place is or holds; None where there is none.

    Raises ProgrammingError for a directory with several.
    """
    with _reported(f"cannot import {place!r:.200}"):
        path = Path(place).expanduser()
        if not path.is_dir():
            return path if path.name.lower().endswith(_SUFFIXES) else None
        if (path / "config.json").exists():
            return None
        found = [p for p in path.iterdir() if p.name.lower().endswith(_SUFFIXES)]
    if len(found) > 1:
        names = ", ".join(sorted(p.name for p in found))
        message = f"{place!r} holds several ARPA files: {names}; name one of them"
        raise errors.ProgrammingError(message)
    return found[0] if found else None


def import_arpa(
    context: Context, name: str, path: Path, *, overwrite: bool
) -> StoredModel:
    """Store the model of an ARPA file."""
    with tempfile.TemporaryDirectory(prefix="thanosql-") as directory:
        with (
            _reported(f"cannot import {str(path)!r:.200}"),
            context.progress() as progress,
        ):
            if path.exists() and not path.is_file():
                message = f"cannot import {str(path)!r}: it is no file"
                raise errors.ProgrammingError(message)
            facts = speech.import_arpa(path, Path(directory), progress)
        return context.models.save(
            _record(name, str(path), facts),
            Path(directory),
            overwrite=overwrite,
            check=context.check_interrupted,
        )


def export_arpa(
    context: Context, model: StoredModel, place: str, *, overwrite: bool
) -> Sequence[Any]:
    """Write a model as an ARPA file; return EXPORT's row.

    place: a file whose name ends in .arpa, or a directory.
    """
    with _reported(f"cannot export to {place!r:.200}"):
        target = Path(place).expanduser()
        is_file = target.name.lower().endswith(_SUFFIXES) and not target.is_dir()
        if not is_file and target.exists() and not target.is_dir():
            message = (
                f"cannot export to {place!r}: it is a file; name a directory, or a "
                f"file that ends in {_SUFFIXES[0]}"
            )
            raise errors.ProgrammingError(message)
        if is_file and not target.name.lower().endswith(_SUFFIXES[0]):
            message = (
                f"cannot export to {place!r}: files are not compressed; name one that "
                f"ends in {_SUFFIXES[0]}, and gzip it"
            )
            raise errors.ProgrammingError(message)
        file = target if is_file else target / FILE
        if file.exists() and not overwrite:
            message = (
                f"{str(file)!r} is there already; set overwrite=True to replace it, or "
                "name another"
            )
            raise errors.ProgrammingError(message)
        stored = context.models.read(model)
        context.check_interrupted()
        file.parent.mkdir(parents=True, exist_ok=True)
        # A new file each time: what is there may be a link to elsewhere, or a pipe.
        file.unlink(missing_ok=True)
        with file.open("xb") as opened:
            speech.export_arpa(stored, opened)
        return model.name, str(target), 1, file.stat().st_size


def facts_of(context: Context, model: StoredModel) -> list[tuple[str, Any]]:
    """Return what DESCRIBE tells of a language model beside what it tells of all."""
    try:
        found = speech.language_model_facts(context.models.read_settings(model))
    except (ValueError, KeyError, TypeError):  # damaged; DESCRIBE checks no files
        return []
    names = [name for name, _ in _COLUMNS]
    return [
        *zip(names, _row(found), strict=True),
        *((f"{length}-grams", n) for length, n in enumerate(found.ngrams, start=1)),
    ]


def _row(facts: Facts) -> Sequence[Any]:
    """Return a model's facts as BUILD's row."""
    return (
        facts.order,
        sum(facts.ngrams),
        facts.ngrams[0],
        facts.sentences,
        facts.running_words,
        facts.perplexity,
        facts.unknown,
    )


def _record(name: str, base: str, facts: Facts) -> ModelRecord:
    return ModelRecord(
        name,
        base,
        architecture=NGRAM,
        parameters=sum(facts.ngrams),
        versions={"thanosql-local": version("thanosql-local")},
    )


@contextmanager
def _reported(what: str) -> Iterator[None]:
    """Turn what the file system says into an error that tells what failed."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        # Not there, no permission, a full disk; a NUL in the name; ~ of nobody.
        reason = (isinstance(error, OSError) and error.strerror) or error
        message = f"{what}: {reason}"
        raise errors.OperationalError(message) from error
