"""Reading any slice of a table by folder and time, for `audio_assets.read_table` and `audio-assets read`.

What the caller may ask for, and the form in which the rows come, are decided here. From which copy they are
read is a matter of `daily_read`, how the files of partitions are read of `table`. Nothing here writes.
"""

import collections
import dataclasses
import datetime as dt
import difflib
import importlib
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from audio_assets import daily_read, schema, settings
from audio_assets.daily import DailyTable
from audio_assets.daily_read import Columns
from audio_assets.partitions import FolderMinute
from audio_assets.storage import ObjectStore, RetryPolicy
from audio_assets.table import THREADS, Table

# Loaded where it is used: it is 40 MB that other users of this module do without.
if TYPE_CHECKING:
    import pandas as pd

Term: TypeAlias = tuple[str, str, Any]
Filter: TypeAlias = pc.Expression | Sequence[Term] | Sequence[Sequence[Term]]
"""Which rows are read: an expression of Arrow, or tuples such as `("status", "==", "ok")`, all of which must
hold. Of lists of tuples, one must hold, as in `pandas.read_parquet`."""

Format = Literal["pandas", "arrow", "polars", "duckdb"]

# As many as are read between two looks at how many rows there are.
PARTITIONS_AT_A_TIME = 4 * THREADS
NEAREST = 3


def open_audio_table() -> Table:
    """`audio_table`, where the settings say it lies.

    Raises:
        ArgumentError: a setting is wrong.
    """
    retries = RetryPolicy(settings.S3_ATTEMPTS.get(), settings.S3_STALL_SECONDS.get())
    tables = ObjectStore(settings.AUDIO_TABLE_URI.get(), name=settings.AUDIO_TABLE_URI.name, retries=retries)
    return Table(tables, "audio_table", schema.AUDIO_TABLE)


def read_slice(
    table: Table,
    folder: str | Iterable[str] | None = None,
    start: object = None,
    end: object = None,
    columns: Sequence[str] | None = None,
    *,
    filter: Filter | None = None,
    format: Format = "pandas",
) -> Any:
    """What `audio_assets.read_table` does, for any table."""
    if format not in _FORMATS:
        raise ValueError(f"format={format!r} is none of {', '.join(_FORMATS)}")
    # Before anything is read.
    convert = _FORMATS[format]()
    rows = read_rows(table, folder, start, end, columns, filter=filter)
    if columns is not None:
        rows = rows.select(list(columns)) if columns or format != "pandas" else rows
    result = convert(rows)
    if format == "pandas":
        result = result if columns is None else result.reindex(columns=list(columns))
        result.attrs["uri"] = table.uri
    return result


def read_rows(
    table: Table,
    folder: str | Iterable[str] | None = None,
    start: object = None,
    end: object = None,
    columns: Sequence[str] | None = None,
    *,
    filter: Filter | None = None,
    limit: int | None = None,
) -> pa.Table:
    """The rows of a slice in Arrow's types, partition columns included.

    They come folder by folder, in the order of time, whichever copy they are read from.

    Args:
        folder: a `FolderName` or several, None for all. One that the table does not have is warned of.
        start: first minute, inclusive; whatever `pandas.Timestamp` takes, UTC where no zone is given.
        end: last minute, exclusive.
        columns: None for all. Without any, there is one all the same: rows without a column have no number.
        filter: of the rows, None for all.
        limit: read no more rows than that, None for all.

    Raises:
        ValueError: `columns` names one twice or one that there is not, a moment is none, or `filter` does not
            fit the columns.
        StorageError: the table cannot be read.
    """
    wanted = _wanted(table, folder, start, end, columns, filter)
    if limit is not None:
        parts = _read_until(table, wanted.partitions, wanted.columns, limit)
        return pa.concat_tables([wanted.columns.schema.empty_table(), *parts]).slice(0, limit)
    planned = daily_read.plan(table, daily_copy(table), wanted.partitions, wanted.versions)
    return daily_read.read(table, planned, wanted.columns, wanted.folders)


def read_batches(
    table: Table,
    folder: str | Iterable[str] | None = None,
    start: object = None,
    end: object = None,
    columns: Sequence[str] | None = None,
    *,
    filter: Filter | None = None,
) -> pa.RecordBatchReader:
    """What `audio_assets.read_batches` does, for any table."""
    wanted = _wanted(table, folder, start, end, columns, filter)
    planned = daily_read.plan(table, daily_copy(table), wanted.partitions, wanted.versions)
    batches = daily_read.batches(table, planned, wanted.columns)
    return pa.RecordBatchReader.from_batches(wanted.columns.schema, batches)


def daily_copy(table: Table) -> DailyTable:
    """The daily copy of a table, which lies beside it; it has no files where there is none."""
    return DailyTable(table.store, f"{table.name}_daily", schema.of_day(table.schema))


@dataclasses.dataclass(frozen=True)
class _Wanted:
    """What a caller asks for, found in the table's listing.

    Attributes:
        folders: as the paths show them, in the order asked for; None for all.
        partitions: that have a file, in that order.
        versions: of all files of these folders, whatever their minute.
        columns: what is read of each row.
    """

    folders: list[str] | None
    partitions: list[FolderMinute]
    versions: Mapping[FolderMinute, str]
    columns: Columns


