"""A run of a job that is executed in this process, and is listed where the runs of the daemon are.

Why private: `JobDefinition.execute_in_process` and `dg.execute_job` make runs that belong to no code
location. The UI's first page asks for the runs of each location and does not show them. Of Dagster's public
methods, none gives a run an origin, and none executes a run that exists.
"""

from collections.abc import Mapping

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.execution.api import execute_run
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.storage.tags import RUN_KEY_TAG, SENSOR_NAME_TAG


def execute_here(
    instance: dg.DagsterInstance,
    job: dg.JobDefinition,
    request: dg.RunRequest,
    *,
    sensor: str,
    location: str,
    run_config: Mapping[str, object] | None = None,
) -> dg.DagsterRun:
    """Execute what a sensor asks for, in this process and with the job's own executor.

    Args:
        sensor: its name; as its daemon does, none of its run keys is made a second run of.
        location: the name of the code location that the job belongs to.

    Returns:
        The run as it ended.

    Raises:
        KeyboardInterrupt: the process was told to end, and the run has ended. Dagster makes an error of the
            run of it, after which a caller would go on with the next.
    """
    origin = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(location), SINGLETON_REPOSITORY_NAME)
    tags = {**request.tags, SENSOR_NAME_TAG: sensor, RUN_KEY_TAG: request.run_key or ""}
    if request.partition_key:
        tags |= job.get_tags_for_partition_key(request.partition_key, selected_asset_keys=None)
    run = instance.create_run_for_job(
        job, run_config=run_config, tags=tags, remote_job_origin=origin.get_job_origin(job.name)
    )
    result = execute_run(InMemoryJob(job), run, instance)
    if any(map(_is_interruption, result.all_events)):
        raise KeyboardInterrupt
    return instance.get_run_by_id(run.run_id) or run


def _is_interruption(event: dg.DagsterEvent) -> bool:
    if event.is_step_failure:
        error = event.step_failure_data.error
    elif event.is_job_failure:
        error = event.job_failure_data.error
    else:
        return False
    return error is not None and error.cls_name == DagsterExecutionInterruptedError.__name__


def was_asked_for(instance: dg.DagsterInstance, sensor: str, run_key: str) -> bool:
    """Whether there is a run of this key already, such as one that the daemon has made meanwhile."""
    tags = {SENSOR_NAME_TAG: sensor, RUN_KEY_TAG: run_key}
    return bool(instance.get_runs(dg.RunsFilter(tags=tags), limit=1))
