"""How a bucket is listed: in the order of the keys, from any key on, holding a page at a time.

obstore lists thirty times as fast as boto3, so it is used wherever it gives the keys as they are. Where it
does not, boto3 gives one page, and obstore takes over again after it.
"""

import datetime as dt
import itertools
import operator
from collections.abc import Iterator
from typing import Any

import obstore

from audio_assets.storage import s3_errors
from audio_assets.storage.obstore_io import is_plain, object_info, version_of
from audio_assets.storage.s3_client import S3Connection
from audio_assets.storage.types import LAST, PAGE, ObjectInfo

LONGEST_KEY = 1024
"""How many bytes a key of S3 may have."""

DEEPEST_CUT = 8
"""How many levels of folders may be asked for places at which to cut a scan."""


class _NotByObstoreError(Exception):
    """obstore cannot give the next page, or perhaps not as it is."""


class S3Listing:
    """Lists what lies below a bucket's prefix; `types.Backend` says what the methods do."""

    def __init__(self, connection: S3Connection) -> None:
        self._connection = connection

    def scan(self, after: str, until: str | None, folder: str = "") -> Iterator[tuple[str, list[ObjectInfo]]]:
        """The objects between two keys, of those below one folder.

        Args:
            folder: "" for all, or a prefix that ends with `/`.
        """
        position: str | None = after
        while position is not None:
            if self._takes(position, folder):
                try:
                    for page in self._pages_by_obstore(position, until, folder):
                        position = page[-1].key
                        yield position, page
                    return
                except _NotByObstoreError:
                    pass
            page, following = self._page_by_boto3(position, until, folder)
            yield following or until or LAST, page
            position = following

    def scan_folder(self, folder: str, after: str) -> Iterator[tuple[str, list[ObjectInfo]]]:
        position: str | None = after
        while position is not None:
            for reached, page in self.scan(position, folder + LAST, folder):
                here = [o for o in page if "/" not in o.key[len(folder) :]]
                if len(here) < len(page):
                    break
                yield reached, here
                position = reached
            else:
                return
            # There are folders in it: S3 passes over what they hold, a thousand folders an answer.
            last = here[-1].key if here else position
            yield last, here
            page, position = self._page_by_boto3(last, folder + LAST, folder, Delimiter="/")
            yield position or folder + LAST, page

    def files(self, folder: str, after: str) -> Iterator[list[tuple[str, str]]]:
        # Not `scan`: names of tables need no second look, and no time and size.
        pages: Any = obstore.list(
            self._connection.store, prefix=folder.removesuffix("/") or None, offset=after or None
        )
        for page in pages:
            if page:
                yield [(found["path"], version_of(found)) for found in page]

    def cuts(self, after: str, until: str | None) -> list[str]:
        levels = after.split("/")[:-1][:DEEPEST_CUT]
        for depth in range(len(levels) + 1):
            level = "".join(f"{name}/" for name in levels[:depth])
            folders = self._request_page(after, level, Delimiter="/")[1]
            if found := [p for p in folders if p > after and (until is None or p < until)]:
                return found
        return []

    def find(self, key: str) -> ObjectInfo | None:
        found, _, _ = self._request_page("", key, MaxKeys=1)
        return found[0] if found and found[0].key == key and not _marks_folder(found[0]) else None

    def _takes(self, after: str, folder: str) -> bool:
        """Whether obstore can list from a key on: it refuses some and drops slashes at the ends of others."""
        if not is_plain(after or "-") or not is_plain(folder.removesuffix("/") or "-"):
            return False
        return bool(self._connection.root or folder) or after >= "0"

    def _pages_by_obstore(self, after: str, until: str | None, folder: str) -> Iterator[list[ObjectInfo]]:
        """Pages by obstore.

        Raises:
            _NotByObstoreError: it may not give the next page, or not as it is, for the names in it.
        """
        prefix = folder.removesuffix("/") or None
        offset = self._start_after(after) or None
        try:
            for found in obstore.list(self._connection.store, prefix, offset=offset, chunk_size=PAGE):
                page = [object_info(o) for o in found if until is None or o["path"] <= until]
                if not _is_exact(page, after, folder):
                    raise _NotByObstoreError
                if page:
                    yield page
                    after = page[-1].key
                if len(page) < len(found):
                    return
        except Exception as e:
            # A server that is down or refuses is not asked twice: that is for `ObjectStore` to count.
            if s3_errors.may_be_of_names(e):
                raise _NotByObstoreError from e
            raise

    def _start_after(self, after: str) -> str:
        """A key after which S3 is to begin, no longer than a key can be; no key lies between the two."""
        longest = LONGEST_KEY - len(self._connection.root.encode())
        return after.encode()[:longest].decode(errors="ignore")

    def _page_by_boto3(
        self, after: str, until: str | None, folder: str, **options: Any
    ) -> tuple[list[ObjectInfo], str | None]:
        """A page by boto3, which takes any name and thirty times as long.

        Returns:
            The objects, and the key after which the next page begins; None at the end.
        """
        found, folders, truncated = self._request_page(after, folder, **options)
        reached = max([o.key for o in found] + [p + LAST for p in folders], default=after)
        objects = [o for o in found if not _marks_folder(o) and (until is None or o.key <= until)]
        return objects, reached if truncated and (until is None or reached < until) else None

    def _request_page(
        self, after: str, folder: str, **options: Any
    ) -> tuple[list[ObjectInfo], list[str], bool]:
        """One answer of S3: objects, the prefixes of folders, and whether there is more."""
        root = self._connection.root
        # Never with the object that is called like the place itself.
        if start := root + self._start_after(after):
            options["StartAfter"] = start
        page = self._connection.list_objects(folder, **{"MaxKeys": PAGE} | options)
        objects = [
            ObjectInfo(
                found["Key"].removeprefix(root),
                found["ETag"].strip('"'),
                found["Size"],
                found["LastModified"].astimezone(dt.UTC),
            )
            for found in page.get("Contents", [])
        ]
        folders = [found["Prefix"].removeprefix(root) for found in page.get("CommonPrefixes", [])]
        return objects, folders, page["IsTruncated"]


def _is_exact(page: list[ObjectInfo], after: str, folder: str) -> bool:
    """Whether obstore gave a page's keys as they are.

    It drops a slash at the end, which folders have: the console of S3 marks one by an empty object `folder/`.
    Such a key may be out of order, or right before the keys in it; and a folder's name seldom has a dot.
    """
    keys = [after, *(o.key for o in page)]
    return (
        all(o.size and o.key.startswith(folder) and "." in o.key[o.key.rfind("/") :] for o in page)
        and all(map(operator.lt, keys, keys[1:]))
        and not any(key.startswith(f"{before}/") for before, key in itertools.pairwise(keys))
    )


def _marks_folder(found: ObjectInfo) -> bool:
    """Whether an object only makes a folder appear, or the place itself, and is no audio."""
    return not found.key or (found.key.endswith("/") and not found.size)
