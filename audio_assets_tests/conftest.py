"""What several tests share: a place for audio (a local folder, or S3 from a real server), and FLAC."""

import dataclasses
import datetime as dt
import functools
import io
import itertools
import logging
import os
import pathlib
from collections.abc import Iterator

import numpy as np
import pytest
import soundfile
from moto.s3.models import S3Backend, s3_backends
from moto.server import ThreadedMotoServer

from audio_assets.storage import ObjectStore

MINUTE = dt.datetime(2023, 8, 24, 0, 21, tzinfo=dt.UTC)
UPLOADED = MINUTE + dt.timedelta(seconds=7)


def flac(seconds: float = 0.1, seed: int = 0, rate: int = 16_000, channels: int = 1) -> bytes:
    """A FLAC file of quiet noise."""
    noise = np.random.default_rng(seed).normal(0, 0.1, (int(seconds * rate), channels)).clip(-1, 1)
    file = io.BytesIO()
    soundfile.write(file, noise, rate, format="FLAC")
    return file.getvalue()


# --- places ---------------------------------------------------------------------------------------------


class Place:
    """Where audio lies, seen as whoever uploads it."""

    uri: str

    def put(self, key: str, body: bytes = b"", uploaded: dt.datetime = UPLOADED) -> None:
        raise NotImplementedError

    def delete(self, key: str) -> None:
        raise NotImplementedError

    @functools.cached_property
    def store(self) -> ObjectStore:
        return ObjectStore(self.uri)


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
        os.utime(path, (uploaded.timestamp(),) * 2)

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


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The URL of an S3 server; Rust and C++ clients cannot be mocked from inside Python."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment of an S3 user; gives the server's URL."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    return s3_server


_buckets = itertools.count()


@pytest.fixture
def s3_place(s3: str) -> S3Place:
    place = S3Place(f"bucket-{next(_buckets)}")
    place.backend.create_bucket(place.bucket, "us-east-1")
    return place


@pytest.fixture
def local_place(tmp_path: pathlib.Path) -> LocalPlace:
    folder = tmp_path / "buc ket"
    folder.mkdir()
    return LocalPlace(folder)


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest) -> Place:
    return request.getfixturevalue(f"{request.param}_place")
