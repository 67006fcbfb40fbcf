"""Threads that work ahead of a consumer, by a bounded distance."""

import collections
import concurrent.futures
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
