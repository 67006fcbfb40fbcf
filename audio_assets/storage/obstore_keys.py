"""What the backends that lean on obstore share: which keys it takes, and what it says of an object."""

import re
from typing import Any

from audio_assets.storage.types import ObjectInfo

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def is_plain(path: str) -> bool:
    """Whether obstore takes a path: it refuses empty and dot segments and control characters."""
    return not any(part in ("", ".", "..") or _CONTROL.search(part) for part in path.split("/"))


def object_info(found: Any) -> ObjectInfo:
    """What obstore lists (an `ObjectMeta`), as this package's type."""
    etag = (found["e_tag"] or "").strip('"')
    return ObjectInfo(found["path"], etag, found["size"], found["last_modified"])
