"""Arguments and options that several commands have."""

from typing import Annotated

import typer

from audio_assets.cli.completion import folders

_FOLDER = "A FolderName; all by default."
FolderArgument = Annotated[str | None, typer.Argument(help=_FOLDER, autocompletion=folders)]
FolderOption = Annotated[str | None, typer.Option(help=_FOLDER, autocompletion=folders)]
Start = Annotated[str | None, typer.Option(help="First minute, UTC if no zone is given.")]
End = Annotated[str | None, typer.Option(help="The minute after the last.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="CSV; the default where output is a pipe.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]


def refuse_both(**options: bool) -> None:
    """Refuse options that exclude each other, by their names.

    Raises:
        ValueError: all of them were given.
    """
    if all(options.values()):
        raise ValueError(f"{' and '.join(f'--{name}' for name in options)} exclude each other")
