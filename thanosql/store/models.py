"""Stored models: a Hugging Face directory in, rows of the database out, and back."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from thanosql import errors
from thanosql.catalog import bases
from thanosql.statements import quoted
from thanosql.store import files, runs
from thanosql.store.guard import GuardedTables
from thanosql.store.records import AdapterBase, StoredModel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import apsw

    from thanosql.store.records import ModelRecord


# What a model's base.json holds; NULL for one that is no adapter.
_BASE_JSON = """
SELECT data FROM main.thanosql_files
WHERE model_id = m.id AND path = 'base.json' AND chunk = 0
"""
_SHA256 = 9  # the place of that column in `ModelStore._rows`


class ModelStore:
    """The models in one database, read and written in the connection's transaction."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.tables = GuardedTables(connection)

    def models(self) -> list[StoredModel]:
        """Return every model, by name."""
        return [_model(row) for row in self._rows()]

    def find(self, name: str) -> StoredModel | None:
        """Return the model of that name, in any case, or None."""
        folded = name.casefold()
        # Only that row is checked: another's may be damaged.
        return next((_model(r) for r in self._rows() if _folded(r) == folded), None)

    def get(self, name: str) -> StoredModel:
        """Return the model of that name or raise `ModelNotFoundError`."""
        model = self.find(name)
        if model is None:
            message = f"no model named {name!r}{self._way_to(name)}"
            raise errors.ModelNotFoundError(message)
        return model

    def check_new(self, name: str, *, overwrite: bool) -> None:
        """Raise if no model can be stored, or one of that name may not be replaced."""
        if not runs.writable(self.tables.connection):
            message = (
                f"model {name!r} cannot be stored: the database is read-only; "
                "open it with permission to write, or work in another file"
            )
            raise errors.OperationalError(message)
        self.tables.check_to_write()
        if not overwrite and self.find(name) is not None:
            message = (
                f"a model named {name!r} exists already; "
                "set overwrite=True to replace it, or DROP MODEL first"
            )
            raise errors.ModelExistsError(message)
        self._check_unused(name, "replaced")

    def find_digest(self, sha256: str) -> StoredModel | None:
        """Return a model whose files have that digest, or None."""
        return next((_model(r) for r in self._rows() if r[_SHA256] == sha256), None)

    def _check_unused(self, name: str, what: str) -> None:
        """Raise IntegrityError if adapters would be left without their base.

        Rows are not checked here: a damaged model can be dropped. what: is done to it.
        """
        self.tables.reading()  # sets `has_models`
        if not self.tables.has_models:
            return
        digests, left, adapters = set[bytes](), set[bytes](), list[tuple[Any, bytes]]()
        for found, sha256, of in self.tables.rows(
            f"""
            SELECT name, CAST(sha256 AS BLOB), ({_BASE_JSON})
            FROM main.thanosql_models AS m
            ORDER BY name
            """
        ):
            is_named = isinstance(found, str) and found.casefold() == name.casefold()
            (digests if is_named else left).add(sha256)
            with suppress(ValueError, RecursionError):
                if of is not None:
                    adapters.append((found, _adapter_base(of).sha256.encode()))
        without = [each for each, base in adapters if base in digests - left]
        if without:
            message = (
                f"model {name!r} cannot be {what}: it is the base of the adapters "
                f"{', '.join(map(repr, without[:10]))}, which are nothing without it; "
                "DROP MODEL them first (EXPORT MODEL writes each as a whole model)"
            )
            raise errors.IntegrityError(message)

    def save(
        self,
        record: ModelRecord,
        directory: Path,
        *,
        write_run: Callable[[apsw.Connection], int] | None = None,
        overwrite: bool = False,
        patience: float = 0.0,
        check: Callable[[], object] = lambda: None,
    ) -> StoredModel:
        """Store the files of `directory` as a model, in one short transaction.

        Within an open transaction it becomes part of that one. Until it ends, and if
        it fails, an earlier model of the name stays as it is. write_run: writes in the
        same transaction the run that the model came from, and returns its id. patience:
        seconds to wait for others, beyond the connection's own timeout. check: called
        last of all before the transaction ends; what it raises undoes the storing.
        """
        paths = files.listed(directory)
        sha256 = files.digest(paths)
        size = sum(path.stat().st_size for path in paths)
        with self.tables.writing(patience) as connection:
            self.check_new(record.name, overwrite=overwrite)
            _delete(connection, record.name)
            run_id = None if write_run is None else write_run(connection)
            connection.execute(
                """
                INSERT INTO main.thanosql_models
                  (name, base, architecture, parameters, bytes, sha256, query, options,
                   versions, run_id, created_at)
                VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, strftime('%FT%TZ', 'now'))
                """,
                (
                    record.name,
                    record.base,
                    record.architecture,
                    record.parameters,
                    size,
                    sha256,
                    record.query,
                    None if record.options is None else json.dumps(record.options),
                    json.dumps(record.versions),
                    run_id,
                ),
            )
            files.write(connection, connection.last_insert_rowid(), paths)
            model = self.get(record.name)  # after the commit, others may lock the file
            check()
        return model

    def drop(self, name: str, *, if_exists: bool = False) -> None:
        """Delete the model of that name, even a damaged one; its runs stay, as history.

        Raises `ModelNotFoundError` where there is none, unless `if_exists`, and
        IntegrityError if it is the base of adapters.
        """
        self.tables.reading()
        if if_exists and not self.tables.has_models:
            return
        with self.tables.writing() as connection:
            self._check_unused(name, "dropped")
            if not _delete(connection, name) and not if_exists:
                self.get(name)  # which raises, with the names that there are

    def read(self, model: StoredModel) -> dict[str, memoryview]:
        """Return the files of a model, name to content, checked by their digest."""
        # Compared as a whole: a table that was made without AUTOINCREMENT gives the id
        # of a dropped model again.
        if self.find(model.name) != model:
            message = (
                f"model {model.name!r} was dropped or replaced since the statement "
                "began; run it again"
            )
            raise errors.OperationalError(message)
        return files.read(self.tables.reading(), model)

    def read_settings(self, model: StoredModel) -> dict[str, memoryview]:
        """Return a model's files without the weights, unchecked; {} if it is gone."""
        return files.read_settings(self.tables.reading(), model)

    def _way_to(self, name: str) -> str:
        """Return how to go on where no model of the name is stored, for the error."""
        if name.casefold() == bases.NGRAM.casefold():
            return (
                f"; {name!r} is a base of language models: BUILD MODEL counts one from "
                "a text column, for the option language_model"
            )
        base = bases.find(name)
        if base is not None and base.language:
            return (
                f"; {name!r} is a base: GET MODEL {name} stores it as it is, "
                "BUILD MODEL trains from it"
            )
        if base is not None:
            return (
                f"; {name!r} is a base that cannot transcribe yet: "
                "BUILD MODEL trains from it"
            )
        names = [row[0] for row in self._rows() if isinstance(row[0], str)]
        return errors.nearest(name, names) or (
            f"; stored are {', '.join(map(repr, names[:10]))}"
            if names
            else "; none is stored yet: BUILD MODEL or IMPORT MODEL makes one"
        )

    def _rows(self) -> Sequence[Sequence[Any]]:
        """Return each model's values in the database, unchecked, in names' order."""
        self.tables.reading()  # sets `has_models`
        if not self.tables.has_models:
            return []
        return self.tables.rows(
            f"""
            SELECT name, base, architecture, parameters, versions, query, options,
                   id, bytes, sha256, run_id, created_at,
                   (SELECT wer FROM main.thanosql_epochs AS e
                    WHERE e.run_id = m.run_id AND kept),
                   ({_BASE_JSON})
            FROM main.thanosql_models AS m
            ORDER BY name
            """
        )


