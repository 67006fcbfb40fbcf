"""The audio of a page: the address that its rows link to, and copies of it as scripts.

A page opened from a disk may play a file that lies elsewhere, and may not look into it. So a copy is a script
that holds the bytes: it can be played and drawn wherever the page lies. Nothing is transcoded: what is heard
is what the recogniser got, where the browser plays its format.
"""

import base64
import concurrent.futures
import hashlib
import os
import urllib.parse
from collections.abc import Iterator

import pyarrow as pa

from audio_assets.audio import decoder_of
from audio_assets.errors import ObjectChangedError, ObjectRefusedError
from audio_assets.listening.columns import script
from audio_assets.parallel import map_ahead
from audio_assets.storage import ObjectInfo, ObjectStore

LARGEST_COPY = 64 * 2**20
"""Bytes of an object beyond which a page holds no copy of it: a browser decodes it as a whole."""

COPIES_AHEAD = 32
"""How many objects are held at a time, at most; and `MOST_BYTES` of them."""
MOST_BYTES = 256 * 2**20


def audio_url(source_uri: str, page_uri: str, served_at: str = "") -> str | None:
    """The address that a key is appended to, relative to the page if that can be; None if there is none.

    A presigned address would be a secret that everybody gets who gets the page, and would expire.

    Args:
        source_uri: where the audio lies.
        page_uri: where the page lies.
        served_at: the address at which browsers find the source, where somebody serves it.
    """
    if served_at:
        return served_at.rstrip("/")
    source = urllib.parse.urlsplit(source_uri)
    page = urllib.parse.urlsplit(page_uri)
    if (source.scheme, source.netloc) != (page.scheme, page.netloc):
        return None
    # A URI of S3 holds the key as it is, one of a file is percent-encoded.
    paths = [part.path if part.scheme == "file" else urllib.parse.quote(part.path) for part in (source, page)]
    return os.path.relpath(paths[0] or "/", paths[1] or "/")


def copy_name(key: str, etag: str) -> str:
    """The name of an object's copy: another one when its bytes are others."""
    return hashlib.sha256(f"{etag}\n{key}".encode()).hexdigest()[:20]


def copies(source: ObjectStore, rows: pa.Table) -> Iterator[tuple[str | None, bytes]]:
    """The copy of each row's object, in order: its name and its script; None where there is none.

    There is none of an object that is no audio, is too large, or is gone or another by now.

    Raises:
        StorageError: the store does not answer.
    """
    columns = rows.select(["Key", "ETag", "Size", "LastModified"]).to_pylist()
    with concurrent.futures.ThreadPoolExecutor(COPIES_AHEAD) as pool:
        yield from map_ahead(
            pool,
            lambda info: _copy(source, info),
            (ObjectInfo(r["Key"], r["ETag"], r["Size"], r["LastModified"]) for r in columns),
            ahead=COPIES_AHEAD,
            weight=lambda info: min(info.size, LARGEST_COPY),
            max_weight=MOST_BYTES,
        )


def _copy(source: ObjectStore, info: ObjectInfo) -> tuple[str | None, bytes]:
    if decoder_of(info.key) is None or not 0 < info.size <= LARGEST_COPY:
        return None, b""
    try:
        body = source.read(info)
    except (ObjectChangedError, ObjectRefusedError):
        return None, b""
    name = copy_name(info.key, info.etag)
    return name, script("clip", name, base64.b64encode(body).decode())
