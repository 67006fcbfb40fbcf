"""A local folder as a store, whole: how it is listed, read and written.

A file is replaced by a lock on its directory, a comparison of versions and a rename, for a file system has no
conditional write.

Names are bytes on a disk and text in a key. A name that is not UTF-8 has a key that shows its bytes
(`a\\xff.flac`); what has such a name, or lies in a folder that has, is listed and not read. Paths are bytes
throughout, so that the encoding that Python takes for that of the file system does not matter.
"""

import contextlib
import datetime as dt
import errno
import fcntl
import glob
import io
import operator
import os
import secrets
import shutil
import stat
import tempfile
import urllib.parse
from collections.abc import Iterator
from typing import BinaryIO

from audio_assets.errors import ConflictError, ObjectChangedError, ObjectNameError, StorageError
from audio_assets.storage.obstore_io import is_plain
from audio_assets.storage.types import LOCATIONS, Backend, BackendOptions, Failure, ObjectInfo, Streamed

_ROUNDS = 100
"""How often a directory is made for a file while others remove it."""

_STREAMED_BYTES = 2**20
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
# A link that leads nowhere, or what was deleted since its folder was listed.
_GONE = (FileNotFoundError, NotADirectoryError)


class LocalBackend(Backend):
    """A folder that `file:///folder` names. `Backend` says what the methods do."""

    def __init__(self, uri: str, _options: BackendOptions) -> None:
        self.uri = uri
        parts = urllib.parse.urlsplit(uri)
        if not parts.path or parts.netloc not in ("", "localhost"):
            raise ValueError(f"{uri!r} is no location; it should read like {LOCATIONS}")
        # Not urlsplit's path: a folder may hold ? and #.
        path = uri.partition("://")[2].removeprefix("localhost")
        self._folder = urllib.parse.unquote_to_bytes(path.encode("utf-8", "surrogateescape"))

    @property
    def root(self) -> str:
        # Two names of a folder, one of which goes through a link, are one place.
        return f"file://{_text(os.path.realpath(self._folder))}"

    # --- listing ------------------------------------------------------------------------------------------

    def scan(self, after: str, until: str | None) -> Iterator[tuple[str, list[ObjectInfo]]]:
        self._check_folder()
        return self._walk("", after, until)

    def scan_folder(self, folder: str, after: str) -> Iterator[tuple[str, list[ObjectInfo]]]:
        self._check_folder()
        level = self._level(folder, self._path(folder))
        page = [info for key, _, info in level if info is not None and key > after]
        if page:
            yield page[-1].key, page

    def files(self, folder: str, after: str) -> Iterator[list[tuple[str, str]]]:
        for _, page in self._walk(folder, after, None):
            yield [(o.key, o.etag) for o in page]

    # `Backend.cuts`: none, for a disk is not faster for being asked twice at a time.

    def _check_folder(self) -> None:
        # It can appear after this object was made, so a missing one is reported where it is used.
        if not os.path.isdir(self._folder):
            raise StorageError(f"{self.uri} does not exist; make the folder or mend its setting")

    def _walk(self, folder: str, after: str, until: str | None) -> Iterator[tuple[str, list[ObjectInfo]]]:
        """As `scan`, below one folder; a page is what lies side by side."""
        # Folders and objects that are still to come, the next one last; an object comes with its info.
        waiting: list[tuple[str, bytes, ObjectInfo | None]] = [(folder, self._path(folder), None)]
        page: list[ObjectInfo] = []
        while waiting:
            key, path, info = waiting.pop()
            if until is not None and key > until:
                break
            if info is None and (key > after or after.startswith(key)):
                if page:
                    yield page[-1].key, page
                    page = []
                waiting += reversed(self._level(key, path))
            elif info is not None and key > after:
                page.append(info)
        if page:
            yield page[-1].key, page

    def _level(self, folder: str, path: bytes) -> list[tuple[str, bytes, ObjectInfo | None]]:
        """What lies right in a folder: key, path, and the info of what is no folder; in order of the keys.

        The key of a folder ends with a slash.
        """
        found: list[tuple[str, bytes, ObjectInfo | None]] = []
        for name, entry in self._entries(folder, path).items():
            key = folder + name
            try:
                if entry.is_dir():
                    if not (entry.is_symlink() and self._leads_up(path, entry)):
                        found.append((f"{key}/", entry.path, None))
                elif info := _info(key, entry.stat()):
                    found.append((key, entry.path, info))
            except OSError as e:
                # A link that leads to itself leads nowhere, too.
                if isinstance(e, _GONE) or e.errno == errno.ELOOP:
                    continue
                raise StorageError(f"cannot list {self.uri}/{key}: {self.reason(e)}") from e
        return sorted(found, key=operator.itemgetter(0))

    def _entries(self, folder: str, path: bytes) -> dict[str, os.DirEntry[bytes]]:
        """What a directory holds, by the names that keys have; nothing if it was removed meanwhile."""
        try:
            with os.scandir(path) as scanned:
                entries = list(scanned)
        except _GONE:
            return {}
        except OSError as e:
            raise StorageError(f"cannot list {self.uri}/{folder}: {self.reason(e)}") from e
        named: dict[str, os.DirEntry[bytes]] = {}
        others: list[os.DirEntry[bytes]] = []
        for entry in entries:
            try:
                named[entry.name.decode()] = entry
            except UnicodeDecodeError:
                others.append(entry)
        for entry in sorted(others, key=operator.attrgetter("name")):
            name = _text(entry.name)
            # Another file may have this very text for its name.
            while name in named:
                name = name.replace("\\x", "\\\\x", 1)
            named[name] = entry
        return named

    def _leads_up(self, folder: bytes, link: os.DirEntry[bytes]) -> bool:
        """Whether a link leads back to the folder that it lies in, or to one above."""
        target = link.stat()
        while not os.path.samestat(target, os.stat(folder)):
            if folder == self._folder:
                return False
            folder = os.path.dirname(folder)
        return True

    def _path(self, key: str) -> bytes:
        """Where a key or folder lies, as a listing shows it; its name in UTF-8 where there is nothing."""
        path = os.path.join(self._folder, key.removesuffix("/").encode()) if key else self._folder
        if "\\x" not in key or os.path.lexists(path):
            return path
        path = self._folder
        for name in key.removesuffix("/").split("/"):
            entry = self._entries(key, path).get(name)
            path = os.path.join(path, entry.name if entry else name.encode())
        return path

    # --- reading ------------------------------------------------------------------------------------------

    def read(self, key: str, etag: str) -> bytes:
        if not _is_relative(key):
            raise ObjectNameError(f"cannot read {self.uri}/{key!r}: its name leads elsewhere")
        path = self._path(key)
        if not _is_utf8(path.removeprefix(self._folder)) and os.path.lexists(path):
            raise ObjectNameError(f"cannot read {self.uri}/{key}: its name is not UTF-8; rename the file")
        try:
            with open(path, "rb") as file:
                body = file.read()
                # Once it is read, so that a change meanwhile is seen as well.
                found = _etag(os.fstat(file.fileno()))
        except (*_GONE, IsADirectoryError):
            raise ObjectChangedError from None
        if found != etag:
            raise ObjectChangedError
        return body

    def read_range(self, key: str, etag: str, start: int, end: int) -> bytes:
        try:
            with open(self._relative(key), "rb") as file:
                file.seek(start)
                body = file.read(end - start)
                found = _etag(os.fstat(file.fileno()))
        except _GONE:
            raise ObjectChangedError from None
        if found != etag:
            raise ObjectChangedError
        return body

    def read_latest(self, key: str) -> tuple[bytes, str] | None:
        try:
            with open(self._relative(key), "rb") as file:
                return file.read(), _etag(os.fstat(file.fileno()))
        except _GONE:
            return None

    def stream(self, key: str, offset: int, version: str | None) -> Streamed:
        file = open(self._relative(key), "rb")  # noqa: SIM115, closed by `pieces`
        status = os.fstat(file.fileno())

        def pieces() -> Iterator[bytes]:
            with file:
                file.seek(offset)
                while piece := file.read(_STREAMED_BYTES):
                    yield piece

        if version is not None and _etag(status) != version:
            file.close()
            raise OSError("it was replaced meanwhile")
        return Streamed(_etag(status), status.st_size, pieces())

    def _relative(self, key: str) -> bytes:
        if not is_plain(key):
            raise OSError("its name leads elsewhere")
        return os.path.join(self._folder, key.encode())

    # --- writing ------------------------------------------------------------------------------------------

    def put(self, key: str, body: bytes, version: str | None) -> str:
        return self._put(key, io.BytesIO(body), version)

    def put_file(self, key: str, path: str, version: str | None) -> str:
        with open(path, "rb") as file:
            return self._put(key, file, version)

    def _put(self, key: str, body: BinaryIO, version: str | None) -> str:
        path = self._inside(key)
        for left in reversed(range(_ROUNDS)):
            try:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with _locked(os.path.dirname(path)):
                    return _replace(path, body, version)
            except (FileNotFoundError, FileExistsError):
                # `delete` may remove the directory between any two steps, also while it is made.
                if not left:
                    raise
        raise AssertionError("unreachable")

    def delete(self, key: str, version: str) -> None:
        path = self._inside(key)
        folder = os.path.dirname(path)
        with contextlib.suppress(FileNotFoundError), _locked(folder):
            _remove_litter(folder)
            if _version(path) not in (version, None):
                raise ConflictError
            os.unlink(path)
        self._remove_empty(folder)

    def _inside(self, key: str) -> bytes:
        """The path of a file that is to be written."""
        path = self._relative(key)
        # Before anything is made: a link may lead elsewhere.
        real = os.path.realpath(os.path.dirname(path)) + b"/"
        if not real.startswith(os.path.realpath(self._folder) + b"/"):
            raise OSError("it lies outside by a link")
        return path

    def _remove_empty(self, folder: bytes) -> None:
        """Remove a directory that has become empty, and those above it, up to the store's own."""
        while folder != self._folder:
            try:
                # Nobody may be about to write into it.
                with contextlib.suppress(FileNotFoundError), _locked(folder):
                    os.rmdir(folder)
            except OSError:
                return
            folder = os.path.dirname(folder)

    def has_conditional_writes(self) -> bool:
        # The place is made by the first `put`: what must be writable is what is there of its path.
        existing = self._folder
        while not os.path.exists(existing):
            existing = os.path.dirname(existing)
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(bytes(2**16))  # A full disk still makes empty files.
        return True

    # --- failures -----------------------------------------------------------------------------------------

    def failure(self, error: Exception) -> Failure:
        # A disk that is asked again says the same again.
        return Failure.ONE_OBJECT

    def reason(self, error: Exception) -> str:
        # Without the path, which the sentence has.
        return (error.strerror if isinstance(error, OSError) else None) or super().reason(error)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _is_utf8(path: bytes) -> bool:
    try:
        path.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_relative(key: str) -> bool:
    """Whether a key leads nowhere but below the folder; a listing gives no other."""
    return not any(part in ("", ".", "..") or "\0" in part for part in key.split("/"))


