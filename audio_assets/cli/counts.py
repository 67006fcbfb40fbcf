"""What is in `audio_table`: rows by status and producer, hours, and why rows failed."""

import collections
import concurrent.futures
import dataclasses

from audio_assets.parallel import map_ahead
from audio_assets.partitions import FolderMinute
from audio_assets.schema import FAILED
from audio_assets.table import THREADS, Table

_COLUMNS = ["Key", "status", "error", "duration_s", "whisper_model", "tokeniser"]


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
        whisper_models, tokenisers: for each value of the column, the rows by partition key; null left out.
    """

    statuses: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    audio_s: float = 0.0
    failed: list[FailedRow] = dataclasses.field(default_factory=list)
    whisper_models: dict[str, collections.Counter[str]] = dataclasses.field(default_factory=dict)
    tokenisers: dict[str, collections.Counter[str]] = dataclasses.field(default_factory=dict)

    @property
    def rows(self) -> int:
        return self.statuses.total()

    def add(self, partition: FolderMinute, rows: list[dict]) -> None:
        """Count the rows of one partition."""
        for row in rows:
            self.statuses[row["status"]] += 1
            self.audio_s += row["duration_s"] or 0.0
            if row["status"] == FAILED:
                self.failed.append(FailedRow(partition.key, row["Key"], row["error"] or ""))
            for made, column in ((self.whisper_models, "whisper_model"), (self.tokenisers, "tokeniser")):
                if row[column] is not None:
                    made.setdefault(row[column], collections.Counter())[partition.key] += 1


def count(table: Table) -> Counts:
    """Read the whole table and count, a few partitions at a time.

    Raises:
        StorageError: it cannot be read.
    """
    counts = Counts()
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        read = map_ahead(pool, lambda p: (p, table.scan([p], _COLUMNS)), table.partitions(), ahead=64)
        for partition, rows in read:
            counts.add(partition, rows.to_pylist())
    return counts
