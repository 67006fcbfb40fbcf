"""Runs in processes of their own, as the launcher starts them, on one instance with the project's settings.

A process is forked from one that has everything imported, for a run is then a matter of a second.
"""

import contextlib
import dataclasses
import logging
import multiprocessing
import os
import pathlib
import pkgutil
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from multiprocessing.context import ForkServerProcess

import dagster as dg
from dagster._cli.api import _execute_run_command_body
from dagster._cli.job import _create_run
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.execution.stats import StepEventStatus
from dagster._core.remote_representation.code_location import CodeLocation
from dagster._core.remote_representation.external import RemoteRepository
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    SensorInstigatorData,
)
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget
from dagster._daemon.auto_run_reexecution.auto_run_reexecution import (
    consume_new_runs_for_automatic_reexecution,
)
from dagster._daemon.monitoring.concurrency import execute_concurrency_slots_iteration
from dagster._daemon.sensor import execute_sensor_iteration

import audio_assets.defs
from audio_assets.definitions import defs
from audio_assets.settings import PROJECT
from audio_assets_tests.support.environment import is_setting

_log = logging.getLogger(__name__)
TABLES = ("s3_inventory", "transcripts", "tokens", "audio_table")

_fork = multiprocessing.get_context("forkserver")
_fork.set_forkserver_preload(
    [
        *(f"audio_assets.defs.{module.name}" for module in pkgutil.iter_modules(audio_assets.defs.__path__)),
        *("audio_assets.transcription.engine", "whisper", __name__),
    ]
)


@dataclasses.dataclass
class Runs:
    """The instance, and a code server that knows the project's jobs."""

    instance: dg.DagsterInstance
    workspace: WorkspaceProcessContext
    home: pathlib.Path

    @classmethod
    @contextlib.contextmanager
    def on(cls, home: pathlib.Path) -> Iterator["Runs"]:
        target = ModuleTarget("audio_assets.definitions", None, str(PROJECT), "audio_assets")
        with (
            dg.DagsterInstance.from_config(str(home)) as instance,
            WorkspaceProcessContext(instance, target) as workspace,
        ):
            yield cls(instance, workspace, home)

    def _code(self) -> tuple[CodeLocation, RemoteRepository]:
        [location] = self.workspace.create_request_context().code_locations
        [repository] = location.get_repositories().values()
        return location, repository

    def note_sensors(self) -> None:
        """Add the sensors' states to the instance, as the first daemon that meets them does."""
        for sensor in self._code()[1].get_sensors():
            data = SensorInstigatorData(min_interval=sensor.min_interval_seconds)
            origin = sensor.get_remote_origin()
            state = InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.DECLARED_IN_CODE, data)
            self.instance.add_instigator_state(state)

    def create(self, first: str, last: str) -> dg.DagsterRun:
        """A run of `process_audio` over a range of registered partitions."""
        location, repository = self._code()
        tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
        job = repository.get_full_job("process_audio")
        return _create_run(self.instance, location, repository, job, {}, tags, None, None)

    def start(self, run: dg.DagsterRun, environment: Mapping[str, str]) -> ForkServerProcess:
        """Launch a run, which the queue would do in its turn."""
        starting = DagsterEvent(DagsterEventType.RUN_STARTING.value, run.job_name)
        self.instance.report_dagster_event(starting, run.run_id)
        process = _fork.Process(target=_execute, args=(str(self.home), run.run_id, dict(environment)))
        process.start()
        return process

    def tick(self, together: threading.Barrier) -> None:
        """Evaluate the sensor and queue what it asks for, as the daemon does, at the same time as others."""
        together.wait()
        list(execute_sensor_iteration(self.workspace, _log, None, None))

    def status(self, run: dg.DagsterRun) -> dg.DagsterRunStatus:
        found = self.instance.get_run_by_id(run.run_id)
        assert found
        return found.status

    def retry(self, run: dg.DagsterRun) -> dg.DagsterRun | None:
        """What follows when a run's process is found dead: the launcher reports it, and the daemon makes the
        run again and frees its place in the pool, if the instance is configured for it. None where all its
        steps had succeeded."""
        self.instance.report_run_failed(run)
        [record] = self.instance.get_run_records(dg.RunsFilter(run_ids=[run.run_id]))
        list(consume_new_runs_for_automatic_reexecution(self.workspace, [record], _log))
        for _ in range(50):
            list(execute_concurrency_slots_iteration(self.workspace, _log))
            if not self.instance.event_log_storage.get_concurrency_run_ids():
                break
            time.sleep(0.2)
        else:
            raise AssertionError("the killed run still holds its place in the pool")
        retries = self.instance.get_runs(dg.RunsFilter(tags={"dagster/parent_run_id": run.run_id}))
        if not retries:
            plan = self.instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id or "")
            ended = {step.step_key: step.status for step in self.instance.get_run_step_stats(run.run_id)}
            assert ended == dict.fromkeys(plan.step_keys_to_execute, StepEventStatus.SUCCESS)
            return None
        [retried] = retries
        return retried


def settings() -> dict[str, str]:
    """Those of this process."""
    return {name: value for name, value in os.environ.items() if is_setting(name)}


def start(home: pathlib.Path, first: str, last: str, environment: Mapping[str, str]) -> ForkServerProcess:
    """Materialise a range in a process of its own; its exit code is 0, or 1 where the run failed."""
    process = _fork.Process(target=_materialise, args=(str(home), first, last, dict(environment)))
    process.start()
    return process


def _execute(home: str, run_id: str, environment: dict[str, str]) -> None:
    _prepare(home, environment)
    with dg.DagsterInstance.from_config(home) as instance:
        sys.exit(_execute_run_command_body(run_id, instance, lambda event: None, True))


def _materialise(home: str, first: str, last: str, environment: dict[str, str]) -> None:
    _prepare(home, environment)
    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    job = defs().get_repository_def().get_job("process_audio")
    with dg.DagsterInstance.from_config(home) as instance:
        made = job.execute_in_process(
            instance=instance,
            tags=tags,
            # Named as the daemon names them, by which the sensor knows what a run covers.
            asset_selection=[dg.AssetKey(name) for name in TABLES],
            raise_on_error=False,
        )
    sys.exit(not made.success)


def _prepare(home: str, environment: dict[str, str]) -> None:
    """Have no settings but those given, and say what there is to say in a file."""
    for name in [n for n in os.environ if is_setting(n)]:
        del os.environ[name]
    os.environ.update(environment)
    log = os.open(f"{home}/runs.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
