"""From which copy of a table a slice is read: a day's file where it is proven fresh, else the minute files.

A day's file is fresh for a folder if its footer names exactly the minute files, and versions of them, that
the table's listing shows now. What the caller may ask for, and in which form the rows come, is a matter of
`read`.
"""

import concurrent.futures
import dataclasses
import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from audio_assets.daily import DailyTable, DayFile, file_digest
from audio_assets.digest import EMPTY, Digest
from audio_assets.errors import ObjectChangedError, StorageError
from audio_assets.partitions import FolderMinute
from audio_assets.storage import ObjectInfo
from audio_assets.table import THREADS, Table

# It imports pandas, which a code location does without.
if TYPE_CHECKING:
    import pyarrow.dataset as ds

MINUTES_WORTH_A_DAY = 8
"""Fewer minute files of a day are read one by one: a day's file takes a few requests as well."""

BATCH_ROWS = 2**14


@dataclasses.dataclass(frozen=True)
class Columns:
    """What is read of each row.

    Attributes:
        full: all columns of the table as readers see them.
        names: of the columns to give.
        filter: of the rows to give; None for all.
    """

    full: pa.Schema
    names: Sequence[str]
    filter: pc.Expression | None = None

    @property
    def schema(self) -> pa.Schema:
        """Of what is given."""
        return pa.schema([self.full.field(name) for name in self.names])


@dataclasses.dataclass(frozen=True)
class DayPart:
    """Rows of one day that its file gives.

    Attributes:
        file: the day's.
        partitions: whose rows these are, in order; also those to read where the file is gone meanwhile.
        condition: which rows of the file these are; None for all.
    """

    file: DayFile
    partitions: Sequence[FolderMinute]
    condition: pc.Expression | None


@dataclasses.dataclass(frozen=True)
class Plan:
    """Where the rows of a slice are read from.

    Attributes:
        days: what the daily copy gives.
        minutes: the partitions that are read from their own files, in the order asked for.
    """

    days: Sequence[DayPart]
    minutes: Sequence[FolderMinute]


def plan(
    table: Table, daily: DailyTable, partitions: Sequence[FolderMinute], versions: Mapping[FolderMinute, str]
) -> Plan:
    """Decide for each day, and each folder in it, from which copy it is read.

    Args:
        partitions: that are wanted, in order.
        versions: of all files of the folders that are wanted, whatever their minute.

    Raises:
        StorageError: the daily copy cannot be listed or read.
    """
    by_day = _by_day(partitions)
    large = {day for day, some in by_day.items() if len(some) >= MINUTES_WORTH_A_DAY}
    infos = daily.days() if large else {}
    wanted = sorted(large & infos.keys())
    now = _made_from(versions, set(wanted))
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        files = list(pool.map(lambda day: _open(daily, day, infos[day]), wanted))
    opened = [file for file in files if file is not None]
    parts = [_day_part(file, by_day[file.day], now[file.day], versions) for file in opened]
    days = list(filter(None, parts))
    from_days = {p for part in days for p in part.partitions}
    return Plan(days, [p for p in partitions if p not in from_days])


def _by_day(partitions: Iterable[FolderMinute]) -> dict[dt.date, list[FolderMinute]]:
    by_day: dict[dt.date, list[FolderMinute]] = {}
    for partition in partitions:
        by_day.setdefault(partition.minute.date(), []).append(partition)
    return by_day


def _open(daily: DailyTable, day: dt.date, info: ObjectInfo) -> DayFile | None:
    """None where it was replaced or removed since it was listed."""
    try:
        return daily.open(day, info)
    except ObjectChangedError:
        return None


def _made_from(versions: Mapping[FolderMinute, str], days: set[dt.date]) -> dict[dt.date, dict[str, Digest]]:
    """By day and folder, the digest of the minute files that there are now."""
    found: dict[dt.date, dict[str, Digest]] = {day: {} for day in days}
    for partition, version in versions.items():
        digests = found.get(partition.minute.date())
        if digests is not None:
            known = digests.get(partition.folder, EMPTY)
            digests[partition.folder] = known + file_digest(partition.path, version)
    return found


def _day_part(
    file: DayFile,
    partitions: Sequence[FolderMinute],
    now: Mapping[str, Digest],
    versions: Mapping[FolderMinute, str],
) -> DayPart | None:
    """What a day's file gives of some partitions, None for nothing."""
    fresh = {folder for folder, digest in now.items() if file.made_from.get(folder) == digest}
    some = [p for p in partitions if p.folder in fresh]
    if len(some) < MINUTES_WORTH_A_DAY:
        return None
    of_day = [p for p in versions if p.minute.date() == file.day and p.folder in fresh]
    return DayPart(file, some, _condition(file, some, of_day, fresh))


def _condition(
    file: DayFile, some: Sequence[FolderMinute], of_day: Sequence[FolderMinute], fresh: set[str]
) -> pc.Expression | None:
    """Which rows of a day's file are those of some partitions; None for all.

    Args:
        of_day: all partitions of the day in fresh folders.
        fresh: the folders for which the file is fresh.
    """
    condition = None
    if fresh != set(file.made_from) or {p.folder for p in some} != fresh:
        condition = pc.field("FolderName").isin(sorted({p.folder for p in some}))
    minutes = [p.minute for p in some]
    all_minutes = [p.minute for p in of_day]
    if (min(minutes), max(minutes)) != (min(all_minutes), max(all_minutes)):
        condition = _both(condition, _between(min(minutes), max(minutes)))
    return condition