def _delete(connection: apsw.Connection, name: str) -> bool:
    """Delete the model of that name, if there is one; return whether there was."""
    ids = [
        id_
        for id_, found in connection.execute(
            "SELECT id, name FROM main.thanosql_models"
        ).fetchall()
        if isinstance(found, str) and found.casefold() == name.casefold()
    ]
    for id_ in ids:
        for of, column in (("files", "model_id"), ("models", "id")):
            connection.execute(
                f"DELETE FROM main.thanosql_{of} WHERE {column} IS ?", (id_,)
            )
    return bool(ids)


def _model(row: Sequence[Any]) -> StoredModel:
    """Return a row of `ModelStore._rows` as a model; DatabaseError if it is damaged."""
    name, base, architecture, parameters, versions, query, options, *rest, of = row
    try:
        model = StoredModel(
            name,
            base,
            architecture,
            parameters,
            _scalars(versions),
            query,
            None if options is None else _scalars(options),
            *rest,
            *(() if of is None else (_adapter_base(of),)),
        )
        for column, value, kind in (
            ("name", name, str),
            ("base", base, str),
            ("architecture", architecture, str),
            ("parameters", parameters, int),
            ("query", query, str | None),
            ("bytes", model.bytes, int),
            ("sha256", model.sha256, str),
            ("run_id", model.run_id, int | None),
            ("created_at", model.created_at, str),
            ("wer", model.wer, float | None),
        ):
            if not isinstance(value, kind):
                message = f"{column} is {value!r:.50}"
                raise ValueError(message)
    except (ValueError, RecursionError) as error:
        way_out = "delete it, and what thanosql_files has of its id"
        if isinstance(name, str):
            way_out = f"DROP MODEL {quoted(name)} removes it"
        message = (
            f"the row of model {name!r:.100} in thanosql_models is damaged: {error}; "
            f"{way_out}"
        )
        raise errors.DatabaseError(message) from error
    return model


def _adapter_base(content: Any) -> AdapterBase:
    """Return what an adapter's base.json says; ValueError if it is damaged."""
    found = None
    with suppress(ValueError):
        found = json.loads(content) if isinstance(content, bytes) else None
    if isinstance(found, dict):
        name, sha256, rank = (found.get(each) for each in ("base", "sha256", "rank"))
        if isinstance(name, str) and isinstance(sha256, str) and type(rank) is int:
            return AdapterBase(name, sha256, rank)
    message = f"base.json is {content!r:.50}"
    raise ValueError(message)


def _folded(row: Sequence[Any]) -> str | None:
    return row[0].casefold() if isinstance(row[0], str) else None


def _scalars(content: Any) -> dict[str, Any]:
    """Return the JSON object in a column, of values that a column can hold."""
    if not isinstance(content, str):
        message = f"text with a JSON object is expected, not {content!r:.50}"
        raise ValueError(message)
    found = json.loads(content)
    json.dumps(found, ensure_ascii=False).encode()  # raises for a lone surrogate
    if not isinstance(found, dict) or not all(map(_is_scalar, found.values())):
        message = f"a JSON object of plain values is expected, not {content!r:.50}"
        raise ValueError(message)
    return found


def _is_scalar(value: Any) -> bool:
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return value is None or isinstance(value, str | float)
