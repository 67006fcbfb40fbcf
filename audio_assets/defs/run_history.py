"""The job `purge_run_history` and its schedule: logs of old runs are deleted, each day."""

import datetime as dt

import dagster as dg

from audio_assets.defs.internals.run_history import purge_run_logs
from audio_assets.defs.jobs import OWNERS
from audio_assets.settings import KEEP_RUN_LOGS_DAYS


@dg.op(name="delete_old_logs", out=dg.Out(dg.Nothing))
def delete_old_logs(context: dg.OpExecutionContext) -> None:
    """Delete what runs have logged that are older than KEEP_RUN_LOGS_DAYS; what they made stays on record."""
    before = dt.datetime.now(dt.UTC) - dt.timedelta(days=KEEP_RUN_LOGS_DAYS.get())
    runs = purge_run_logs(context.instance, before, context.log)
    context.log.info(f"Looked at {runs} runs from before {before:%Y-%m-%d %H:%M}")
    context.add_output_metadata({"runs": runs})


@dg.job(
    description="Deletes the logs of runs that are older than KEEP_RUN_LOGS_DAYS. The runs stay listed, and"
    " materialisations, observations, check results and partition statuses stay as they are.",
    owners=OWNERS,
)
def purge_run_history() -> None:
    delete_old_logs()


daily_purge = dg.ScheduleDefinition(
    name="daily_purge",
    job=purge_run_history,
    cron_schedule="20 3 * * *",
    description="Deletes the logs of old runs each night, by UTC.",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
