"""Which keys obstore takes, and what it says of an object."""

import re
from typing import Any

from audio_assets.storage.types import ObjectInfo

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def is_plain(path: str) -> bool:
    """Whether obstore takes a path: it refuses empty and dot segments and control characters."""
    return not any(part in ("", ".", "..") or _CONTROL.search(part) for part in path.split("/"))


def version_of(found: Any) -> str:
    """The ETag in what obstore says of an object or a write, without quotes."""
    return (found["e_tag"] or "").strip('"')


def quoted(version: str) -> str:
    """A version as a request's header carries it."""
    return f'{version}"' if version.startswith('W/"') else f'"{version}"'


def object_info(found: Any) -> ObjectInfo:
    """What obstore lists (an `ObjectMeta`), as this package's type."""
    return ObjectInfo(found["path"], version_of(found), found["size"], found["last_modified"])
