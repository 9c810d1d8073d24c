"""What statements do with an adapter, a stored difference to the weights of a base."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from thanosql import errors, speech
from thanosql.catalog import bases
from thanosql.execution.context import package_digest
from thanosql.store.records import AdapterBase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from thanosql import statements
    from thanosql.execution.context import Context
    from thanosql.speech.opening.adapters import AdapterFiles
    from thanosql.store.records import StoredModel

ARCHITECTURE = "{}, LoRA"
"""The architecture of an adapter, by that of its base."""

RANK = 8
"""Where a statement says none: higher ones gained Hu et al. nothing (table 6)."""

LEARNING_RATE = 1e-3
"""Where a statement says none, whatever the base.

Its matrices begin at zero, so what is a good rate hangs on their scale, not on how far
the base is trained. It is that of PEFT's example of Whisper; docs/experiments.md has a
comparison.
"""


def as_trained(
    start: StoredModel | None, options: statements.BuildOptions, *, is_fit: bool
) -> statements.BuildOptions:
    """Return the options with the rank that `adapter` comes to; None: a whole model.

    start: the stored model that the training starts from; None where it is a base.
    Raises OptionError for an adapter of an adapter, or of layers that are yet to come.
    """
    of = None if start is None else start.adapter_base
    wanted = options.adapter
    if not is_fit and wanted and options.objective == "ctc":
        message = (
            "option adapter: with objective='ctc' the last layer is new, an adapter a "
            "difference to known weights; BUILD a model without adapter "
            "first, with freeze_encoder=True, then an adapter USING that model"
        )
        raise errors.OptionError(message)
    if start is None or of is None:
        rank = RANK if wanted is True else wanted
        return dataclasses.replace(options, adapter=rank or None)
    if not is_fit and wanted:
        message = (
            f"option adapter: {start.name!r} is itself an adapter, of {of.name!r}; FIT "
            f"MODEL ... USING {start.name} trains it further, BUILD MODEL ... USING "
            f"{of.name} begins another"
        )
        raise errors.OptionError(message)
    if not is_fit or wanted is False:
        return dataclasses.replace(options, adapter=None)
    if wanted not in (None, True, of.rank):
        message = (
            f"option adapter: {start.name!r} is an adapter of rank {of.rank}, which "
            f"cannot go on at rank {wanted}; leave it out, or begin anew from "
            f"{of.name!r}"
        )
        raise errors.OptionError(message)
    return dataclasses.replace(options, adapter=of.rank)


def check_name(start: StoredModel | None, origin: str, name: str) -> None:
    """Raise OptionError if an adapter would take the place of its base.

    start: the stored model it starts from, or None; origin: its name, or the base's.
    """
    is_adapter = start is not None and start.adapter_base is not None
    if not is_adapter and name.casefold() == origin.casefold():
        message = (
            f"option adapter: {name!r} would be an adapter of the model of its own "
            "name, and take its place; give the adapter another name"
        )
        raise errors.OptionError(message)


def base_of(start: StoredModel | None, origin: str) -> AdapterBase | None:
    """Return the base of the adapter that a training makes, by name and digest.

    It is None for one of the hub or of a directory, which is to be stored first: it
    could change, or not be found again. start, origin: as `check_name` takes them.
    """
    if start is not None:
        return start.adapter_base or AdapterBase(start.name, start.sha256)
    for name, base in bases.BASES.items():
        if name.casefold() == origin.casefold() and base.directory is not None:
            return AdapterBase(name, package_digest(base.directory))
    return None


def of_adapter(context: Context, adapter: AdapterFiles, origin: str) -> AdapterBase:
    """Return the base that an adapter of PEFT names, if it is stored or in the package.

    base.json beside it, which EXPORT writes, names it by digest, else
    adapter_config.json by the path or the hub id that it was trained from. A stored
    model is found by its name or by where it was imported from.
    """
    if adapter.base is None:
        message = (
            f"{origin!r} does not say which model it was made for: name it in its "
            "adapter_config.json as base_model_name_or_path"
        )
        raise errors.DataError(message)
    if adapter.base_sha256 is not None:
        return AdapterBase(adapter.base, adapter.base_sha256)
    wanted = adapter.base.casefold()
    models = [each for each in context.models.models() if each.adapter_base is None]
    for field in ("name", "base"):
        for model in models:
            # A model that was trained from a base is another one than the base.
            if getattr(model, field).casefold() == wanted and (
                field == "name" or model.run_id is None
            ):
                return AdapterBase(model.name, model.sha256)
    found = bases.find(adapter.base)
    if found is not None and found.directory is not None:
        return AdapterBase(adapter.base, package_digest(found.directory))
    message = (
        f"{origin!r} is an adapter of {adapter.base!r}, which is not stored here: "
        f"store that first, by IMPORT MODEL '{adapter.base}' FROM its directory or id"
    )
    raise errors.ModelNotFoundError(message)


def facts(context: Context, model: StoredModel) -> list[tuple[str, Any]]:
    """Return what DESCRIBE tells of an adapter beside what it tells of each model."""
    of = model.adapter_base
    if of is None:
        return []
    stored = context.models.find_digest(of.sha256)
    found: dict[str, Any] = {"adapter_of": of.name, "rank": of.rank}
    found["base_sha256"] = of.sha256
    base = bases.find(of.name)
    if stored is not None:
        found |= {
            "adapter_of": stored.name,
            "base_parameters": stored.parameters,
            "base_bytes": stored.bytes,
        }
    elif base is not None and base.bytes is not None:
        found |= {"base_parameters": base.parameters, "base_bytes": base.bytes}
    return list(found.items())


def whole_files(context: Context, model: StoredModel) -> Mapping[str, Any]:
    """Return the files of a stored model, of an adapter those of its base with it."""
    if model.adapter_base is None:
        return context.models.read(model)
    return _merged_files(context, model)


def _merged_files(context: Context, model: StoredModel) -> Mapping[str, bytes]:
    """Return the files of an adapter's base, with the sums of both weights."""
    recognizer = speech.open_stored(context.stored_files(model))
    with TemporaryDirectory(prefix="thanosql-") as directory:
        recognizer.save(Path(directory))
        return {path.name: path.read_bytes() for path in Path(directory).iterdir()}
