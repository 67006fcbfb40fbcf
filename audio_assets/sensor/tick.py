"""One tick of the sensor from what is known to what it asks for.

The steps: read the events, look (full scan, marked folders, inventory report), compare, keep in the cursor
what is left. No Dagster and no clock of its own: what Dagster has on record is asked for through `Records`,
so that a tick can be tested with dictionaries.
"""

import dataclasses
import datetime as dt
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from typing import Protocol

from audio_assets.partitions import FolderMinute, folder_of_partition
from audio_assets.quality import Summary
from audio_assets.record import PartitionRecord
from audio_assets.sensor import marked_folders
from audio_assets.sensor.event_queue import Event
from audio_assets.sensor.marked_folders import Changes, Inventory
from audio_assets.sensor.run_requests import (
    FolderContents,
    Plan,
    RunLimits,
    RunRange,
    plan,
    retry_delay,
)
from audio_assets.sensor.state import Cursor, ReportProgress
from audio_assets.sensor.table_files import TableFiles
from audio_assets.source import AudioSource

# The daemon deletes partition keys one by one; the next full scan meets the rest again.
DELETED_PER_TICK = 1_000
# Stands for the digest of rows that other settings made; equals none.
STALE = "stale"
# Fingerprints whose runs are asked for in one query.
RANGES_AT_A_TIME = 500

ReadReport = Callable[[ReportProgress, Callable[[], bool]], tuple[set[FolderMinute], ReportProgress]]
"""Reads on in the S3 Inventory report, until it is told to stop."""


@dataclasses.dataclass(frozen=True)
class Unfinished:
    """The runs that are queued or under way.

    Attributes:
        runs: how many.
        covered: the partition keys that they will write.
    """

    runs: int
    covered: Collection[str]


class Records(Protocol):
    """What the orchestrator has on record. It is asked as late as can be: a tick lists for seconds."""

    def records(self, keys: Collection[str] | None = None) -> Mapping[str, PartitionRecord]:
        """By partition key, what is recorded of it; None asks for all keys."""
        ...

    def unfinished(self, registered: Sequence[str]) -> Unfinished:
        """The runs that are queued or under way."""
        ...

    def tries(self, fingerprints: Sequence[str]) -> Mapping[str, Sequence[float]]:
        """By fingerprint, when each run that was asked for by it ended or last did something, in seconds
        since 1970."""
        ...


@dataclasses.dataclass(frozen=True)
class TickInputs:
    """All that a tick goes by.

    Attributes:
        source: is listed.
        files: lists the tables, at the least the files of the folders asked for; None asks for all.
        inventory: the objects that a partition was last made from.
        registered: the partition keys, in the order in which they were registered.
        records: what else the orchestrator has on record.
        cursor: where the last tick left off.
        now: when this tick began.
        stop: whether to leave the rest of the listing to the next tick.
        settle_time: how long after its end a minute counts as closed.
        newest_first: ask for the newest minutes of all folders first, rather than go folder by folder.
        stale: of some records, the keys of partitions that have rows made by other settings than today's.
        redo_stale: ask for those partitions as well.
        events: what the bucket has told of, None where it sends no events.
        read_report: reads the S3 Inventory report that takes the place of full scans, None where there is
            none.
        limits: how much is asked for at a time.
    """

    source: AudioSource
    files: Callable[[Collection[str] | None], TableFiles]
    inventory: Inventory
    registered: Sequence[str]
    records: Records
    cursor: Cursor
    now: dt.datetime
    stop: Callable[[], bool]
    settle_time: dt.timedelta
    newest_first: bool = False
    stale: Callable[[Mapping[str, PartitionRecord]], Collection[str]] = lambda records: ()
    redo_stale: bool = False
    events: Sequence[Event] | None = None
    read_report: ReadReport | None = None
    limits: RunLimits = dataclasses.field(default_factory=RunLimits)


@dataclasses.dataclass(frozen=True)
class RunAttempt:
    """A run to ask for, and how many runs of the same fingerprint there were before it."""

    range: RunRange
    tries: int

    @property
    def run_key(self) -> str:
        """Names this attempt.

        Dagster makes one run for a run key and never forgets it: a run that two daemons ask for at once is
        made once. With the number of tries in it, a run that had no effect is asked for again.
        """
        return f"{self.range.fingerprint}.{self.tries}"


