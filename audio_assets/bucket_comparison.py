"""The bucket against the table: has each object of the bucket its row, and each row its object?

By digests first, a few bytes for each partition. Only what differs is looked at once more, object by object:
a change that is under way is no fault. What the sensor does about a difference is decided in
`sensor/run_requests.py`; what the rows themselves say is looked at in `quality.py`.
"""

import collections
import dataclasses
import datetime as dt
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence

from audio_assets.digest import EMPTY, Digest, group
from audio_assets.partitions import FolderMinute
from audio_assets.quality import Sample, objects_of
from audio_assets.source import AudioSource
from audio_assets.storage import ObjectInfo
from audio_assets.table import Table

PARTITIONS_BY_OBJECT = 100
"""So many partitions that differ are looked at object by object; of others only the digest is compared."""

Identity = tuple[str, str, int]
"""Key, ETag and time of last modification in seconds, which make an object's digest too."""


@dataclasses.dataclass(frozen=True)
class UnderWay:
    """What is still to be made, and is therefore no fault where it is missing.

    Attributes:
        closed: the last minute that is over, so that its partitions should be in the table.
        covered: partition keys that a queued or running run will write.
        full: whether as many runs are queued as there may be, so that partitions never made wait for these.
    """

    closed: dt.datetime
    covered: Collection[str]
    full: bool = False

    def waits(self, partition: FolderMinute, *, made: bool = True) -> bool:
        """Whether a run will still make a partition.

        Args:
            made: whether it has a file already.
        """
        return partition.minute > self.closed or partition.key in self.covered or (self.full and not made)


def partition_files(paths: Iterable[str]) -> tuple[list[FolderMinute], Sample[str]]:
    """The partitions that have a file, in order, and visible files that are no partition's.

    Args:
        paths: of all files below the table.
    """
    partitions: list[FolderMinute] = []
    strays: Sample[str] = Sample()
    for path in paths:
        partition = FolderMinute.from_path(path)
        if partition is not None:
            partitions.append(partition)
        # Readers pass over hidden files and folders: those of Spark, and the temporary ones of a disk.
        elif not any(name.startswith((".", "_")) for name in path.split("/")):
            strays.add([path])
    return sorted(partitions), strays


def differing(
    listed: Mapping[FolderMinute, Digest], made: Mapping[FolderMinute, str], table: Table
) -> list[FolderMinute]:
    """The partitions in which bucket and table differ, in order.

    Args:
        listed: the digest of each partition that has objects.
        made: `str` of the digest of each partition that has a file, "" where that cannot be read.
        table: whose files these are.

    Raises:
        StorageError: the table's store does not say whether files without rows are to be there.
    """
    differ = sorted(p for p in {*listed, *made} if p not in listed or made.get(p) != str(listed[p]))
    # A file without rows is one too many, unless it is one that cannot be deleted.
    empty = {p for p in differ if p not in listed and made[p] == str(EMPTY)}
    return [p for p in differ if p not in empty] if empty and table.keeps_empty_files else differ


@dataclasses.dataclass
class Differences:
    """What differs between bucket and table.

    Attributes:
        wrong: by partition, the `Key` of each object and what is wrong with it; a sample of none where only
            the digests were compared.
        waiting: objects that a run will still make rows of.
    """

    wrong: dict[FolderMinute, Sample[dict[str, str]]] = dataclasses.field(default_factory=dict)
    waiting: int = 0

    @property
    def objects(self) -> Sample[dict[str, str]]:
        """What is wrong in all partitions together."""
        together: Sample[dict[str, str]] = Sample()
        for _, found in sorted(self.wrong.items()):
            together.add(found.first, found.count)
        return together


