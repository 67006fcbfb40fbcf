"""Fixtures that several tests share: a place for audio (a folder or a real S3 server), a project on it."""

# ruff: noqa: E402
import gc

# Modules leave hundreds of thousands of objects, none of which is garbage. Collecting among them while they
# are made, again with each test and at the end takes a tenth of the tests' time.
gc.disable()

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

from audio_assets_tests.support.environment import clear_aws, clear_settings
from audio_assets_tests.support.made_once import made_once
from audio_assets_tests.support.places import LocalPlace, Place, S3Place
from audio_assets_tests.support.postgres import NewHome, Server, instance_yaml, missing, postgres
from audio_assets_tests.support.project import Project

# Tests start many processes of the same modules. Where Python may keep none of them compiled, each process
# compiles all of them.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--torture", action="store_true", help="repeat the tests of accidents very often")
    parser.addoption("--postgres", action="store_true", help="have the tests' instances on Postgres")
    parser.addoption("--model", help="a checkpoint of real Whisper weights to compare with")
    parser.addoption("--speech", help="a folder of FLAC with human speech, for --model")
    parser.addoption("--schemas", help="a folder with the schemas that deploy/ is to follow")
    parser.addoption("--nemo", help="the interpreter of an environment in which NeMo is installed")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--torture"):
        items[:] = [item for item in items if item.get_closest_marker("torture") is None]
    for name in ("schemas", "nemo"):
        if not config.getoption(f"--{name}"):
            items[:] = [item for item in items if item.get_closest_marker(name) is None]


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    gc.enable()


# A busy machine is no failure of what is tested.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.register_profile("many examples", deadline=None, max_examples=400)
hypothesis.settings.load_profile("no deadline")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--torture"):
        hypothesis.settings.load_profile("many examples")


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
def new_home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> NewHome:
    """Makes homes as `make` does, or on Postgres with `--postgres`.

    Their databases are copies of one that is set up: that takes longer than a run.
    """
    on_postgres = request.config.getoption("--postgres")
    server = request.getfixturevalue("postgres_server") if on_postgres else None
    template = server.new_database() if server else None
    first = tmp_path_factory.mktemp("new_home")
    (first / "dagster.yaml").write_text(instance_yaml(server, template))
    with dg.DagsterInstance.from_config(str(first)) as instance:
        instance.get_runs(limit=1)
        instance.all_instigator_state()

    def new(folder: pathlib.Path) -> pathlib.Path:
        if server is None:
            return pathlib.Path(shutil.copytree(first, folder))
        folder.mkdir()
        (folder / "dagster.yaml").write_text(instance_yaml(server, server.new_database(template)))
        return folder

    return new


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
def postgres_server() -> Iterator[Server]:
    if said := missing():
        pytest.skip(said)
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
    place: Place, new_home: NewHome, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Project]:
    """The project with the demo's model on `place`, tables inside the source."""
    clear_settings(monkeypatch)
    monkeypatch.setenv("AUDIO_SOURCE_URI", place.uri)
    home = new_home(tmp_path / "home")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield Project(place, instance)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Small models with random weights, by name."""
    from audio_assets_tests.support.random_whisper import save_models

    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Models this small spend their time waiting for threads."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def same_randomness(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above temperature 0, `whisper.transcribe` and the engine draw with the same numbers."""
    from benchmarks.agreement import give_both_the_same_draws

    give_both_the_same_draws(monkeypatch.setattr)
