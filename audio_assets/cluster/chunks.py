"""Which partitions make up the next chunk, and what becomes of those whose actor died.

Guided self-scheduling: a chunk is a share of what is left, so that chunks shrink towards the end and no
worker finishes long after the others. The largest partitions go first. A chunk whose actor died is halved, so
that a partition that kills whoever works on it is soon alone; then its objects are tried one by one, and the
one that kills becomes a `failed` row.

Pure: no clock, no storage, no Ray.

Sources: C. D. Polychronopoulos and D. J. Kuck, Guided Self-Scheduling, IEEE Trans. Computers C-36 (1987);
R. L. Graham, Bounds on Multiprocessing Timing Anomalies, SIAM J. Appl. Math. 17 (1969), for largest first.
"""

import collections
import dataclasses
from collections.abc import Iterable, Iterator, Mapping

from audio_assets.partitions import FolderMinute

LONGEST_CHUNK_S = 90.0
"""Seconds of work in a chunk at the most: what is lost at the most when an actor dies."""
SHORTEST_CHUNK_S = 1.0
"""Below it, asking for chunks would take a part of the time."""
# Of what is left, a worker gets at most this part of its even share.
_PART_OF_SHARE = 1 / 2
# Until a chunk has told how fast the workers are.
_PART_OF_SHARE_AT_FIRST = 1 / 8
LARGEST_CHUNK = 500
"""Partitions in a chunk at the most: each costs requests, whether or not it has work."""

