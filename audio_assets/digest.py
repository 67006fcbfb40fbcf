"""A partition's fingerprint: which objects it is made of, in a few bytes.

The sensor compares the digests of what is in the bucket with those that `audio_table` was made from. How they
are compared is a matter of `sensor/run_requests.py`.
"""

import dataclasses
import datetime as dt
import hashlib
from collections.abc import Iterable

from audio_assets.partitions import FolderMinute
from audio_assets.storage import ObjectInfo


@dataclasses.dataclass(frozen=True, slots=True)
class Digest:
    """A fingerprint of a partition's objects that does not depend on their order.

    The wrap-around sum of a 64-bit hash of each object's Key, ETag and LastModified in whole seconds, beside
    their number; it streams and needs no sorting. Seconds, because some stores list no smaller unit.
    """

    count: int = 0
    total: int = 0

    @classmethod
    def of(cls, objects: Iterable[ObjectInfo]) -> "Digest":
        """The digest of some objects, in any order."""
        count = 0
        total = 0
        for o in objects:
            text = f"{o.key}\0{o.etag}\0{int(o.last_modified.timestamp())}"
            hashed = hashlib.blake2b(text.encode(), digest_size=8)
            count += 1
            total += int.from_bytes(hashed.digest(), "big")
        return cls(count, total % 2**64)

    @classmethod
    def parse(cls, text: str) -> "Digest":
        """Read what `str` gave.

        Raises:
            ValueError: it is no such text.
        """
        count, _, total = text.partition("-")
        return cls(int(count), int(total, 16))

    def __add__(self, other: "Digest") -> "Digest":
        """The digest of both together, which have no object in common."""
        return Digest(self.count + other.count, (self.total + other.total) % 2**64)

    def __str__(self) -> str:
        return f"{self.count}-{self.total:016x}"


EMPTY = Digest()
"""The digest of a partition whose objects are all gone."""

UNLISTED = Digest(0, 1)
"""Stands for the digest of a partition that nobody has listed; equals that of no objects."""


def group(objects: Iterable[ObjectInfo]) -> dict[FolderMinute, list[ObjectInfo]]:
    """Objects by partition."""
    # By what is cheap to hash; partitions are made once for each group.
    grouped: dict[tuple[str, dt.datetime], list[ObjectInfo]] = {}
    for o in objects:
        minute = o.last_modified.replace(second=0, microsecond=0)
        grouped.setdefault((o.key[: o.key.rfind("/") + 1], minute), []).append(o)
    return {FolderMinute.of(found[0].key, minute): found for (_, minute), found in grouped.items()}


def digest_partitions(objects: Iterable[ObjectInfo]) -> dict[FolderMinute, Digest]:
    """The digest of each partition of some objects."""
    return {partition: Digest.of(found) for partition, found in group(objects).items()}
