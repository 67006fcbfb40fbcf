"""What is in `audio_table`: rows by status, hours, what made them, and why rows failed.

What is recorded of a partition is believed where its file is the one that was recorded. Other files are read,
and those that have failed rows, which no record names.
"""

import collections
import concurrent.futures
import dataclasses
from collections.abc import Mapping

import pyarrow as pa

from audio_assets.parallel import map_ahead
from audio_assets.partitions import FolderMinute, partition_or_none
from audio_assets.record import PartitionRecord
from audio_assets.schema import FAILED, NOT_FLAC, OK
from audio_assets.table import THREADS, Table

_COLUMNS = [
    *("Key", "ETag", "Size", "LastModified", "status", "error", "transcribed_text", "duration_s"),
    *("whisper_model", "tokeniser"),
]


@dataclasses.dataclass(frozen=True)
class FailedRow:
    """An object that could not be made."""

    partition: str
    key: str
    error: str


@dataclasses.dataclass
class Counts:
    """What is in a table.

    Attributes:
        statuses: rows by `status`.
        audio_s: seconds of audio.
        failed: the rows that failed, in order.
        records: by partition key, what is in each partition, from what is recorded or from its file.
        files_read: how many files that took.
    """

    statuses: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    audio_s: float = 0.0
    failed: list[FailedRow] = dataclasses.field(default_factory=list)
    records: dict[str, PartitionRecord] = dataclasses.field(default_factory=dict)
    files_read: int = 0

    @property
    def rows(self) -> int:
        return self.statuses.total()

    def add(self, partition: FolderMinute, record: PartitionRecord, rows: pa.Table | None) -> None:
        """Count one partition.

        Args:
            rows: of its file where that was read.
        """
        self.records[partition.key] = record
        statuses = {OK: record.ok, FAILED: record.failed, NOT_FLAC: record.not_flac}
        self.statuses += collections.Counter(statuses)
        self.audio_s += record.audio_s or 0.0
        if rows is None:
            return
        self.files_read += 1
        for row in rows.select(["Key", "status", "error"]).to_pylist():
            if row["status"] == FAILED:
                self.failed.append(FailedRow(partition.key, row["Key"], row["error"] or ""))


def count(table: Table, recorded: Mapping[str, PartitionRecord]) -> Counts:
    """Count all rows of the table, a few files at a time.

    Args:
        recorded: by partition key, what is recorded.

    Raises:
        StorageError: it cannot be read.
    """
    by_path = {p.path: (p, recorded[key]) for key in recorded if (p := partition_or_none(key)) is not None}
    counts = Counts()

    def look(file: tuple[str, str]) -> tuple[FolderMinute, PartitionRecord, pa.Table | None] | None:
        path, version = file
        partition, record = by_path.get(path, (FolderMinute.from_path(path), None))
        if partition is None:
            return None
        if record is not None and _tells_all(record, version):
            return partition, record, None
        rows = table.scan([partition], _COLUMNS)
        return table.with_full_name(partition), PartitionRecord.of(rows, version), rows

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        for found in map_ahead(pool, look, sorted(table.files()), ahead=64):
            if found is not None:
                counts.add(*found)
    counts.failed.sort(key=lambda row: (row.partition, row.key))
    return counts


def _tells_all(record: PartitionRecord, version: str) -> bool:
    """Whether a record says all that is counted of a file in this version."""
    return record.version == version and record.audio_s is not None and not record.failed
