"""Which days of the daily copy are to be compacted: the minute files are the desired state, the day's file
the actual one.

Level-triggered, as `run_requests`: a day is compacted where the versions of its minute files are others than
those that it was made from, or where its file is not the one that was recorded. Whether something has changed
is never asked. Pure: no clock, no storage, no Dagster.
"""

import dataclasses
import datetime as dt
import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence

from audio_assets.daily import DayRecord, file_digest
from audio_assets.digest import EMPTY, Digest
from audio_assets.partitions import day_of_partition, path_of_partition
from audio_assets.record import PartitionRecord

MAX_DAYS_IN_FLIGHT = 4
"""Runs at a time, one for each day: they shall leave room for those that transcribe."""


@dataclasses.dataclass(frozen=True)
class DayRequest:
    """A day that is to be compacted.

    Attributes:
        day: its partition key, such as `2023-08-24`.
        fingerprint: of what is asked for; the same for the same desired state after the same last run.
    """

    day: str
    fingerprint: str


@dataclasses.dataclass(frozen=True)
class DayPlan:
    """What is to be done about the daily copy.

    Attributes:
        add: partition keys to register, in order.
        delete: partition keys of days that have neither minute files nor a file of their own.
        due: days to compact, the newest first.
        waiting: days that differ and wait: for the next time that an open day may be compacted, or for a run.
    """

    add: list[str]
    delete: list[str]
    due: list[DayRequest]
    waiting: list[str]


def desired(records: Mapping[str, PartitionRecord]) -> dict[str, Digest]:
    """By day, the digest of the minute files that its copy should be made from; days without any left out.

    Args:
        records: by partition key of `audio_table`.
    """
    digests: dict[str, Digest] = {}
    for key, record in records.items():
        path = path_of_partition(key) if record.version else None
        if path is not None:
            day = day_of_partition(key)
            digests[day] = digests.get(day, EMPTY) + file_digest(path, record.version)
    return digests


def plan(
    wanted: Mapping[str, Digest],
    made: Mapping[str, DayRecord],
    versions: Mapping[str, str],
    registered: Sequence[str],
    *,
    working: Collection[str],
    compacting: Collection[str],
    now: dt.datetime,
    settle_time: dt.timedelta,
    interval: dt.timedelta,
) -> DayPlan:
    """Compare the daily copy with the minute files.

    Args:
        wanted: what `desired` gives.
        made: by day, what its last compaction recorded.
        versions: by day, the version of its file; days without one are left out.
        registered: the days that Dagster knows as partition keys.
        working: days of which queued or running runs will write minutes.
        compacting: days that a queued or running run will compact.
        now: the clock that the next two are measured by.
        settle_time: how long after its end a day counts as closed.
        interval: how long after its last compaction an open day, or one in `working`, is compacted again; 0
            for at once.
    """

    def is_open(day: str) -> bool:
        return day in working or _is_open(day, now, settle_time)

    due: list[DayRequest] = []
    waiting: list[str] = []
    gone: list[str] = []
    for day in sorted({*wanted, *made, *versions, *registered}, reverse=True):
        if not _differs(day, wanted, made, versions):
            if day not in wanted:
                gone.append(day)
        elif day in compacting or (is_open(day) and not _is_due(made.get(day), now, interval)):
            waiting.append(day)
        else:
            state = f"{day}={made.get(day)}>{wanted.get(day, EMPTY)}"
            due.append(DayRequest(day, hashlib.sha256(state.encode()).hexdigest()[:16]))
    known = set(registered)
    return DayPlan(
        add=sorted(request.day for request in due if request.day not in known),
        delete=[day for day in gone if day in known and day not in compacting],
        due=due,
        waiting=waiting,
    )


def _differs(
    day: str, wanted: Mapping[str, Digest], made: Mapping[str, DayRecord], versions: Mapping[str, str]
) -> bool:
    """Whether a day's file is another than its minute files ask for."""
    version = versions.get(day, "")
    if day not in wanted:
        return bool(version)
    record = made.get(day)
    return record is None or record.digest != str(wanted[day]) or record.version != version


def _is_open(day: str, now: dt.datetime, settle_time: dt.timedelta) -> bool:
    """Whether audio of a day may still come in the ordinary way."""
    try:
        begins = dt.datetime.fromisoformat(f"{day}T00:00Z")
    except ValueError:
        return False
    return begins + dt.timedelta(days=1) + settle_time > now


def _is_due(record: DayRecord | None, now: dt.datetime, interval: dt.timedelta) -> bool:
    # Without an interval, whatever the clock of the last compaction said.
    if record is None or not interval:
        return True
    return now.timestamp() >= record.made_at + interval.total_seconds()


def days_of(keys: Iterable[str]) -> set[str]:
    """The days of partition keys of minutes."""
    return {day_of_partition(key) for key in keys}
