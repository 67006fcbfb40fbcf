"""Which partitions make up a chunk, and what becomes of those whose actor died."""

import dataclasses
import datetime as dt
import itertools

from hypothesis import given
from hypothesis import strategies as st

from audio_assets.cluster.chunks import (
    LARGEST_CHUNK,
    LOSSES_ALONE,
    LOSSES_AT_MOST,
    LOSSES_OF_OBJECT,
    Chunk,
    Chunks,
    expected_work,
)
from audio_assets.partitions import FolderMinute

START = dt.datetime(2023, 8, 24, tzinfo=dt.UTC)


def partition(number: int) -> FolderMinute:
    return FolderMinute("p", START + dt.timedelta(minutes=number))


def works(*costs: float) -> dict[FolderMinute, float]:
    return {partition(number): cost for number, cost in enumerate(costs)}


def make(chunks: Chunks, chunk: Chunk) -> None:
    for one in chunk.partitions:
        assert chunks.finished(chunk, one)
    chunks.ended(chunk)


costs = st.lists(st.floats(0, 1e9), min_size=1, max_size=60)


@given(costs, st.integers(1, 20), st.floats(1, 1e8) | st.none())
def test_each_partition_is_in_one_chunk(some: list[float], workers: int, rate: float | None) -> None:
    chunks = Chunks(works(*some))
    taken = []
    while chunk := chunks.take(workers, rate):
        assert 1 <= len(chunk.partitions) <= LARGEST_CHUNK
        taken += chunk.partitions
        make(chunks, chunk)
    assert sorted(taken) == sorted(works(*some))
    assert chunks.done
    assert chunks.work_left() <= 1e-6 * sum(some)


@given(costs, st.integers(1, 20), st.floats(1, 1e8))
def test_no_chunk_is_longer_than_its_bounds_unless_a_partition_is(
    some: list[float], workers: int, rate: float
) -> None:
    work = works(*some)
    chunks = Chunks(work, longest_s=90, shortest_s=5)
    while chunk := chunks.take(workers, rate):
        size = sum(work[one] for one in chunk.partitions)
        assert len(chunk.partitions) == 1 or size <= max(90 * rate, 5 * rate) * (1 + 1e-9)
        make(chunks, chunk)


def test_the_largest_partitions_go_first_and_chunks_shrink() -> None:
    work = works(*range(1, 101))
    chunks = Chunks(work, shortest_s=0)
    sizes = []
    first = chunks.take(4, rate=1e6)
    assert first
    assert first.partitions[0] == partition(99)
    while chunk := chunks.take(4, rate=1e6):
        sizes.append(sum(work[one] for one in chunk.partitions))
    assert all(later <= earlier + 100 for earlier, later in itertools.pairwise(sizes))
    assert sizes[-1] < sizes[0] / 10


@given(costs, st.integers(1, 8))
def test_workers_that_take_a_chunk_when_they_are_free_end_within_one_small_chunk_of_each_other(
    some: list[float], workers: int
) -> None:
    work = expected_work({partition(n): [int(cost)] for n, cost in enumerate(some)})
    rate = sum(work.values()) / workers / 600
    chunks = Chunks(work)
    busy = [0.0] * workers
    while chunk := chunks.take(workers, rate):
        free = busy.index(min(busy))
        busy[free] += sum(work[one] for one in chunk.partitions) / rate
        make(chunks, chunk)
    ideal = max(sum(busy) / workers, max(work.values()) / rate)
    # Graham's bound for a list of jobs, where the last one is no longer than a chunk of the longest size.
    assert max(busy) <= ideal + 90 + max(work.values()) / rate


def test_what_a_dead_actor_had_not_reported_is_made_again_in_halves() -> None:
    chunks = Chunks(works(1, 1, 1, 1, 1), shortest_s=1e9)
    chunk = chunks.take(1, rate=1)
    assert chunk
    assert len(chunk.partitions) == 5
    chunks.finished(chunk, chunk.partitions[0])
    chunks.lost(chunk, "killed")
    halves = [chunks.take(1, 1), chunks.take(1, 1)]
    assert [half and len(half.partitions) for half in halves] == [2, 2]
    assert chunks.take(1, 1) is None
    assert not chunks.done
    for half in halves:
        assert half
        assert chunk.partitions[0] not in half.partitions
        make(chunks, half)
    assert chunks.done


