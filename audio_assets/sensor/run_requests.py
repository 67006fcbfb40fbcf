"""What a tick asks for: the bucket is the desired state, the table the actual one.

Level-triggered reconciliation, as Kubernetes controllers do it: every decision is made from what is there
now, never from what changed, so that a lost event, run or tick is made good by the next one. A watermark on
LastModified would be unsound: several objects share a second, a multipart upload carries the time at which it
began, a deleted object leaves no trace.

Pure: no clock, no storage, no Dagster. Where a tick looks is decided in `tick.py`.
"""

import dataclasses
import datetime as dt
import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set

from audio_assets.digest import EMPTY, UNLISTED, Digest
from audio_assets.partitions import FolderMinute, folder_of_partition, minute_of_partition
from audio_assets.record import PartitionRecord

# A run passes over a partition that is done in well under the time that starting another run takes.
LARGEST_GAP = 20


@dataclasses.dataclass(frozen=True)
class RunLimits:
    """How much is asked for at a time.

    A run covers a range, so that the model is loaded once; the size of the range bounds what a failure costs,
    and a cluster needs ranges that keep all of its workers busy. The first sight of a large bucket is worked
    off, rather than queued at once.

    Attributes:
        partitions: that a run covers at most.
        objects: that a run covers at most; a single partition may have more.
        runs: that are queued or under way at most.
    """

    partitions: int = 100
    objects: int = 20_000
    runs: int = 25


@dataclasses.dataclass(frozen=True)
class FolderContents:
    """What is in the folders that a tick looked at.

    Attributes:
        folders: every folder that was listed whole, or is known to be gone.
        partitions: the digest of each partition that has objects.
    """

    folders: Collection[str]
    partitions: Mapping[FolderMinute, Digest]


