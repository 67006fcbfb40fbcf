"""S3 as a store: how a bucket is listed, read and written.

Bytes go through obstore; boto3 takes over for names that obstore refuses. Also for what speaks S3's protocol:
R2, MinIO, Ceph.
"""

import mimetypes
from collections.abc import Iterator
from typing import Any

import obstore
from botocore.exceptions import BotoCoreError, ClientError
from obstore.exceptions import AlreadyExistsError, NotModifiedError, PreconditionError

from audio_assets.errors import ConflictError, ObjectChangedError, ObjectNameError
from audio_assets.storage import s3_errors
from audio_assets.storage.obstore_io import is_plain, quoted, version_of
from audio_assets.storage.s3_client import S3Connection
from audio_assets.storage.s3_listing import S3Listing
from audio_assets.storage.types import (
    LOCATIONS,
    ONE_SLASH,
    WRITE_PROBE,
    Backend,
    BackendOptions,
    Failure,
    ObjectInfo,
    Streamed,
)

_STREAMED_BYTES = 2**20


class S3Backend(Backend):
    """A bucket, or a prefix of one: `s3://bucket/prefix`. `Backend` says what the methods do."""

    etags_are_md5 = True

    def __init__(self, uri: str, options: BackendOptions) -> None:
        self.uri = uri
        bucket, _, prefix = uri.partition("://")[2].partition("/")
        if not bucket:
            raise ValueError(f"{uri!r} is no location; it should read like {LOCATIONS}")
        if prefix and not is_plain(prefix):
            raise ValueError(f"{uri!r} is no location; it should read like {LOCATIONS}, {ONE_SLASH}")
        try:
            self._connection = S3Connection(bucket, prefix, options)
        except (BotoCoreError, ValueError) as e:
            raise ValueError(f"the settings AWS_… do not reach {uri}: {s3_errors.reason(e)}") from None
        self._listing = S3Listing(self._connection)

    @property
    def root(self) -> str:
        return self.uri

    # --- listing: see s3_listing ------------------------------------------------------------------------

    def scan(self, after: str, until: str | None) -> Iterator[tuple[str, list[ObjectInfo]]]:
        return self._listing.scan(after, until)

    def scan_folder(self, folder: str, after: str) -> Iterator[tuple[str, list[ObjectInfo]]]:
        return self._listing.scan_folder(folder, after)

    def files(self, folder: str, after: str) -> Iterator[list[tuple[str, str]]]:
        return self._listing.files(folder, after)

    def cuts(self, after: str, until: str | None) -> list[str]:
        return self._listing.cuts(after, until)

    def find(self, key: str) -> ObjectInfo | None:
        return self._listing.find(key)

    # --- reading ------------------------------------------------------------------------------------------

    def read(self, key: str, etag: str) -> bytes:
        if_match = quoted(etag)
        try:
            if is_plain(key):
                return bytes(obstore.get(self._connection.store, key, options={"if_match": if_match}).bytes())
            return self._connection.get_object(key, IfMatch=if_match)
        except (FileNotFoundError, PreconditionError, NotModifiedError, ClientError) as e:
            if not s3_errors.says_gone_or_changed(e):
                raise
            # obstore lists `x.flac/` as `x.flac`, which no page shows where nothing lies below it.
            like_folder = self.find(f"{key}/") if s3_errors.says_gone(e) else None
            if like_folder is not None and like_folder.etag == etag:
                raise ObjectNameError(
                    f"cannot read {self.uri}/{key}/: its key ends in a slash, as a folder's does;"
                    " rename the object"
                ) from None
            raise ObjectChangedError from None

    def read_range(self, key: str, etag: str, start: int, end: int) -> bytes:
        options: Any = {"if_match": quoted(etag), "range": (start, end)}
        try:
            return bytes(obstore.get(self._connection.store, key, options=options).bytes())
        except (FileNotFoundError, PreconditionError, NotModifiedError) as e:
            if s3_errors.says_gone_or_changed(e):
                raise ObjectChangedError from None
            raise

    def read_latest(self, key: str) -> tuple[bytes, str] | None:
        try:
            found = obstore.get(self._connection.store, key)
            return bytes(found.bytes()), version_of(found.meta)
        except FileNotFoundError:
            return None

    def stream(self, key: str, offset: int, version: str | None) -> Streamed:
        options: Any = {"range": {"offset": offset}} if offset else {}
        if version is not None:
            options["if_match"] = quoted(version)
        found = obstore.get(self._connection.store, key, options=options)
        pieces = map(bytes, found.stream(_STREAMED_BYTES))
        return Streamed(version_of(found.meta), found.meta["size"], pieces)

    # --- writing ------------------------------------------------------------------------------------------

    def put(self, key: str, body: bytes, version: str | None) -> str:
        # A conditional PUT: If-None-Match where there must be no object, else If-Match.
        mode: Any = "create" if version is None else {"e_tag": quoted(version)}
        try:
            # By it, a browser shows a page rather than saving it.
            kind = mimetypes.guess_type(key)[0] if key.endswith((".html", ".css", ".js")) else None
            attributes: Any = {"Content-Type": f"{kind}; charset=utf-8"} if kind else None
            return version_of(
                obstore.put(self._connection.store, key, body, mode=mode, attributes=attributes)
            )
        except (AlreadyExistsError, PreconditionError, FileNotFoundError) as e:
            if s3_errors.says_conflict(e):
                raise ConflictError from None
            raise

    def put_file(self, key: str, path: str, version: str | None) -> str:
        # By boto3, for obstore reads a whole file into memory to write it under a condition.
        condition = {"IfNoneMatch": "*"} if version is None else {"IfMatch": quoted(version)}
        try:
            return self._connection.put_file(key, path, **condition)
        except ClientError as e:
            if s3_errors.says_conflict_of(e):
                raise ConflictError from None
            raise

    def delete(self, key: str, version: str) -> None:
        # By boto3, for obstore cannot delete under a condition.
        try:
            self._connection.delete_object(key, IfMatch=quoted(version))
        except ClientError as e:
            if s3_errors.error_code(e) == "NoSuchKey":
                return
            if s3_errors.says_changed(e):
                raise ConflictError from None
            raise

    def has_conditional_writes(self) -> bool:
        """Whether S3's answers show that it looks at If-None-Match and at If-Match.

        An empty object `.write-probe` must be neither created twice nor replaced as a version that it never
        had. It stays, since deleting may not be allowed.
        """

        def refused(version: str | None) -> bool:
            try:
                self.put(WRITE_PROBE, b"", version)
            except ConflictError:
                return True
            return False

        return (refused(None) or refused(None)) and refused("none")

    def has_conditional_deletes(self) -> bool:
        """Whether S3's answer shows that it looks at If-Match here too.

        `.write-probe` must not be deleted as a version that it never had.
        """
        try:
            self._connection.delete_object(WRITE_PROBE, IfMatch=quoted("none"))
        except ClientError as e:
            # Without the condition, a DELETE of what is not there succeeds. Whoever may not delete is told so
            # by the file that is to be deleted.
            gone = s3_errors.error_code(e) == "NoSuchKey"
            if gone or s3_errors.says_changed(e) or s3_errors.says_forbidden(e):
                return True
            raise
        return False

    # --- failures: see s3_errors ------------------------------------------------------------------------

    def failure(self, error: Exception) -> Failure:
        return s3_errors.failure(error)

    def reason(self, error: Exception) -> str:
        return s3_errors.reason(error)

    def renew_credentials(self, since: float) -> bool:
        return self._connection.renew(since)