def test_a_partition_that_is_reported_twice_counts_once() -> None:
    chunks = Chunks(works(1))
    chunk = chunks.take(1, None)
    assert chunk
    assert chunks.finished(chunk, partition(0))
    assert not chunks.finished(chunk, partition(0))


def test_what_an_actor_leaves_out_is_made_again() -> None:
    chunks = Chunks(works(1, 1), shortest_s=1e9)
    chunk = chunks.take(1, 1)
    assert chunk
    chunks.finished(chunk, chunk.partitions[1])
    chunks.ended(chunk)
    again = chunks.take(1, 1)
    assert again
    assert again.partitions == (chunk.partitions[0],)


def test_what_was_under_way_when_the_cluster_went_is_made_again_and_counts_as_nobodys_fault() -> None:
    chunks = Chunks(works(1, 1, 1), shortest_s=1e9)
    chunk = chunks.take(1, rate=1)
    assert chunk
    chunks.finished(chunk, chunk.partitions[0])
    for _ in range(LOSSES_AT_MOST + 1):
        chunks.put_back()
        again = chunks.take(1, rate=1)
        assert again
        assert (again.partitions, again.rehearse) == (chunk.partitions[1:], False)
    assert not chunks.given_up


@dataclasses.dataclass
class Actor:
    """Plays an actor that some objects kill, and that dies at some moments by itself."""

    poison: frozenset[str]
    objects: dict[FolderMinute, list[str]]

    def work(self, chunks: Chunks, chunk: Chunk) -> int:
        """Work on a chunk; gives 1 where that ended the process."""
        for one in chunk.partitions:
            for key in self.objects[one]:
                if key in self.poison and key not in chunk.unreadable:
                    chunks.lost(chunk, "killed", key if chunk.rehearse else None)
                    return 1
            if not chunk.rehearse:
                assert chunks.finished(chunk, one)
        chunks.ended(chunk)
        return 0


@given(st.integers(1, 40), st.sets(st.integers(0, 119), max_size=4), st.integers(1, 5))
def test_poisonous_objects_end_as_failed_rows_after_bounded_tries_and_cost_nobody_else(
    partitions: int, bad: set[int], workers: int
) -> None:
    objects = {partition(n): [f"{n}/{i}" for i in range(3)] for n in range(partitions)}
    keys = [key for some in objects.values() for key in some]
    poison = frozenset(keys[n] for n in bad if n < len(keys))
    chunks = Chunks(dict.fromkeys(objects, 1.0))
    actor = Actor(poison, objects)
    unreadable: set[str] = set()
    deaths = 0
    while chunk := chunks.take(workers, 1.0):
        unreadable |= set(chunk.unreadable)
        deaths += actor.work(chunks, chunk)
    assert chunks.done
    assert not chunks.given_up
    assert unreadable == poison
    # Each halving, the losses alone, and those of the rehearsal.
    assert deaths <= len(poison) * (partitions.bit_length() + LOSSES_ALONE + LOSSES_OF_OBJECT)


def test_a_partition_that_kills_whoever_works_on_it_is_given_up_by_name() -> None:
    chunks = Chunks(works(1, 1), shortest_s=1e9)
    deaths = 0
    while chunk := chunks.take(1, 1.0):
        if chunk.rehearse or partition(0) not in chunk.partitions:
            # No object of it kills by itself.
            if not chunk.rehearse:
                chunks.finished(chunk, chunk.partitions[0])
            chunks.ended(chunk)
        else:
            chunks.lost(chunk, "killed")
            deaths += 1
    assert chunks.done
    assert chunks.given_up == {partition(0): "killed"}
    assert deaths == 1 + LOSSES_AT_MOST
