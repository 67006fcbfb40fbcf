"""Reading any slice of a table by folder and time, for `audio_assets.read_table` and `audio-assets read`.

How the files of partitions are read is the business of `table`. Nothing here writes.
"""

import collections
import datetime as dt
import difflib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from audio_assets import schema, settings
from audio_assets.partitions import FolderMinute
from audio_assets.storage import ObjectStore, RetryPolicy
from audio_assets.table import THREADS, Table

# Loaded where it is used: it is 40 MB that other users of this module do without.
if TYPE_CHECKING:
    import pandas as pd

# As many as are read between two looks at how many rows there are.
PARTITIONS_AT_A_TIME = 4 * THREADS
NEAREST = 3
# From `warnings.warn` up to whoever called `read_table`, in stack frames.
CALLER = 5


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
) -> "pd.DataFrame":
    """What `audio_assets.read_table` does, for any table."""
    rows = read_rows(table, folder, start, end, columns)
    frame = _to_pandas(rows)
    if columns is not None:
        frame = frame.reindex(columns=list(columns))
    frame.attrs["uri"] = table.uri
    return frame


def read_rows(
    table: Table,
    folder: str | Iterable[str] | None = None,
    start: object = None,
    end: object = None,
    columns: Sequence[str] | None = None,
    *,
    limit: int | None = None,
) -> pa.Table:
    """The rows of a slice in Arrow's types, partition columns included.

    Args:
        folder: a `FolderName` or several, None for all. One that the table does not have is warned of.
        start: first minute, inclusive; whatever `pandas.Timestamp` takes, UTC where no zone is given.
        end: last minute, exclusive.
        columns: None for all. Without any, there is one all the same: rows without a column have no number.
        limit: read no more rows than that, None for all.

    Raises:
        ValueError: `columns` names one twice or one that there is not, or a moment is none.
        StorageError: the table cannot be read.
    """
    since = _moment("start", start)
    until = _moment("end", end)
    if twice := [name for name, count in collections.Counter(columns or ()).items() if count > 1]:
        raise ValueError(f"columns names {', '.join(map(repr, twice))} more than once")
    folders = [folder] if folder is None or isinstance(folder, str) else list(dict.fromkeys(folder))
    partitions: list[FolderMinute] = []
    for one in folders:
        partitions += _partitions(table, one, since, until)
    wanted = schema.PARTITION_SCHEMA.names[:1] if columns is not None and not columns else columns
    parts = list(_read_until(table, partitions, wanted, limit))
    return pa.concat_tables(parts).slice(0, limit)


def _read_until(
    table: Table, partitions: Sequence[FolderMinute], columns: Sequence[str] | None, limit: int | None
) -> Iterator[pa.Table]:
    """Partitions in their order, until there are rows enough; one empty table where there are none."""
    if limit is None or not partitions:
        yield table.scan(partitions, columns)
        return
    rows = 0
    for first in range(0, len(partitions), PARTITIONS_AT_A_TIME):
        part = table.scan(partitions[first : first + PARTITIONS_AT_A_TIME], columns)
        yield part
        rows += len(part)
        if rows >= limit:
            return


def _partitions(
    table: Table, folder: str | None, since: dt.datetime | None, until: dt.datetime | None
) -> list[FolderMinute]:
    found = table.partitions(folder, since, until)
    if folder is not None and not found and (lacks := what_it_lacks(table, folder)):
        warnings.warn(lacks, stacklevel=CALLER)
    return found


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


def _moment(argument: str, value: object) -> dt.datetime | None:
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
