"""What the backends that lean on obstore share: which keys it takes, what it says of an object, reading."""

import re
from typing import Any

import obstore

from audio_assets.storage.types import ObjectInfo, Streamed

_STREAMED_BYTES = 2**20

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


def read_latest(store: Any, key: str) -> tuple[bytes, str] | None:
    """As `Backend.read_latest`, of one of obstore's stores."""
    try:
        found = obstore.get(store, key)
        return bytes(found.bytes()), version_of(found.meta)
    except FileNotFoundError:
        return None


def stream(store: Any, key: str, offset: int, version: str | None) -> Streamed:
    """As `Backend.stream`, of one of obstore's stores."""
    options: Any = {"range": {"offset": offset}} if offset else {}
    if version is not None:
        options["if_match"] = quoted(version)
    found = obstore.get(store, key, options=options)
    pieces = map(bytes, found.stream(_STREAMED_BYTES))
    return Streamed(version_of(found.meta), found.meta["size"], pieces)