LOSSES_ALONE = 1
"""How often a partition may lose its actor alone before its objects are tried one by one."""
LOSSES_OF_OBJECT = 2
"""How often an object may end its process before it becomes a `failed` row."""
LOSSES_AT_MOST = 4
"""How often a partition may lose its actor alone at all."""


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Work for one actor.

    Attributes:
        number: tells it from all other chunks of the run.
        partitions: in the order in which they are to be made.
        unreadable: keys of objects that kill the process, each with the reason for its `failed` row.
        rehearse: try the objects of the only partition one by one and write nothing.
    """

    number: int
    partitions: tuple[FolderMinute, ...]
    unreadable: Mapping[str, str] = dataclasses.field(default_factory=dict)
    rehearse: bool = False


@dataclasses.dataclass
class _Trouble:
    """A partition that lost its actor when it was alone."""

    losses: int = 0
    rehearsed: bool = False
    objects: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    unreadable: dict[str, str] = dataclasses.field(default_factory=dict)


class Chunks:
    """The partitions of a run, handed out in chunks.

    Args:
        work: what each partition costs, in any unit, such as bytes of audio.
        longest_s, shortest_s: bounds of a chunk's expected work in seconds, once the rate is known.

    Attributes:
        given_up: partitions that keep killing their actors, each with the reason.
        work_done: what is done, in the unit of `work`.
    """

    def __init__(
        self,
        work: Mapping[FolderMinute, float],
        *,
        longest_s: float = LONGEST_CHUNK_S,
        shortest_s: float = SHORTEST_CHUNK_S,
    ) -> None:
        self.given_up: dict[FolderMinute, str] = {}
        self.work_done = 0.0
        self._work = work
        self._longest_s = longest_s
        self._shortest_s = shortest_s
        # The largest last, where a list gives up its items.
        self._waiting = sorted(work, key=lambda partition: (work[partition], partition))
        self._waiting_work = float(sum(work.values()))
        self._again: collections.deque[Chunk] = collections.deque()
        self._under_way: dict[int, dict[FolderMinute, None]] = {}
        self._taken: dict[int, Chunk] = {}
        self._trouble: collections.defaultdict[FolderMinute, _Trouble] = collections.defaultdict(_Trouble)
        self._numbers = 0

    @property
    def waiting(self) -> int:
        """How many partitions no actor has."""
        return len(self._waiting) + sum(len(chunk.partitions) for chunk in self._again)

    @property
    def done(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not self.waiting and not self._under_way

    def work_left(self) -> float:
        """What is not done, in the unit of `work`."""
        return max(0.0, float(sum(self._work.values())) - self.work_done)

    # --- handing out ----------------------------------------------------------------------------------

    def take(self, workers: int, rate: float | None) -> Chunk | None:
        """The next chunk, None where nothing waits.

        Args:
            workers: how many actors share the work.
            rate: what one actor does in a second, in the unit of `work`; None where nobody knows yet.
        """
        if self._again:
            chunk = self._again.popleft()
        elif self._waiting:
            chunk = self._new(tuple(self._next_partitions(self._size(workers, rate))))
        else:
            return None
        self._under_way[chunk.number] = dict.fromkeys(chunk.partitions)
        self._taken[chunk.number] = chunk
        return chunk

    def _size(self, workers: int, rate: float | None) -> float:
        share = self._waiting_work / max(workers, 1)
        if rate is None:
            return share * _PART_OF_SHARE_AT_FIRST
        wanted = min(share * _PART_OF_SHARE, rate * self._longest_s)
        return max(wanted, rate * self._shortest_s)

    def _next_partitions(self, size: float) -> Iterator[FolderMinute]:
        taken = 0.0
        count = 0
        while self._waiting and count < LARGEST_CHUNK:
            work = self._work[self._waiting[-1]]
            if count and taken + work > size:
                return
            taken += work
            count += 1
            self._waiting_work -= work
            yield self._waiting.pop()

    def _new(
        self,
        partitions: tuple[FolderMinute, ...],
        unreadable: Mapping[str, str] | None = None,
        *,
        rehearse: bool = False,
    ) -> Chunk:
        self._numbers += 1
        return Chunk(self._numbers, partitions, dict(unreadable or {}), rehearse)

    # --- what became of it ----------------------------------------------------------------------------

    def finished(self, chunk: Chunk, partition: FolderMinute) -> bool:
        """Note that a partition's files are written; False where that is known already."""
        under_way = self._under_way[chunk.number]
        if partition not in under_way:
            return False
        del under_way[partition]
        self.work_done += self._work[partition]
        return True

    def ended(self, chunk: Chunk) -> None:
        """Note that the actor is done with a chunk."""
        left = tuple(self._under_way.pop(chunk.number))
        if chunk.rehearse:
            trouble = self._trouble[chunk.partitions[0]]
            trouble.rehearsed = True
            self._again.append(self._new(left, trouble.unreadable))
        elif left:
            # An actor reports each partition before it ends; what it has not reported is made again.
            self._again.append(self._new(left, chunk.unreadable))

    def put_back(self) -> None:
        """Take back all chunks that are under way: the actors are gone, and no chunk has ended them."""
        for number, left in self._under_way.items():
            chunk = self._taken[number]
            self._again.append(self._new(tuple(left), chunk.unreadable, rehearse=chunk.rehearse))
        self._under_way.clear()

    def lost(self, chunk: Chunk, why: str, touched: str | None = None) -> None:
        """Note that the actor of a chunk died, or is of no more use.

        Args:
            why: what is known of its end, in words.
            touched: the object that it had begun when it rehearsed.
        """
        left = tuple(self._under_way.pop(chunk.number))
        if len(left) > 1:
            half = len(left) // 2
            for part in (left[:half], left[half:]):
                self._again.append(self._new(part, chunk.unreadable))
        elif left:
            self._lost_alone(left[0], why, touched)

    def _lost_alone(self, partition: FolderMinute, why: str, touched: str | None) -> None:
        trouble = self._trouble[partition]
        if touched is None:
            trouble.losses += 1
        else:
            trouble.objects[touched] += 1
            if (times := trouble.objects[touched]) >= LOSSES_OF_OBJECT:
                trouble.unreadable[touched] = (
                    f"{times} processes that worked on it died ({why}); upload it again, or give the nodes"
                    " more memory"
                )
        if trouble.losses >= LOSSES_AT_MOST:
            self.given_up[partition] = why
            self.work_done += self._work[partition]
            return
        rehearse = trouble.losses >= LOSSES_ALONE and not trouble.rehearsed
        self._again.append(self._new((partition,), trouble.unreadable, rehearse=rehearse))


def expected_work(sizes: Mapping[FolderMinute, Iterable[int]]) -> dict[FolderMinute, float]:
    """What each partition costs, by the sizes of its objects in bytes."""
    return {partition: _PER_PARTITION + sum(found) for partition, found in sizes.items()}


# A partition costs a few requests whatever is in it; about as much as this many bytes of audio.
_PER_PARTITION = 16_384
