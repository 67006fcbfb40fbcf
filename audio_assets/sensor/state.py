"""What a tick of the sensor looks at: all of the source, or the folders in which something happened.

Where the bucket tells of itself, an event marks its object's folder, and marked folders are listed and
compared like any other until they and the table agree. So an event that comes twice, late or in another order
needs no care, and one that never comes is made good by the next walk over everything.
"""

import collections
import concurrent.futures
import dataclasses
import datetime as dt
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from audio_assets.digest import Digest, digest_partitions, group
from audio_assets.parallel import map_ahead
from audio_assets.partitions import FolderMinute, folder_of, folder_of_partition
from audio_assets.sensor.full_scan import Walk
from audio_assets.sensor.plan import Listing, Plan
from audio_assets.source import SIDE_BY_SIDE, AudioSource
from audio_assets.storage import ObjectInfo
from audio_assets.storage.types import PAGE

SWEEP_INTERVAL = dt.timedelta(hours=1)
# A folder of more pages is not listed for the sake of a few objects; they are looked at one by one.
LARGE_PAGES = 10
# More is not kept in a cursor: everything is listed instead.
MOST_MARKED = 10_000


@dataclasses.dataclass(frozen=True)
class Watch:
    """What is known between two ticks.

    Attributes:
        walk: over everything, where it stands.
        swept: when the last walk began, in seconds since 1970; None to begin one now.
        marked: folders to be listed, the one that has waited longest first.
        created: objects that events told of in folders too large to be listed, by key.
    """

    walk: Walk = dataclasses.field(default_factory=Walk)
    swept: float | None = None
    marked: tuple[str, ...] = ()
    created: Mapping[str, ObjectInfo] = dataclasses.field(default_factory=dict)

    def sweeps(self, now: dt.datetime) -> bool:
        """Whether a walk over everything is under way or due."""
        due = self.swept is None or now.timestamp() - self.swept >= SWEEP_INTERVAL.total_seconds()
        return due or bool(self.walk.left)

    def look(
        self,
        source: AudioSource,
        created: Collection[str],
        removed: Collection[str],
        *,
        known: Collection[str | None] | None,
        inventory: Callable[[FolderMinute], Iterable[ObjectInfo]],
        now: dt.datetime,
        stop: Callable[[], bool],
    ) -> tuple[Listing, "Watch"]:
        """Look where something happened, and at everything if so asked.

        Args:
            created, removed: keys that events told of.
            known: the folders that the table has, to walk over everything; None not to.
            inventory: gives the objects that a partition was last made from.
            stop: whether to leave the rest to a later tick.

        Returns:
            What is in the folders that were looked at, and where to go on; `settle` completes that.

        Raises:
            StorageError: the source cannot be listed.
        """
        marked = list(dict.fromkeys((*self.marked, *map(folder_of, (*created, *removed)))))
        objects = {key: o for key, o in self.created.items() if key not in removed}
        partitions: dict[FolderMinute, Digest] = {}
        folders: set[str] = set()
        large: set[str] = set()
        with concurrent.futures.ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            listings = map_ahead(pool, lambda f: _list_small(source, f), marked, ahead=SIDE_BY_SIDE)
            for at, found in enumerate(listings, 1):
                if found is None:
                    large.add(marked[at - 1])
                else:
                    folders.add(marked[at - 1])
                    partitions |= found
                if stop():
                    break
            looked = len(folders) + len(large)
            new = [key for key in created if folder_of(key) in large]
            objects |= {o.key: o for o in pool.map(source.store.find, new) if o is not None}
        walk, swept = self.walk, self.swept
        if known is not None:
            swept = swept if walk.left else now.timestamp()
            walked, walk = walk.advance(source, {folder for folder in known if folder is not None}, stop)
            folders |= set(walked.folders)
            partitions |= walked.partitions
        grouped = {p: found for p, found in group(objects.values()).items() if p.folder not in folders}
        with concurrent.futures.ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            for partition, before in zip(grouped, pool.map(inventory, grouped), strict=True):
                wanted = {o.key: o for o in (*before, *grouped[partition])}
                partitions[partition] = Digest.of(wanted.values())
        return Listing(folders, partitions), Watch(walk, swept, tuple(marked[looked:]), objects)

    def settle(
        self, listing: Listing, recorded: Mapping[str, str], decided: Plan, *, starved: bool
    ) -> "Watch":
        """Keep in sight what was looked at and where bucket and table still differ.

        Args:
            listing: what `look` gave.
            recorded: by partition key, the digest that `audio_table` was last made from.
            decided: what came of them.
            starved: whether requests of it could not be made now.
        """
        sizes = collections.Counter[str]()
        for partition, digest in listing.partitions.items():
            sizes[partition.folder] += digest.count
        large = {folder for folder, size in sizes.items() if size > LARGE_PAGES * PAGE}
        small = sorted(
            folder for folder in decided.waiting if folder in listing.folders and folder not in large
        )
        marked = tuple(dict.fromkeys((*self.marked, *small)))
        created: dict[str, ObjectInfo] = {}
        covered: set[str] = set()
        for o in self.created.values():
            partition = FolderMinute.of(o.key, o.last_modified)
            digest = listing.partitions.get(partition)
            if digest is not None and recorded.get(partition.key) != str(digest):
                created[o.key] = o
                covered.add(partition.key)
        if len(marked) > MOST_MARKED or len(created) > MOST_MARKED:
            return Watch(self.walk)
        # What waits in a large folder without an event is found again by the next walk, which then follows at
        # once.
        again = starved and any(folder_of_partition(key) in large for key in decided.pending - covered)
        return Watch(self.walk, None if again else self.swept, marked, created)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads; nothing is said of what is as at the beginning."""
        said: dict[str, Any] = {"walk": self.walk.to_json()} if self.walk.left else {}
        if self.swept is not None:
            said["swept"] = self.swept
        if self.marked:
            said["marked"] = self.marked
        if self.created:
            said["created"] = [
                (o.key, o.etag, o.size, o.last_modified.timestamp()) for o in self.created.values()
            ]
        return said

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Watch":
        """Read what `to_json` gave.

        Raises:
            ValueError, KeyError, TypeError, AttributeError, zlib.error: it is something else.
        """
        walk = Walk.from_json(stored["walk"]) if "walk" in stored else Walk()
        swept = float(stored["swept"]) if "swept" in stored else None
        marked = tuple(stored.get("marked", ()))
        if not all(isinstance(folder, str) for folder in marked):
            raise TypeError(marked)
        created = {
            str(key): ObjectInfo(str(key), str(etag), int(size), dt.datetime.fromtimestamp(seconds, dt.UTC))
            for key, etag, size, seconds in stored.get("created", ())
        }
        return cls(walk, swept, marked, created)


def _list_small(source: AudioSource, folder: str) -> dict[FolderMinute, Digest] | None:
    """The digests of a folder's partitions, None where there are too many objects."""
    found: list[ObjectInfo] = []
    for page in source.objects(folder):
        found += page
        if len(found) > LARGE_PAGES * PAGE:
            return None
    return digest_partitions(found)
