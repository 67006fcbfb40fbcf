"""Data quality of `audio_table`: what is wrong with its rows, counted as its files are read.

Plain Python and Arrow. Which findings fail a check, and how the UI shows them, is decided in
`defs/checks.py`.
"""

import dataclasses
import functools
import operator
from typing import TYPE_CHECKING

import pyarrow as pa

from audio_assets.partitions import FolderMinute
from audio_assets.rows import identities
from audio_assets.schema import AUDIO_TABLE, FAILED, NOT_FLAC, OK, FieldMetadata, conform, matches

# Loaded where it is used: it loads pandas, and the process of the sensor's ticks does without these 50 MB.
if TYPE_CHECKING:
    import pyarrow.compute as pc

EXAMPLES = 10


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


@dataclasses.dataclass
class Findings:
    """What was found in the partitions that `add` has seen.

    Attributes:
        partitions: partitions seen.
        rows: rows seen, those of files with a wrong schema left out.
        wrong_schema: keys of partitions that have no file, or one whose columns are not those of the table.
        repeated: `Key` of each row after the first one of the same object.
        differing: `Key` of each object that only the inventory or only the table has in this version.
        disallowed: number of values that their columns do not allow.
        examples: the first EXAMPLES of them: `Key`, `column`, `value`, and what is `allowed`.
        failed: `Key` and `error` of each failed row.
        flac: rows of FLAC objects.
        recognised: rows with status `ok`.
        empty: rows with status `ok` whose text is empty or null.
    """

    partitions: int = 0
    rows: int = 0
    wrong_schema: list[str] = dataclasses.field(default_factory=list)
    repeated: list[str] = dataclasses.field(default_factory=list)
    differing: list[str] = dataclasses.field(default_factory=list)
    disallowed: int = 0
    examples: list[dict[str, str]] = dataclasses.field(default_factory=list)
    failed: list[dict[str, str]] = dataclasses.field(default_factory=list)
    flac: int = 0
    recognised: int = 0
    empty: int = 0
    _folder: str | None = None
    _keys: set[str] = dataclasses.field(default_factory=set)

    def add(self, partition: FolderMinute, file: pa.Table | None, inventory: pa.Table | None) -> None:
        """Look at one more partition; those of a folder must follow each other.

        Args:
            file: what the partition's file holds, whatever its schema; None where there is no file.
            inventory: rows of `schema.INVENTORY`; None where the partition has none.
        """
        self.partitions += 1
        if file is None or not matches(file.schema, AUDIO_TABLE):
            self.wrong_schema.append(partition.key)
            return
        rows = conform(file, AUDIO_TABLE)
        self.rows += len(rows)
        self._find_repeated(partition.folder, rows)
        self._find_differing(rows, inventory)
        self._find_disallowed(rows)
        self._count_statuses(rows)

    @property
    def failed_share(self) -> float:
        """Share of the FLAC objects that failed."""
        return len(self.failed) / self.flac if self.flac else 0.0

    @property
    def empty_share(self) -> float:
        """Share of the transcripts that are empty."""
        return self.empty / self.recognised if self.recognised else 0.0

    def _find_repeated(self, folder: str, rows: pa.Table) -> None:
        if folder != self._folder:
            # The folder is part of the key, so that no key can repeat in another one.
            self._folder = folder
            self._keys = set()
        for key in rows["Key"].to_pylist():
            if key in self._keys:
                self.repeated.append(key)
            self._keys.add(key)

    def _find_differing(self, rows: pa.Table, inventory: pa.Table | None) -> None:
        inventoried = set(identities(inventory)) if inventory is not None else set()
        self.differing += sorted(key for key, _ in set(identities(rows)) ^ inventoried)

    def _find_disallowed(self, rows: pa.Table) -> None:
        # One pass over the rows, of which hardly ever one is left.
        suspects = rows.filter(_any_disallowed())
        if not len(suspects):
            return
        for column, is_disallowed in _disallowed().items():
            wrong = suspects.filter(is_disallowed).select(["Key", column])
            self.disallowed += len(wrong)
            allowed = FieldMetadata.of(AUDIO_TABLE.field(column)).allowed
            for row in wrong.slice(0, EXAMPLES - len(self.examples)).to_pylist():
                example = {
                    "Key": row["Key"],
                    "column": column,
                    "value": repr(row[column]),
                    "allowed": allowed,
                }
                self.examples.append(example)

    def _count_statuses(self, rows: pa.Table) -> None:
        for row in rows.select(["Key", "transcribed_text", "status", "error"]).to_pylist():
            self.flac += row["status"] != NOT_FLAC
            self.recognised += row["status"] == OK
            self.empty += row["status"] == OK and not row["transcribed_text"]
            if row["status"] == FAILED:
                self.failed.append({"Key": row["Key"], "error": row["error"]})
