"""The command `report`: the listening page of any slice, into a folder or a bucket."""

import enum
import os
from typing import TYPE_CHECKING, Annotated

import typer

from audio_assets.cli.command import (
    as_moment,
    as_path,
    as_uri,
    examples,
    in_words,
    open_stores,
    progress,
    use_settings,
)
from audio_assets.cli.options import End, FolderOption, Start

if TYPE_CHECKING:
    from audio_assets.listening import Made

EXAMPLES = examples(
    "audio-assets report page",
    "audio-assets report page --folder p225 --audio copy",
    "audio-assets report page --start 2023-08-24 --end 2023-08-25",
    "audio-assets report s3://my-bucket/pages/p225 --folder p225 --audio copy",
)


class Audio(enum.StrEnum):
    """How the page comes to its audio."""

    AUTO = "auto"
    LINK = "link"
    COPY = "copy"
    NONE = "none"


def report(
    out: Annotated[str, typer.Argument(help="The page's folder: a path, or s3://bucket/prefix.")],
    folder: FolderOption = None,
    start: Start = None,
    end: End = None,
    audio: Annotated[
        Audio,
        typer.Option(
            help="copy: lay copies into the page, which can then be sent, and draws them when it is opened"
            " from a disk. link: play the objects where they lie. auto: copy up to 100 MB, link beyond. none."
        ),
    ] = Audio.AUTO,
    rows: Annotated[
        int | None,
        typer.Option(min=1, help="Rows at most, 200,000 by default; failed and least sure ones first."),
    ] = None,
) -> None:
    """Make a listening page: one page with its data beside it, for any browser, without a server.

    A page that is there already is replaced. Open index.html, or serve the folder as static files.
    """
    with in_words():
        target = as_uri(out)
        since = as_moment("start", start)
        until = as_moment("end", end)
        use_settings()
        from audio_assets import settings
        from audio_assets.listening import Slice, make_page
        from audio_assets.listening.selection import ROWS
        from audio_assets.read import open_audio_table

        table = open_audio_table()
        source, store = open_stores(table.store, target)
        with progress() as (bar, task):
            made = make_page(
                table,
                source,
                store,
                wanted=Slice(folder, since, until, rows or ROWS),
                audio=audio.value,
                served_at=settings.LISTENING_AUDIO_URL.get(),
                looked=lambda done, total: bar.update(task, completed=done, total=total),
            )
        _say(made, target, audio)


def _say(made: "Made", target: str, audio: Audio) -> None:
    """What was made and where to open it."""
    from audio_assets.cli.command import complain

    kept = f"{made.rows:,} rows" if made.rows == made.total else f"{made.rows:,} of {made.total:,} rows"
    clips = f", {made.clips:,} copies of audio" if made.clips else ""
    print(f"{kept}{clips}, {made.files:,} files, {made.size / 1e6:,.1f} MB")
    if audio is not Audio.NONE and made.audio == "none":
        complain(
            "the page has no audio: browsers cannot reach the source from where the page lies; set"
            " LISTENING_AUDIO_URL, or add --audio copy"
        )
    print(os.path.join(as_path(target), "index.html"))
