"""The command `export`: a slice of the table as a data set to train on, into a folder or a bucket."""

import enum
import json
import re
from typing import TYPE_CHECKING, Annotated

import typer

from audio_assets.cli.command import (
    FAILED,
    as_moment,
    as_path,
    as_uri,
    complain,
    examples,
    in_words,
    open_stores,
    progress,
    use_settings,
)
from audio_assets.cli.options import End, FolderArgument, Start

if TYPE_CHECKING:
    from audio_assets.read import Term
    from audio_assets.shards import Exported

EXAMPLES = examples(
    "audio-assets export --to shards",
    "audio-assets export p225 --start 2023-08-24 --end 2023-08-25 --to shards",
    "audio-assets export --min-seconds 1 --max-seconds 30 --min-avg-logprob -1 --to s3://my-bucket/shards",
    "audio-assets export --filter 'no_speech_prob < 0.5' --filter 'language in [\"en\", \"de\"]' --to shards",
    "audio-assets export --format nemo --to manifests",
    "audio-assets export --format lhotse --split-by key --to cuts",
)
_TERM = re.compile(r"\s*(\w+)\s*(==|!=|<=|>=|<|>|\bnot in\b|\bin\b)\s*(.+?)\s*")


class Format(enum.StrEnum):
    """What is written."""

    SHARDS = "shards"
    NEMO = "nemo"
    LHOTSE = "lhotse"


class SplitBy(enum.StrEnum):
    """What a split is a share of."""

    FOLDER = "folder"
    KEY = "key"


# Long because each option is a parameter with its help.
def export(
    to: Annotated[str, typer.Option(help="Where it goes: a path, or s3://bucket/prefix.", metavar="PLACE")],
    folder: FolderArgument = None,
    start: Start = None,
    end: End = None,
    format: Annotated[
        Format,
        typer.Option(
            help="shards: Parquet with the audio in it. nemo: JSONL manifests, lhotse: cuts, both of which"
            " name the objects where they lie."
        ),
    ] = Format.SHARDS,
    min_avg_logprob: Annotated[float | None, typer.Option(help="The least avg_logprob.")] = None,
    min_seconds: Annotated[float | None, typer.Option(help="The shortest audio.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="The longest audio.")] = None,
    language: Annotated[list[str] | None, typer.Option(help="A language; repeat it for several.")] = None,
    filter: Annotated[
        list[str] | None,
        typer.Option(help="COLUMN OPERATOR VALUE, such as 'duration_s < 30'; repeat it, all must hold."),
    ] = None,
    validation: Annotated[float, typer.Option(min=0, max=1, help="The validation split's share.")] = 0.02,
    test: Annotated[float, typer.Option(min=0, max=1, help="The test split's share.")] = 0.02,
    split_by: Annotated[
        SplitBy, typer.Option(help="Shares of folders, which keeps a speaker in one split, or of keys.")
    ] = SplitBy.FOLDER,
    seed: Annotated[int, typer.Option(help="Of the order of rows in a shard.")] = 0,
    file_mb: Annotated[int, typer.Option(min=1, help="About how large a shard is at most.")] = 500,
) -> None:
    """Write rows that are ok, as shards or as manifests, divided into train, validation and test.

    What is there already and has not changed is left as it is; what has no rows in the slice any more is
    deleted. Exits with 1 if the table has no rows, or none of the folder.
    """
    with in_words():
        target = as_uri(to)
        since = as_moment("start", start)
        until = as_moment("end", end)
        use_settings()
        from audio_assets.read import open_audio_table, what_it_lacks
        from audio_assets.shards import Selection, Splits, export_manifests, export_shards
        from audio_assets.shards.files import ShardFiles

        selection = Selection(
            min_avg_logprob=min_avg_logprob,
            min_duration_s=min_seconds,
            max_duration_s=max_seconds,
            languages=tuple(language or ()),
            filter=tuple(map(as_term, filter or ())),
        )
        splits = Splits(validation=validation, test=test, by=split_by.value, seed=seed)
        table = open_audio_table()
        if lacks := what_it_lacks(table, folder):
            complain(lacks)
            raise typer.Exit(FAILED)
        source, store = open_stores(table.store, target)
        with progress() as (bar, task):

            def looked(rows: int) -> None:
                bar.update(task, completed=rows)

            if format is Format.SHARDS:
                files = ShardFiles(
                    store=store, folder="", source=source, splits=splits, file_bytes=file_mb * 10**6
                )
                made = export_shards(table, files, selection, folder, since, until, looked=looked)
            else:
                made = export_manifests(
                    table,
                    store,
                    source.uri,
                    format.value,
                    selection,
                    splits,
                    folder,
                    since,
                    until,
                    looked=looked,
                )
        _say(made, target)


def as_term(text: str) -> "Term":
    """`duration_s < 30` as `read_table` takes it; a value that is no JSON is text.

    Raises:
        ValueError: it is no term.
    """
    found = _TERM.fullmatch(text)
    if found is None:
        raise ValueError(
            f"--filter {text!r} is no term; it should read like 'duration_s < 30' or 'language == en'"
        )
    column, operator, value = found.groups()
    try:
        return column, operator, json.loads(value)
    except json.JSONDecodeError:
        return column, operator, value


def _say(made: "Exported", target: str) -> None:
    """What was written, what was left out and why, and where it lies."""
    from rich.console import Console

    from audio_assets.cli.rows import small_table

    splits = ", ".join(f"{split} {count:,}" for split, count in sorted(made.rows.items()))
    print(f"{made.rows.total():,} rows{f' ({splits})' if splits else ''}, {made.duration_s / 3600:,.2f} h")
    changes = {"written": made.written, "unchanged": made.kept, "deleted": made.deleted}
    said = ", ".join(f"{len(paths):,} {what}" for what, paths in changes.items() if paths)
    print(f"files: {said or 'none'}; {made.size / 1e6:,.1f} MB")
    reasons = sorted(made.refused.items(), key=lambda one: -one[1])
    title = f"left out: {made.refused.total():,}"
    console = Console(highlight=False)
    small_table(console, title, ("why", "rows"), [(why, f"{count:,}") for why, count in reasons])
    print(as_path(target))
