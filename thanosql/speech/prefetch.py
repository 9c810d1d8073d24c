"""Generators of work in, their results out in order, prepared ahead in threads."""

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

# Threads; one core is left to the model. Decoding takes far less time than any model.
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
    """Yield the results of each work, one work after the other.

    works: generators, each of which prepares any number of results. While the caller
    uses a result, threads prepare the next result of the same work and the first result
    of up to `count` works after it. `works` itself is advanced only in the calling
    thread, so it may read from a SQLite connection. An error in a work is raised here
    when its result is due. Closing this generator ends the threads and closes the
    works.
    """
    begun: deque[Generator[_Prepared, None, None]] = deque()
    # For each work in `begun`, its next result as a list of one, empty at its end. A
    # future is never bound to a variable: an error's traceback holds the variables, and
    # the future holds the error, so the two would keep each other alive.
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
    """Yield each batch, with `prepare` applied to its items in threads.

    batches: none may be empty. Each item is a work for `prefetched`, so up to `count`
    items after the current one are prepared ahead.
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
    """Start threads that prepare a model's next inputs; end them after the block.

    In them torch computes with one thread each. With torch's default, their operations
    and the model's compete for the cores: on two cores, half the speed.
    """
    # torch keeps the number of threads for each thread. A thread that has not asked for
    # its number yet takes over the last one set anywhere. So the caller's number is
    # read first, and set again once all workers have set theirs.
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
        begun.abort()  # lets the workers go if an interrupt came before all had begun
        pool.shutdown(wait=True, cancel_futures=True)


def _next(work: Generator[_Prepared, None, None]) -> list[_Prepared]:
    """Return the next result as a list of one; an empty list at the end."""
    return list(islice(work, 1))


def _share_nothing_out() -> None:
    # Read before it is set: a first read afterwards would take another thread's number.
    torch.get_num_threads()
    torch.set_num_threads(1)
