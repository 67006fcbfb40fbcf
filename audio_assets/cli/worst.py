"""The command `worst`: the rows of which Whisper was least sure, the first to listen to."""

from typing import TYPE_CHECKING, Annotated

import typer

from audio_assets.cli.command import (
    as_moment,
    examples,
    in_words,
    use_settings,
)
from audio_assets.cli.options import AsCsv, AsJson, End, FolderOption, Start, refuse_both

if TYPE_CHECKING:
    import datetime as dt

    import pyarrow as pa

    from audio_assets.table import Table

EXAMPLES = examples(
    "audio-assets worst",
    "audio-assets worst -n 50 --folder p225",
    "audio-assets worst --json | jq -r .Key",
)
SHOWN = ("Key", "transcribed_text", "avg_logprob", "compression_ratio", "no_speech_prob", "duration_s")
PARTITIONS_AT_A_TIME = 64


def worst(
    n: Annotated[int, typer.Option("-n", "--rows", min=1, help="How many.")] = 10,
    folder: FolderOption = None,
    start: Start = None,
    end: End = None,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Print the rows of which Whisper was least sure, by avg_logprob, the least sure first.

    Failed rows have no text to be sure of; `audio-assets status` lists them.
    """
    with in_words():
        refuse_both(csv=as_csv, json=as_json)
        since = as_moment("start", start)
        until = as_moment("end", end)
        use_settings()
        from rich.console import Console

        from audio_assets.cli import rows as shown
        from audio_assets.read import open_audio_table

        table = open_audio_table()
        found = least_sure(table, n, folder, since, until)
        console = Console(highlight=False)
        if as_json:
            shown.print_json(found)
        elif as_csv or not console.is_terminal:
            shown.print_csv(found)
        else:
            shown.print_table(console, found)


def least_sure(
    table: "Table", n: int, folder: str | None, start: "dt.datetime | None", end: "dt.datetime | None"
) -> "pa.Table":
    """The `n` rows of a slice of the lowest avg_logprob, with the columns `SHOWN`.

    Memory is bounded by a batch of partitions and by `n`.

    Raises:
        ValueError: the slice has no file.
        StorageError: the table cannot be read.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    partitions = table.partitions(folder, start, end)
    if not partitions:
        where = "" if folder is None else f" of folder {folder!r}"
        raise ValueError(f"{table.uri} has no rows{where} in this slice")
    kept: list[pa.Table] = []
    for first in range(0, len(partitions), PARTITIONS_AT_A_TIME):
        rows = table.scan(partitions[first : first + PARTITIONS_AT_A_TIME], SHOWN)
        # NaN is of clips that are too short to hold anything.
        rows = rows.filter(pc.call_function("is_finite", [rows["avg_logprob"]]))
        both = pa.concat_tables([*kept, rows])
        kept = [both.sort_by("avg_logprob").slice(0, n)]
    return kept[0]
