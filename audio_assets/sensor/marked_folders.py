"""The folders in which something happened: listed and compared like any other until bucket and table agree.

Where the bucket sends events, each marks its object's folder. So an event that comes twice, late or in
another order needs no care, and one that never comes is made good by the next full scan. A folder too large
to be listed for the sake of a few objects is looked at object by object.
"""

import collections
import concurrent.futures
import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from audio_assets.digest import Digest, digest_partitions, group
from audio_assets.parallel import map_ahead
from audio_assets.partitions import FolderMinute, folder_of, folder_of_partition
from audio_assets.sensor.run_requests import FolderContents, Plan
from audio_assets.sensor.state import Cursor
from audio_assets.source import SIDE_BY_SIDE, AudioSource
from audio_assets.storage import ObjectInfo
from audio_assets.storage.types import PAGE

# A folder of more pages is too large to be listed.
LARGE_PAGES = 10
# More is not kept in a cursor: a full scan takes its place.
MOST_MARKED = 10_000

Inventory = Callable[[FolderMinute], Iterable[ObjectInfo]]
"""The objects that a partition was last made from."""


@dataclasses.dataclass(frozen=True)
class Changes:
    """The keys that events name, within the source."""

    created: Sequence[str] = ()
    removed: Sequence[str] = ()


def look(
    source: AudioSource, cursor: Cursor, changes: Changes, stop: Callable[[], bool]
) -> tuple[FolderContents, Cursor]:
    """List the marked folders, those that `changes` mark included.

    Args:
        stop: whether to leave the rest to a later tick; each call looks at one folder at least.

    Returns:
        What is in the folders that could be listed, and the cursor with the folders that are left and with
        what was created in folders too large to be listed.

    Raises:
        StorageError: the source cannot be listed.
    """
    touched = map(folder_of, (*changes.created, *changes.removed))
    marked = list(dict.fromkeys((*cursor.marked, *touched)))
    partitions: dict[FolderMinute, Digest] = {}
    listed: set[str] = set()
    large: set[str] = set()
    with concurrent.futures.ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        found = map_ahead(pool, lambda f: (f, _list_unless_large(source, f)), marked, ahead=SIDE_BY_SIDE)
        for folder, digests in found:
            if digests is None:
                large.add(folder)
            else:
                listed.add(folder)
                partitions |= digests
            if stop():
                break
        new = [key for key in changes.created if folder_of(key) in large]
        removed = set(changes.removed)
        created = {key: o for key, o in cursor.created.items() if key not in removed}
        created |= {o.key: o for o in pool.map(source.store.find, new) if o is not None}
    left = tuple(marked[len(listed) + len(large) :])
    return FolderContents(listed, partitions), dataclasses.replace(cursor, marked=left, created=created)


def contents_of_large(
    created: Iterable[ObjectInfo], listed: Collection[str], inventory: Inventory
) -> dict[FolderMinute, Digest]:
    """The digests of partitions that have created objects, in folders too large to be listed.

    Taken to be there is what a partition was last made from, and what was created since.

    Args:
        listed: folders that were listed all the same, by a full scan.
    """
    grouped = {p: objects for p, objects in group(created).items() if p.folder not in listed}
    digests: dict[FolderMinute, Digest] = {}
    with concurrent.futures.ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        for partition, before in zip(grouped, pool.map(inventory, grouped), strict=True):
            objects = {o.key: o for o in (*before, *grouped[partition])}
            digests[partition] = Digest.of(objects.values())
    return digests


def mark_differing(
    cursor: Cursor, contents: FolderContents, recorded: Mapping[str, str], decided: Plan, *, starved: bool
) -> Cursor:
    """Mark the folders in which bucket and table still differ, so that the next tick looks there again.

    Args:
        cursor: with what this tick left.
        contents: what this tick has looked at.
        recorded: by partition key, the digest that `audio_table` was last made from.
        decided: what came of them.
        starved: whether there are runs that this tick could not ask for.
    """
    large = _large_folders(contents)
    small = sorted(
        folder for folder in decided.differing if folder in contents.folders and folder not in large
    )
    marked = tuple(dict.fromkeys((*cursor.marked, *small)))
    created: dict[str, ObjectInfo] = {}
    in_sight: set[str] = set()
    for o in cursor.created.values():
        partition = FolderMinute.of(o.key, o.last_modified)
        digest = contents.partitions.get(partition)
        if digest is not None and recorded.get(partition.key) != str(digest):
            created[o.key] = o
            in_sight.add(partition.key)
    if len(marked) > MOST_MARKED or len(created) > MOST_MARKED:
        return cursor.without_events()
    # What differs in a large folder without an event is met again only by a full scan, which then begins at
    # once.
    lost = starved and any(folder_of_partition(key) in large for key in decided.pending - in_sight)
    began = None if lost else cursor.full_scan_began
    return dataclasses.replace(cursor, full_scan_began=began, marked=marked, created=created)


def _large_folders(contents: FolderContents) -> set[str]:
    sizes: collections.Counter[str] = collections.Counter()
    for partition, digest in contents.partitions.items():
        sizes[partition.folder] += digest.count
    return {folder for folder, size in sizes.items() if size > LARGE_PAGES * PAGE}


def _list_unless_large(source: AudioSource, folder: str) -> dict[FolderMinute, Digest] | None:
    """The digests of a folder's partitions, None where the folder is too large."""
    found: list[ObjectInfo] = []
    for page in source.objects(folder):
        found += page
        if len(found) > LARGE_PAGES * PAGE:
            return None
    return digest_partitions(found)
