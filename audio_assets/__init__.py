"""Audio in S3 becomes a Parquet training table: inventory, transcripts, tokens, table.

What users import from Python lives here; the Dagster project is `audio_assets.definitions`.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from audio_assets.read import Filter, Format
    from audio_assets.tokenisation import tokenise

__all__ = ["read_batches", "read_table", "tokenise"]


@overload
def read_table(
    folder: "str | Iterable[str] | None" = None,
    start: object = None,
    end: object = None,
    columns: "Sequence[str] | None" = None,
    *,
    filter: "Filter | None" = None,
    format: Literal["pandas"] = "pandas",
) -> "pd.DataFrame": ...


@overload
def read_table(
    folder: "str | Iterable[str] | None" = None,
    start: object = None,
    end: object = None,
    columns: "Sequence[str] | None" = None,
    *,
    filter: "Filter | None" = None,
    format: "Format",
) -> Any: ...


def read_table(
    folder: "str | Iterable[str] | None" = None,
    start: object = None,
    end: object = None,
    columns: "Sequence[str] | None" = None,
    *,
    filter: "Filter | None" = None,
    format: "Format" = "pandas",
) -> Any:
    """Read any slice of `audio_table`, at any granularity from a minute to everything.

    Reads only what the folders and minutes asked for need: a day's file of `audio_table_daily` where the
    listing of the minute files proves it fresh, else the minute files. The rows are the same either way. The
    settings say where the tables lie (`audio_assets.settings`), those of `.env` included. Needs neither
    Dagster nor torch.

        read_table("p225", "2023-08-24", "2023-08-25", columns=["Key", "transcribed_text"])
        read_table(["p225", "p226"], filter=[("status", "==", "ok"), ("duration_s", "<", 30)])
        read_table(start=datetime.date(2023, 8, 24), format="polars")

    Args:
        folder: a `FolderName` or several, None for all. One that the table does not have is warned of.
        start: first minute, inclusive: a date, a datetime, a text, whatever `pandas.Timestamp` takes; UTC
            where no zone is given.
        end: last minute, exclusive.
        columns: names of the columns to read, None for all.
        filter: which rows: `("status", "==", "ok")` and the like, all of which must hold; of lists of such
            tuples, one; or an expression of Arrow. It may go by columns that are not read.
        format: `pandas`, `arrow` (a `pyarrow.Table`), `polars` (a `DataFrame`) or `duckdb` (a relation).

    Returns:
        A row for each object, folder by folder in the order of time; columns and types as README.md lists
        them, also where there are no rows. In pandas, null is NaN, and <NA> in columns of whole numbers, and
        `attrs["uri"]` says which table it was.

    Raises:
        ValueError: `columns` names one twice or one that the table does not have, a moment is none, `filter`
            does not fit the columns, `format` is none, or a setting is wrong.
        ImportError: the package for `format` is not installed.
        StorageError: the table cannot be read.
    """
    from audio_assets import read, settings

    settings.load_env()
    table = read.open_audio_table()
    return read.read_slice(table, folder, start, end, columns, filter=filter, format=format)


def read_batches(
    folder: "str | Iterable[str] | None" = None,
    start: object = None,
    end: object = None,
    columns: "Sequence[str] | None" = None,
    *,
    filter: "Filter | None" = None,
) -> "pa.RecordBatchReader":
    """Read a slice of `audio_table` that does not fit into memory, a batch at a time.

    The rows are those of `read_table`, day by day, and read as they are asked for. DuckDB queries what this
    returns like a table.

        for batch in read_batches("p225", columns=["Key", "transcribed_text"]):
            print(batch.num_rows)

    Args:
        folder, start, end, columns, filter: as of `read_table`.

    Returns:
        A reader of batches in Arrow's types, which can be gone through once.

    Raises:
        ValueError: as `read_table`.
        StorageError: the table cannot be read. Raised in the middle where a day was compacted again while it
            was read: read again.
    """
    from audio_assets import read, settings

    settings.load_env()
    return read.read_batches(read.open_audio_table(), folder, start, end, columns, filter=filter)


def __getattr__(name: str) -> object:
    # torch takes seconds to import, and a Dagster code location must not wait for it.
    if name == "tokenise":
        from audio_assets.tokenisation import tokenise

        return tokenise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
