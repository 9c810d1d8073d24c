"""Train on a cluster: examined rows in, an `EpochResult` for each epoch out.

The workers are actors of Ray that form a group of torch's; each has the model and a
share of every batch (`speech/training/parallel.py`). This process trains nothing: it
hands out the rows, keeps the checkpoints, and starts the group anew from the last one
where a worker is lost.
"""

from __future__ import annotations

import os
import time
from concurrent import futures
from contextlib import closing, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from thanosql import errors, speech
from thanosql.cluster.rows import shared_rows
from thanosql.cluster.session import connected
from thanosql.cluster.sizing import STARTS_WITHIN, size_of_workers, why_none_start
from thanosql.cluster.trainer import Trainer
from thanosql.cluster.worker import installed

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping
    from concurrent.futures import Future
    from pathlib import Path

    from thanosql.cluster.session import Session
    from thanosql.cluster.sizing import Size
    from thanosql.cluster.trainer import News
    from thanosql.speech.progress import Progress
    from thanosql.speech.results import EpochResult
    from thanosql.statements import BuildOptions

_POLLED_EVERY = 0.1  # seconds; an interrupt is noticed so soon
_SETTLED_WITHIN = 3.0  # seconds, for the others to say why one has lost its peers
_LOSSES = 3  # that may follow one another without an epoch between them


class _LostError(Exception):
    """A worker is gone, or could not start again; says why."""


def training_device(session: Session, options: BuildOptions) -> str:
    """Return the kind of device that the workers of a training have: cuda or cpu.

    Raises OptionError if there are to be more workers than a batch has utterances, or
    more than the cluster has room for; OperationalError without a cluster.
    """
    assert options.workers is not None
    if options.workers > options.batch_size:
        message = (
            f"option workers is {options.workers}, and a batch has "
            f"{options.batch_size} utterances to share out; set fewer workers, or a "
            "larger batch_size"
        )
        raise errors.OptionError(message)
    size = size_of_workers(session.ray().nodes(), options)
    return "cuda" if size.gpus else "cpu"


def train(
    session: Session,
    material: speech.Material,
    options: BuildOptions,
    root: Path | None,
    folder: Path | None,
    progress: Progress,
) -> Generator[EpochResult, None, None]:
    """Train the material's recognizer, yielding the result of each epoch.

    As `speech.train`, on a cluster: a path or URL is read by the workers. Where one of
    them is lost, the training goes on from the last checkpoint, with as many as there
    is room for. Raises OperationalError if that happens again and again, or if the
    cluster is lost.
    """
    with connected():
        yield from _trained(session, material, options, root, folder, progress)


def _trained(
    session: Session,
    material: speech.Material,
    options: BuildOptions,
    root: Path | None,
    folder: Path | None,
    progress: Progress,
) -> Generator[EpochResult, None, None]:
    ray = session.ray()
    session.take_workers(None, 0)  # idle ones, whose place is needed, end
    shared = _Shared(ray, material, options, root, progress)
    done = losses = 0
    last: Any = None
    while True:
        try:
            with (
                nullcontext() if folder is None else speech.checkpoints(folder) as kept,
            ):
                saved = None if kept is None else speech.load_parcel(kept)
                last = saved or last
                with closing(_Team(session, shared, kept, saved, progress)) as team:
                    for result in team.epochs():
                        # Those before the checkpoint come again.
                        if result.epoch > done:
                            losses, done = 0, result.epoch
                            yield result
                last = team.last or last
            break
        except _LostError as error:
            session.check_head()
            losses += 1
            if losses == _LOSSES:
                message = f"workers of the training are lost again and again: {error}"
                raise errors.OperationalError(message) from error
            shared.make_fit()
            again = "from its last checkpoint" if folder is not None else "anew"
            errors.warn(
                f"a worker of the training is lost ({error}); it goes on {again}, "
                f"with {shared.count} worker{'s' if shared.count > 1 else ''}"
            )
    speech.take_weights(material, last)


class _Shared:
    """What all workers get, in the object store, and how many there can be."""

    def __init__(
        self,
        ray: Any,
        material: speech.Material,
        options: BuildOptions,
        root: Path | None,
        progress: Progress,
    ) -> None:
        import numpy as np  # its arrays are not copied again when workers get them

        assert options.workers is not None
        self._ray = ray
        self._options = options
        self.count = options.workers
        self.is_again = False
        "Whether workers have been lost."
        self.size = self._size_of(self.count)
        device = "cuda" if self.size.gpus else "cpu"
        plan = speech.plan(material, replace(options, device=device), root)
        packed = speech.packed(material)
        files = {name: np.frombuffer(file, "u1") for name, file in packed.items()}
        rows = shared_rows(ray, material.rows, progress)
        held_out = None
        if material.validation_rows is not material.rows:
            held_out = shared_rows(ray, material.validation_rows, progress)
        # Kept here, so that no worker's end can take them away.
        self.plan, self.files = ray.put(plan), ray.put(files)
        self.rows, self.validation_rows = rows, held_out
        self.directory = os.getcwd()  # noqa: PTH109 - as text

    def make_fit(self) -> None:
        """Have as many workers as there is room for, at most those asked for."""
        self.is_again = True
        assert self._options.workers is not None
        for count in range(self._options.workers, 0, -1):
            try:
                self.size = self._size_of(count)
            except errors.OptionError:
                if count == 1:
                    raise
            else:
                self.count = count
                return

    def has_room(self) -> bool:
        """Return whether the cluster still has room for the workers."""
        try:
            self._size_of(self.count)
        except errors.OptionError:
            return False
        return True

    def _size_of(self, count: int) -> Size:
        options = replace(self._options, workers=count)
        return size_of_workers(self._ray.nodes(), options)


