"""What several tests share: FLAC, a place for audio (a local folder or a real S3 server), a project on it."""

import abc
import dataclasses
import datetime as dt
import functools
import io
import itertools
import json
import logging
import os
import pathlib
import shutil
import threading
from collections.abc import Iterator

import dagster as dg
import hypothesis
import numpy as np
import pandas as pd
import pytest
import soundfile
from moto.s3.models import S3Backend, s3_backends
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer

from audio_assets import read_table
from audio_assets.definitions import defs
from audio_assets.defs.resources import PROJECT, _open_store
from audio_assets.storage import ObjectStore


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--torture", action="store_true", help="repeat the tests of accidents very often")


# A busy machine is no failure of what is tested.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

MINUTE = dt.datetime(2023, 8, 24, 0, 21, tzinfo=dt.UTC)
UPLOADED = MINUTE + dt.timedelta(seconds=7)


def flac(seconds: float = 0.1, seed: int = 0, rate: int = 16_000, channels: int = 1) -> bytes:
    """A FLAC file of quiet noise."""
    noise = np.random.default_rng(seed).normal(0, 0.1, (int(seconds * rate), channels)).clip(-1, 1)
    file = io.BytesIO()
    soundfile.write(file, noise, rate, format="FLAC")
    return file.getvalue()


# --- places ---------------------------------------------------------------------------------------------


class Place(abc.ABC):
    """Where audio lies, seen as whoever uploads it."""

    uri: str

    @abc.abstractmethod
    def put(self, key: str, body: bytes = b"", uploaded: dt.datetime = UPLOADED) -> None: ...

    @abc.abstractmethod
    def delete(self, key: str) -> None: ...

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
    put_object, one_at_a_time = S3Response.put_object, threading.Lock()

    def conditional_put(self: S3Response) -> object:
        # S3 looks at If-Match and stores in one step; the server's threads do not.
        with one_at_a_time:
            return put_object(self)

    S3Response.put_object = conditional_put
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
    S3Response.put_object = put_object


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


# --- the project ----------------------------------------------------------------------------------------

SETTINGS = (
    *("AUDIO_SOURCE_URI", "AUDIO_TABLE_URI", "AUDIO_EVENTS_QUEUE_URL", "S3_INVENTORY_MANIFEST"),
    *("TOKENISER", "SETTLE_SECONDS", "BACKFILL_ORDER"),
)
S3_SETTINGS = ("S3_ATTEMPTS", "S3_STALL_SECONDS")
WHISPER_SETTINGS = ("WHISPER_MODEL", "WHISPER_DEVICE", "WHISPER_LANGUAGE", "WHISPER_BATCH_SIZE")


class Project:
    """The Dagster project on a place, with an instance of its own; plays the daemon's part."""

    def __init__(self, place: Place, instance: dg.DagsterInstance) -> None:
        self.place, self.instance = place, instance
        self.cursor: str | None = None
        self.reload()

    def reload(self) -> None:
        """Read the settings again, as a restart does."""
        _open_store.cache_clear()
        self.repository = defs().get_repository_def()

    @property
    def partition_keys(self) -> list[str]:
        return list(self.instance.get_dynamic_partitions("folder_minute"))

    @property
    def walking(self) -> bool:
        """Whether the last tick ran out of time before it had seen the whole bucket."""
        return "walk" in json.loads(self.cursor or "{}")

    def tick(self) -> list[dg.RunRequest]:
        """Evaluate the sensor and register what it asks for; gives the runs that it asks for."""
        sensor = self.repository.get_sensor_def("new_s3_keys")
        with dg.build_sensor_context(
            instance=self.instance,
            instance_ref=self.instance.get_ref(),
            cursor=self.cursor,
            repository_def=self.repository,
            resources=self.repository.get_top_level_resources(),
        ) as context:
            self.evaluated = sensor.evaluate_tick(context)
        self.cursor = self.evaluated.cursor
        for request in self.evaluated.dynamic_partitions_requests or []:
            if isinstance(request, dg.AddDynamicPartitionsRequest):
                self.instance.add_dynamic_partitions(
                    request.partitions_def_name, list(request.partition_keys)
                )
            else:
                for key in request.partition_keys:
                    self.instance.delete_dynamic_partition(request.partitions_def_name, key)
        return list(self.evaluated.run_requests or [])

    def execute(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        tags = {
            **request.tags,
            "dagster/run_key": request.run_key or "",
            "dagster/sensor_name": "new_s3_keys",
        }
        return self._execute(tags, request.partition_key)

    def run(
        self, first: str, last: str | None = None, *, assets: list[str] | None = None
    ) -> dg.ExecuteInProcessResult:
        """Run `process_audio`, or some of its assets, for one partition or a range."""
        missing = [key for key in (first, last) if key and key not in self.partition_keys]
        self.instance.add_dynamic_partitions("folder_minute", missing)
        if last is None:
            return self._execute({}, first, assets)
        tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
        return self._execute(tags, None, assets)

    def _execute(
        self, tags: dict[str, str], key: str | None, assets: list[str] | None = None
    ) -> dg.ExecuteInProcessResult:
        return self.repository.get_job("process_audio").execute_in_process(
            instance=self.instance,
            tags=tags,
            partition_key=key,
            asset_selection=[dg.AssetKey(name) for name in assets] if assets else None,
            raise_on_error=False,
        )

    def catch_up(self) -> int:
        """Tick and run until the sensor is content; gives the number of runs, all of which succeed."""
        runs = 0
        for _ in range(10):
            requests = self.tick()
            if not requests and not self.walking:
                return runs
            for request in requests:
                assert self.execute(request).success
                runs += 1
        raise AssertionError("the sensor keeps asking")

    def table(self, *slice_: object, **columns: object) -> pd.DataFrame:
        return read_table(*slice_, **columns)  # type: ignore[arg-type]


@pytest.fixture
def project(place: Place, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """The project with the demo's model on `place`, tables inside the source."""
    for name in (*SETTINGS, *S3_SETTINGS, *WHISPER_SETTINGS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AUDIO_SOURCE_URI", place.uri)
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(PROJECT / "dagster.yaml", home)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield Project(place, instance)
