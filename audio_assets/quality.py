"""Data quality of `audio_table`: what its files hold and what is wrong with it, file by file.

Plain Python and Arrow. Whether the rows are those of the bucket's objects is found in `bucket_comparison.py`.
Which findings fail a check, and how the UI shows them, is decided in `defs/checks.py`.
"""

import collections
import dataclasses
import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from audio_assets.partitions import FolderMinute
from audio_assets.record import PartitionRecord
from audio_assets.rows import inventory_objects
from audio_assets.schema import AUDIO_TABLE, FAILED, FieldMetadata, conform, matches
from audio_assets.staleness import made_by
from audio_assets.storage import ObjectInfo
from audio_assets.table import Table

# Loaded where it is used: it loads pandas, and the process of the sensor's ticks does without these 50 MB.
if TYPE_CHECKING:
    import pyarrow.compute as pc

EXAMPLES = 10
REPEATED_LOOKED_AT = 1_000
"""So many repeated keys are looked for by name; a table that has more is known to be wrong by then."""

T = TypeVar("T")


@dataclasses.dataclass
class Sample(Generic[T]):
    """What was found: how many, and the first EXAMPLES of them."""

    count: int = 0
    first: list[T] = dataclasses.field(default_factory=list)

    def add(self, items: Sequence[T], count: int | None = None) -> None:
        """Add some.

        Args:
            count: how many there are, where `items` are only the first of them.
        """
        self.count += len(items) if count is None else count
        self.first += items[: EXAMPLES - len(self.first)]


# --- what the rows say of themselves --------------------------------------------------------------------


@dataclasses.dataclass
class Summary:
    """What is in some partitions of `audio_table`.

    Attributes:
        partitions: how many.
        ok, failed, not_flac: rows by `status`.
        empty: rows of status `ok` that have no text.
        whisper_models: rows by `whisper_model`; UNNAMED counts rows of audio that do not say it.
        tokenisers: rows by `tokeniser`, likewise.
        suffixes: rows of status `not_flac` by the suffix of their object.
    """

    partitions: int = 0
    ok: int = 0
    failed: int = 0
    not_flac: int = 0
    empty: int = 0
    whisper_models: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    tokenisers: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    suffixes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    @classmethod
    def of(cls, records: Iterable[PartitionRecord]) -> "Summary":
        """The summary of all these partitions, from their records or from their files."""
        summary = cls()
        for record in records:
            summary.add(record)
        return summary

    def add(self, record: PartitionRecord) -> None:
        """Count one more partition."""
        self.partitions += 1
        self.ok += record.ok
        self.failed += record.failed
        self.not_flac += record.not_flac
        self.empty += record.empty
        models, tokenisers = made_by(record)
        self.whisper_models.update(models)
        self.tokenisers.update(tokenisers)
        self.suffixes.update(record.suffixes)

    @property
    def rows(self) -> int:
        return self.ok + self.failed + self.not_flac

    @property
    def failed_share(self) -> float:
        """Share of the objects of an audio format that failed."""
        audio = self.ok + self.failed
        return self.failed / audio if audio else 0.0

    @property
    def empty_share(self) -> float:
        """Share of the transcripts that are empty."""
        return self.empty / self.ok if self.ok else 0.0

    @property
    def lacks_audio(self) -> bool:
        """Whether there are objects, and none of them is of an audio format."""
        return self.rows > 0 and self.rows == self.not_flac


# --- values that a column does not allow ----------------------------------------------------------------


def _is_disallowed(field: pa.Field) -> "pc.Expression":
    """Whether a value is outside of what its field allows.

    Null never is: where a column may be null is said by the schema. NaN is, where the field has a limit.
    """
    import pyarrow.compute as pc

    metadata = FieldMetadata.of(field)
    value = pc.field(field.name)
    wrong = pc.scalar(False)
    if metadata.values:
        wrong = wrong | ~value.isin(metadata.values)
    # Not `value < minimum`, which is false for NaN.
    if metadata.minimum is not None:
        wrong = wrong | ~(value >= metadata.minimum)
    if metadata.maximum is not None:
        wrong = wrong | ~(value <= metadata.maximum)
    return value.is_valid() & wrong


