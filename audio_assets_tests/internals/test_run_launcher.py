"""Whether a run's process lives, by its record and by the server that launched it."""

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.launcher import WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG

from audio_assets.defs.internals.run_launcher import WORKER_TAG, LocalRunLauncher, end_dead_runs
from audio_assets.process_identity import this_process
from audio_assets_tests.support.audio import flac
from audio_assets_tests.support.project import Project

NO_SERVER = json.dumps({"host": "localhost", "socket": "/nowhere/socket"})
SLEEP = (
    "import signal, time; from audio_assets.process_identity import this_process\n"
    # Who starts tests in the background may have them ignore it.
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "print(this_process(), flush=True)\n"
    "try: time.sleep(600)\n"
    "except KeyboardInterrupt: print('interrupted')"
)


@dg.job
def job() -> None: ...


def started(instance: dg.DagsterInstance, **tags: str) -> dg.DagsterRun:
    run = instance.create_run_for_job(job, tags=tags)
    instance.report_dagster_event(dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, job.name), run.run_id)
    found = instance.get_run_by_id(run.run_id)
    assert found
    return found


@contextlib.contextmanager
def process() -> Iterator[tuple[subprocess.Popen[str], str]]:
    with subprocess.Popen([sys.executable, "-c", SLEEP], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        yield other, other.stdout.readline().strip()
        other.kill()


@pytest.fixture
def launcher(instance_of_the_project: dg.DagsterInstance) -> LocalRunLauncher:
    launcher = instance_of_the_project.run_launcher
    assert isinstance(launcher, LocalRunLauncher)
    return launcher


def health(launcher: LocalRunLauncher, run: dg.DagsterRun) -> WorkerStatus:
    return launcher.check_run_worker_health(run).status


def test_a_run_lives_as_long_as_its_process(
    launcher: LocalRunLauncher, instance_of_the_project: dg.DagsterInstance
):
    with process() as (other, identity):
        run = started(instance_of_the_project, **{WORKER_TAG: identity, GRPC_INFO_TAG: NO_SERVER})
        assert health(launcher, run) == WorkerStatus.RUNNING
        other.kill()
        other.wait()
        assert health(launcher, run) == WorkerStatus.NOT_FOUND


def test_before_its_first_step_a_run_lives_as_long_as_its_server(
    launcher: LocalRunLauncher, instance_of_the_project: dg.DagsterInstance
):
    run = started(instance_of_the_project, **{GRPC_INFO_TAG: NO_SERVER})
    assert health(launcher, run) == WorkerStatus.NOT_FOUND


@pytest.mark.parametrize("tags", [{}, {WORKER_TAG: "another-host/1 2 3 4", GRPC_INFO_TAG: NO_SERVER}])
def test_what_cannot_be_known_is_not_judged(
    launcher: LocalRunLauncher, instance_of_the_project: dg.DagsterInstance, tags: dict[str, str]
):
    assert health(launcher, started(instance_of_the_project, **tags)) == WorkerStatus.RUNNING


def test_a_command_reports_runs_as_failed_whose_process_is_gone(
    instance_of_the_project: dg.DagsterInstance, launcher: LocalRunLauncher
):
    with process() as (_, identity):
        alive = started(instance_of_the_project, **{WORKER_TAG: identity, GRPC_INFO_TAG: NO_SERVER})
        dead = started(instance_of_the_project, **{GRPC_INFO_TAG: NO_SERVER})
        assert end_dead_runs(instance_of_the_project) == [dead.run_id]
    statuses = {run.run_id: run.status for run in instance_of_the_project.get_runs()}
    assert statuses == {alive.run_id: dg.DagsterRunStatus.STARTED, dead.run_id: dg.DagsterRunStatus.FAILURE}


def test_terminating_a_run_whose_process_is_gone_cancels_it_at_once(
    launcher: LocalRunLauncher, instance_of_the_project: dg.DagsterInstance
):
    with process() as (other, identity):
        other.kill()
    run = started(instance_of_the_project, **{WORKER_TAG: identity, GRPC_INFO_TAG: NO_SERVER})
    assert launcher.terminate(run.run_id)
    found = instance_of_the_project.get_run_by_id(run.run_id)
    assert found
    assert found.status == dg.DagsterRunStatus.CANCELED


def test_terminating_a_run_whose_server_is_gone_interrupts_its_process(
    launcher: LocalRunLauncher, instance_of_the_project: dg.DagsterInstance
):
    with process() as (other, identity):
        run = started(instance_of_the_project, **{WORKER_TAG: identity, GRPC_INFO_TAG: NO_SERVER})
        assert launcher.terminate(run.run_id)
        assert other.stdout
        assert other.stdout.read() == "interrupted\n"
        assert other.wait(60) == 0
    found = instance_of_the_project.get_run_by_id(run.run_id)
    assert found
    assert found.status == dg.DagsterRunStatus.CANCELING


@pytest.mark.parametrize("place", ["local"], indirect=True)
def test_a_run_of_the_project_says_which_process_executes_it(project: Project):
    project.place.put("p225/a.flac", flac())
    made = project.run("p225@2023-08-24-00:21", assets=["s3_inventory"])
    run = project.instance.get_run_by_id(made.run_id)
    assert run
    assert run.tags[WORKER_TAG] == this_process()