@dataclasses.dataclass(frozen=True)
class TickOutcome:
    """What a tick asks for.

    Attributes:
        add: partition keys to register, in order, before the runs.
        delete: partition keys to delete.
        runs: to ask for, in order.
        cursor: for the next tick.
        summary: what was looked at and what came of it, for the log.
        table: what is in the table, by the records that its files bear out; None where only the folders that
            events named were compared.
        pending: partition keys of closed minutes in which bucket and table differ.
        open: how many partitions wait for their minute to close.
    """

    add: list[str]
    delete: list[str]
    runs: list[RunAttempt]
    cursor: Cursor
    summary: str
    table: Summary | None
    pending: Set[str] = frozenset()
    open: int = 0

    @property
    def idle(self) -> bool:
        """Whether it asks for nothing."""
        return not (self.add or self.delete or self.runs)


def tick(inputs: TickInputs) -> TickOutcome:
    """Look, compare, decide.

    Raises:
        StorageError: the source, the inventory or the report cannot be read.
        ReportError: the report is of no use here.
    """
    records = inputs.records
    registered = inputs.registered
    # What a run that ends during this tick has written may be seen in part: its partitions count as busy too.
    before = records.unfinished(registered)
    seen = _see(inputs)
    unfinished = records.unfinished(registered)
    stale = inputs.stale(seen.table.records)
    actual = {**seen.table.digests, **dict.fromkeys(stale if inputs.redo_stale else (), STALE)}
    decided = plan(
        seen.contents,
        actual,
        registered,
        {*before.covered, *unfinished.covered},
        inputs.now,
        inputs.settle_time,
        reported=seen.reported,
        newest_first=inputs.newest_first,
        made_before=seen.table.recorded,
        limits=inputs.limits,
    )
    room = max(0, inputs.limits.runs - unfinished.runs)
    runs = list(itertools.islice(_due(decided.ranges, records, inputs.now), room))
    cursor = seen.cursor.without_events()
    if inputs.events is not None:
        starved = len(runs) < len(decided.ranges)
        cursor = marked_folders.mark_differing(seen.cursor, seen.contents, actual, decided, starved=starved)
    delete = decided.delete[:DELETED_PER_TICK]
    table = Summary.of(seen.table.records.values()) if seen.whole else None
    return TickOutcome(
        decided.add,
        delete,
        runs,
        cursor,
        _summary(seen, table, decided, len(runs), len(delete), len(stale)),
        table,
        decided.pending,
        decided.open,
    )


@dataclasses.dataclass(frozen=True)
class _Seen:
    """What a tick has looked at.

    Attributes:
        whole: whether that is the whole table, rather than the folders that events name.
        contents: of the bucket's folders.
        table: the partitions of those folders at the least.
        reported: partitions that an S3 Inventory report names, None where there is none.
        cursor: where the next tick goes on.
    """

    whole: bool
    contents: FolderContents
    table: "_Table"
    reported: set[FolderMinute] | None
    cursor: Cursor


def _see(inputs: TickInputs) -> _Seen:
    """Look at the bucket, or at its report, and at the table."""
    registered = inputs.registered
    cursor = inputs.cursor if inputs.events is not None else inputs.cursor.without_events()
    scans = inputs.read_report is None and cursor.full_scan_due(inputs.now)
    whole = scans or inputs.read_report is not None
    table = _read_table(inputs, registered, None) if whole else _Table({}, {}, {})
    contents, cursor = _look(inputs, cursor, _folders((*registered, *table.digests)) if scans else None)
    if not whole:
        here = [key for key in registered if folder_of_partition(key) in contents.folders]
        keys = {*here, *(p.key for p in contents.partitions)}
        table = _read_table(inputs, keys, {*contents.folders, *(p.folder for p in contents.partitions)})
    reported, cursor = _read_report(inputs, cursor)
    return _Seen(whole, contents, table, reported, cursor)


