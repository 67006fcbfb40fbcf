"""What a sensor's tick should ask for: the bucket is the wanted state, the table the actual one.

Pure: no clock, no storage, no Dagster. Every decision is made from what is there now, never from what
changed, so that a lost event, run or tick is made good by the next one (as controllers do: "level
triggered"). A watermark on LastModified would be unsound: several objects share a second, a multipart
upload carries the time at which it began, a deleted object leaves no trace.
"""

import dataclasses
import datetime as dt
import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence, Set

from audio_assets.digest import EMPTY, UNLISTED, Digest
from audio_assets.partitions import FolderMinute, folder_of_partition

PARTITIONS_PER_RUN = 100
OBJECTS_PER_RUN = 20_000
# A run passes over a partition that is done in well under the time that starting another run takes.
LARGEST_GAP = 20


@dataclasses.dataclass(frozen=True)
class Listing:
    """Folders that were listed whole, and what is in them.

    Attributes:
        folders: every folder that was listed, or is known to be gone.
        partitions: the digest of each partition with objects.
    """

    folders: Collection[str]
    partitions: Mapping[FolderMinute, Digest]


@dataclasses.dataclass(frozen=True)
class Request:
    """One run: a range of partition keys, in the order in which they are registered.

    Attributes:
        start, end: first and last partition key, inclusive.
        partitions: how many of the range need work.
        fingerprint: of what is asked for; the same for the same wanted state.
    """

    start: str
    end: str
    partitions: int
    fingerprint: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a tick asks for.

    Attributes:
        add: partition keys to register, in order, before the requests.
        delete: partition keys whose objects are gone and whose rows are too, and what is no partition key.
        requests: runs, in the order in which they are to be made.
        open: how many partitions wait for their minute to close.
        waiting: folders in which bucket and table differ.
        pending: partition keys of closed minutes in which they differ.
    """

    add: list[str]
    delete: list[str]
    requests: list[Request]
    open: int
    waiting: Set[str] = frozenset()
    pending: Set[str] = frozenset()


def plan(
    listing: Listing,
    recorded: Mapping[str, str],
    registered: Sequence[str],
    busy: Collection[str],
    now: dt.datetime,
    settle: dt.timedelta,
    *,
    reported: Collection[FolderMinute] | None = None,
    newest_first: bool = False,
) -> Plan:
    """Compare the bucket with the table.

    Args:
        recorded: by partition key, the digest that `audio_table` was last made from.
        registered: the partition keys that Dagster knows, in its order.
        busy: partition keys that a queued or running run covers; they are looked at again when it ends.
        now: the clock that `settle` is measured by.
        settle: how long after its end a minute counts as closed; open ones are left for a later tick.
        reported: partitions that an S3 Inventory report names, None where the bucket is listed instead. With
            a report, what is registered and has no record is asked for without having been listed.
        newest_first: register and ask for the newest minutes of all folders first, rather than go folder by
            folder.
    """
    closed = now - dt.timedelta(minutes=1) - settle
    found = [(p, p.key, digest) for p, digest in sorted(listing.partitions.items())]
    wanted = {key: digest for p, key, digest in found if p.minute <= closed}
    present = {key for _, key, _ in found}
    known = set(registered)
    folders = {None, *listing.folders}
    empty = str(EMPTY)
    delete = []
    for key in dict.fromkeys([*registered, *recorded]):
        if key in present:
            continue
        # Where reports take the place of listings, the last run is who has seen that a partition is empty.
        if folder_of_partition(key) not in folders and (reported is None or recorded.get(key) != empty):
            continue
        if recorded.get(key, empty) != empty:
            wanted[key] = EMPTY
        elif key in known and key not in busy:
            delete.append(key)
    pending = {key: digest for key, digest in wanted.items() if recorded.get(key) != str(digest)}
    for key in () if reported is None else (*registered, *(p.key for p in sorted(reported))):
        if key not in recorded and folder_of_partition(key) not in folders:
            pending[key] = UNLISTED
    add = [key for key in pending if key not in known]
    if newest_first:
        add.sort(key=_minute, reverse=True)
    chunks = list(_chunks([*registered, *add], pending, busy))
    if newest_first:
        chunks.sort(key=lambda chunk: max(map(_minute, chunk)), reverse=True)
    open_minutes = len(present) - len(present & wanted.keys())
    waiting = {p.folder for p, key, digest in found if recorded.get(key) != str(digest)}
    waiting |= {
        folder for key in pending.keys() - present if (folder := folder_of_partition(key)) is not None
    }
    requests = [_request(chunk, pending) for chunk in chunks]
    return Plan(add, delete, requests, open_minutes, waiting, pending.keys())


def _minute(key: str) -> str:
    """Of a partition key; sorts by time."""
    return key.rpartition("|")[2]


def _chunks(
    order: Sequence[str], pending: Mapping[str, Digest], busy: Collection[str]
) -> Iterator[list[str]]:
    """Cut the pending partitions into ranges of bounded size that keep clear of busy ones."""
    chunk: list[str] = []
    first = objects = gap = 0
    for at, key in enumerate(order):
        if key in busy or key not in pending:
            gap = LARGEST_GAP + 1 if key in busy else gap + 1
            continue
        count = pending[key].count
        if chunk and (
            gap > LARGEST_GAP or at - first >= PARTITIONS_PER_RUN or objects + count > OBJECTS_PER_RUN
        ):
            yield chunk
            chunk = []
        if not chunk:
            first, objects = at, 0
        chunk.append(key)
        objects, gap = objects + count, 0
    if chunk:
        yield chunk


def _request(chunk: Sequence[str], pending: Mapping[str, Digest]) -> Request:
    state = "\n".join(f"{key}={pending[key]}" for key in chunk)
    return Request(chunk[0], chunk[-1], len(chunk), hashlib.sha256(state.encode()).hexdigest()[:16])


def retry_delay(attempts: int) -> dt.timedelta:
    """How long after the end of the last of `attempts` runs the same request is made again."""
    return min(dt.timedelta(minutes=2 ** min(attempts - 1, 10)), dt.timedelta(hours=1))
