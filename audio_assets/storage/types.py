"""What a store and whoever uses it share: an object, names, how long S3 is tried."""

import dataclasses
import datetime as dt
import random
import re
from typing import Any, NamedTuple

PAGE = 1000
"""How many objects S3 gives in an answer."""

LAST = "\U0010ffff"
"""Behind a folder's prefix: sorts after all that lies in the folder."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class ObjectInfo(NamedTuple):
    """What a listing says of an object. A tuple, for a listing makes a million.

    Attributes:
        key: relative to the store's root.
        etag: without quotes.
        size: bytes.
        last_modified: UTC.
    """

    key: str
    etag: str
    size: int
    last_modified: dt.datetime


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
    """How long S3 is tried.

    Attributes:
        attempts: for one object or listing, the first included.
        stall_s: seconds without a byte after which a connection is given up.
    """

    attempts: int = 10
    stall_s: float = 60.0

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures: 0.1, 0.2, 0.4 … 15, each up to half shorter by chance, so
        that clients that failed together do not come back together."""
        return min(0.1 * 2 ** (failures - 1), 15.0) * random.uniform(0.5, 1.0)


def is_plain(path: str) -> bool:
    """Whether obstore takes a path: it refuses empty and dot segments and control characters."""
    return not any(part in ("", ".", "..") or _CONTROL.search(part) for part in path.split("/"))


def object_info(found: Any) -> ObjectInfo:
    etag = (found["e_tag"] or "").strip('"')
    return ObjectInfo(found["path"], etag, found["size"], found["last_modified"])
