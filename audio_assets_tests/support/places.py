"""Where audio lies, seen as whoever uploads it: a local folder or a real S3 server."""

import abc
import dataclasses
import datetime as dt
import functools
import os
import pathlib

import pytest
from moto.s3.models import S3Backend, s3_backends

from audio_assets.storage import ObjectStore
from audio_assets.storage.s3_client import S3Connection
from audio_assets_tests.support.audio import UPLOADED


class Place(abc.ABC):
    """Where audio lies, seen as whoever uploads it."""

    @property
    @abc.abstractmethod
    def uri(self) -> str: ...

    @abc.abstractmethod
    def put(self, key: str, body: bytes = b"", uploaded: dt.datetime = UPLOADED) -> None: ...

    @abc.abstractmethod
    def delete(self, key: str) -> None: ...

    @functools.cached_property
    def store(self) -> ObjectStore:
        return ObjectStore(self.uri)

    def all_keys(self, folder: str = "") -> list[str]:
        """The keys of all that lies below a folder, in order."""
        return [key for key, _ in self.store.list_files(folder)]


@dataclasses.dataclass
class LocalPlace(Place):
    folder: pathlib.Path

    @property
    def uri(self) -> str:
        return self.folder.as_uri()

    def put(self, key: str, body: bytes = b"", uploaded: dt.datetime = UPLOADED) -> None:
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
        os.utime(path, (uploaded.timestamp(), uploaded.timestamp()))

    def delete(self, key: str) -> None:
        (self.folder / key).unlink()


@dataclasses.dataclass
class S3Place(Place):
    bucket: str
    prefix: str = "wav48 silence/"

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def backend(self) -> S3Backend:
        # The server runs in this process: S3 itself lets nobody choose the time of an upload.
        return s3_backends["123456789012"]["aws"]

    def put(self, key: str, body: bytes = b"", uploaded: dt.datetime = UPLOADED) -> None:
        stored = self.backend.put_object(self.bucket, self.prefix + key, body)
        stored.last_modified = uploaded.replace(tzinfo=None)

    def delete(self, key: str) -> None:
        self.backend.delete_object(self.bucket, self.prefix + key)


def delete_without_conditions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let S3 delete whatever lies under a key, as stores do that do not know If-Match on DELETE."""
    delete_object = S3Connection.delete_object

    def deleting(self: S3Connection, key: str, **options: object) -> None:
        delete_object(self, key)

    monkeypatch.setattr(S3Connection, "delete_object", deleting)
