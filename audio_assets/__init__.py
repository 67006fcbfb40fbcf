"""Audio in S3 becomes a Parquet training table: inventory, transcripts, tokens, table.

What users import from Python lives here; the Dagster project is `audio_assets.definitions`.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from audio_assets.tokenisation import tokenise

__all__ = ["read_table", "tokenise"]


def read_table(
    folder: "str | Iterable[str] | None" = None,
    start: object = None,
    end: object = None,
    columns: "Sequence[str] | None" = None,
) -> "pd.DataFrame":
    """Read any slice of `audio_table`, at any granularity from a minute to everything.

    Reads only the files of the folders and minutes asked for. The settings say where the table lies
    (`audio_assets.settings`), those of `.env` included. Needs neither Dagster nor torch.

        read_table("p225", "2023-08-24", "2023-08-25", columns=["Key", "transcribed_text"])

    Args:
        folder: a `FolderName` or several, None for all. One that the table does not have is warned of.
        start: first minute, inclusive; whatever `pandas.Timestamp` takes, UTC where no zone is given.
        end: last minute, exclusive.
        columns: names of the columns to read, None for all.

    Returns:
        A row for each object; columns and types as README.md lists them, null as NaN, and as <NA> in columns
        of whole numbers. `attrs["uri"]` says which table it was.

    Raises:
        ValueError: `columns` names one twice or one that the table does not have, a moment is none, or a
            setting is wrong.
        StorageError: the table cannot be read.
    """
    from audio_assets import read, settings

    settings.load_env()
    return read.read_slice(read.open_audio_table(), folder, start, end, columns)


def __getattr__(name: str) -> object:
    # torch takes seconds to import, and a Dagster code location must not wait for it.
    if name == "tokenise":
        from audio_assets.tokenisation import tokenise

        return tokenise
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