class _Team:
    """The workers of a training, from a checkpoint to its end or to the first loss."""

    def __init__(
        self,
        session: Session,
        shared: _Shared,
        kept: Any,
        saved: Any,
        progress: Progress,
    ) -> None:
        """Begin to start the workers; kept: the checkpoints, saved: the last one."""
        self.last: Any = None
        "The last state that was passed on."
        self._session, self._shared = session, shared
        self._kept, self._saved, self._progress = kept, saved, progress
        self._ray = session.ray()
        self._place: tuple[str, float, float | None] = ("train", 0, None)
        self._facts: Mapping[str, float] = {}
        self._actors = [self._actor(shared.size) for _ in range(shared.count)]

    def _actor(self, size: Size) -> Any:
        return (
            self._ray.remote(Trainer)
            .options(
                num_cpus=size.cpus,
                num_gpus=size.gpus,
                max_concurrency=2,  # one trains, one tells of it
                scheduling_strategy="SPREAD",
            )
            .remote()
        )

    def epochs(self) -> Iterator[EpochResult]:
        """Yield the epochs, those before the checkpoint first.

        Raises _LostError if a worker is lost, and what a worker raises.
        """
        host, port = self._begun()
        saved = None if self._saved is None else self._ray.put(self._saved)
        training = [
            actor.train.remote(
                speech.Seat(rank, len(self._actors), host, port),
                self._shared.plan,
                self._shared.directory,
                self._shared.size.cpus,
                self._shared.files,
                self._shared.rows,
                self._shared.validation_rows,
                saved,
                self._kept is not None,
            ).future()
            for rank, actor in enumerate(self._actors)
        ]
        while True:
            # Looked at before the news are asked for: then those are the last ones.
            has_ended = all(each.done() for each in training)
            news = self._result(self._news(), training)
            if news.progress is not None:
                stage, done, total, self._facts = news.progress
                self._place = stage, done, total
            self._look()
            for event in news.events:
                if event.kind == "warning":
                    errors.warn(event.value)
                elif event.kind == "state":
                    self.last = event.value
                    if self._kept is not None:
                        speech.save_parcel(self._kept, event.value)
                else:
                    yield event.value
            self._check(training)
            if has_ended and not news.events and self._is_ready():
                return

    def close(self) -> None:
        """End the workers, whatever they do."""
        if self._session.is_connected():  # to call Ray would start another
            for actor in self._actors:
                self._ray.kill(actor)

    def _begun(self) -> tuple[str, int]:
        """Wait for all workers to start; return where they are to meet."""
        beginning = [actor.begin.remote(installed()).future() for actor in self._actors]
        began = time.monotonic()
        while not all(each.done() for each in beginning):
            self._look()
            futures.wait(beginning, _POLLED_EVERY, futures.FIRST_EXCEPTION)
            self._check(beginning)
            if self._shared.is_again and not self._shared.has_room():
                # It was still counted when the others noticed that it is gone.
                message = "its machine is gone"
                raise _LostError(message)
            if time.monotonic() - began > STARTS_WITHIN:
                who = f"not all of {len(self._actors)} workers"
                message = why_none_start(self._ray, who, self._shared.size)
                if self._shared.is_again:  # a lost machine may have been counted
                    raise _LostError(message)
                raise errors.OperationalError(message)
        self._check(beginning)
        place: tuple[str, int] = beginning[0].result()
        return place

    def _is_ready(self) -> bool:
        return self._kept is None or self._kept.ready

    def _news(self) -> Future[News]:
        news: Future[News] = (
            self._actors[0].news.remote(takes_state=self._is_ready()).future()
        )
        return news

    def _result(self, asked: Future[News], training: list[Future[None]]) -> News:
        """Return the answer of the first worker, unless a worker is lost meanwhile."""
        while not asked.done():
            self._look()
            futures.wait([asked], _POLLED_EVERY)
            self._check(training)
        try:
            return asked.result()
        except self._ray.exceptions.RayError as error:
            raise _LostError(_brief(error)) from error

    def _look(self) -> None:
        """Raise if the statement is interrupted, or the cluster's head is gone."""
        stage, done, total = self._place
        self._progress(stage, done, total, **self._facts)
        self._session.look()

    def _check(self, working: list[Future[Any]]) -> None:
        """Raise what a worker has raised, or _LostError if one is gone."""
        failed = [e for each in working if each.done() and (e := each.exception())]
        if not failed:
            return
        if all(_cause(error) is speech.PeerLostError for error in failed):
            # The one that is gone, or that has raised an error, may be noticed later.
            futures.wait(working, _SETTLED_WITHIN)
        raised = [e for each in working if each.done() and (e := each.exception())]
        for error in raised:
            cause = getattr(error, "cause", None)
            if cause is not None and not isinstance(cause, speech.PeerLostError):
                raise cause
        raise _LostError(_brief(raised[0])) from raised[0]


def _cause(error: BaseException) -> type:
    return type(getattr(error, "cause", error))


def _brief(error: BaseException) -> str:
    """Return what has happened, without the advice that Ray and gloo add."""
    last = str(getattr(error, "cause", error)).strip().splitlines()[-1]
    return last.strip().split(". ")[0].rstrip(".")
