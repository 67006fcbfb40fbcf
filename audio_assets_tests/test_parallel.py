"""Threads that work ahead of a consumer, by a bounded distance."""

import concurrent.futures
import functools
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_assets.parallel import MemoryBudget, Share, map_ahead, threads_of_torch


class Window:
    """Counts what was handed to the pool and not yet taken by the consumer."""

    def __init__(self) -> None:
        self.held: list[int] = []
        self.most: list[list[int]] = []
        self.lock = threading.Lock()

    def start(self, item: int) -> int:
        with self.lock:
            self.held.append(item)
            self.most.append(list(self.held))
        return item

    def take(self, item: int) -> None:
        with self.lock:
            self.held.remove(item)


@settings(max_examples=50)
@given(st.lists(st.integers(1, 30)), st.integers(1, 5), st.integers(1, 40))
def test_results_come_in_order_and_never_run_further_ahead_than_allowed(
    weights: list[int], ahead: int, max_weight: int
):
    window = Window()
    got: list[int] = []
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for item in map_ahead(
            pool,
            window.start,
            range(len(weights)),
            ahead=ahead,
            weight=lambda i: weights[i],
            max_weight=max_weight,
        ):
            window.take(item)
            got.append(item)
    assert got == list(range(len(weights)))
    for held in window.most:
        assert len(held) <= ahead
        assert len(held) == 1 or sum(weights[i] for i in held) <= max_weight


def test_items_are_pulled_as_needed():
    pulled: list[int] = []

    def items() -> Iterator[int]:
        for i in range(1_000):
            pulled.append(i)
            yield i

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        results = map_ahead(pool, str, items(), ahead=3)
        assert next(results) == "0"
        assert len(pulled) <= 5


def test_a_failure_comes_in_its_place_and_cancels_what_waits():
    gate = threading.Event()
    started: list[int] = []

    def work(item: int) -> int:
        started.append(item)
        if item == 1:
            raise KeyError(item)
        if item == 2:
            gate.wait()
        return item

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        results = map_ahead(pool, work, range(10), ahead=5)
        assert next(results) == 0
        with pytest.raises(KeyError):
            next(results)
        gate.set()
    assert max(started) <= 3


# --- memory budget --------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(1, 30), max_size=5), max_size=30), st.integers(1, 100))
def test_workers_together_hold_no_more_than_the_budget_and_what_is_next_in_turn(
    pieces: list[list[int]], size: int
):
    budget = MemoryBudget(size)
    held = dict[int, int]()
    most: list[dict[int, int]] = []
    lock = threading.Lock()

    def fill(turn: int) -> int:
        for piece in pieces[turn]:
            budget.reserve(turn, piece)
            with lock:
                held[turn] = held.get(turn, 0) + piece
                most.append(dict(held))
        return turn

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for turn in map_ahead(pool, fill, range(len(pieces)), ahead=8):
            with lock:
                held.pop(turn, None)
            budget.release(turn)
    for snapshot in most:
        first = min(snapshot)
        assert sum(amount for turn, amount in snapshot.items() if turn != first) <= size


def test_who_waits_for_memory_is_let_go_when_the_budget_closes():
    budget = MemoryBudget(10)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(functools.partial(budget.reserve, turn, 11)) for turn in (1, 2)]
        time.sleep(0.05)
        assert not any(w.done() for w in waiting)
        budget.close()
    assert [type(w.exception()) for w in waiting] == [concurrent.futures.CancelledError] * 2


def test_a_share_is_never_exceeded_but_by_what_is_worked_on_alone():
    share = Share(10)
    under_way: list[int] = []
    seen: list[list[int]] = []
    changing = threading.Lock()

    def work(size: int) -> None:
        with share.of(size):
            with changing:
                under_way.append(size)
                seen.append(list(under_way))
            time.sleep(0.002)
            with changing:
                under_way.remove(size)

    sizes = [1, 4, 11, 5, 10, 3, 7, 25, 2] * 4
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(work, sizes))
    assert len(seen) == len(sizes)
    assert all(sum(at_once) <= 10 or len(at_once) == 1 for at_once in seen)
    assert max(map(len, seen)) > 1


def test_what_fails_gives_its_share_back():
    share = Share(1)
    with pytest.raises(ZeroDivisionError), share.of(1):
        raise ZeroDivisionError
    with share.of(1):
        pass


def test_each_thread_of_a_pool_works_alone_and_others_as_before():
    import torch

    before = torch.get_num_threads()
    pool = threads_of_torch("test")
    ready = threading.Barrier(before)

    def own_threads(_: int) -> int:
        ready.wait(10)
        return torch.get_num_threads()

    assert list(pool.map(own_threads, range(before))) == [1] * before
    assert torch.get_num_threads() == before
    with concurrent.futures.ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == before