def _info(key: str, status: os.stat_result) -> ObjectInfo | None:
    """What a listing says of a file; None for a device, a pipe and the like."""
    if not stat.S_ISREG(status.st_mode):
        return None
    modified = _EPOCH + dt.timedelta(microseconds=status.st_mtime_ns // 1000)
    return ObjectInfo(key, _etag(status), status.st_size, modified)


def _etag(status: os.stat_result) -> str:
    # As obstore gives it, by which rows of the table know their objects: 0 for times before 1970.
    changed = max(status.st_mtime_ns // 1000, 0)
    return f"{status.st_ino:x}-{changed:x}-{status.st_size:x}"


def _version(path: bytes) -> str | None:
    try:
        return _etag(os.stat(path))
    except FileNotFoundError:
        return None


def _replace(path: bytes, body: BinaryIO, version: str | None) -> str:
    """`put` of a file in a directory that is locked."""
    folder = os.path.dirname(path)
    _remove_litter(folder)
    if _version(path) != version:
        raise ConflictError
    temporary = os.path.join(folder, f".{secrets.token_hex(8)}.tmp".encode())
    try:
        with open(temporary, "wb") as file:
            body.seek(0)
            shutil.copyfileobj(body, file, _STREAMED_BYTES)
            file.flush()
            os.fsync(file.fileno())
            status = os.fstat(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    return _etag(status)


def _remove_litter(folder: bytes) -> None:
    # Whoever left a temporary file died while holding the lock.
    for litter in glob.glob(b".*.tmp", root_dir=folder):
        os.unlink(os.path.join(folder, litter))


@contextlib.contextmanager
def _locked(folder: bytes) -> Iterator[None]:
    """Hold an exclusive lock on a directory itself, so that no lock file is left behind.

    Raises:
        FileNotFoundError: it is not there, or was removed while others held the lock.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        # A directory that was removed and made again is another one, with another lock.
        if not os.path.samestat(os.fstat(handle), os.stat(folder)):
            raise FileNotFoundError(folder)
        yield
    finally:
        os.close(handle)
