"""Replacing a file of a local folder: a lock on its directory, a comparison of versions, a rename."""

import contextlib
import fcntl
import operator
import os
import pathlib
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import obstore
from obstore.exceptions import InvalidPathError
from obstore.store import LocalStore

from audio_assets.errors import ConflictError, StorageError
from audio_assets.storage.s3_errors import reason
from audio_assets.storage.types import LAST, ObjectInfo, is_plain, object_info


def replace_file(root: pathlib.Path, key: str, body: bytes, version: str | None) -> None:
    """Replace a file as a whole, if it is still the one that was read; make its folders where they miss.

    Args:
        key: relative to `root`, with `/` between folders.
        version: the `e_tag` that obstore gives for the file that was read, None where there was none.

    Raises:
        ConflictError: the file has another version by now.
        OSError: it cannot be written, or lies outside of `root`.
    """
    path = root / key
    # Before anything is made: a link, or a key that is no relative path, may lead elsewhere.
    if not is_plain(key) or not path.parent.resolve().is_relative_to(root.resolve()):
        raise OSError("it lies outside by a link or by its name")
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        # Whoever left a temporary file died while holding the lock.
        for litter in path.parent.glob(".*.tmp"):
            litter.unlink()
        if _version(path) != version:
            raise ConflictError
        temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _version(path: pathlib.Path) -> str | None:
    try:
        return LocalStore(path.parent).head(path.name)["e_tag"]
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
    """Hold an exclusive lock on a directory itself, so that no lock file is left behind."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


class LocalListing:
    """Lists a local folder; `ObjectStore` says what the methods do. Holds one folder at a time.

    Args:
        open_store: gives the obstore of the folder, or raises StorageError where there is none.
    """

    def __init__(self, uri: str, open_store: Callable[[], Any]) -> None:
        self.uri, self._open = uri, open_store

    def scan(self, after: str, until: str | None) -> Iterator[tuple[str, list[ObjectInfo]]]:
        waiting: list[tuple[str, ObjectInfo | None]] = [("", None)]
        page: list[ObjectInfo] = []
        while waiting:
            key, info = waiting.pop()
            if until is not None and key > until:
                break
            if info is None and key + LAST > after:
                if page:
                    yield page[-1].key, page
                    page = []
                folders, objects = self._list(key)
                level = [(f"{name}/", None) for name in folders] + [(o.key, o) for o in objects]
                waiting += sorted(level, key=operator.itemgetter(0), reverse=True)
            elif info is not None and key > after:
                page.append(info)
        if page:
            yield page[-1].key, page

    def scan_folder(self, prefix: str) -> Iterator[list[ObjectInfo]]:
        yield self._list(prefix)[1]

    def cuts(self, _after: str, _until: str | None) -> list[str]:
        # A disk is not faster for being asked twice at a time.
        return []

    def find(self, key: str) -> ObjectInfo | None:
        return next((o for o in self._list(key[: key.rfind("/") + 1])[1] if o.key == key), None)

    def _list(self, prefix: str) -> tuple[list[str], list[ObjectInfo]]:
        """One level of a local folder: the names of folders below it, and the objects right in it."""
        store = self._open()
        try:
            found = obstore.list_with_delimiter(store, prefix.removesuffix("/") or None)
        except (InvalidPathError, ValueError) as e:
            raise StorageError(
                f"{self.uri}/{prefix} holds a name with control characters or not in UTF-8; rename the file"
            ) from e
        except Exception as e:
            raise StorageError(f"cannot list {self.uri}/{prefix}: {reason(e)}") from e
        folders = [name.removesuffix("/") for name in found["common_prefixes"]]
        return folders, [object_info(o) for o in found["objects"]]
