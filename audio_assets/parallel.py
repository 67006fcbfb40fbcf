"""Threads that work ahead of a consumer, by a bounded distance."""

import collections
import concurrent.futures
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_ahead(
    pool: concurrent.futures.Executor,
    function: Callable[[T], R],
    items: Iterable[T],
    *,
    ahead: int,
    weight: Callable[[T], int] | None = None,
    max_weight: int = 0,
) -> Iterator[R]:
    """`map` in a pool, in order, never more than `ahead` items before the consumer.

    `Executor.map` submits everything at once, so its memory grows with the input; this one's does not.

    Args:
        ahead: how many items may be in the pool.
        weight: of an item, in the unit of `max_weight`; one item may always be in the pool.
        max_weight: how much all items in the pool may weigh together.
    """
    running: collections.deque[tuple[concurrent.futures.Future[R], int]] = collections.deque()
    load = 0
    try:
        for item in items:
            heavy = weight(item) if weight else 0
            while running and (len(running) >= ahead or load + heavy > max_weight):
                future, freed = running.popleft()
                load -= freed
                yield future.result()
            running.append((pool.submit(function, item), heavy))
            load += heavy
        while running:
            yield running.popleft()[0].result()
    finally:
        for future, _ in running:
            future.cancel()


class Room:
    """Memory that workers ahead of a consumer may fill together; the consumer takes their results in order.

    For what only shows while it is made, so that `map_ahead` cannot weigh it beforehand. Workers wait where
    there is no room, all but the one whose turn is next: nothing is freed before it has ended.

    Args:
        size: bytes that may be held, in addition to what the next in turn holds.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._held: collections.Counter[int] = collections.Counter()
        self._next = 0
        self._closed = False
        self._changed = threading.Condition()

    def take(self, turn: int, size: int) -> None:
        """Add to what a turn holds; waits until there is room.

        Args:
            turn: 0, 1, 2 ... in the order in which the consumer takes the results.

        Raises:
            CancelledError: the room was closed.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or turn == self._next or self._held.total() + size <= self._size
            )
            if self._closed:
                raise concurrent.futures.CancelledError
            self._held[turn] += size

    def free(self, turn: int) -> None:
        """The consumer has taken the result of a turn."""
        with self._changed:
            del self._held[turn]
            self._next = turn + 1
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody wait any more: the consumer is gone."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