@dataclasses.dataclass(frozen=True)
class _Table:
    """What is in the table.

    Attributes:
        digests: as `TableFiles.digests`.
        recorded: by partition key, all that is recorded.
        records: by partition key, those that the files bear out.
    """

    digests: Mapping[str, str]
    recorded: Mapping[str, PartitionRecord]
    records: Mapping[str, PartitionRecord]


def _read_table(inputs: TickInputs, keys: Collection[str], folders: Collection[str] | None) -> _Table:
    """The partitions of some keys, and those that have files in some folders; None for all folders."""
    recorded = inputs.records.records(None if folders is None else keys)
    digests = inputs.files(folders).digests(recorded, keys, folders)
    records = {key: record for key, record in recorded.items() if digests.get(key) == record.digest}
    return _Table(digests, recorded, records)


def _look(inputs: TickInputs, cursor: Cursor, known: Collection[str] | None) -> tuple[FolderContents, Cursor]:
    """Look at the marked folders, and at everything if so asked.

    Args:
        known: the folders that the table has, for a full scan to go on; None for none.
    """
    contents, cursor = marked_folders.look(inputs.source, cursor, _changes(inputs), inputs.stop)
    folders = set(contents.folders)
    partitions = dict(contents.partitions)
    if known is not None:
        began = cursor.full_scan_began if cursor.scanning else inputs.now.timestamp()
        scanned, full_scan = cursor.full_scan.advance(inputs.source, known, inputs.stop)
        cursor = dataclasses.replace(cursor, full_scan=full_scan, full_scan_began=began)
        folders |= set(scanned.folders)
        partitions |= scanned.partitions
    partitions |= marked_folders.contents_of_large(cursor.created.values(), folders, inputs.inventory)
    return FolderContents(folders, partitions), cursor


def _folders(keys: Iterable[str]) -> set[str]:
    """The folders of partition keys."""
    return {folder for key in keys if (folder := folder_of_partition(key)) is not None}


def _changes(inputs: TickInputs) -> Changes:
    """The keys of the source that events name."""
    created: list[str] = []
    removed: list[str] = []
    for event in inputs.events or ():
        key = inputs.source.key_of(event.bucket, event.key)
        if key is not None:
            (removed if event.removed else created).append(key)
    return Changes(created, removed)


def _read_report(inputs: TickInputs, cursor: Cursor) -> tuple[set[FolderMinute] | None, Cursor]:
    """The partitions that the S3 Inventory report names, None where there is none."""
    if inputs.read_report is None:
        return None, dataclasses.replace(cursor, report=ReportProgress())
    reported, progress = inputs.read_report(cursor.report, inputs.stop)
    return reported, dataclasses.replace(cursor, report=progress)


def _due(ranges: Sequence[RunRange], records: Records, now: dt.datetime) -> Iterator[RunAttempt]:
    """The runs to ask for, without those whose last try ended too recently."""
    for first in range(0, len(ranges), RANGES_AT_A_TIME):
        some = ranges[first : first + RANGES_AT_A_TIME]
        tries = records.tries([wanted.fingerprint for wanted in some])
        for wanted in some:
            ends = tries.get(wanted.fingerprint, ())
            if not ends or now.timestamp() >= max(ends) + retry_delay(len(ends)).total_seconds():
                yield RunAttempt(wanted, len(ends))


def _summary(seen: _Seen, table: Summary | None, decided: Plan, runs: int, deleted: int, stale: int) -> str:
    """One line for the log."""
    said = []
    if seen.reported is not None:
        said.append(f"{len(seen.reported)} partitions read from the inventory report")
    if seen.reported is None or seen.contents.folders:
        partitions = len(seen.contents.partitions)
        said.append(f"{partitions} partitions in {len(seen.contents.folders)} folders looked at")
    counts = {
        "wait for their minute to close": decided.open,
        "partitions registered": len(decided.add),
        "partitions deleted": deleted,
        "runs wait for others to end, or for their next try": len(decided.ranges) - runs,
        "partitions have rows made by other settings (redo_stale makes them anew)": stale,
    }
    said += [f"{count} {what}" for what, count in counts.items() if count]
    if table is not None and table.lacks_audio:
        said.append("no object is of an audio format, so nothing is transcribed (check audio_found)")
    return "; ".join([*said, f"{runs} runs asked for" if runs else "nothing to ask for now"])
