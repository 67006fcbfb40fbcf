"""A bucket behind a server that fails by plan, reached with credentials that expire."""

import os
import pathlib
from collections.abc import Iterator

import pytest

from audio_assets_tests.conftest import S3Place
from audio_assets_tests.faults.server import FaultyServer


@pytest.fixture(scope="session")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Where whoever issues credentials puts them."""
    return tmp_path_factory.mktemp("credentials") / "issued.json"


@pytest.fixture(scope="session")
def running_server(s3_server: str, credentials: pathlib.Path) -> Iterator[FaultyServer]:
    with FaultyServer(credentials).running() as server:
        yield server


@pytest.fixture
def faulty(
    running_server: FaultyServer,
    credentials: pathlib.Path,
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
) -> FaultyServer:
    """The server, without faults so far, and the environment of somebody whose credentials come from it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    config = tmp_path / "aws_config"
    config.write_text(f"[default]\nregion = us-east-1\ncredential_process = cat '{credentials}'\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", running_server.url)
    monkeypatch.setenv("S3_STALL_SECONDS", "0.7")
    running_server.heal()
    return running_server


_names = iter(range(10**9))


@pytest.fixture
def bucket(faulty: FaultyServer) -> S3Place:
    return new_bucket()


def new_bucket() -> S3Place:
    place = S3Place(f"faulty-{next(_names)}")
    place.backend.create_bucket(place.bucket, "us-east-1")
    return place
