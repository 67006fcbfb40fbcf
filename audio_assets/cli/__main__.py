"""The commands of `audio-assets`: options and examples. What they share is in `command.py`."""

import contextlib
import json
import signal
import time
import warnings
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console

from audio_assets.cli import completion, export, report, transcribe, worst
from audio_assets.cli.command import (
    FAILED,
    complain,
    examples,
    go_to_settings,
    in_words,
    use_settings,
)
from audio_assets.cli.options import AsCsv, AsJson, End, FolderArgument, Start, refuse_both

# Dagster takes seconds to import, and nobody waits for it to read a help text.

app = typer.Typer(
    name="audio-assets",
    help="Audio in a bucket becomes a Parquet training table. Settings come from the environment and from"
    " .env, in the working directory or else in the project's folder.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    app(prog_name="audio-assets")


# --- sync -----------------------------------------------------------------------------------------------


@app.command(
    epilog=examples(
        "audio-assets sync",
        "audio-assets sync s3://my-bucket/wavs",
        "audio-assets sync /data/wavs --no-wait",
        "audio-assets sync --strict --retries 0",
        "[dim]from cron:[/dim] */10 * * * * /path/.venv/bin/audio-assets sync",
    )
)
def sync(
    source: Annotated[
        str | None,
        typer.Argument(help="A bucket as s3://bucket/prefix, or a folder; AUDIO_SOURCE_URI by default."),
    ] = None,
    table: Annotated[
        str | None, typer.Option(help="Where the tables go; AUDIO_TABLE_URI by default.", metavar="URI")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for the minutes that are open now.")
    ] = True,
    retries: Annotated[int, typer.Option(min=0, help="How often a run that failed is made again.")] = 2,
    strict: Annotated[bool, typer.Option(help="Exit with 1 if the table has failed rows.")] = False,
) -> None:
    """Make the table what the bucket says: what the sensor and its runs do, here and now.

    Uses the Dagster instance of DAGSTER_HOME, so that the UI shows its runs, and a daemon may live beside it.
    Exits with 0 once both agree, with 1 if something failed, with 2 if a setting is wrong.
    """
    with in_words(), _termination_as_interrupt():
        use_settings(source, table)
        from audio_assets.cli.counts import count
        from audio_assets.cli.project import open_project
        from audio_assets.cli.sync import Sync
        from audio_assets.cli.sync_display import Display
        from audio_assets.cli.sync_summary import summarise
        from audio_assets.defs.records import InstanceRecords

        started = time.monotonic()
        display = Display()
        with open_project() as project:
            display.say(f"{project.bucket.source_uri} → {project.bucket.audio_table.uri}")
            result = Sync(project, display, wait=wait, retries=retries).run()
            counts = count(project.bucket.audio_table, InstanceRecords(project.instance).records())
            uri = project.bucket.audio_table.uri
        good = summarise(display, result, counts, uri, time.monotonic() - started, strict=strict)
    raise typer.Exit(0 if good else FAILED)


@contextlib.contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Let what ends a job of cron or CI end a run properly, rather than leave it `started`."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# --- status ---------------------------------------------------------------------------------------------


@app.command(
    epilog=examples(
        "audio-assets status",
        "audio-assets status --json | jq '.waiting | length'",
    )
)
def status(
    as_json: Annotated[bool, typer.Option("--json", help="Print it as one JSON object.")] = False,
) -> None:
    """Say what waits, what failed, what is stale and where, what runs, and since when nobody has looked.

    Lists bucket and table, reads only files that no record speaks of, and changes nothing.
    """
    with in_words():
        use_settings()
        from audio_assets.cli import status as found
        from audio_assets.cli.project import open_project

        with open_project() as project:
            now = found.status(project)
        if as_json:
            print(json.dumps(now.as_json(), ensure_ascii=False, indent=1))
        else:
            found.show(Console(highlight=False), now)


# --- read -----------------------------------------------------------------------------------------------


@app.command(
    epilog=examples(
        "audio-assets read p225",
        "audio-assets read p225 --start 2023-08-24 --end 2023-08-25",
        "audio-assets read --columns Key,transcribed_text --limit 0 --csv > table.csv",
        "audio-assets read --json | jq -r 'select(.status == \"failed\") | .error'",
    )
)
def read(
    folder: FolderArgument = None,
    start: Start = None,
    end: End = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Their names, with commas between; a terminal shows the most telling by default.",
            autocompletion=completion.columns,
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=0, help="Rows at most, 0 for all; 100 in a terminal by default.")
    ] = None,
    as_csv: AsCsv = False,
    as_json: AsJson = False,
) -> None:
    """Print a slice of the table, with every text in full.

    The first line says which table it is; with CSV and JSON it goes to standard error. Exits with 1 if the
    table has no rows, or none of the folder.
    """
    with in_words():
        refuse_both(csv=as_csv, json=as_json)
        use_settings()
        from audio_assets.cli import rows as shown
        from audio_assets.read import open_audio_table, read_rows, what_it_lacks

        console = Console(highlight=False)
        for_people = console.is_terminal and not as_csv and not as_json
        by_default = (list(shown.SHOWN), 100) if for_people else (None, 0)
        names = columns.split(",") if columns else by_default[0]
        limit = by_default[1] if limit is None else limit
        table = open_audio_table()
        Console(stderr=not for_people, soft_wrap=True, highlight=False).print(table.uri, markup=False)
        # One row more tells whether there are more.
        with warnings.catch_warnings():
            # Of a folder that there is not: here that is an error.
            warnings.simplefilter("ignore")
            found = read_rows(table, folder, start, end, names, limit=limit + 1 if limit else None)
        if not len(found) and (lacks := what_it_lacks(table, folder)):
            complain(lacks)
            raise typer.Exit(FAILED)
        kept = found.slice(0, limit or None)
        if for_people:
            shown.print_table(console, kept, more=len(found) > len(kept))
        elif as_json:
            shown.print_json(kept)
        else:
            shown.print_csv(kept)


# --- retire ---------------------------------------------------------------------------------------------


@app.command(
    epilog=examples(
        "audio-assets retire --before 2025-01-01",
        "audio-assets retire --before 2025-01-01 --yes",
    )
)
def retire(
    before: Annotated[str, typer.Option(help="A date or an ISO moment, UTC if no zone is given.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this, only a table is printed.")] = False,
) -> None:
    """Take old partitions out of Dagster; their objects and rows stay.

    Dagster advises at most 100,000 partitions for an asset. Whatever changes later comes back.
    """
    with in_words():
        import dagster as dg

        from audio_assets import retire as retiring
        from audio_assets.settings import open_dagster_home

        moment = retiring.parse_moment(before)
        go_to_settings()
        open_dagster_home()
        with dg.DagsterInstance.get() as instance:
            choice = retiring.choose(instance, moment)
            print(retiring.month_table(choice))
            if choice.keep:
                print("Kept are partitions that are not in the table yet, or that a run is working on.")
            if not yes:
                print("Nothing has been changed; add --yes to retire these partitions. Rows and objects stay")
                return
            retiring.retire(instance, choice.retire)
            print(f"{len(choice.retire):,} partitions retired. Rows and objects stay.")


# --- in files of their own -----------------------------------------------------------------------------

app.command(epilog=export.EXAMPLES)(export.export)
app.command(epilog=report.EXAMPLES)(report.report)
app.command(epilog=worst.EXAMPLES)(worst.worst)
app.command(epilog=transcribe.EXAMPLES)(transcribe.transcribe)


if __name__ == "__main__":
    main()
