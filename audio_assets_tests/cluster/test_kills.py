"""`make torture-fleet`: whatever of a cluster of three nodes is killed at a random moment, the table is
that of a run without one, byte by byte."""

import contextlib
import datetime as dt
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import dagster as dg
import pytest

from audio_assets.settings import PROJECT
from audio_assets_tests.cluster.conftest import SPEECH, Backfill, speech_files
from audio_assets_tests.support.audio import UPLOADED, flac
from audio_assets_tests.support.environment import clear_settings
from audio_assets_tests.support.places import LocalPlace
from audio_assets_tests.support.postgres import Server, instance_yaml
from audio_assets_tests.support.project import Project
from audio_assets_tests.support.ray_cluster import TOKEN, RayCluster
from audio_assets_tests.support.stand_in import TOKENISER, StandInWhisper, definitions

pytestmark = [pytest.mark.torture, pytest.mark.xdist_group("ray")]

PARTITIONS = 60
CLIP_S = 0.2
NODES = 3
RUNS_WITH_FLAT_MEMORY = 200


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayCluster]:
    """A head without GPUs, as a machine of its own, and two machines with two GPUs each."""
    with RayCluster.running(gpus=0) as cluster:
        for number in range(1, NODES):
            cluster.add_node(number, gpus=2)
        yield cluster


@pytest.fixture
def large(tmp_path: pathlib.Path, nodes: RayCluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backfill]:
    """Sixty partitions, and their tables without a cluster."""
    place = LocalPlace(tmp_path / "bucket")
    for minute in range(PARTITIONS):
        for clip in range(2):
            body = flac(0.1, seed=10 * minute + clip)
            place.put(f"p{minute % 3}/{minute}_{clip}.flac", body, UPLOADED + dt.timedelta(minutes=minute))
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(PROJECT / "dagster.yaml", home)
    clear_settings(monkeypatch)
    monkeypatch.setenv("AUDIO_SOURCE_URI", place.uri)
    monkeypatch.setenv("TOKENISER", TOKENISER)
    monkeypatch.setenv("RAY_CPUS_PER_ACTOR", "0")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        project = Project(place, instance)
        project.repository = definitions(StandInWhisper()).get_repository_def()
        for request in project.tick():
            assert project.execute(request).success
        made = Backfill(project, place, speech_files(place))
        made.forget()
        monkeypatch.setenv("RAY_ADDRESS", nodes.address)
        yield made


class Run:
    """Runs over all partitions, each in a process of its own; one that died is repeated, as Dagster does."""

    def __init__(self, backfill: Backfill, home: pathlib.Path) -> None:
        self._backfill = backfill
        self._home = home
        self.starts = 0
        self.log = home / "runs.log"
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        self.starts += 1
        keys = self._backfill.keys
        command = [sys.executable, "-m", "audio_assets_tests.support.stand_in_run", str(self._home)]
        with open(self.log, "ab") as log:
            return subprocess.Popen([*command, keys[0], keys[-1], str(CLIP_S)], stdout=log, stderr=log)

    def _free_places(self) -> None:
        """Give back the places in the pool that a dead run holds, as the daemon does."""
        with dg.DagsterInstance.from_config(str(self._home)) as instance:
            storage = instance.event_log_storage
            for run_id in storage.get_concurrency_run_ids():
                storage.free_concurrency_slots_for_run(run_id)

    def written(self) -> int:
        """How many files there are; those that are being written are none yet."""
        tables = self._backfill.place.folder / "output_parquet"
        return sum(len(list((tables / name).rglob("*.parquet"))) for name in SPEECH)

    def until_written(self, files: int) -> None:
        deadline = time.monotonic() + 180
        while self.written() < files:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.05)

    def finish(self) -> None:
        for _ in range(3):
            if self.process.wait(timeout=400) == 0:
                return
            self._free_places()
            self.process = self._start()
        raise AssertionError(self.log.read_text()[-3000:])