@functools.cache
def _disallowed() -> "dict[str, pc.Expression]":
    """By column that has limits: whether its value is outside of them."""
    return {field.name: _is_disallowed(field) for field in AUDIO_TABLE if FieldMetadata.of(field).allowed}


@functools.cache
def _any_disallowed() -> "pc.Expression":
    """Whether any value of a row is outside of its limits."""
    return functools.reduce(operator.or_, _disallowed().values())


def disallowed_values(rows: pa.Table) -> Sample[dict[str, str]]:
    """The values that their columns do not allow: `Key`, `column`, `value`, and what is `allowed`."""
    found: Sample[dict[str, str]] = Sample()
    # One pass over the rows, of which hardly ever one is left.
    suspects = rows.filter(_any_disallowed())
    if not len(suspects):
        return found
    for column, is_disallowed in _disallowed().items():
        wrong = suspects.filter(is_disallowed).select(["Key", column])
        allowed = FieldMetadata.of(AUDIO_TABLE.field(column)).allowed
        examples = [
            {"Key": row["Key"], "column": column, "value": repr(row[column]), "allowed": allowed}
            for row in wrong.slice(0, EXAMPLES).to_pylist()
        ]
        found.add(examples, len(wrong))
    return found


# --- one file -------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class PartitionFile:
    """What a partition's file holds, without the rows themselves.

    Attributes:
        partition: with its folder's full name, where the file's rows tell it.
        problem: why its rows cannot be used; empty where they can.
        record: of its rows; of none where there is a problem.
        hashes: int64 [rows], a hash of each `Key`, the same within this process for the same key.
        disallowed: the values that their columns do not allow.
        failures: `Key` and `error` of the failed rows.
    """

    partition: FolderMinute
    problem: str
    record: PartitionRecord
    hashes: np.ndarray
    disallowed: Sample[dict[str, str]] = dataclasses.field(default_factory=Sample[dict[str, str]])
    failures: Sample[dict[str, str]] = dataclasses.field(default_factory=Sample[dict[str, str]])

    @classmethod
    def read(cls, table: Table, partition: FolderMinute) -> "PartitionFile | None":
        """Read a partition's file, whatever somebody may have made of it; None where there is no file.

        Raises:
            StorageError: the store does not give it.
        """
        found = table.store.read_latest(table.path(partition))
        if found is None:
            return None
        body, version = found
        try:
            rows = _rows_of(body)
        except (pa.ArrowException, ValueError, OSError) as e:
            problem = str(e).partition("\n")[0]
            return cls(partition, problem, _NO_ROWS, np.empty(0, np.int64))
        return cls.of(partition, rows, version)

    @classmethod
    def of(cls, partition: FolderMinute, rows: pa.Table, version: str = "") -> "PartitionFile":
        """What a file with these rows holds.

        Args:
            rows: of `schema.AUDIO_TABLE`.
        """
        keys = rows["Key"].to_pylist()
        if partition.shortened and keys:
            partition = FolderMinute.of(keys[0], partition.minute)
        record = PartitionRecord.of(rows, version)
        failures: Sample[dict[str, str]] = Sample()
        if record.failed:
            statuses = rows.select(["Key", "status", "error"]).to_pylist()
            failures.add([{"Key": r["Key"], "error": r["error"]} for r in statuses if r["status"] == FAILED])
        hashes = np.fromiter(map(hash, keys), np.int64, len(keys))
        return cls(partition, "", record, hashes, disallowed_values(rows), failures)


_NO_ROWS = PartitionRecord("", "")


def _rows_of(body: bytes) -> pa.Table:
    """The rows of a file of `audio_table`; ValueError or ArrowException says what is wrong with it."""
    if not body:
        raise ValueError("it is empty")
    file = pq.ParquetFile(pa.BufferReader(body), page_checksum_verification=True)
    if not matches(file.schema_arrow, AUDIO_TABLE):
        raise ValueError(_mismatch(file.schema_arrow))
    return conform(file.read(), AUDIO_TABLE)