@dataclasses.dataclass(frozen=True)
class RunRange:
    """What one run is to cover: a range of partition keys, in the order in which they are registered.

    Attributes:
        start, end: first and last partition key, inclusive.
        partitions: how many of the range need work.
        fingerprint: of what is asked for; the same for the same desired state after the same last run.
    """

    start: str
    end: str
    partitions: int
    fingerprint: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a tick asks for.

    Attributes:
        add: partition keys to register, in order, before the runs.
        delete: partition keys whose objects are gone and whose rows are too, and what is no partition key.
        ranges: of runs, in the order in which they are to be asked for.
        open: how many partitions wait for their minute to close.
        differing: folders in which bucket and table differ.
        pending: partition keys of closed minutes in which they differ.
    """

    add: list[str]
    delete: list[str]
    ranges: list[RunRange]
    open: int
    differing: Set[str] = frozenset()
    pending: Set[str] = frozenset()


def plan(
    contents: FolderContents,
    recorded: Mapping[str, str],
    registered: Sequence[str],
    busy: Collection[str],
    now: dt.datetime,
    settle_time: dt.timedelta,
    *,
    reported: Collection[FolderMinute] | None = None,
    newest_first: bool = False,
    made_before: Mapping[str, PartitionRecord] | None = None,
    limits: RunLimits | None = None,
) -> Plan:
    """Compare the bucket with the table.

    Args:
        contents: what is in the folders that were looked at; all others are left alone.
        recorded: by partition key, the digest that its rows in the table were made from; what has no rows is
            left out, or has the digest of no objects.
        registered: the partition keys that Dagster knows, in its order.
        busy: partition keys that a queued or running run covers; they are compared again when it ends.
        now: the clock that `settle_time` is measured by.
        settle_time: how long after its end a minute counts as closed; open ones are left for a later tick.
        reported: partitions that an S3 Inventory report names, None where the bucket is listed instead. With
            a report, what is registered and has no record is asked for without having been listed.
        newest_first: register and ask for the newest minutes of all folders first, rather than go folder by
            folder.
        made_before: by partition key, what its last run recorded, whether or not the table still bears it
            out. It tells a request of today from an equal one before that run.
        limits: of a run.
    """
    last_closed = now - dt.timedelta(minutes=1) - settle_time
    compared = _compare(contents, recorded, registered, busy, last_closed, by_report=reported is not None)
    pending = compared.pending
    if reported is not None:
        pending = pending | _unlisted(contents.folders, recorded, registered, reported)
    known = set(registered)
    add = _to_register(pending, known, newest_first=newest_first)
    chunks = _chunks([*registered, *add], pending, busy, limits or RunLimits())
    ordered = _in_order(chunks, compared.changed, newest_first=newest_first)
    return Plan(
        add,
        delete=_to_delete(compared.gone, known, {*compared.with_rows, *busy}),
        ranges=[_range(chunk, pending, made_before or {}) for chunk in ordered],
        open=compared.open,
        differing=_differing(compared.found, recorded, pending),
        pending=pending.keys(),
    )


@dataclasses.dataclass(frozen=True)
class _Compared:
    """Bucket and table, partition by partition.

    Attributes:
        found: by partition key, what is in the bucket.
        gone: partition keys whose objects are gone.
        with_rows: those of them that have rows.
        pending: by partition key, the digest that is to be made.
        changed: pending partition keys that have rows, some of which may go.
        open: how many partitions wait for their minute to close.
    """

    found: Mapping[str, tuple[FolderMinute, Digest]]
    gone: list[str]
    with_rows: list[str]
    pending: dict[str, Digest]
    changed: Set[str]
    open: int


def _compare(
    contents: FolderContents,
    recorded: Mapping[str, str],
    registered: Sequence[str],
    busy: Collection[str],
    last_closed: dt.datetime,
    *,
    by_report: bool,
) -> _Compared:
    found = {p.key: (p, digest) for p, digest in sorted(contents.partitions.items())}
    gone = _gone(found, contents.folders, recorded, registered, by_report=by_report)
    with_rows = [key for key in gone if _has_rows(key, recorded)]
    desired = {key: digest for key, (_, digest) in found.items()} | dict.fromkeys(with_rows, EMPTY)
    differing = {key: digest for key, digest in desired.items() if recorded.get(key) != str(digest)}

    open_minutes = {key for key, (p, _) in found.items() if p.minute > last_closed}
    changed = {key for key in differing if _has_rows(key, recorded)} - open_minutes - set(busy)
    waiting = _waiting(open_minutes, changed)
    for key in waiting:
        differing.pop(key, None)
    return _Compared(found, gone, with_rows, differing, changed, len(waiting))


def _waiting(open_minutes: Iterable[str], changed: Iterable[str]) -> set[str]:
    """The partition keys of open minutes that wait for their end.

    An object that is overwritten moves from a changed partition to an open minute of the same folder. Such a
    minute does not wait, so that the object is not without a row until then.
    """
    overwritten = {folder_of_partition(key) for key in changed}
    return {key for key in open_minutes if folder_of_partition(key) not in overwritten}


def _has_rows(key: str, recorded: Mapping[str, str]) -> bool:
    """Whether a partition has rows in the table."""
    empty = str(EMPTY)
    return recorded.get(key, empty) != empty


def _in_order(
    chunks: Iterable[list[str]], changed: Collection[str], *, newest_first: bool
) -> list[list[str]]:
    """The chunks in the order in which their runs are to be asked for."""
    ordered = list(chunks)
    if newest_first:
        ordered.sort(key=lambda chunk: max(map(minute_of_partition, chunk)), reverse=True)
    # What gains a row comes before what may lose one.
    return sorted(ordered, key=lambda chunk: any(key in changed for key in chunk))


def _to_register(pending: Iterable[str], known: Collection[str], *, newest_first: bool) -> list[str]:
    """The partition keys that Dagster does not know yet, in the order in which they are to be registered."""
    add = [key for key in pending if key not in known]
    return sorted(add, key=minute_of_partition, reverse=True) if newest_first else add


def _to_delete(gone: Iterable[str], known: Collection[str], in_use: Collection[str]) -> list[str]:
    """The partition keys without objects that neither rows nor a run need any more."""
    return [key for key in gone if key in known and key not in in_use]


def _gone(
    found: Collection[str],
    folders: Collection[str],
    recorded: Mapping[str, str],
    registered: Sequence[str],
    *,
    by_report: bool,
) -> list[str]:
    """The known partition keys that have no object any more, in the order in which they are known.

    Args:
        by_report: reports take the place of listings, so that the last run is who has seen that a partition
            is empty.
    """
    empty = str(EMPTY)
    # What somebody registered by hand and is no partition key has no folder.
    looked_at = {None, *folders}
    return [
        key
        for key in dict.fromkeys([*registered, *recorded])
        if key not in found
        and (folder_of_partition(key) in looked_at or (by_report and recorded.get(key) == empty))
    ]


def _unlisted(
    folders: Collection[str],
    recorded: Mapping[str, str],
    registered: Sequence[str],
    reported: Iterable[FolderMinute],
) -> dict[str, Digest]:
    """The partitions, registered or reported, that were never made and that nobody has listed."""
    looked_at = {None, *folders}
    return {
        key: UNLISTED
        for key in (*registered, *(p.key for p in sorted(reported)))
        if key not in recorded and folder_of_partition(key) not in looked_at
    }


def _differing(
    found: Mapping[str, tuple[FolderMinute, Digest]], recorded: Mapping[str, str], pending: Collection[str]
) -> set[str]:
    """The folders in which bucket and table differ, those with open minutes included."""
    differing = {p.folder for key, (p, digest) in found.items() if recorded.get(key) != str(digest)}
    others = (folder_of_partition(key) for key in pending if key not in found)
    return differing | {folder for folder in others if folder is not None}


def _chunks(
    order: Sequence[str], pending: Mapping[str, Digest], busy: Collection[str], limits: RunLimits
) -> Iterator[list[str]]:
    """Cut the pending partitions into chunks of bounded size that keep clear of busy ones."""
    chunk: list[str] = []
    first = 0
    objects = 0
    gap = 0
    for at, key in enumerate(order):
        if key in busy or key not in pending:
            gap = LARGEST_GAP + 1 if key in busy else gap + 1
            continue
        count = pending[key].count
        if chunk and (
            gap > LARGEST_GAP or at - first >= limits.partitions or objects + count > limits.objects
        ):
            yield chunk
            chunk = []
        if not chunk:
            first = at
            objects = 0
        chunk.append(key)
        objects += count
        gap = 0
    if chunk:
        yield chunk


def _range(
    chunk: Sequence[str], pending: Mapping[str, Digest], made_before: Mapping[str, PartitionRecord]
) -> RunRange:
    # With what was made before: a partition that returns to an earlier state is no second try of that state.
    # Not with what is in the table: a run that died may have left a part of it, and its retry goes on there.
    state = "\n".join(f"{key}={made_before.get(key)}>{pending[key]}" for key in chunk)
    return RunRange(chunk[0], chunk[-1], len(chunk), hashlib.sha256(state.encode()).hexdigest()[:16])


def retry_delay(tries: int) -> dt.timedelta:
    """How long after the end of the last of `tries` runs the same range is asked for again.

    Exponential backoff: 1, 2, 4 … 60 minutes.
    """
    return min(dt.timedelta(minutes=2 ** min(tries - 1, 10)), dt.timedelta(hours=1))
