"""A local folder as a store, whole: how it is listed, read and written.

Files are read through obstore. A file is replaced by a lock on its directory, a comparison of versions and a
rename, for a file system has no conditional write.
"""

import contextlib
import fcntl
import operator
import os
import pathlib
import secrets
import tempfile
import urllib.parse
from collections.abc import Iterator
from typing import Any

import obstore
from obstore.exceptions import InvalidPathError, NotModifiedError, PreconditionError
from obstore.store import LocalStore

from audio_assets.errors import ConflictError, ObjectChangedError, ObjectRefusedError, StorageError
from audio_assets.storage import obstore_io
from audio_assets.storage.obstore_io import is_plain, object_info, version_of
from audio_assets.storage.types import (
    LAST,
    LOCATIONS,
    Backend,
    BackendOptions,
    Failure,
    ObjectInfo,
    Streamed,
)

_ROUNDS = 100
"""How often a directory is made for a file while others remove it."""


class LocalBackend(Backend):
    """A folder that `file:///folder` names. `Backend` says what the methods do."""

    def __init__(self, uri: str, _options: BackendOptions) -> None:
        self.uri = uri
        parts = urllib.parse.urlsplit(uri)
        if not parts.path or parts.netloc not in ("", "localhost"):
            raise ValueError(f"{uri!r} is no location; it should read like {LOCATIONS}")
        # Not urlsplit's path: a folder may hold ? and #.
        self._folder = pathlib.Path(urllib.parse.unquote(uri.partition("://")[2].removeprefix("localhost")))
        self._opened: LocalStore | None = None

    @property
    def root(self) -> str:
        # Two names of a folder, one of which goes through a link, are one place.
        return f"file://{self._folder.resolve()}"

    def _store(self) -> LocalStore:
        # A local folder can appear after this object was made; a missing one is reported where it is used.
        if self._opened is None:
            if not self._folder.is_dir():
                raise StorageError(f"{self.uri} does not exist; make the folder or mend its setting")
            self._opened = LocalStore(self._folder)
        return self._opened

    # --- listing ------------------------------------------------------------------------------------------

    def scan(self, after: str, until: str | None) -> Iterator[tuple[str, list[ObjectInfo]]]:
        # Folders and objects that are still to come, the next one last; an object comes with its info.
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
                folders, objects = self._level(key)
                level = [(name, None) for name in folders] + [(o.key, o) for o in objects]
                waiting += sorted(level, key=operator.itemgetter(0), reverse=True)
            elif info is not None and key > after:
                page.append(info)
        if page:
            yield page[-1].key, page

    def scan_folder(self, folder: str, after: str) -> Iterator[tuple[str, list[ObjectInfo]]]:
        _, objects = self._level(folder)
        page = sorted(o for o in objects if o.key > after)
        if page:
            yield page[-1].key, page

    def files(self, folder: str, after: str) -> Iterator[list[tuple[str, str]]]:
        if not self._folder.is_dir():
            return
        # Three times as fast as `scan`.
        pages: Any = obstore.list(self._store(), prefix=folder.removesuffix("/") or None)
        page = sorted((o["path"], version_of(o)) for found in pages for o in found if o["path"] > after)
        if page:
            yield page

    # `Backend.cuts`: none, for a disk is not faster for being asked twice at a time.

    def _level(self, folder: str) -> tuple[list[str], list[ObjectInfo]]:
        """One level of the tree: the folders in a folder, with a slash at the end, and the objects in it."""
        store = self._store()
        try:
            found = obstore.list_with_delimiter(store, folder.removesuffix("/") or None)
        except (InvalidPathError, ValueError) as e:
            raise StorageError(
                f"{self.uri}/{folder} holds a name with control characters or not in UTF-8; rename the file"
            ) from e
        except Exception as e:
            raise StorageError(f"cannot list {self.uri}/{folder}: {self.reason(e)}") from e
        folders = [f"{name.removesuffix('/')}/" for name in found["common_prefixes"]]
        return folders, [object_info(o) for o in found["objects"]]

    # --- reading ------------------------------------------------------------------------------------------

    def read(self, key: str, etag: str) -> bytes:
        if not is_plain(key):
            raise ObjectRefusedError(f"cannot read {self.uri}/{key!r}: rename the file")
        try:
            return bytes(obstore.get(self._store(), key, options={"if_match": f'"{etag}"'}).bytes())
        except (FileNotFoundError, PreconditionError, NotModifiedError):
            raise ObjectChangedError from None

    def read_latest(self, key: str) -> tuple[bytes, str] | None:
        if not self._folder.is_dir():
            return None
        return obstore_io.read_latest(self._store(), key)

    def stream(self, key: str, offset: int, version: str | None) -> Streamed:
        return obstore_io.stream(self._store(), key, offset, version)

    # --- writing ------------------------------------------------------------------------------------------

    def put(self, key: str, body: bytes, version: str | None) -> str:
        path = self._inside(key)
        for left in reversed(range(_ROUNDS)):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with _locked(path.parent):
                    return _replace(path, body, version)
            except (FileNotFoundError, FileExistsError):
                # `delete` may remove the directory between any two steps, also while it is made.
                if not left:
                    raise
        raise AssertionError("unreachable")

    def delete(self, key: str, version: str) -> None:
        path = self._inside(key)
        with contextlib.suppress(FileNotFoundError), _locked(path.parent):
            _remove_litter(path.parent)
            if _version(path) not in (version, None):
                raise ConflictError
            path.unlink()
        self._remove_empty(path.parent)

    def _inside(self, key: str) -> pathlib.Path:
        """The path of a file that is to be written."""
        path = self._folder / key
        # Before anything is made: a link, or a key that is no relative path, may lead elsewhere.
        if not is_plain(key) or not path.parent.resolve().is_relative_to(self._folder.resolve()):
            raise OSError("it lies outside by a link or by its name")
        return path

    def _remove_empty(self, folder: pathlib.Path) -> None:
        """Remove a directory that has become empty, and those above it, up to the store's own."""
        while folder != self._folder:
            try:
                # Nobody may be about to write into it.
                with contextlib.suppress(FileNotFoundError), _locked(folder):
                    folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    def has_conditional_writes(self) -> bool:
        # The place is made by the first `put`: what must be writable is what is there of its path.
        existing = next(p for p in (self._folder, *self._folder.parents) if p.exists())
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(bytes(2**16))  # A full disk still makes empty files.
        return True

    # --- failures -----------------------------------------------------------------------------------------

    def failure(self, error: Exception) -> Failure:
        # A disk that is asked again says the same again.
        return Failure.ONE_OBJECT


def _version(path: pathlib.Path) -> str | None:
    try:
        return _etag(path.stat())
    except FileNotFoundError:
        return None


def _etag(stat: os.stat_result) -> str:
    # As obstore gives it, by which rows of the table know their objects: 0 for times before 1970.
    changed = max(stat.st_mtime_ns // 1000, 0)
    return f"{stat.st_ino:x}-{changed:x}-{stat.st_size:x}"


def _replace(path: pathlib.Path, body: bytes, version: str | None) -> str:
    """`put` of a file in a directory that is locked."""
    _remove_litter(path.parent)
    if _version(path) != version:
        raise ConflictError
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
            stat = os.fstat(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return _etag(stat)


def _remove_litter(folder: pathlib.Path) -> None:
    # Whoever left a temporary file died while holding the lock.
    for litter in folder.glob(".*.tmp"):
        litter.unlink()


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
    """Hold an exclusive lock on a directory itself, so that no lock file is left behind.

    Raises:
        FileNotFoundError: it is not there, or was removed while others held the lock.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        # A directory that was removed and made again is another one, with another lock.
        if not os.path.samestat(os.fstat(handle), folder.stat()):
            raise FileNotFoundError(folder)
        yield
    finally:
        os.close(handle)
