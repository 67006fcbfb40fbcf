"""How a store is listed: in the order of the keys, from any key on, holding a page at a time.

S3 goes through obstore, thirty times as fast as boto3, wherever obstore gives the keys as they are.
"""

import datetime as dt
import operator
from collections.abc import Callable, Iterator
from typing import Any

import obstore

from audio_assets.storage.types import LAST, PAGE, ObjectInfo, is_plain, object_info

DEEPEST_CUT = 8
"""How many levels of folders may be asked for places at which to cut a scan."""


class _NotByObstoreError(Exception):
    """obstore cannot give the next page, or not as it is."""


class S3Listing:
    """Lists the objects below a prefix of a bucket; `ObjectStore` says what the methods do.

    Args:
        open_store: gives the obstore of the prefix.
        list_objects: boto3's `list_objects_v2` of the bucket, tried until it is answered.
    """

    def __init__(self, prefix: str, open_store: Callable[[], Any], list_objects: Callable[..., Any]) -> None:
        self._open, self._list_objects = open_store, list_objects
        self._root = f"{prefix}/" if prefix else ""

    def scan(self, after: str, until: str | None, folder: str = "") -> Iterator[tuple[str, list[ObjectInfo]]]:
        """Likewise below one folder, an empty prefix or one that ends with `/`."""
        position: str | None = after
        while position is not None:
            if self._takes(position, folder):
                try:
                    for page in self._plain_pages(position, until, folder):
                        position = page[-1].key
                        yield position, page
                    return
                except _NotByObstoreError:
                    pass
            page, following = self._exact_page(position, until, folder)
            yield following or until or LAST, page
            position = following

    def scan_folder(self, prefix: str) -> Iterator[list[ObjectInfo]]:
        position: str | None = prefix
        while position is not None:
            for reached, page in self.scan(position, prefix + LAST, prefix):
                here = [o for o in page if "/" not in o.key[len(prefix) :]]
                yield here
                if len(here) < len(page):
                    break
                position = reached
            else:
                return
            # There are folders in it: their names are passed over a thousand at a time.
            last = here[-1].key if here else position
            page, position = self._exact_page(last, prefix + LAST, prefix, Delimiter="/")
            yield page

    def cuts(self, after: str, until: str | None) -> list[str]:
        levels = after.split("/")[:-1][:DEEPEST_CUT]
        for depth in range(len(levels) + 1):
            level = "".join(f"{name}/" for name in levels[:depth])
            folders = self._request_page(after, level, Delimiter="/")[1]
            if found := [p for p in folders if p > after and (until is None or p < until)]:
                return found
        return []

    def find(self, key: str) -> ObjectInfo | None:
        found, _, _ = self._request_page(key, key, MaxKeys=1)
        return found[0] if found and found[0].key == key else None

    def _takes(self, after: str, folder: str) -> bool:
        """Whether obstore can go on behind a key: it refuses some and drops slashes at the ends of others."""
        starts = after == folder or is_plain(after)
        return starts and is_plain(folder.removesuffix("/") or "-") and (bool(self._root) or after >= "0")

    def _plain_pages(self, after: str, until: str | None, folder: str) -> Iterator[list[ObjectInfo]]:
        """Pages by obstore.

        Raises:
            _NotByObstoreError: it gives the next page not or not as it is.
        """
        offset = None if after == folder else after
        try:
            pages = obstore.list(
                self._open(), folder.removesuffix("/") or None, offset=offset, chunk_size=PAGE
            )
            for found in pages:
                page = [object_info(o) for o in found if until is None or o["path"] <= until]
                keys = [after, *(o.key for o in page)]
                # The console of S3 marks a folder by an empty object `folder/`; obstore drops its slash.
                if any(not o.size for o in page) or any(map(operator.ge, keys, keys[1:])):
                    raise _NotByObstoreError
                if page:
                    yield page
                    after = page[-1].key
                if len(page) < len(found):
                    return
        except Exception as e:
            # Where it is not the names, boto3 says what it is.
            raise _NotByObstoreError from e

    def _exact_page(
        self, after: str, until: str | None, folder: str, **options: Any
    ) -> tuple[list[ObjectInfo], str | None]:
        """A page by boto3, which takes any name and thirty times as long.

        Returns:
            The objects, and the key to go on behind; None at the end.
        """
        found, folders, truncated = self._request_page(after, folder, **options)
        reached = max([o.key for o in found] + [p + LAST for p in folders], default=after)
        # What marks a folder is no audio.
        objects = [o for o in found if not o.key.endswith("/") and (until is None or o.key <= until)]
        return objects, reached if truncated and (until is None or reached < until) else None

    def _request_page(
        self, after: str, folder: str, **options: Any
    ) -> tuple[list[ObjectInfo], list[str], bool]:
        """One answer of S3: objects, the prefixes of folders, and whether there is more."""
        if after != folder:
            options["StartAfter"] = self._root + after
        page = self._list_objects(Prefix=self._root + folder, **{"MaxKeys": PAGE} | options)
        objects = [
            ObjectInfo(
                found["Key"].removeprefix(self._root),
                found["ETag"].strip('"'),
                found["Size"],
                found["LastModified"].astimezone(dt.UTC),
            )
            for found in page.get("Contents", [])
        ]
        folders = [found["Prefix"].removeprefix(self._root) for found in page.get("CommonPrefixes", [])]
        return objects, folders, page["IsTruncated"]
