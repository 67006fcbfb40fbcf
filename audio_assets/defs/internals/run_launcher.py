"""A run launcher that knows whether the process of a run, its worker, still lives.

Why private: Dagster's monitoring asks the run launcher whether a started run has a worker, and the launcher
for runs on this machine, `DefaultRunLauncher`, does not answer. After a power cut a run would stay *started*
and keep its place in the pool until `max_runtime_seconds`. What an answer consists of, and the tag that says
which server has launched a run, are private names.
"""

import json

import dagster as dg
import grpc
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.client import DagsterGrpcClient
from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
from dagster_shared.serdes import deserialize_value

from audio_assets.defs.internals.tags import HIDDEN_TAG_PREFIX
from audio_assets.process_identity import interrupt, is_alive, this_process

WORKER_TAG = f"{HIDDEN_TAG_PREFIX}audio_assets/worker"
"""On a run: the process that executes it."""

SECONDS_FOR_AN_ANSWER = 5


class LocalRunLauncher(DefaultRunLauncher):
    """Launches runs as `DefaultRunLauncher` does, on this machine, and finds those whose worker is gone.

    A worker is gone if its process, which `record_worker` puts on the run, has ended, and the server that
    launched the run does not know of it either. In the moment between a run's start and that record, the
    server's answer decides; a server that has gone took its workers along. A run whose process is on another
    host is not judged.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """What the monitoring asks of each started run; it fails those that are not running."""
        worker = run.tags.get(WORKER_TAG)
        alive = is_alive(worker) if worker else False
        if alive is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "its process is on another host")
        # A retry has the tags of the run that it repeats, and so the process of that one, until it starts.
        if alive or not (worker or GRPC_INFO_TAG in run.tags) or _server_knows(run) is not False:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, "its process has ended")

    def terminate(self, run_id: str) -> bool:
        """End a run; one without a worker is cancelled at once, since nobody else will say that it ended."""
        run = self._instance.get_run_by_id(run_id)
        if not run or run.is_finished:
            return False
        if self.check_run_worker_health(run).status == WorkerStatus.NOT_FOUND:
            self._instance.report_run_canceling(run)
            self._instance.report_run_canceled(run, "The process of the run had ended before.")
            return True
        worker = run.tags.get(WORKER_TAG)
        if worker and is_alive(worker) and not _server_knows(run):
            # Its server has gone, or a command executes the run in its own process.
            self._instance.report_run_canceling(run)
            interrupt(worker)
            return True
        return super().terminate(run_id)


def end_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Report runs that have no worker any more as failed, as the daemon's monitoring does; gives their ids.

    For a command that works without a daemon, and would wait for them for ever.
    """
    launcher = instance.run_launcher
    ended = []
    for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])):
        if launcher.supports_check_run_worker_health:
            health = launcher.check_run_worker_health(run)
            if health.status == WorkerStatus.NOT_FOUND:
                instance.report_run_failed(run, f"The run has no worker: {health.msg}.")
                ended.append(run.run_id)
    return ended


def record_worker(context: dg.InitResourceContext) -> None:
    """Put this process on the run that it executes; a sensor's tick has no run."""
    if context.run and context.instance:
        context.instance.add_run_tags(context.run.run_id, {WORKER_TAG: this_process()})


def _server_knows(run: dg.DagsterRun) -> bool | None:
    """Whether the server that launched a run has a process for it; None where it cannot be asked now."""
    if GRPC_INFO_TAG not in run.tags:
        return False
    server = json.loads(run.tags[GRPC_INFO_TAG])
    client = DagsterGrpcClient(
        host=server["host"],
        port=server.get("port"),
        socket=server.get("socket"),
        use_ssl=server.get("use_ssl", False),
    )
    request = CanCancelExecutionRequest(run_id=run.run_id)
    try:
        answer = client.can_cancel_execution(request, timeout=SECONDS_FOR_AN_ANSWER)
    except DagsterUserCodeUnreachableError as e:
        gone = isinstance(e.__cause__, grpc.RpcError) and e.__cause__.code() == grpc.StatusCode.UNAVAILABLE
        return False if gone else None
    return deserialize_value(answer, CanCancelExecutionResult).can_cancel
