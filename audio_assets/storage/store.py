"""The object store: list a folder, read an object, replace a file in one fenced step.

S3 (and what speaks its protocol: R2, MinIO, Ceph) and local folders behind one class, on obstore. Nothing
here knows what the bytes mean.
"""

import functools
import hashlib
import itertools
import logging
import pathlib
import re
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import boto3
import obstore
from botocore.exceptions import BotoCoreError, ClientError
from obstore.exceptions import AlreadyExistsError, InvalidPathError, NotModifiedError, PreconditionError
from obstore.store import LocalStore

from audio_assets.errors import ConflictError, ObjectChangedError, ObjectRefusedError, StorageError
from audio_assets.storage.local import LocalListing, replace_file
from audio_assets.storage.s3_client import S3Connection
from audio_assets.storage.s3_errors import EXPIRED, PASSING, error_code, may_be_one_object, may_pass, reason
from audio_assets.storage.s3_listing import S3Listing
from audio_assets.storage.types import ObjectInfo, RetryPolicy, is_plain

T = TypeVar("T")

PROBE = ".write-probe"
_STREAMED_BYTES = 2**20
_MD5 = re.compile(r"[0-9a-f]{32}")

_log = logging.getLogger(__name__)


class _DamagedError(RuntimeError):
    """What came is not what the store holds."""


# Answers rather than failures: asking again gives the same.
_ANSWERS = (
    *(FileNotFoundError, AlreadyExistsError, InvalidPathError, NotModifiedError, PreconditionError),
    *(ConflictError, ObjectChangedError, StorageError),
)