def _wanted(
    table: Table,
    folder: str | Iterable[str] | None,
    start: object,
    end: object,
    columns: Sequence[str] | None,
    filter: Filter | None,
) -> _Wanted:
    since = moment("start", start)
    until = moment("end", end)
    _refuse_twice(columns or ())
    names = schema.PARTITION_SCHEMA.names[:1] if columns is not None and not columns else columns
    full = table.columns()
    wanted = Columns(full, table.columns(names).names, condition(full, filter))
    asked = [folder] if folder is None or isinstance(folder, str) else list(dict.fromkeys(folder))
    versions: dict[FolderMinute, str] = {}
    partitions: list[FolderMinute] = []
    for one in asked:
        listed = _listed(table, one)
        versions |= listed
        partitions += sorted(p for p in listed if _is_between(p.minute, since, until))
    folders = None if folder is None else list(dict.fromkeys(p.folder for p in partitions))
    return _Wanted(folders, partitions, versions, wanted)


def _refuse_twice(columns: Iterable[str]) -> None:
    if twice := [name for name, count in collections.Counter(columns).items() if count > 1]:
        raise ValueError(f"columns names {', '.join(map(repr, twice))} more than once")


def _is_between(minute: dt.datetime, since: dt.datetime | None, until: dt.datetime | None) -> bool:
    return (since is None or minute >= since) and (until is None or minute < until)


def condition(full: pa.Schema, filter: Filter | None) -> pc.Expression | None:
    """A filter as an expression.

    Raises:
        ValueError: it names a column that there is not, or compares a column with what it cannot hold.
    """
    if filter is None or (not isinstance(filter, pc.Expression) and not filter):
        return None
    try:
        found = filter if isinstance(filter, pc.Expression) else pq.filters_to_expression(filter)
        full.empty_table().filter(found)
    except (pa.ArrowException, ValueError, TypeError) as e:
        said = str(e).partition("\n")[0]
        raise ValueError(f"filter={filter!r} does not fit the columns {full.names}: {said}") from None
    return found


def _read_until(
    table: Table, partitions: Sequence[FolderMinute], columns: Columns, limit: int
) -> Iterator[pa.Table]:
    """Partitions in their order, until there are rows enough."""
    rows = 0
    for first in range(0, len(partitions), PARTITIONS_AT_A_TIME):
        some = partitions[first : first + PARTITIONS_AT_A_TIME]
        for _, part in table.scan_each(some, columns.names, columns.filter):
            yield part
            rows += len(part)
        if rows >= limit:
            return


def _listed(table: Table, folder: str | None) -> dict[FolderMinute, str]:
    """The partitions of a folder, None for all, and the version of each one's file."""
    found = ((FolderMinute.from_path(path), version) for path, version in table.files(folder))
    listed = {partition: version for partition, version in found if partition is not None}
    if folder is not None and not listed and (lacks := what_it_lacks(table, folder)):
        warnings.warn(lacks, stacklevel=_frames_to_caller())
    return listed


def what_it_lacks(table: Table, folder: str | None = None) -> str:
    """Says in words that the table has no rows, or none of a folder; empty where it has some.

    Args:
        folder: a `FolderName`, None for all.

    Raises:
        StorageError: the table cannot be listed.
    """
    if table.partitions(folder):
        return ""
    known = {p.folder for p in table.partitions()}
    if folder is None:
        return f"{table.uri} has no rows; is AUDIO_TABLE_URI right, and has anything been processed yet?"
    nearest = difflib.get_close_matches(folder, known, NEAREST, cutoff=0) or sorted(known)
    has = f"the nearest that it has: {', '.join(map(repr, nearest))}" if known else "it has none yet"
    return f"{table.uri} has no folder {folder!r}; {has}"


def _frames_to_caller() -> int:
    """From whoever calls `warnings.warn` up to whoever called this package, in stack frames."""
    frame = sys._getframe(1)
    frames = 1
    package = __name__.partition(".")[0]
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        frame = frame.f_back
        frames += 1
    return frames


# --- forms ----------------------------------------------------------------------------------------------


def _optional(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ImportError(
            f"format={module!r} needs the package {module}, which is not installed; pip install {module}"
        ) from None


def _to_pandas(rows: pa.Table) -> "pd.DataFrame":
    """The same with null as NaN, and as <NA> in columns of whole numbers, which would become floats."""
    import pandas as pd

    whole = {
        pa.int8(): pd.Int8Dtype(),
        pa.int16(): pd.Int16Dtype(),
        pa.int32(): pd.Int32Dtype(),
        pa.int64(): pd.Int64Dtype(),
    }
    nullable = [field.name for field in rows.schema if field.nullable and field.type in whole]
    frame = rows.to_pandas()
    for name in nullable:
        frame[name] = rows[name].to_pandas(types_mapper=whole.get)
    for name in [name for name, kind in frame.dtypes.items() if pd.api.types.is_object_dtype(kind)]:
        frame[name] = frame[name].where(frame[name].notna(), np.nan)
    return frame


def moment(argument: str, value: object) -> dt.datetime | None:
    """What `start` or `end` stands for, in UTC; None where there is no limit."""
    import pandas as pd

    if value is None:
        return None
    wrong = f"{argument}={value!r} is no moment; leave it out for no limit"
    try:
        stamp = pd.Timestamp(value)  # type: ignore[arg-type]
    except (ValueError, TypeError):
        raise ValueError(wrong) from None
    if pd.isna(stamp):
        raise ValueError(wrong)
    return (stamp.tz_localize("UTC") if stamp.tz is None else stamp.tz_convert("UTC")).to_pydatetime()


_FORMATS: dict[str, Callable[[], Callable[[pa.Table], Any]]] = {
    "pandas": lambda: _to_pandas,
    "arrow": lambda: lambda rows: rows,
    "polars": lambda: _optional("polars").from_arrow,
    "duckdb": lambda: _optional("duckdb").from_arrow,
}
"""What makes each form of Arrow's rows; raises ImportError where the package for it is not installed."""
