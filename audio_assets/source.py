"""The audio source: its folders and their objects, as the store lists them now."""

import concurrent.futures
import dataclasses
import functools
from collections.abc import Iterator

from audio_assets.parallel import map_ahead
from audio_assets.partitions import folder_of, folder_prefix
from audio_assets.storage import Folder, ObjectInfo, ObjectStore, StorageError

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
        reached = None if after is None else folder_order(after)
        with concurrent.futures.ThreadPoolExecutor(LISTINGS_AHEAD) as pool:
            levels = [iter([("", self._root())])]
            while levels:
                prefix, listed = next(levels[-1], (None, None))
                if prefix is None or listed is None:
                    levels.pop()
                    continue
                folder = folder_of(prefix)
                if reached is None or folder_order(folder) > reached:
                    yield folder, listed.objects
                # A subtree that lies wholly before the place to go on from is not listed again.
                below = sorted((f"{name}/" for name in listed.subfolders), key=_order)
                below = [p for p in below if reached is None or _order(p) >= reached[: len(_order(p))]]
                levels.append(
                    zip(below, map_ahead(pool, self._list, below, ahead=LISTINGS_AHEAD), strict=True)
                )

    def _root(self) -> Folder:
        try:
            return self._list("")
        except StorageError as e:
            raise StorageError(f"{e} (AUDIO_SOURCE_URI)") from e

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
    return _order(folder_prefix(folder))


def _order(prefix: str) -> tuple[str, ...]:
    # Not the prefix itself: "a-b/" sorts before "a/".
    return tuple(prefix.split("/")[:-1])
