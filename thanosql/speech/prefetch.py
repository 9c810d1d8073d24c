"""Work to prepare in, its results in order out, made in threads ahead of their use."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from itertools import islice
from threading import Barrier
from typing import TYPE_CHECKING, TypeVar

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Sequence

_Item = TypeVar("_Item")
_Prepared = TypeVar("_Prepared")

# Decoding is cheap beside any model, which wants the other cores for itself.
WORKERS = max(1, min(8, (os.cpu_count() or 1) - 1))


def chunks(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Yield the items in their order, `size` at a time."""
    chunk: list[_Item] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def prefetched(
    works: Iterable[Generator[_Prepared, None, None]], count: int
) -> Generator[_Prepared, None, None]:
    """Yield what each work yields, one work after the other.

    While the caller uses a result, threads prepare the next one of the same work, and
    the first of up to `count` works after it. `works` itself is advanced in the calling
    thread only, so it may read from a SQLite connection. What goes wrong in a work is
    raised here, when its result is due. Closing the generator ends the threads and
    closes the works.
    """
    begun: deque[Generator[_Prepared, None, None]] = deque()
    # The next result of each that has begun, in a list of none at its end. No variable
    # names a future whose result is asked for: an error's traceback holds the
    # variables, and the future holds the error.
    waiting: deque[Future[list[_Prepared]]] = deque()
    following = iter(works)
    try:
        with preparing_threads() as pool:
            while True:
                for work in islice(following, count + 1 - len(begun)):
                    begun.append(work)
                    waiting.append(pool.submit(_next, work))
                if not begun:
                    return
                result = waiting.popleft().result()
                if result:
                    waiting.appendleft(pool.submit(_next, begun[0]))
                    yield from result
                else:
                    begun.popleft()
    finally:
        for work in begun:
            work.close()


def prefetched_batches(
    batches: Iterable[Sequence[_Item]],
    prepare: Callable[[_Item], _Prepared],
    count: int,
) -> Generator[list[_Prepared], None, None]:
    """Yield each batch, none of them empty, with `prepare` applied to its items.

    As `prefetched` does it, whose works are the items: threads prepare up to `count` of
    those to come.
    """
    sizes: deque[int] = deque()

    def works() -> Iterator[Generator[_Prepared, None, None]]:
        for batch in batches:
            sizes.append(len(batch))
            for item in batch:
                yield (prepare(each) for each in (item,))

    with closing(prefetched(works(), count)) as results:
        for first in results:
            yield [first, *islice(results, sizes.popleft() - 1)]


@contextmanager
def preparing_threads() -> Iterator[ThreadPoolExecutor]:
    """Open the threads that prepare what a model works on next; end them with it.

    Where each of them shared its operations out among threads of its own, as torch
    does, these and the model's would wait for each other: on two cores, half the speed.
    """
    # Each thread has a count of its own, which is, as long as nobody has asked for it,
    # whatever was last set in any: the caller's is asked for before theirs are set, and
    # set again once all of theirs are.
    count = torch.get_num_threads()
    begun = Barrier(WORKERS + 1)
    pool = ThreadPoolExecutor(WORKERS, "thanosql-prepare", _share_nothing_out)
    try:
        for _ in range(WORKERS):
            pool.submit(begun.wait)
        begun.wait()
        torch.set_num_threads(count)
        yield pool
    finally:
        begun.abort()  # where an interrupt came before all had begun
        pool.shutdown(wait=True, cancel_futures=True)


def _next(work: Generator[_Prepared, None, None]) -> list[_Prepared]:
    """Return the next result, alone in a list; an empty list at the end."""
    return list(islice(work, 1))


def _share_nothing_out() -> None:
    # Asked for first: else it would be taken over from the others after this.
    torch.get_num_threads()
    torch.set_num_threads(1)
