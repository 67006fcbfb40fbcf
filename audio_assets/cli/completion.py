"""What a shell completes beside commands and options: the folders of the table, and columns.

A key press has no place for an error, and waits for nobody: whatever goes wrong completes nothing, and a
table is asked a few times at most.
"""

import contextlib
from collections.abc import Iterator

REQUESTS = 20
"""Each gives the folders of some hundred partitions."""


def folders(incomplete: str) -> list[str]:
    """Each `FolderName` of the table that begins so, as far as a few requests tell."""
    with contextlib.suppress(Exception):
        return [name for name in _folders(incomplete) if name.startswith(incomplete)]
    return []


def _folders(incomplete: str) -> list[str]:
    from audio_assets.cli.command import use_settings
    from audio_assets.partitions import FolderMinute
    from audio_assets.read import open_audio_table
    from audio_assets.storage.types import LAST

    use_settings()
    table = open_audio_table()
    below = f"{table.name}/"
    reached = below
    found: list[str] = []
    for _ in range(REQUESTS):
        page = next(iter(table.store.scan(reached, below + LAST)), None)
        if page is None:
            break
        listed = (FolderMinute.from_path(info.key.removeprefix(below)) for info in page[1])
        found += [partition.folder for partition in listed if partition is not None]
        # What is left of the last folder holds no other.
        directory = page[0].removeprefix(below).partition("/")[0]
        reached = f"{below}{directory}/{LAST}"
    return list(dict.fromkeys(found))


def columns(incomplete: str) -> Iterator[str]:
    """The columns that the last of several names, with commas between, may become."""
    from audio_assets.schema import AUDIO_TABLE, PARTITION_SCHEMA

    before, comma, last = incomplete.rpartition(",")
    named = before.split(",")
    for name in [*PARTITION_SCHEMA.names, *AUDIO_TABLE.names]:
        if name.startswith(last) and name not in named:
            yield f"{before}{comma}{name}"