def look_again(
    source: AudioSource, table: Table, partitions: Sequence[FolderMinute], under_way: UnderWay
) -> Differences:
    """Look once more at partitions that differ, folder by folder.

    Holds the objects of PARTITIONS_BY_OBJECT partitions at the most.

    Args:
        partitions: in order.

    Raises:
        StorageError: a folder cannot be listed, or a file cannot be read.
    """
    found = Differences()
    by_object = set(partitions[:PARTITIONS_BY_OBJECT])
    for folder, some in itertools.groupby(partitions, key=lambda p: p.folder):
        here = list(some)
        in_full = [p for p in here if p in by_object]
        rows = {p: objects_of(table, p) for p in in_full}
        folder_objects = _list(source, folder, rows, set(here))
        for partition in in_full:
            _compare(partition, rows[partition], folder_objects, under_way, found)
        for partition in here[len(in_full) :]:
            made = objects_of(table, partition)
            if (None if made is None else Digest.of(made)) != folder_objects.digests.get(partition):
                found.wrong[partition] = Sample()
    return found


@dataclasses.dataclass
class _FolderObjects:
    """What a folder's listing says of the partitions that are looked at.

    Attributes:
        objects: of those that are looked at object by object.
        digests: of the others.
        minutes: the partition in which each object is that some row is of.
    """

    objects: dict[FolderMinute, set[Identity]]
    digests: dict[FolderMinute, Digest]
    minutes: dict[str, FolderMinute]


def _list(
    source: AudioSource,
    folder: str,
    rows: Mapping[FolderMinute, list[ObjectInfo] | None],
    partitions: Collection[FolderMinute],
) -> _FolderObjects:
    keys = {o.key for objects in rows.values() for o in objects or ()}
    found = _FolderObjects({p: set() for p in rows}, {}, {})
    for page in source.objects(folder):
        for partition, objects in group(page).items():
            if partition in found.objects:
                found.objects[partition] |= set(map(_identity, objects))
            elif partition in partitions:
                found.digests[partition] = found.digests.get(partition, EMPTY) + Digest.of(objects)
            found.minutes |= {o.key: partition for o in objects if o.key in keys}
    return found


def _compare(
    partition: FolderMinute,
    rows: list[ObjectInfo] | None,
    folder: _FolderObjects,
    under_way: UnderWay,
    found: Differences,
) -> None:
    """Compare one partition object by object."""
    listed = folder.objects[partition]
    keys = {key for key, _, _ in listed}
    counts = collections.Counter(o.key for o in rows or ())
    wrong: list[dict[str, str]] = []
    for key in _keys_that_differ(listed, rows or ()):
        now = folder.minutes.get(key)
        # An object that was overwritten keeps its row until it has another.
        if now is not None and now != partition and under_way.waits(now):
            found.waiting += 1
        else:
            what = _fault(counts[key], now, exists=key in keys)
            wrong.append({"Key": key, "partition": partition.key, "what": what})
    if rows == [] and not listed:
        wrong.append({"Key": "", "partition": partition.key, "what": "a file without rows"})
    if wrong:
        found.wrong[partition] = Sample()
        found.wrong[partition].add(wrong)


def _keys_that_differ(listed: set[Identity], rows: Iterable[ObjectInfo]) -> list[str]:
    """The keys that have not exactly one row, of the object as it is; in order."""
    counts = collections.Counter(map(_identity, rows))
    repeated = {identity for identity, number in counts.items() if number > 1}
    return sorted({key for key, _, _ in (listed ^ counts.keys()) | repeated})


def _identity(o: ObjectInfo) -> Identity:
    return (o.key, o.etag, int(o.last_modified.timestamp()))


def _fault(rows: int, now: FolderMinute | None, *, exists: bool) -> str:
    """What is wrong with an object of a partition, in words.

    Args:
        rows: that it has in the partition's file.
        now: the partition in which there is an object of this key.
        exists: whether that is this partition.
    """
    if not rows:
        return "it has no row"
    if exists:
        return "it has several rows" if rows > 1 else "its row is of an older version"
    return "there is no such object" if now is None else f"it is in {now.key} now"