@pytest.fixture
def run(large: Backfill) -> Iterator[Run]:
    started = Run(large, pathlib.Path(large.project.instance.root_directory))
    yield started
    if started.process.poll() is None:
        started.process.kill()
        started.process.wait()


def random_moment() -> int:
    """How many files are written before something is killed."""
    return random.Random(os.urandom(8)).randrange(2, PARTITIONS)


def test_an_actor(run: Run, large: Backfill, nodes: RayCluster) -> None:
    run.until_written(random_moment())
    os.kill(random.choice(nodes.actors()), signal.SIGKILL)
    run.finish()
    assert large.files() == large.expected
    assert run.starts == 1


def test_a_node(run: Run, large: Backfill, nodes: RayCluster) -> None:
    run.until_written(random_moment())
    nodes.kill(NODES - 1)
    try:
        run.finish()
    finally:
        nodes.add_node(NODES - 1, gpus=2)
    assert large.files() == large.expected
    assert run.starts == 1


def test_the_process_of_the_run(run: Run, large: Backfill) -> None:
    run.until_written(random_moment())
    run.process.kill()
    run.finish()
    assert large.files() == large.expected
    assert run.starts == 2


def test_the_head_alone(run: Run, large: Backfill, nodes: RayCluster) -> None:
    run.until_written(random_moment())
    nodes.kill(0)
    # The raylet of a node whose head is gone ends by itself; whoever runs the machines starts all again.
    for number in range(1, NODES):
        nodes.until_ended(number)
    nodes.start_head(0)
    for number in range(1, NODES):
        nodes.add_node(number, gpus=2)
    run.finish()
    assert large.files() == large.expected


def test_all_nodes_at_once(run: Run, large: Backfill, nodes: RayCluster) -> None:
    run.until_written(random_moment())
    nodes.kill()
    time.sleep(2)
    nodes.start_head(0)
    for number in range(1, NODES):
        nodes.add_node(number, gpus=2)
    run.finish()
    assert large.files() == large.expected


def test_200_runs_leave_the_memory_of_the_actors_flat(large: Backfill, nodes: RayCluster) -> None:
    def memory() -> int:
        found = (pathlib.Path(f"/proc/{pid}/statm").read_text() for pid in nodes.actors())
        return sum(int(sizes.split()[1]) for sizes in found)

    seen: list[int] = []
    for number in range(RUNS_WITH_FLAT_MEMORY):
        large.forget()
        assert large.project.run(large.keys[0], large.keys[3], assets=["transcripts", "tokens"]).success
        if number in (RUNS_WITH_FLAT_MEMORY // 2, RUNS_WITH_FLAT_MEMORY - 1):
            seen.append(memory())
    assert seen[1] < 1.05 * seen[0]


def test_a_database_that_is_away_for_30_seconds(
    large: Backfill, postgres_server: Server, tmp_path: pathlib.Path
) -> None:
    home = tmp_path / "postgres"
    home.mkdir()
    (home / "dagster.yaml").write_text(instance_yaml(postgres_server))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.add_dynamic_partitions("folder_minute", large.keys)
    run = Run(large, home)
    try:
        run.until_written(random_moment())
        with _stopped(postgres_server):
            time.sleep(30)
        run.finish()
    finally:
        run.process.kill()
    assert large.files() == large.expected


@contextlib.contextmanager
def _stopped(server: Server) -> Iterator[None]:
    """No process of the server does anything meanwhile."""
    main = (pathlib.Path(server.folder) / "data" / "postmaster.pid").read_text().split()[0]
    children = pathlib.Path(f"/proc/{main}/task/{main}/children").read_text().split()
    _signal_all([main, *children], signal.SIGSTOP)
    try:
        yield
    finally:
        _signal_all([main, *children], signal.SIGCONT)


def _signal_all(pids: list[str], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), number)