class ObjectStore:
    """A bucket's prefix or a local folder. Keys are relative to it, with `/` between folders.

    Args:
        uri: `s3://bucket/prefix` or `file:///folder`.
        open_session: where S3 credentials and region come from, by default as every AWS client reads them;
            called again when the credentials have expired.
        setting: the variable that names the place, for errors.
        endpoint_url: of a store other than AWS, by default AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL.
        retries: how long S3 is tried. A local disk is not asked twice.

    Raises:
        ValueError: the URI is neither, or the settings of AWS name no account or server.
    """

    def __init__(
        self,
        uri: str,
        open_session: Callable[[], boto3.Session] = boto3.Session,
        *,
        setting: str = "",
        endpoint_url: str | None = None,
        retries: RetryPolicy | None = None,
    ) -> None:
        self.uri = uri.rstrip("/")
        self._setting = f" ({setting})" if setting else ""
        self._retries = retries or RetryPolicy()
        self._etags_are_md5 = True
        parts = urllib.parse.urlsplit(self.uri)
        self._local: pathlib.Path | None = None
        self._local_store: LocalStore | None = None
        self._s3: S3Connection | None = None
        if parts.scheme == "file" and parts.path and parts.netloc in ("", "localhost"):
            # Not urlsplit's path: a folder may hold ? and #.
            self._local = pathlib.Path(
                urllib.parse.unquote(self.uri.split("://", 1)[1].removeprefix("localhost"))
            )
            self._listing = LocalListing(self.uri, self._open)
        elif parts.scheme == "s3" and parts.netloc:
            prefix = self.uri.split("://", 1)[1].partition("/")[2]
            try:
                self._s3 = S3Connection(
                    parts.netloc, prefix, open_session, endpoint_url, self._retries.stall_s
                )
            except (BotoCoreError, ValueError) as e:
                raise ValueError(f"the settings AWS_… do not reach {self.uri}: {reason(e)}") from None
            self._listing = S3Listing(prefix, self._open, self._list_objects)
        else:
            raise ValueError(
                f"{uri!r} is no location; it should read like s3://bucket/prefix or file:///folder{self._setting}"
            )

    def __repr__(self) -> str:
        return f"ObjectStore({self.uri!r})"

    def _repeat(
        self, what: str, key: str, request: Callable[[], T], retried: Callable[[str], object] | None = None
    ) -> T:
        """Make a request until it is answered.

        Args:
            what: for the error, such as `cannot read`.
            retried: told the reason of each failure that is followed by another attempt.

        Raises:
            StorageError: it failed for good.
        """
        for failures in itertools.count(1):
            began = time.monotonic()
            try:
                return request()
            except Exception as e:
                code = error_code(e)
                if isinstance(e, _ANSWERS) and code not in PASSING:
                    raise
                passes = self._s3 is not None and may_pass(e)
                if self._s3 and code in EXPIRED:
                    passes = self._s3.renew(began)
                why = reason(e)
                if not passes or failures >= self._retries.attempts:
                    times = f" ({failures} attempts)" if failures > 1 else ""
                    refused = self._s3 is None or may_be_one_object(e)
                    error = ObjectRefusedError if refused else StorageError
                    raise error(f"{what} {self.uri}/{key}: {why}{times}{self._setting}") from None
            _log.warning("%s %s/%s: %s; trying again", what, self.uri, key, why)
            if retried:
                retried(why)
            time.sleep(self._retries.pause(failures))
        raise AssertionError("unreachable")

    def _open(self) -> Any:
        if self._s3:
            return self._s3.store
        # A local folder can appear after this object was made; a missing one is reported where it is used.
        if self._local_store is None:
            assert self._local is not None
            if not self._local.is_dir():
                raise StorageError(
                    f"{self.uri} does not exist; make the folder or mend its setting{self._setting}"
                )
            self._local_store = LocalStore(self._local)
        return self._local_store

    def relative(self, other: "ObjectStore") -> str | None:
        """The key prefix of `other` inside this store, None where it lies elsewhere."""
        inner, outer = (
            f"{store._local.resolve() if store._local else store.uri}/" for store in (other, self)
        )
        return inner.removeprefix(outer) if inner.startswith(outer) else None

    # --- listing --------------------------------------------------------------------------------------

    def scan(self, after: str = "", until: str | None = None) -> Iterator[tuple[str, list[ObjectInfo]]]:
        """All objects at any depth, in the order of their keys; holds one page of them at a time.

        Args:
            after: the key to go on behind.
            until: the last key that may come, None for all.

        Yields:
            The key up to which the store has been listed, and the objects since the last one.

        Raises:
            StorageError: the store cannot be listed.
        """
        return self._listing.scan(after, until)

    def scan_folder(self, prefix: str = "") -> Iterator[list[ObjectInfo]]:
        """The objects right in one folder, a page at a time.

        Args:
            prefix: empty, or a folder's name that ends with `/`.

        Raises:
            StorageError: the store cannot be listed.
        """
        return self._listing.scan_folder(prefix)

    def cuts(self, after: str, until: str | None) -> list[str]:
        """Folders between two keys, at which a scan may be cut into scans side by side.

        A hint: those of the outermost level that has some, at most a page of them, for one request a level.

        Raises:
            StorageError: the store cannot be listed.
        """
        return self._listing.cuts(after, until)

    def find(self, key: str) -> ObjectInfo | None:
        """What a listing says of one object, None where there is none.

        Raises:
            StorageError: the store cannot be listed.
        """
        return self._listing.find(key)

    def list_keys(self, prefix: str) -> Iterator[str]:
        """The keys of all objects below a folder, at any depth."""
        if self._local is not None and not self._local.is_dir():
            return
        pages: Any = None
        reached: str | None = None

        def next_page() -> Any:
            nonlocal pages
            if pages is None:
                pages = obstore.list(self._open(), prefix=prefix.rstrip("/") or None, offset=reached)
            try:
                return next(pages, None)
            except Exception:
                # What has failed goes on no more: another attempt begins behind what has come.
                pages = None
                raise

        while page := self._repeat("cannot list", prefix, next_page):
            for found in page:
                yield found["path"]
            reached = page[-1]["path"]

    def _list_objects(self, **options: Any) -> Any:
        """A page of boto3's listing."""
        s3 = self._s3
        assert s3 is not None
        return self._repeat(
            "cannot list",
            options["Prefix"].removeprefix(s3.prefix).lstrip("/"),
            # Looked up at each attempt: renewed credentials come with another client.
            lambda: s3.client.list_objects_v2(Bucket=s3.bucket, **options),
        )

    # --- reading --------------------------------------------------------------------------------------

    def read(self, info: ObjectInfo, retried: Callable[[str], object] | None = None) -> bytes:
        """The bytes of exactly the version that was listed.

        Args:
            retried: told the reason of each failure that is followed by another attempt.

        Raises:
            ObjectChangedError: it was deleted or overwritten since.
            ObjectRefusedError: the store does not give it.
            StorageError: it cannot be read.
        """
        etag = info.etag if info.etag.startswith("W/") else f'"{info.etag}"'
        seen: set[str] = set()

        def request() -> bytes:
            if is_plain(info.key):
                body = bytes(obstore.get(self._open(), info.key, options={"if_match": etag}).bytes())
            else:
                body = self._read_odd_name(info, etag)
            if len(body) != info.size:
                raise _DamagedError(f"came with {len(body)} bytes instead of {info.size}")
            self._check(body, etag, seen)
            return body

        try:
            return self._repeat("cannot read", info.key, request, retried)
        except (FileNotFoundError, PreconditionError, NotModifiedError):
            raise _changed(info) from None

    def _read_odd_name(self, info: ObjectInfo, etag: str) -> bytes:
        if self._s3 is None:
            raise ObjectRefusedError(f"cannot read {self.uri}/{info.key!r}: rename the file")
        key = f"{self._s3.prefix}/{info.key}" if self._s3.prefix else info.key
        try:
            return self._s3.client.get_object(Bucket=self._s3.bucket, Key=key, IfMatch=etag)["Body"].read()
        except ClientError as e:
            if e.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in (404, 412):
                raise _changed(info) from None
            raise

    def read_latest(self, key: str) -> tuple[bytes, str] | None:
        """The newest bytes of a file and its version, None where there is none."""
        if self._local is not None and not self._local.is_dir():
            return None
        seen: set[str] = set()

        def request() -> tuple[bytes, str]:
            result = obstore.get(self._open(), key)
            body, version = bytes(result.bytes()), result.meta["e_tag"] or ""
            self._check(body, version, seen)
            return body, version

        try:
            return self._repeat("cannot read", key, request)
        except FileNotFoundError:
            return None

    def _check(self, body: bytes, etag: str, seen: set[str]) -> None:
        """Compare bytes of S3 with their ETag, which is their MD5 unless they are encrypted by SSE-KMS or
        SSE-C or came in several parts.

        Args:
            seen: MD5s of earlier attempts that differed.
        """
        expected = etag.strip('"')
        if self._s3 is None or not self._etags_are_md5 or not _MD5.fullmatch(expected):
            return
        found = hashlib.md5(body, usedforsecurity=False).hexdigest()
        if found == expected:
            return
        if found not in seen:
            seen.add(found)
            raise _DamagedError("came with other bytes than its ETag stands for")
        # Damage is never twice the same: these are the bytes, and ETags here are no MD5s. Once is enough to
        # learn that; reading each object twice for ever is not worth it.
        self._etags_are_md5 = False

    def stream(self, key: str) -> Iterator[bytes]:
        """The newest bytes of a file, piece by piece; where the connection breaks it goes on behind the last.

        Raises:
            StorageError: it cannot be read, is not there, or was replaced meanwhile.
        """
        pieces: Any = None
        options: Any = {}
        reached, size = 0, None

        def next_piece() -> Any:
            nonlocal pieces, size
            if reached == size:
                return None
            if pieces is None:
                found = obstore.get(self._open(), key, options=options)
                pieces, size = iter(found.stream(_STREAMED_BYTES)), found.meta["size"]
                options["if_match"] = found.meta["e_tag"]
            try:
                return next(pieces, None)
            except Exception:
                pieces = None
                raise

        try:
            while piece := self._repeat("cannot read", key, next_piece):
                yield bytes(piece)
                reached += len(piece)
                options["range"] = {"offset": reached}
        except (FileNotFoundError, PreconditionError, NotModifiedError) as e:
            raise StorageError(f"cannot read {self.uri}/{key}: {reason(e)}{self._setting}") from None

    # --- writing --------------------------------------------------------------------------------------

    @functools.cached_property
    def conditional_writes(self) -> bool:
        """Whether two runs cannot overwrite each other's files here; asks the store once.

        On S3 this leaves an empty object `.write-probe`, which must then be neither created again nor
        replaced as a version that it never had. It stays, since deleting may not be allowed.

        Raises:
            StorageError: nothing can be written here.
        """

        def refused(mode: Any) -> bool:
            try:
                obstore.put(self._open(), PROBE, b"", mode=mode)
            except (AlreadyExistsError, PreconditionError) as e:
                if error_code(e) in PASSING:
                    raise
                return True
            return False

        def request() -> bool:
            if self._local is not None:
                existing = next(p for p in (self._local, *self._local.parents) if p.exists())
                with tempfile.TemporaryFile(dir=existing) as file:
                    file.write(bytes(2**16))  # A full disk still makes empty files.
                return True
            return (refused("create") or refused("create")) and refused({"e_tag": '"none"'})

        try:
            return self._repeat("cannot write", "", request)
        except FileNotFoundError as e:
            raise StorageError(f"cannot write {self.uri}/: {reason(e)}{self._setting}") from None

    def replace(self, key: str, body: bytes, version: str | None) -> None:
        """Replace a file as a whole, if it is still the one that was read.

        S3 does this by a conditional PUT; a local folder by a lock on the file's directory, a comparison and
        a rename.

        Args:
            version: what `read_latest` gave, None where there was no file.

        Raises:
            ConflictError: the file has another version by now.
            StorageError: it cannot be written.
        """

        def request() -> None:
            if self._local is not None:
                replace_file(self._local, key, body, version)
            else:
                mode: Any = "create" if version is None else {"e_tag": version}
                obstore.put(self._open(), key, body, mode=mode)

        try:
            self._repeat("cannot write", key, request)
        except (AlreadyExistsError, PreconditionError, ConflictError, FileNotFoundError) as e:
            if isinstance(e, FileNotFoundError) and error_code(e) != "NoSuchKey":
                raise StorageError(f"cannot write {self.uri}/{key}: {reason(e)}{self._setting}") from None
            # The answer to a write that took effect may be lost; the next attempt meets what it wrote.
            found = self.read_latest(key)
            if found is None or found[0] != body:
                raise ConflictError(f"{self.uri}/{key} was replaced by another run meanwhile") from None


def _changed(info: ObjectInfo) -> ObjectChangedError:
    return ObjectChangedError(f"deleted or overwritten after it was listed with ETag {info.etag}")
