"""A bucket behind a server that fails by plan, reached with credentials that expire; how much is tried.

Each kind of accident is repeated, by seeds: a few times in `make test`, many in `make torture`, which sums up
at its end what was done.
"""

import collections
import contextlib
import pathlib
import shutil
from collections.abc import Callable, Iterator

import dagster as dg
import pytest
from _pytest.terminal import TerminalReporter

from audio_assets_tests.support.environment import clear_aws, clear_settings
from audio_assets_tests.support.faulty_bucket import fill, new_bucket, table_files
from audio_assets_tests.support.faulty_server import FaultyServer
from audio_assets_tests.support.places import S3Place
from audio_assets_tests.support.project import Project


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
    clear_aws(monkeypatch)
    clear_settings(monkeypatch)
    config = tmp_path / "aws_config"
    config.write_text(f"[default]\nregion = us-east-1\ncredential_process = cat '{credentials}'\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", running_server.url)
    monkeypatch.setenv("S3_STALL_SECONDS", "2")
    running_server.heal()
    return running_server


@pytest.fixture
def bucket(faulty: FaultyServer) -> S3Place:
    return new_bucket()


# --- the project ----------------------------------------------------------------------------------------


@pytest.fixture
def open_project(
    faulty: FaultyServer, new_home: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[S3Place], Project]]:
    """Opens the project on a bucket, with an instance of its own."""
    with contextlib.ExitStack() as opened:

        def open_(place: S3Place) -> Project:
            monkeypatch.setenv("AUDIO_SOURCE_URI", place.uri)
            home = shutil.copytree(new_home, tmp_path / f"home of {place.bucket}")
            return Project(place, opened.enter_context(dg.DagsterInstance.from_config(str(home))))

        yield open_


_reference: dict[str, bytes] = {}


@pytest.fixture
def reference(open_project: Callable[[S3Place], Project]) -> dict[str, bytes]:
    """The table files that `fill` becomes on a store without faults."""
    if not _reference:
        place = new_bucket()
        fill(place)
        assert open_project(place).catch_up() == 1
        _reference.update(table_files(place))
    return _reference


# --- how much -------------------------------------------------------------------------------------------


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test that takes a `seed` and says `@seeds(few, many)` as many of them."""
    if marker := metafunc.definition.get_closest_marker("seeds"):
        few, many = marker.args
        metafunc.parametrize("seed", range(many if metafunc.config.getoption("torture") else few))


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """What the accidents were, in all: whatever tests recorded by `record_property`."""
    sums: collections.Counter[str] = collections.Counter()
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        if report.when == "call":
            sums.update({name: value for name, value in report.user_properties if isinstance(value, int)})
    if sums:
        terminalreporter.section("accidents")
    for name, count in sorted(sums.items()):
        terminalreporter.line(f"{count:8}  {name}")
