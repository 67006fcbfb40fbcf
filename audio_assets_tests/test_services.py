"""Webserver, daemon and code server under one supervisor: what ends with what, and what is started anew."""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest

from audio_assets.cluster.local_cluster import free_port
from audio_assets.settings import PROJECT
from audio_assets_tests.support.dagster_dev import START_SECONDS, dagster_dev
from audio_assets_tests.support.environment import NO_AWS_FILES, is_setting

TORTURE = pytest.mark.torture

SECONDS_TO_END = 20


class Services:
    """The command that `make dev` runs."""

    def __init__(self, folder: pathlib.Path) -> None:
        home = folder / "home"
        home.mkdir()
        shutil.copy(PROJECT / "dagster.yaml", home)
        (folder / "bucket").mkdir()
        self.port = free_port("127.0.0.1")
        self.log = folder / "log"
        clean = {name: value for name, value in os.environ.items() if not is_setting(name)}
        own = {"DAGSTER_HOME": str(home), "AUDIO_SOURCE_URI": (folder / "bucket").as_uri()}
        with self.log.open("wb") as out:
            self.first = subprocess.Popen(
                [sys.executable, "-m", "audio_assets.services", "--port", str(self.port)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=PROJECT,
                env=clean | NO_AWS_FILES | own,
            )

    def wait_until_up(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert self.first.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/server_info", timeout=5).close()
                return
            time.sleep(0.5)

    @property
    def session(self) -> dict[int, str]:
        """What runs in the session of the second process, by process id."""
        [second] = [pid for pid, parent, _, _ in processes() if parent == self.first.pid] or [self.second]
        self.second = second
        return {pid: command for pid, _, session, command in processes() if session == second}

    second = -1

    def pid(self, name: str) -> int:
        return next(pid for pid, command in self.session.items() if name in command)

    def wait_until_gone(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.session:
            assert time.monotonic() < deadline, self.session
            time.sleep(0.2)


def processes() -> Iterator[tuple[int, int, int, str]]:
    """Process id, parent, session and command of each process that has not ended."""
    listed = subprocess.run(
        ["ps", "-ww", "-eo", "pid=,ppid=,sess=,stat=,args="], capture_output=True, text=True
    )
    for line in listed.stdout.splitlines():
        pid, parent, session, state, command = line.split(maxsplit=4)
        if not state.startswith("Z"):
            yield int(pid), int(parent), int(session), command


@pytest.fixture
def services(tmp_path: pathlib.Path) -> Iterator[Services]:
    services = Services(tmp_path)
    try:
        services.wait_until_up()
        assert services.session
        yield services
    finally:
        services.first.kill()
        services.first.wait()
        services.wait_until_gone(SECONDS_TO_END)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=TORTURE)])
def test_a_signal_ends_all(services: Services, number: signal.Signals):
    services.first.send_signal(number)
    assert services.first.wait(SECONDS_TO_END) == 0
    services.wait_until_gone(5)


@pytest.mark.parametrize("name", ["internals.daemon", pytest.param("dagster_webserver", marks=TORTURE)])
def test_a_killed_service_ends_all_with_an_exit_code(services: Services, name: str):
    os.kill(services.pid(name), signal.SIGKILL)
    assert services.first.wait(SECONDS_TO_END) == 1
    assert "has ended with exit code -9, so all ends" in services.log.read_text()
    services.wait_until_gone(5)


@TORTURE
def test_nothing_outlives_the_first_process_even_if_that_is_killed(services: Services):
    services.first.kill()
    services.wait_until_gone(5)


@TORTURE
def test_nothing_outlives_the_second_process_even_if_that_is_killed(services: Services):
    os.kill(services.second, signal.SIGKILL)
    assert services.first.wait(SECONDS_TO_END) not in (0, None)
    services.wait_until_gone(5)


@TORTURE
def test_there_is_no_warning_on_the_first_start(services: Services):
    said = services.log.read_text()
    assert [line for line in said.splitlines() if "WARNING" in line.upper()] == []
    assert f"the UI will be at http://127.0.0.1:{services.port}" in said


def test_a_port_in_use_is_said(tmp_path: pathlib.Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        made = subprocess.run(
            [sys.executable, "-m", "audio_assets.services", "--port", str(port)],
            capture_output=True,
            text=True,
            cwd=PROJECT,
        )
    assert made.returncode == 1
    assert made.stdout == f"Port {port} is in use; name another one: make dev PORT={port + 1}\n"


@pytest.mark.parametrize("name", ["api grpc", pytest.param("code-server start", marks=TORTURE)])
def test_a_killed_code_server_is_started_anew_and_ticks_come_back_within_a_minute(
    tmp_path: pathlib.Path, name: str
):
    (tmp_path / "bucket").mkdir()
    ticks = """{ sensorOrError(sensorSelector: {repositoryName: "__repository__",
                 repositoryLocationName: "audio_assets", sensorName: "new_s3_keys"}) {
                 ... on Sensor { sensorState { ticks(limit: 1) { timestamp status } } } } }"""
    with dagster_dev(tmp_path, {"AUDIO_SOURCE_URI": (tmp_path / "bucket").as_uri()}) as dev:

        def ticked(since: float) -> bool:
            sensor = dev.query(ticks)["sensorOrError"]
            seen = sensor.get("sensorState", {}).get("ticks", [])
            return any(tick["timestamp"] > since and tick["status"] == "SKIPPED" for tick in seen)

        dev.wait_for("tick", lambda: ticked(0))
        [server] = [pid for pid, _, session, command in processes() if session == dev.pid and name in command]
        os.kill(server, signal.SIGKILL)
        killed = time.time()
        # Its tick may have begun before.
        dev.wait_for("tick of another code server", lambda: ticked(killed + 1), seconds=75)
        assert "starting another one" in dev.log.read_text()
