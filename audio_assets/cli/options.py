"""Arguments and options that several commands have."""

from typing import Annotated

import typer

from audio_assets.cli.completion import folders

_FOLDER = "A FolderName; all by default."
FolderArgument = Annotated[str | None, typer.Argument(help=_FOLDER, autocompletion=folders)]
FolderOption = Annotated[str | None, typer.Option(help=_FOLDER, autocompletion=folders)]
Start = Annotated[str | None, typer.Option(help="First minute, UTC if no zone is given.")]
End = Annotated[str | None, typer.Option(help="The minute after the last.")]
