"""The daily copy against the minute files: does each day hold exactly their rows?

By versions first, which cost a listing and a footer for each day. Then, of the days that claim to be fresh,
by their rows. Which difference is a fault is said in `defs/daily_checks.py`.
"""

import dataclasses
import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pyarrow as pa

from audio_assets.daily import DailyTable, DayFile, folder_digests
from audio_assets.daily_read import Columns, day_batches
from audio_assets.errors import ObjectChangedError, StorageError
from audio_assets.partitions import FolderMinute, day_of
from audio_assets.table import Table


@dataclasses.dataclass(frozen=True)
class DailyDifferences:
    """What a comparison found.

    Attributes:
        days: how many have a file.
        rows: that were compared.
        stale: days that were made from other minute files, or versions of them, than there are now; those
            that lack a file, or have one too many, included.
        wrong: by day that claims to be fresh, what is wrong with it.
        strays: visible files that are no day's, and are read with the copy.
    """

    days: int
    rows: int
    stale: list[dt.date]
    wrong: Mapping[dt.date, str]
    strays: list[str]


def compare(daily: DailyTable, table: Table) -> DailyDifferences:
    """Compare all days; holds a row group and a few minute files at a time.

    Raises:
        StorageError: a table cannot be listed, or a minute file cannot be read.
    """
    files = daily.files()
    infos = {day: info for path, info in files.items() if (day := day_of(path)) is not None}
    by_day = _versions_by_day(table)
    found = DailyDifferences(len(infos), 0, [day for day in by_day if day not in infos], {}, _strays(files))
    for day, info in infos.items():
        try:
            found = _with_day(found, daily.open(day, info), table, by_day.get(day, {}))
        except ObjectChangedError:
            found = dataclasses.replace(found, stale=[*found.stale, day])
        except StorageError as e:
            found = dataclasses.replace(found, wrong={**found.wrong, day: str(e)})
    return dataclasses.replace(found, stale=sorted(found.stale))


def _with_day(
    found: DailyDifferences, file: DayFile, table: Table, versions: Mapping[FolderMinute, str]
) -> DailyDifferences:
    """What was found, with one more day.

    Args:
        versions: of the minute files of that day.
    """
    if dict(file.made_from) != folder_digests(versions):
        return dataclasses.replace(found, stale=[*found.stale, file.day])
    what = _difference(file, table, sorted(versions))
    wrong = {**found.wrong, file.day: what} if what else found.wrong
    return dataclasses.replace(found, rows=found.rows + file.rows, wrong=wrong)


def _strays(paths: Iterable[str]) -> list[str]:
    """Visible files that are no day's: readers pass over hidden files and folders."""
    others = [path for path in paths if day_of(path) is None]
    return [path for path in others if not any(name.startswith((".", "_")) for name in path.split("/"))]


def _versions_by_day(table: Table) -> dict[dt.date, dict[FolderMinute, str]]:
    """By day, the minute files that there are and their versions."""
    by_day: dict[dt.date, dict[FolderMinute, str]] = {}
    for path, version in table.files():
        partition = FolderMinute.from_path(path)
        if partition is not None:
            by_day.setdefault(partition.minute.date(), {})[partition] = version
    return by_day


def _difference(file: DayFile, table: Table, partitions: Sequence[FolderMinute]) -> str:
    """Where a day's rows are others than those of its minutes, in words; empty where they are the same."""
    columns = Columns(table.columns(), table.columns().names)
    held = _Rows(day_batches(file, columns, None), columns.schema)
    for partition, rows in table.scan_each(partitions):
        if not held.take(len(rows)).equals(rows):
            return f"its rows of {partition.key} are others than in that minute's file"
    return "it has rows that no minute's file has" if held.take(1).num_rows else ""


class _Rows:
    """Batches, taken so many rows at a time."""

    def __init__(self, batches: Iterator[pa.RecordBatch], columns: pa.Schema) -> None:
        self._batches = batches
        self._held = columns.empty_table()

    def take(self, count: int) -> pa.Table:
        """The next rows; fewer where there are no more."""
        while len(self._held) < count and (batch := next(self._batches, None)) is not None:
            self._held = pa.concat_tables([self._held, pa.Table.from_batches([batch])])
        taken = self._held.slice(0, count)
        self._held = self._held.slice(count)
        return taken
