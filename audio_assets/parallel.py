"""Threads that work ahead of a consumer, held back by how far they may get (backpressure).

`map_ahead` bounds what is known before the work: the number of items and what each weighs. `MemoryBudget`
bounds what only shows during the work, `Share` how much is worked on at the same time. What the threads do is
decided elsewhere.
"""

import collections
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_SETTING_THREADS = threading.Lock()


def map_ahead(
    pool: concurrent.futures.Executor,
    function: Callable[[T], R],
    items: Iterable[T],
    *,
    ahead: int,
    weight: Callable[[T], int] | None = None,
    max_weight: int = 0,
) -> Iterator[R]:
    """`map` in a pool, with results in order, never more than `ahead` items before the consumer.

    `Executor.map` submits all items at once, so that its memory grows with the input. This one submits an
    item only when the consumer has taken enough results.

    Args:
        ahead: how many items may be in the pool.
        weight: of an item, in the unit of `max_weight`; one item may always be in the pool.
        max_weight: how much all items in the pool may weigh together.

    Raises:
        Exception: whatever `items` or `function` raises; a failure of `function` comes in its item's place.
    """
    running: collections.deque[tuple[concurrent.futures.Future[R], int]] = collections.deque()
    total_weight = 0
    try:
        for item in items:
            item_weight = weight(item) if weight else 0
            while running and (len(running) >= ahead or total_weight + item_weight > max_weight):
                future, freed = running.popleft()
                total_weight -= freed
                yield future.result()
            running.append((pool.submit(function, item), item_weight))
            total_weight += item_weight
        while running:
            yield running.popleft()[0].result()
    finally:
        for future, _ in running:
            future.cancel()


def threads_of_torch(
    name: str, start: Callable[[], object] = lambda: None
) -> concurrent.futures.ThreadPoolExecutor:
    """As many threads as PyTorch uses on the CPU, each of which runs PyTorch's operations alone.

    So no thread waits for others after every operation, and a sum is taken in the same order on any machine.

    Args:
        name: of the threads.
        start: called in each of them first.
    """
    import torch

    # set_num_threads acts on its thread, but also sets what threads that start later begin with.
    with _SETTING_THREADS:
        threads = torch.get_num_threads()
        ready = threading.Barrier(threads + 1)

        def begin() -> None:
            torch.set_num_threads(1)
            # PyTorch gives each thread the common number at its first operation: at this one, which is 1 now.
            torch.get_num_threads()
            start()
            ready.wait()

        pool = concurrent.futures.ThreadPoolExecutor(threads, name)
        for _ in range(threads):
            pool.submit(begin)
        ready.wait()
        torch.set_num_threads(threads)
    return pool


class Share:
    """How much may be worked on at the same time, in any unit; more than that is worked on alone.

    Args:
        size: of all that is under way together.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._held = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def of(self, size: int) -> Iterator[None]:
        """Wait until there is room for so much, and hold it."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held or self._held + size <= self._size)
            self._held += size
        try:
            yield
        finally:
            with self._changed:
                self._held -= size
                self._changed.notify_all()


class MemoryBudget:
    """Bytes that worker threads may hold together before a consumer takes their results, in order.

    For memory whose size only shows while it is filled, so that `map_ahead` cannot weigh it beforehand. A
    worker that finds the budget spent waits, unless its result is the next that the consumer takes: nothing
    is released before that one has ended.

    Args:
        size: bytes that may be held, in addition to those behind the next result.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._held: collections.Counter[int] = collections.Counter()
        self._next = 0
        self._closed = False
        self._changed = threading.Condition()

    def reserve(self, turn: int, size: int) -> None:
        """Wait until further memory may be held.

        Args:
            turn: 0, 1, 2 ... in the order in which the consumer takes the results.
            size: bytes, in addition to what the turn holds already.

        Raises:
            CancelledError: the budget was closed.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or turn == self._next or self._held.total() + size <= self._size
            )
            if self._closed:
                raise concurrent.futures.CancelledError
            self._held[turn] += size

    def release(self, turn: int) -> None:
        """Take back what a turn holds: the consumer has its result."""
        with self._changed:
            del self._held[turn]
            self._next = turn + 1
            self._changed.notify_all()

    def close(self) -> None:
        """Let no worker wait any more: the consumer is gone."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
