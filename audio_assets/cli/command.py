"""What every command of `audio-assets` shares: its settings, its examples, its errors and exit codes.

Exit codes: 0 all is well; 1 something failed; 2 the command or a setting is wrong; 130 interrupted. What is
wrong is said in one sentence on standard error.
"""

import contextlib
import datetime as dt
import os
import pathlib
import sys
import urllib.parse
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from audio_assets.storage import ObjectStore

FAILED = 1
WRONG = 2
INTERRUPTED = 130


def examples(*lines: str) -> str:
    """The end of a help text; the lines stay lines."""
    return "\n\n".join(["[bold]Examples[/bold]", *lines])


@contextlib.contextmanager
def in_words() -> Iterator[None]:
    """Say an error that has a sentence of its own without its stack trace, and exit by its kind."""
    from audio_assets.errors import ConflictError, EventQueueError, InstanceInUseError, StorageError

    try:
        yield
    except (StorageError, ConflictError, EventQueueError, InstanceInUseError) as e:
        complain(str(e))
        raise typer.Exit(FAILED) from None
    except ValueError as e:
        complain(str(e))
        raise typer.Exit(WRONG) from None
    except KeyboardInterrupt:
        complain("interrupted; what is done stays, and the next sync goes on from there")
        raise typer.Exit(INTERRUPTED) from None


def complain(sentence: str) -> None:
    print(f"audio-assets: {sentence}", file=sys.stderr)


def go_to_settings() -> None:
    """Read `.env`, and go to its folder, so that what it says of files and modules holds from anywhere.

    `dg dev` starts its processes there as well. The folder that the command was started in is still searched
    for the module of a tokeniser.
    """
    from audio_assets import settings

    started_in = os.getcwd()
    file = settings.load_env()
    if file is not None:
        os.chdir(file.parent)
    sys.path += [folder for folder in (os.getcwd(), started_in) if folder not in sys.path]


def use_settings(source: str | None = None, table: str | None = None) -> None:
    """Read `.env`, then let the arguments stand for the settings.

    Raises:
        ValueError: the tables of one source would go where those of another are.
    """
    from audio_assets import settings

    # A relative path is meant from where the command was started.
    given = [None if uri is None else as_uri(uri) for uri in (source, table)]
    go_to_settings()
    new_source, new_table = given
    if new_source is not None and new_source != settings.AUDIO_SOURCE_URI.get():
        if new_table is None and settings.AUDIO_TABLE_URI.is_set:
            raise ValueError(
                f"AUDIO_TABLE_URI is set for {settings.AUDIO_SOURCE_URI.get()}; say with --table where the"
                f" tables of {new_source} go"
            )
        settings.AUDIO_SOURCE_URI.set(new_source)
    if new_table is not None:
        settings.AUDIO_TABLE_URI.set(new_table)
    settings.AUDIO_TABLE_URI.get()


def as_uri(text: str) -> str:
    """A location as settings have it; a folder may be named by its path."""
    return text.rstrip("/") if "://" in text else pathlib.Path(text).absolute().as_uri()


def as_moment(option: str, text: str | None) -> dt.datetime | None:
    """An ISO date or moment, in UTC where it names no zone; None for no limit.

    Raises:
        ValueError: it is none.
    """
    if text is None:
        return None
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"--{option} {text!r} is no moment; it should read like 2023-08-24") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).astimezone(dt.UTC)


def open_stores(tables: "ObjectStore", target: str) -> tuple["ObjectStore", "ObjectStore"]:
    """Where the audio lies, and a place to write to.

    Args:
        tables: where the tables lie.
        target: the place's URI.

    Raises:
        ValueError: the place lies in the source, and not below the tables: what is written there would be
            inventoried as objects that are no audio.
    """
    from audio_assets import settings
    from audio_assets.storage import ObjectStore, RetryPolicy

    retries = RetryPolicy(settings.S3_ATTEMPTS.get(), settings.S3_STALL_SECONDS.get())
    source = ObjectStore(
        settings.AUDIO_SOURCE_URI.get(), name=settings.AUDIO_SOURCE_URI.name, retries=retries
    )
    store = ObjectStore(target, retries=retries)
    inside = source.relative(store) is not None or source.uri == store.uri
    if inside and tables.relative(store) is None:
        raise ValueError(
            f"{store.uri} lies in the source {source.uri}, whose objects are inventoried; name a folder"
            f" outside of it, or one below {tables.uri}"
        )
    return source, store


def as_path(uri: str) -> str:
    """A URI as people write it: the path of a local folder, else the URI."""
    return urllib.parse.unquote(urllib.parse.urlsplit(uri).path) if uri.startswith("file:") else uri


@contextlib.contextmanager
def progress() -> Iterator[tuple["Progress", "TaskID"]]:
    """A bar that counts rows, on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    with Progress(
        TextColumn("rows"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        yield bar, bar.add_task("rows", total=None)
