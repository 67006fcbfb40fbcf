"""Which rows a page shows, in batches of bounded size, and how many there are of each folder and day.

A page of a large table shows the rows that need an ear first: those that failed, then those of which Whisper
was least sure. The coverage counts all rows all the same.
"""

import collections
import dataclasses
import datetime as dt
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from audio_assets.listening.columns import COLUMNS
from audio_assets.partitions import FolderMinute
from audio_assets.schema import FAILED, NOT_FLAC
from audio_assets.table import Table

PARTITIONS_AT_A_TIME = 64
"""How many files are held at a time."""

ROWS = 200_000
"""How many rows a page shows, unless somebody asks for others: what a browser filters without a pause."""


@dataclasses.dataclass(frozen=True)
class Slice:
    """What a page is about.

    Attributes:
        folder: a `FolderName`, None for all.
        start: first minute, inclusive, with a time zone; None for no limit.
        end: last minute, exclusive, likewise.
        rows: at most so many are shown.
    """

    folder: str | None = None
    start: dt.datetime | None = None
    end: dt.datetime | None = None
    rows: int = ROWS


class NoRowsError(ValueError):
    """There is nothing to make a page of."""


class Selection:
    """The rows of a slice that a page shows.

    Attributes:
        total: rows in the slice.
        audio_bytes: of all objects of an audio format in the slice.
        coverage: (folder, day as ISO text) -> [rows, failed rows, seconds of audio], of all rows.

    Raises:
        NoRowsError: the slice has no rows.
        StorageError: the table cannot be read.
    """

    def __init__(self, table: Table, wanted: Slice) -> None:
        self._table = table
        self._partitions = table.partitions(wanted.folder, wanted.start, wanted.end)
        self.total = 0
        self.audio_bytes = 0
        self.coverage: dict[tuple[str, str], list[float]] = collections.defaultdict(lambda: [0, 0, 0.0])
        ranks = [
            self._look(rows) for rows in self._batches(["Key", "Size", "status", "avg_logprob", "duration_s"])
        ]
        if not self.total:
            where = "" if wanted.folder is None else f" of folder {wanted.folder!r}"
            raise NoRowsError(f"{table.uri} has no rows{where} in this slice")
        self._kept = _kept(np.concatenate(ranks), wanted.rows)

    @property
    def shown(self) -> int:
        """How many rows the page shows."""
        return int(self._kept.sum())

    def batches(self, looked: Callable[[int], None] = lambda rows: None) -> Iterator[pa.Table]:
        """The rows that are shown, with `COLUMNS`, by folder and time.

        Args:
            looked: told how many rows of the slice were read by now.
        """
        reached = 0
        for rows in self._batches(COLUMNS):
            # What was written since the first look is for the next page.
            kept = self._kept[reached : reached + len(rows)]
            reached += len(rows)
            yield rows.slice(0, len(kept)).filter(pa.array(kept))
            looked(reached)

    def _batches(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        full = [*columns, "FolderName", "LastModifiedDate"]
        for first in range(0, len(self._partitions), PARTITIONS_AT_A_TIME):
            some: list[FolderMinute] = self._partitions[first : first + PARTITIONS_AT_A_TIME]
            yield self._table.scan(some, list(dict.fromkeys(full)))

    def _look(self, rows: pa.Table) -> np.ndarray:
        """Count rows, and rank them: the lower, the more they need an ear. float32 [rows]."""
        self.total += len(rows)
        failed = pc.call_function("equal", [rows["status"], FAILED])
        heard = rows.filter(pc.call_function("not_equal", [rows["status"], NOT_FLAC]))
        self.audio_bytes += pc.call_function("sum", [heard["Size"]]).as_py() or 0
        counted = rows.append_column("failed", failed.cast(pa.int64())).group_by(
            ["FolderName", "LastModifiedDate"]
        )
        sums = counted.aggregate([("Key", "count"), ("failed", "sum"), ("duration_s", "sum")])
        for one in sums.to_pylist():
            into = self.coverage[one["FolderName"], one["LastModifiedDate"].isoformat()]
            into[0] += one["Key_count"]
            into[1] += one["failed_sum"]
            into[2] += one["duration_s_sum"] or 0.0
        sure = rows["avg_logprob"].fill_null(np.inf).to_numpy().astype(np.float32)
        return np.where(failed.to_numpy(), -np.inf, np.nan_to_num(sure, nan=np.inf)).astype(np.float32)


def _kept(ranks: np.ndarray, rows: int) -> np.ndarray:
    """Whether each row is among the `rows` of the lowest rank; of equals, the first."""
    kept = np.ones(len(ranks), bool)
    if len(ranks) > rows:
        kept[np.argsort(ranks, kind="stable")[rows:]] = False
    return kept
