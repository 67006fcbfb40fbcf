"""The object store: list a folder, read an object, replace a file in one fenced step.

S3 (and what speaks its protocol: R2, MinIO, Ceph) and local folders behind one class, on obstore. Nothing
here knows what the bytes mean.
"""

import contextlib
import dataclasses
import datetime as dt
import fcntl
import os
import pathlib
import re
import secrets
import urllib.parse
from collections.abc import Iterator
from typing import Any

import boto3
import obstore
from botocore.client import BaseClient
from botocore.exceptions import ClientError
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.exceptions import AlreadyExistsError, InvalidPathError, NotModifiedError, PreconditionError
from obstore.store import LocalStore, S3Store

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class StorageError(RuntimeError):
    """The store did not do what was asked, after all retries; names the object and the store."""


class ObjectChangedError(RuntimeError):
    """The object is gone, or is no longer the version that was asked for."""


class ConflictError(RuntimeError):
    """Somebody else replaced the file since it was read; read again and decide anew."""


@dataclasses.dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a listing says of an object.

    Attributes:
        key: relative to the store's root.
        etag: without quotes.
        size: bytes.
        last_modified: UTC.
    """

    key: str
    etag: str
    size: int
    last_modified: dt.datetime


@dataclasses.dataclass(frozen=True)
class Folder:
    """One level of a store: the names of folders below it, and the objects right in it."""

    subfolders: list[str]
    objects: list[ObjectInfo]


class ObjectStore:
    """A bucket's prefix or a local folder. Keys are relative to it, with `/` between folders.

    Args:
        uri: `s3://bucket/prefix` or `file:///folder`.
        session: where S3 credentials and region come from; by default as every AWS client reads them.
        endpoint_url: of a store other than AWS, by default AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL.

    Raises:
        ValueError: the URI is neither.
    """

    def __init__(
        self, uri: str, session: boto3.Session | None = None, *, endpoint_url: str | None = None
    ) -> None:
        self.uri = uri.rstrip("/")
        parts = urllib.parse.urlsplit(self.uri)
        self._local: pathlib.Path | None = None
        self._client: BaseClient | None = None
        if parts.scheme == "file" and parts.path and parts.netloc in ("", "localhost"):
            # Not urlsplit's path: a folder may hold ? and #.
            self._local = pathlib.Path(
                urllib.parse.unquote(self.uri.split("://", 1)[1].removeprefix("localhost"))
            )
            self._store: Any = None
        elif parts.scheme == "s3" and parts.netloc:
            self._bucket = parts.netloc
            self._prefix = self.uri.split("://", 1)[1].partition("/")[2]
            session = session or boto3.Session()
            self._client = session.client("s3", endpoint_url=endpoint_url)
            self._store = _s3_store(self._bucket, self._prefix, session, self._client)
        else:
            raise ValueError(
                f"{uri!r} is no location; it should read like s3://bucket/prefix or file:///folder"
            )

    def __repr__(self) -> str:
        return f"ObjectStore({self.uri!r})"

    def _open(self) -> Any:
        # A local folder can appear after this object was made; a missing one is reported where it is used.
        if self._store is None:
            assert self._local is not None
            if not self._local.is_dir():
                raise StorageError(
                    f"{self.uri} does not exist; make the folder or mend the setting that names it"
                )
            self._store = LocalStore(self._local)
        return self._store

    def relative(self, other: "ObjectStore") -> str | None:
        """The key prefix of `other` inside this store, None where it lies elsewhere."""
        inner, outer = (
            f"{store._local.resolve() if store._local else store.uri}/" for store in (other, self)
        )
        return inner.removeprefix(outer) if inner.startswith(outer) else None

    # --- listing --------------------------------------------------------------------------------------

    def list_folder(self, prefix: str = "") -> Folder:
        """List one level.

        Args:
            prefix: empty, or a folder's name that ends with `/`.

        Raises:
            StorageError: the store cannot be listed.
        """
        folder = prefix.removesuffix("/")
        if prefix and not _is_plain(folder):
            return self._list_odd_names(prefix)
        store = self._open()
        try:
            found = obstore.list_with_delimiter(store, folder or None)
        except InvalidPathError:
            return self._list_odd_names(prefix)
        except Exception as e:
            raise StorageError(f"cannot list {self.uri}/{prefix}: {_reason(e)}") from e
        # The console of S3 marks a folder by an empty object of its own name, which is no audio.
        objects = [_info(o) for o in found["objects"] if o["path"] + "/" != prefix]
        return Folder([name.removesuffix("/") for name in found["common_prefixes"]], objects)

    def list(self, prefix: str) -> Iterator[str]:
        """The keys of all objects below a folder, at any depth."""
        if self._local is not None and not self._local.is_dir():
            return
        try:
            for batch in obstore.list(self._open(), prefix=prefix.rstrip("/") or None):
                for found in batch:
                    yield found["path"]
        except Exception as e:
            raise StorageError(f"cannot list {self.uri}/{prefix}: {_reason(e)}") from e

    def _list_odd_names(self, prefix: str) -> Folder:
        """List a folder of S3 that holds keys which obstore refuses, such as `a//b` or control characters."""
        if self._client is None:
            raise StorageError(
                f"{self.uri}/{prefix} holds a name with control characters or not in UTF-8; rename the file"
            )
        root = f"{self._prefix}/" if self._prefix else ""
        folders, objects = [], []
        try:
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=root + prefix, Delimiter="/"
            )
            for page in pages:
                folders += [
                    p["Prefix"].removeprefix(root).removesuffix("/") for p in page.get("CommonPrefixes", [])
                ]
                for found in page.get("Contents", []):
                    if found["Key"] != root + prefix:
                        key, etag = found["Key"].removeprefix(root), found["ETag"].strip('"')
                        modified = found["LastModified"].astimezone(dt.UTC)
                        objects.append(ObjectInfo(key, etag, found["Size"], modified))
        except ClientError as e:
            raise StorageError(f"cannot list {self.uri}/{prefix}: {e}") from e
        return Folder(folders, objects)

    # --- reading --------------------------------------------------------------------------------------

    def read(self, info: ObjectInfo) -> bytes:
        """The bytes of exactly the version that was listed.

        Raises:
            ObjectChangedError: it was deleted or overwritten since.
            StorageError: it cannot be read.
        """
        etag = info.etag if info.etag.startswith("W/") else f'"{info.etag}"'
        try:
            if not _is_plain(info.key):
                return self._read_odd_name(info, etag)
            body = bytes(obstore.get(self._open(), info.key, options={"if_match": etag}).bytes())
        except ObjectChangedError:
            raise
        except (FileNotFoundError, PreconditionError, NotModifiedError) as e:
            raise _changed(info) from e
        except Exception as e:
            raise StorageError(f"cannot read {self.uri}/{info.key}: {_reason(e)}") from e
        if len(body) != info.size:
            raise StorageError(f"{self.uri}/{info.key} came with {len(body)} bytes instead of {info.size}")
        return body

    def _read_odd_name(self, info: ObjectInfo, etag: str) -> bytes:
        if self._client is None:
            raise StorageError(f"cannot read {self.uri}/{info.key!r}: rename the file")
        key = f"{self._prefix}/{info.key}" if self._prefix else info.key
        try:
            return self._client.get_object(Bucket=self._bucket, Key=key, IfMatch=etag)["Body"].read()
        except ClientError as e:
            if e.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in (404, 412):
                raise _changed(info) from e
            raise StorageError(f"cannot read {self.uri}/{info.key}: {e}") from e

    def read_latest(self, key: str) -> tuple[bytes, str] | None:
        """The newest bytes of a file and its version, None where there is none."""
        if self._local is not None and not self._local.is_dir():
            return None
        try:
            result = obstore.get(self._open(), key)
            return bytes(result.bytes()), result.meta["e_tag"] or ""
        except FileNotFoundError:
            return None
        except Exception as e:
            raise StorageError(f"cannot read {self.uri}/{key}: {_reason(e)}") from e

    # --- writing --------------------------------------------------------------------------------------

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
        try:
            if self._local is not None:
                _replace_local(self._local / key, body, version)
            else:
                obstore.put(self._store, key, body, mode="create" if version is None else {"e_tag": version})
        except (AlreadyExistsError, PreconditionError, ConflictError) as e:
            raise ConflictError(f"{self.uri}/{key} was replaced by another run meanwhile") from e
        except Exception as e:
            raise StorageError(f"cannot write {self.uri}/{key}: {_reason(e)}") from e


def _s3_store(bucket: str, prefix: str, session: boto3.Session, client: BaseClient) -> S3Store:
    endpoint = client.meta.endpoint_url
    elsewhere: dict[str, Any] = {} if "amazonaws.com" in endpoint else {"endpoint": endpoint}
    region = client.meta.region_name
    has_credentials = session.get_credentials() is not None
    return S3Store(
        bucket,
        prefix=prefix or None,
        **elsewhere,
        # What S3 answers for where nothing is set.
        region="us-east-1" if region in (None, "aws-global") else region,
        credential_provider=Boto3CredentialProvider(session=session) if has_credentials else None,
        # Public buckets are read without an account, as `aws s3 --no-sign-request` does.
        skip_signature=not has_credentials,
        client_options={"allow_http": True, "timeout": "60s"},
        retry_config={"max_retries": 10, "retry_timeout": dt.timedelta(minutes=3)},
    )


def _info(found: Any) -> ObjectInfo:
    etag = (found["e_tag"] or "").strip('"')
    return ObjectInfo(found["path"], etag, found["size"], found["last_modified"])


def _is_plain(path: str) -> bool:
    """Whether obstore takes a path: it refuses empty and dot segments and control characters."""
    return not any(part in ("", ".", "..") or _CONTROL.search(part) for part in path.split("/"))


def _changed(info: ObjectInfo) -> ObjectChangedError:
    return ObjectChangedError(f"deleted or overwritten after it was listed with ETag {info.etag}")


def _reason(e: Exception) -> str:
    """What S3 answered where it did, else the first line of an exception."""
    if answer := re.search(r"<Code>(.*?)</Code>\s*(?:<Message>(.*?)</Message>)?", str(e), re.DOTALL):
        return ": ".join(part for part in answer.groups() if part)
    return str(e).strip().partition("\n")[0] or type(e).__name__


def _replace_local(path: pathlib.Path, body: bytes, version: str | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.parent):
        # Whoever left a temporary file died while holding the lock.
        for litter in path.parent.glob(".*.tmp"):
            litter.unlink()
        if _local_version(path) != version:
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


def _local_version(path: pathlib.Path) -> str | None:
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