def _mismatch(found: pa.Schema) -> str:
    """In which columns a file differs from the table."""
    said = [
        f"it lacks {field.name}"
        for field in AUDIO_TABLE
        if field.name not in found.names and not field.nullable
    ]
    said += [f"{name} is no column of the table" for name in found.names if name not in AUDIO_TABLE.names]
    for field in AUDIO_TABLE:
        if field.name in found.names and not found.field(field.name).equals(field):
            said.append(f"{field.name} is {_kind(found.field(field.name))}, not {_kind(field)}")
    return "; ".join(said[:3]) or "its columns are in another order"


def _kind(field: pa.Field) -> str:
    return str(field.type) + ("" if field.nullable else " not null")


def objects_of(table: Table, partition: FolderMinute) -> list[ObjectInfo] | None:
    """The objects that the rows of a file are of; None where there is no file, or none that can be read.

    Raises:
        StorageError: the store does not give it.
    """
    found = table.store.read_latest(table.path(partition))
    if found is None:
        return None
    try:
        return inventory_objects(_rows_of(found[0]))
    except (pa.ArrowException, ValueError, OSError):
        return None


# --- all files ------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Findings:
    """What was found in the files that `add` has seen. Holds eight bytes for each row, and no row.

    Attributes:
        summary: of the files whose rows can be used.
        wrong_schema: `partition` and `problem` of each file whose rows cannot be.
        disallowed: the values that their columns do not allow, as `disallowed_values` gives them.
        failures: `Key` and `error` of the failed rows.
    """

    summary: Summary = dataclasses.field(default_factory=Summary)
    wrong_schema: Sample[dict[str, str]] = dataclasses.field(default_factory=Sample[dict[str, str]])
    disallowed: Sample[dict[str, str]] = dataclasses.field(default_factory=Sample[dict[str, str]])
    failures: Sample[dict[str, str]] = dataclasses.field(default_factory=Sample[dict[str, str]])
    _partitions: list[FolderMinute] = dataclasses.field(default_factory=list)
    _hashes: list[np.ndarray] = dataclasses.field(default_factory=list)

    def add(self, file: PartitionFile) -> None:
        """Look at one more file, each once."""
        if file.problem:
            self.wrong_schema.add([{"partition": file.partition.key, "problem": file.problem}])
            return
        self.summary.add(file.record)
        self.disallowed.add(file.disallowed.first, file.disallowed.count)
        self.failures.add(file.failures.first, file.failures.count)
        self._partitions.append(file.partition)
        self._hashes.append(file.hashes)

    @property
    def repeats(self) -> bool:
        """Whether some keys seem to have several rows."""
        return bool(self._repeated_hashes())

    def _repeated_hashes(self) -> set[int]:
        hashes = np.sort(np.concatenate([np.empty(0, np.int64), *self._hashes]))
        return set(np.unique(hashes[1:][hashes[1:] == hashes[:-1]])[:REPEATED_LOOKED_AT].tolist())

    def repeated(self, table: Table, waits: Callable[[FolderMinute], bool]) -> Sample[dict[str, str]]:
        """The keys that have several rows, in one file or in several; their files are read once more.

        Args:
            waits: whether a run has still to make a partition; such a one's rows do not count.

        Returns:
            `Key` and `partitions` of each.

        Raises:
            StorageError: a file cannot be read.
        """
        suspects = self._repeated_hashes()
        places: dict[str, list[str]] = {}
        for partition, found in zip(self._partitions, self._hashes, strict=True):
            if suspects.isdisjoint(found.tolist()) or waits(partition):
                continue
            for o in objects_of(table, partition) or ():
                if hash(o.key) in suspects:
                    places.setdefault(o.key, []).append(partition.key)
        sample: Sample[dict[str, str]] = Sample()
        sample.add(
            [
                {"Key": key, "partitions": ", ".join(dict.fromkeys(found))}
                for key, found in sorted(places.items())
                if len(found) > 1
            ]
        )
        return sample
