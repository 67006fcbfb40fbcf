"""The object store: what a place holds, read and written safely, whatever kind of store it is.

Three things are added to a backend. What fails is tried again (`retry`). What was read is verified
(`verify`). A file is replaced or deleted only in the version that was read (optimistic concurrency). Nothing
here knows what the bytes mean, or what kind of store holds them.
"""

import functools
import itertools
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from audio_assets.errors import ConflictError, ObjectChangedError
from audio_assets.storage.local import LocalBackend
from audio_assets.storage.retry import Retrying, RetryPolicy
from audio_assets.storage.s3 import S3Backend
from audio_assets.storage.types import LOCATIONS, BackendOptions, ObjectInfo, OpenBackend
from audio_assets.storage.verify import Verifier

if TYPE_CHECKING:
    import boto3

BACKENDS: dict[str, OpenBackend] = {"s3": S3Backend, "file": LocalBackend}
"""What opens the places of a URI scheme. A user's own module adds to it: `BACKENDS["gs"] = GcsBackend`."""


class ObjectStore:
    """A bucket's prefix or a local folder. Keys are relative to it, with `/` between folders.

    Args:
        uri: `s3://bucket/prefix`, `file:///folder`, or of another scheme in `BACKENDS`.
        open_session: where S3 credentials and region come from, by default as every AWS client finds them;
            called again when the credentials have expired.
        name: what the place is called in errors, e.g. the setting that names it.
        endpoint_url: of a store other than AWS, by default AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL.
        retries: how often the store is asked. A local disk is asked once.

    Raises:
        ValueError: the URI is no location, or the settings of AWS name no account or server.
    """

    def __init__(
        self,
        uri: str,
        open_session: "Callable[[], boto3.Session] | None" = None,
        *,
        name: str = "",
        endpoint_url: str | None = None,
        retries: RetryPolicy | None = None,
    ) -> None:
        self.uri = uri.rstrip("/")
        self.name = name
        retries = retries or RetryPolicy()
        named = f" ({name})" if name else ""
        scheme, separator, _ = self.uri.partition("://")
        if not separator or scheme not in BACKENDS:
            raise ValueError(
                f"{uri!r} is no location; it should read like {LOCATIONS}"
                f" (known schemes: {', '.join(sorted(BACKENDS))}){named}"
            )
        options = BackendOptions(retries.stall_s, open_session, endpoint_url)
        try:
            self._backend = BACKENDS[scheme](self.uri, options)
        except ValueError as e:
            raise ValueError(f"{e}{named}") from None
        self._retrying = Retrying(self._backend, retries, named)
        self._verifier = Verifier(self._backend.etags_are_md5)

    def __repr__(self) -> str:
        return f"ObjectStore({self.uri!r})"

    def relative(self, other: "ObjectStore") -> str | None:
        """The key prefix of `other` inside this store, None where it lies elsewhere."""
        inner = f"{other._backend.root}/"
        outer = f"{self._backend.root}/"
        return inner.removeprefix(outer) if inner.startswith(outer) else None

    # --- listing ------------------------------------------------------------------------------------------

    def scan(self, after: str = "", until: str | None = None) -> Iterator[tuple[str, list[ObjectInfo]]]:
        """All objects at any depth, in the order of their keys; holds one page of them at a time.

        Args:
            after: the scan begins with the first key after this one.
            until: the last key that may come, None for all.

        Yields:
            The key up to which the store has been listed, and the objects since the last such key.

        Raises:
            StorageError: the store cannot be listed.
        """
        return self._retrying.resumed(
            "cannot list", "", lambda last: self._backend.scan(last[0] if last else after, until)
        )

    def scan_folder(self, folder: str = "") -> Iterator[list[ObjectInfo]]:
        """The objects right in one folder, a page at a time.

        Args:
            folder: empty, or a folder's name that ends with `/`.

        Raises:
            StorageError: the store cannot be listed.
        """
        pages = self._retrying.resumed(
            "cannot list", folder, lambda last: self._backend.scan_folder(folder, last[0] if last else "")
        )
        return (page for _, page in pages)

    def list_files(self, folder: str) -> Iterator[tuple[str, str]]:
        """Key and version of each file below a folder, at any depth, in the order of the keys.

        None where the place is not there. The version is what `read_latest` and `replace` give.

        Raises:
            StorageError: the store cannot be listed.
        """
        pages = self._retrying.resumed(
            "cannot list", folder, lambda last: self._backend.files(folder, last[-1][0] if last else "")
        )
        return itertools.chain.from_iterable(pages)

    def cuts(self, after: str, until: str | None) -> list[str]:
        """Folders between two keys, at which a scan may be cut into scans side by side.

        A hint: those of the outermost level that has some, at most a page of them, for one request a level.

        Raises:
            StorageError: the store cannot be listed.
        """
        return self._retrying.request("cannot list", "", lambda: self._backend.cuts(after, until))

    def find(self, key: str) -> ObjectInfo | None:
        """What a listing says of one object, None where there is none.

        Raises:
            StorageError: the store cannot be listed.
        """
        return self._retrying.request("cannot list", key, lambda: self._backend.find(key))

    # --- reading ------------------------------------------------------------------------------------------

    def read(self, info: ObjectInfo, retried: Callable[[str], object] | None = None) -> bytes:
        """The bytes of exactly the version that was listed.

        Args:
            retried: told the reason of each failure that is followed by another attempt.

        Raises:
            ObjectChangedError: it was deleted or overwritten since.
            ObjectRefusedError: the store does not give this object; says nothing of the place's name.
            StorageError: it cannot be read.
        """
        seen: set[str] = set()

        def request() -> bytes:
            body = self._backend.read(info.key, info.etag)
            self._verifier.check_size(body, info.size)
            self._verifier.check_etag(body, info.etag, seen)
            return body

        try:
            return self._retrying.request("cannot read", info.key, request, retried, may_be_refused=True)
        except ObjectChangedError:
            raise ObjectChangedError(
                f"deleted or overwritten after it was listed with ETag {info.etag}"
            ) from None

    def read_latest(self, key: str) -> tuple[bytes, str] | None:
        """The newest bytes of a file and its version, None where there is none.

        Raises:
            StorageError: it cannot be read.
        """
        seen: set[str] = set()

        def request() -> tuple[bytes, str] | None:
            found = self._backend.read_latest(key)
            if found is not None:
                self._verifier.check_etag(*found, seen)
            return found

        return self._retrying.request("cannot read", key, request)

    def read_range(self, info: ObjectInfo, start: int, end: int) -> bytes:
        """Some bytes of exactly the version that was listed, from `start` up to `end`, which it has.

        Raises:
            ObjectChangedError: it was deleted or overwritten since.
            StorageError: they cannot be read.
        """

        def request() -> bytes:
            body = self._backend.read_range(info.key, info.etag, start, end)
            self._verifier.check_size(body, end - start)
            return body

        try:
            return self._retrying.request("cannot read", info.key, request)
        except ObjectChangedError:
            raise ObjectChangedError(
                f"{self.uri}/{info.key} was deleted or overwritten after it was listed"
            ) from None

    def stream(self, key: str) -> Iterator[bytes]:
        """The newest bytes of a file, piece by piece; a connection that breaks is opened again at the byte
        that was reached.

        Raises:
            StorageError: it cannot be read, is not there, or was replaced meanwhile.
        """
        reached = 0
        size: int | None = None
        version: str | None = None

        def rest(_: bytes | None) -> Iterator[bytes]:
            nonlocal size, version
            if reached == size:
                return iter(())
            version, size, pieces = self._backend.stream(key, reached, version)
            return pieces

        for piece in self._retrying.resumed("cannot read", key, rest):
            yield piece
            reached += len(piece)

    # --- writing ------------------------------------------------------------------------------------------

    @functools.cached_property
    def conditional_writes(self) -> bool:
        """Whether two runs cannot overwrite each other's files here; asks the store once.

        Raises:
            StorageError: nothing can be written here.
        """
        return self._retrying.request("cannot write", "", self._backend.has_conditional_writes)

    @functools.cached_property
    def conditional_deletes(self) -> bool:
        """Whether a run cannot delete what another one has written here; asks the store once.

        Raises:
            StorageError: nothing can be written here, or the store does not answer.
        """
        # Which leaves the file that the store is asked to delete.
        if not self.conditional_writes:
            return False
        return self._retrying.request("cannot delete", "", self._backend.has_conditional_deletes)

    def replace(self, key: str, body: bytes, version: str | None) -> str:
        """Replace a file as a whole, if it is still the one that was read.

        Args:
            version: what `read_latest` gave, None where there was no file.

        Returns:
            The new version.

        Raises:
            ConflictError: the file has another version by now.
            StorageError: it cannot be written.
        """
        try:
            return self._retrying.request("cannot write", key, lambda: self._backend.put(key, body, version))
        except ConflictError:
            # The answer to a write that took effect may be lost; the next attempt meets what it wrote.
            found = self.read_latest(key)
            if found is not None and found[0] == body:
                return found[1]
            raise self._conflict(key) from None

    def replace_by_file(self, key: str, path: str, version: str | None) -> str:
        """As `replace`, by the bytes of a local file, which need not fit into memory.

        Raises:
            ConflictError: the file has another version by now.
            StorageError: it cannot be written.
        """
        try:
            return self._retrying.request(
                "cannot write", key, lambda: self._backend.put_file(key, path, version)
            )
        except ConflictError:
            # As in `replace`.
            found = self.find(key)
            if found is not None and self._holds(found, path):
                return found.etag
            raise self._conflict(key) from None

    def _holds(self, info: ObjectInfo, path: str) -> bool:
        """Whether an object has the bytes of a local file."""
        if info.size != os.path.getsize(path):
            return False
        with open(path, "rb") as file:
            return all(piece == file.read(len(piece)) for piece in self.stream(info.key))

    def delete(self, key: str, version: str) -> None:
        """Delete a file if it is still the one that was read; one that is gone already is fine.

        Args:
            version: what `read_latest`, `list_files` or `replace` gave.

        Raises:
            ConflictError: the file has another version by now.
            StorageError: it cannot be deleted.
        """
        try:
            self._retrying.request("cannot delete", key, lambda: self._backend.delete(key, version))
        except ConflictError:
            # Some servers answer so where there is no file; a lost answer may have been to its deletion.
            if self.read_latest(key) is not None:
                raise self._conflict(key) from None

    def _conflict(self, key: str) -> ConflictError:
        return ConflictError(f"{self.uri}/{key} was replaced by another run meanwhile")
