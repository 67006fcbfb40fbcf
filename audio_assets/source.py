"""The audio source: its folders and their objects, as the store lists them now."""

import concurrent.futures
import dataclasses
import functools
from collections.abc import Iterator

from audio_assets.parallel import map_ahead
from audio_assets.partitions import ROOT_FOLDER, folder_prefix
from audio_assets.storage import Folder, ObjectInfo, ObjectStore

LISTINGS_AHEAD = 16


@dataclasses.dataclass(frozen=True)
class AudioSource:
    """What AUDIO_SOURCE_URI names, without the tables that may lie inside.

    Attributes:
        store: the source.
        tables: where the tables lie.

    Raises:
        ValueError: both are the same place, so that tables and audio could not be told apart.
    """

    store: ObjectStore
    tables: ObjectStore

    def __post_init__(self) -> None:
        if self._excluded == "":
            raise ValueError(
                f"AUDIO_TABLE_URI is AUDIO_SOURCE_URI ({self.store.uri}); give the tables their own folder"
            )

    @functools.cached_property
    def _excluded(self) -> str | None:
        return self.store.relative(self.tables)

    def objects(self, folder: str) -> list[ObjectInfo]:
        """The objects right in one folder.

        Raises:
            StorageError: it cannot be listed.
        """
        return self._list(folder_prefix(folder)).objects

    def folders(self, after: str | None = None) -> Iterator[tuple[str, list[ObjectInfo]]]:
        """Walk all folders with their objects, the parent first, then by name; lists side by side.

        Args:
            after: a folder that this gave earlier, to go on behind it.

        Raises:
            StorageError: a folder cannot be listed.
        """
        with concurrent.futures.ThreadPoolExecutor(LISTINGS_AHEAD) as pool:
            yield from self._walk(pool, "", self._list(""), None if after is None else folder_order(after))

    def _walk(
        self, pool: concurrent.futures.Executor, prefix: str, listed: Folder, after: tuple[str, ...] | None
    ) -> Iterator[tuple[str, list[ObjectInfo]]]:
        folder = prefix.removesuffix("/") or ROOT_FOLDER
        if after is None or folder_order(folder) > after:
            yield folder, listed.objects
        below = sorted(f"{name}/" for name in listed.subfolders)
        # A subtree that sorts wholly before the place to go on from is not listed again.
        below = [
            p for p in below if after is None or (o := folder_order(p.removesuffix("/"))) >= after[: len(o)]
        ]
        for child, found in zip(below, map_ahead(pool, self._list, below, ahead=LISTINGS_AHEAD), strict=True):
            yield from self._walk(pool, child, found, after)

    def _list(self, prefix: str) -> Folder:
        listed = self.store.list_folder(prefix)
        if self._excluded is None:
            return listed
        return Folder(
            [name for name in listed.subfolders if f"{name}/" != self._excluded],
            [o for o in listed.objects if not o.key.startswith(self._excluded)],
        )


def folder_order(folder: str) -> tuple[str, ...]:
    """Sorts folders as `AudioSource.folders` walks them: a parent first, then by name."""
    return () if folder == ROOT_FOLDER else tuple(folder.split("/"))
