"""Fixtures that several tests share: a place for audio (a folder or a real S3 server), a project on it."""

import itertools
import logging
import os
import pathlib
import shutil
import sys
import threading
from collections.abc import Iterator

import dagster as dg
import hypothesis
import pytest
from moto.core.common_types import TYPE_RESPONSE
from moto.s3.responses import S3Response
from moto.server import ThreadedMotoServer

from audio_assets.settings import PROJECT
from audio_assets_tests.support.environment import clear_aws, clear_settings
from audio_assets_tests.support.made_once import made_once
from audio_assets_tests.support.places import LocalPlace, Place, S3Place
from audio_assets_tests.support.postgres import has_postgres, postgres
from audio_assets_tests.support.project import Project

# Tests start many processes of the same modules. Where Python may keep none of them compiled, each process
# compiles all of them.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--torture", action="store_true", help="repeat the tests of accidents very often")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--torture"):
        items[:] = [item for item in items if item.get_closest_marker("torture") is None]


# A busy machine is no failure of what is tested.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")


@pytest.fixture(scope="session", autouse=True)
def nobodys_aws() -> Iterator[None]:
    """What whoever runs the tests has in `~/.aws` or in AWS_ variables changes no test."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        clear_aws(monkeypatch)
        yield


@pytest.fixture(scope="session", autouse=True)
def nothing_made_twice() -> Iterator[None]:
    """Dagster and boto3 make once what they would make anew for each test."""
    with made_once():
        yield


@pytest.fixture(scope="session")
def new_home(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A DAGSTER_HOME as `make` makes it, with databases that are set up: that takes longer than a run."""
    home = tmp_path_factory.mktemp("new_home")
    shutil.copy(PROJECT / "dagster.yaml", home)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.get_runs(limit=1)
        instance.all_instigator_state()
    return home


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The URL of an S3 server; Rust and C++ clients cannot be mocked from inside Python."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    put_object = S3Response.put_object
    one_at_a_time = threading.Lock()

    def conditional_put(self: S3Response) -> TYPE_RESPONSE:
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


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A Postgres server; gives the folder of its socket."""
    if not has_postgres():
        pytest.skip("needs the programs of Postgres")
    with postgres() as server:
        yield server


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment of an S3 user; gives the server's URL."""
    clear_aws(monkeypatch)
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


@pytest.fixture
def project(
    place: Place, new_home: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Project]:
    """The project with the demo's model on `place`, tables inside the source."""
    clear_settings(monkeypatch)
    monkeypatch.setenv("AUDIO_SOURCE_URI", place.uri)
    home = shutil.copytree(new_home, tmp_path / "home")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield Project(place, instance)
