"""How a day of the daily copy is made: its minute files as one large file, in bounded memory.

Each day is one file and never several: a plain Parquet reader takes whatever files lie there, so only the
replacement of a single file lets no reader see half a day. A large day has many row groups instead, which
readers read side by side. The file is written to the local disk first, then sent in one conditional request.
"""

import collections
import concurrent.futures
import dataclasses
import datetime as dt
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from audio_assets.daily import MADE_FROM, DailyTable, file_digest, total
from audio_assets.day_plots import DayCounts
from audio_assets.digest import EMPTY, Digest
from audio_assets.errors import ConflictError
from audio_assets.parallel import map_ahead
from audio_assets.partitions import FolderMinute
from audio_assets.table import AHEAD, CONFLICT_ROUNDS, THREADS, Table, with_partition_columns

ROW_GROUP_BYTES = 8 * 2**20
"""Of a row group in memory: enough for readers to stream; little enough to find one folder by statistics, and
for a small day to be read by several threads."""
ROW_GROUP_ROWS = 2**16

_SORTED_BY = ("FolderName", "LastModifiedHour", "LastModifiedMinute")


@dataclasses.dataclass
class Compacted:
    """A day as a compaction left it.

    Attributes:
        digest: of the minute files that it was made from.
        version: of its file; empty where it has no rows and no file.
        rows: by `status`.
        duration_s: of the audio, in seconds.
        folders: how many.
        minutes: how many minute files.
        size: of the file, in bytes.
        row_groups: of the file.
        counts: what its picture shows.
    """

    digest: Digest = EMPTY
    version: str = ""
    rows: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    duration_s: float = 0.0
    folders: int = 0
    minutes: int = 0
    size: int = 0
    row_groups: int = 0
    counts: DayCounts = dataclasses.field(default_factory=DayCounts)


def compact(
    daily: DailyTable,
    minutes: Table,
    day: dt.date,
    partitions: Callable[[], Iterable[FolderMinute]],
) -> Compacted:
    """Make a day's file anew, by optimistic concurrency; a day without rows has no file afterwards.

    Args:
        minutes: the table that is copied.
        partitions: gives those of the day that may have a file, in any order. It is called after the version
            of the day's file was read, so that of two runs the one that looked later writes last.

    Raises:
        ConflictError: other runs keep replacing the file.
        StorageError: a file cannot be read or written.
    """
    for _ in range(CONFLICT_ROUNDS):
        version = daily.version(day)
        # As paths show them, which is what readers of the minute files see.
        shown = {FolderMinute.from_path(p.path) for p in partitions()}
        ordered = sorted(p for p in shown if p is not None and p.minute.date() == day)
        with tempfile.TemporaryDirectory(prefix="audio_table_daily_") as folder:
            path = os.path.join(folder, "day.parquet")
            compacted = write_day(path, daily.schema, minutes, ordered)
            try:
                if compacted.rows:
                    compacted.version = daily.store.replace_by_file(daily.path(day), path, version)
                elif version is not None:
                    daily.store.delete(daily.path(day), version)
            except ConflictError:
                continue
        return compacted
    raise ConflictError(f"other runs keep replacing {daily.uri} of {day}; let them finish first")


def write_day(path: str, columns: pa.Schema, minutes: Table, partitions: Iterable[FolderMinute]) -> Compacted:
    """Write minute files as one local file; holds no more than a row group and AHEAD minute files.

    Args:
        columns: of the file.
        partitions: in order; those without a file are passed over.
    """
    compacted = Compacted()
    made_from: dict[str, Digest] = {}

    def read() -> Iterator[pa.Table]:
        with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
            found = map_ahead(pool, lambda p: (p, minutes.read(p)), partitions, ahead=AHEAD)
            for partition, snapshot in found:
                if snapshot.rows is None or snapshot.version is None:
                    continue
                digest = file_digest(partition.path, snapshot.version)
                made_from[partition.folder] = made_from.get(partition.folder, EMPTY) + digest
                compacted.minutes += 1
                _count(compacted, snapshot.rows)
                compacted.counts.add(partition.folder, snapshot.rows)
                yield with_partition_columns(snapshot.rows, partition).select(columns.names)

    with pq.ParquetWriter(
        path,
        columns,
        compression="zstd",
        write_page_index=True,
        write_page_checksum=True,
        sorting_columns=pq.SortingColumn.from_ordering(columns, [(name, "ascending") for name in _SORTED_BY]),
    ) as writer:
        for rows in _row_groups(read()):
            writer.write_table(rows.cast(columns), row_group_size=max(1, len(rows)))
            compacted.row_groups += 1
        said = {folder: str(digest) for folder, digest in made_from.items()}
        writer.add_key_value_metadata({MADE_FROM: json.dumps(said, ensure_ascii=False).encode()})
    compacted.digest = total(made_from.values())
    compacted.folders = len(made_from)
    compacted.size = os.path.getsize(path)
    return compacted


def _row_groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Rows in their order, as many at a time as make a row group."""
    held: list[pa.Table] = []
    size = 0
    count = 0
    for table in tables:
        # One minute file may be larger than a row group.
        step = max(1, int(len(table) * ROW_GROUP_BYTES / max(table.nbytes, 1)))
        for first in range(0, len(table), step):
            part = table.slice(first, step)
            if held and (size + part.nbytes > ROW_GROUP_BYTES or count + len(part) > ROW_GROUP_ROWS):
                yield pa.concat_tables(held)
                held = []
                size = 0
                count = 0
            held.append(part)
            size += part.nbytes
            count += len(part)
    if held:
        yield pa.concat_tables(held)


def _count(compacted: Compacted, rows: pa.Table) -> None:
    compacted.rows.update(rows["status"].to_pylist())
    compacted.duration_s += sum(filter(None, rows["duration_s"].to_pylist()))