def _both(one: pc.Expression | None, other: pc.Expression | None) -> pc.Expression | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _between(first: dt.datetime, last: dt.datetime) -> pc.Expression:
    """The rows of minutes of one day, both ends included."""
    hour = pc.field("LastModifiedHour")
    minute = pc.field("LastModifiedMinute")
    since = (hour > first.hour) | ((hour == first.hour) & (minute >= first.minute))
    until = (hour < last.hour) | ((hour == last.hour) & (minute <= last.minute))
    return since & until


# --- rows -----------------------------------------------------------------------------------------------


def read(table: Table, planned: Plan, columns: Columns, folders: Sequence[str] | None) -> pa.Table:
    """All rows of a plan, folder by folder in the order asked for, each in the order of time.

    Args:
        folders: in their order, None for all by name.

    Raises:
        StorageError: a file cannot be read.
    """
    rank = {folder: at for at, folder in enumerate(folders or ())}
    # A folder's rows of a day are cut out, for the days come one after the other.
    cut = bool(planned.minutes) or len(planned.days) > 1 or len(rank) > 1
    names = list(columns.names)
    wide = dataclasses.replace(columns, names=list(dict.fromkeys([*names, "FolderName"]))) if cut else columns
    pieces: list[tuple[tuple[int, str, dt.datetime], pa.Table]] = []
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        tables = list(pool.map(lambda part: _read_day(table, part, wide), planned.days))
    for part, rows in zip(planned.days, tables, strict=True):
        begins = part.partitions[0].minute.replace(hour=0, minute=0)
        for folder, some in _by_folder(rows) if cut else [("", rows)]:
            pieces.append(((rank.get(folder, 0), folder, begins), some.select(names)))
    for partition, rows in table.scan_each(planned.minutes, names, columns.filter):
        key = (rank.get(partition.folder, 0), partition.folder, partition.minute)
        pieces.append((key, rows))
    pieces.sort(key=lambda piece: piece[0])
    empty = columns.schema.empty_table()
    return pa.concat_tables([empty, *(rows for _, rows in pieces)])


def batches(table: Table, planned: Plan, columns: Columns) -> Iterator[pa.RecordBatch]:
    """The rows of a plan day by day, in each first what the day's file gives; holds a few row groups.

    Raises:
        StorageError: a file cannot be read, or a day's file is replaced while it is read.
    """
    by_day: dict[dt.date, list[FolderMinute]] = {part.file.day: [] for part in planned.days}
    for partition in planned.minutes:
        by_day.setdefault(partition.minute.date(), []).append(partition)
    parts = {part.file.day: part for part in planned.days}
    for day in sorted(by_day):
        if day in parts:
            yield from _day_batches(table, parts[day], columns)
        yield from _minute_batches(table, by_day[day], columns)


def _minute_batches(
    table: Table, partitions: Sequence[FolderMinute], columns: Columns
) -> Iterator[pa.RecordBatch]:
    for _, rows in table.scan_each(partitions, columns.names, columns.filter):
        yield from rows.to_batches()


def _day_batches(table: Table, part: DayPart, columns: Columns) -> Iterator[pa.RecordBatch]:
    begun = False
    try:
        for batch in day_batches(part.file, columns, part.condition):
            begun = True
            yield batch
    except ObjectChangedError as e:
        if begun:
            raise StorageError(f"{e}; its first rows were read by then, so read the slice again") from e
        yield from _minute_batches(table, part.partitions, columns)


def day_batches(file: DayFile, columns: Columns, condition: pc.Expression | None) -> Iterator[pa.RecordBatch]:
    """Rows of a day's file in their order; holds a row group at a time.

    Args:
        condition: which rows, beside the filter of `columns`; None for all.

    Raises:
        ObjectChangedError: the file was replaced or deleted since it was listed.
        StorageError: it cannot be read.
    """
    condition = _both(condition, columns.filter)
    # One after the other: a scan of several keeps all bytes that it has read until it ends.
    for group in file.fragment.split_by_row_group(condition, schema=columns.full):
        for batch in _scanner(group, columns, condition).to_batches():
            yield batch.cast(columns.schema)


def _read_day(table: Table, part: DayPart, columns: Columns) -> pa.Table:
    scanner = _scanner(part.file.fragment, columns, _both(part.condition, columns.filter))
    try:
        return scanner.to_table().cast(columns.schema)
    except ObjectChangedError:
        rows = [rows for _, rows in table.scan_each(part.partitions, columns.names, columns.filter)]
        return pa.concat_tables([columns.schema.empty_table(), *rows])


def _scanner(
    fragment: "ds.ParquetFileFragment", columns: Columns, condition: pc.Expression | None
) -> "ds.Scanner":
    return fragment.scanner(
        schema=columns.full, columns=list(columns.names), filter=condition, batch_size=BATCH_ROWS
    )


def _by_folder(rows: pa.Table) -> Iterable[tuple[str, pa.Table]]:
    """Rows that are sorted by folder, folder by folder."""
    if not len(rows):
        return
    encoded = rows["FolderName"].combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy()
    ends = [*(np.flatnonzero(np.diff(codes)) + 1), len(rows)]
    first = 0
    for end in ends:
        yield encoded.dictionary[codes[first]].as_py(), rows.slice(first, end - first)
        first = end
