"""The sensor `notify_of_failures`, which tells FAILURE_WEBHOOK_URL of failed runs; without it, no sensor."""

import re

import dagster as dg

from audio_assets.defs.internals.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
    WILL_RETRY_TAG,
)
from audio_assets.errors import NotificationError
from audio_assets.settings import FAILURE_WEBHOOK_URL
from audio_assets.webhook import post

LONGEST_REASON = 300


@dg.run_failure_sensor(
    name="notify_of_failures",
    description="Tells FAILURE_WEBHOOK_URL of each run that fails.",
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def notify_of_failures(context: dg.RunFailureSensorContext) -> None:
    # The setting may be gone by now; it is never part of the definitions, which the UI shows.
    if not (url := FAILURE_WEBHOOK_URL.get()):
        return
    try:
        post(url, failure_text(context))
    except NotificationError as e:
        raise NotificationError(f"{e} (FAILURE_WEBHOOK_URL)") from None


def failure_text(context: dg.RunFailureSensorContext) -> str:
    """Job, partitions, the first sentence of the error, and whether somebody has to act."""
    run = context.dagster_run
    first = run.tags.get(ASSET_PARTITION_RANGE_START_TAG) or run.tags.get(PARTITION_NAME_TAG)
    last = run.tags.get(ASSET_PARTITION_RANGE_END_TAG)
    covered = f" of {first}" if first else ""
    if last and last != first:
        covered += f" to {last}"
    retried = " It is retried." if run.tags.get(WILL_RETRY_TAG) == "true" else ""
    return f"{run.job_name}{covered} has failed: {_reason(context)}{retried} (run {run.run_id})"


def _reason(context: dg.RunFailureSensorContext) -> str:
    said = context.failure_event.message or ""
    for event in context.get_step_failure_events():
        if error := event.step_failure_data.error:
            # Dagster wraps what the code has raised.
            said = (error.cause or error).message
            break
    # An error of the code begins with its class and the module of that.
    said = re.sub(r"^(\w+\.)+(?=\w+: )", "", said)
    sentence = re.split(r"(?<=[.!?])\s|\n", said.strip(), maxsplit=1)[0]
    if len(sentence) > LONGEST_REASON:
        sentence = f"{sentence[:LONGEST_REASON]}…"
    return sentence if sentence.endswith((".", "!", "?", "…")) else f"{sentence}."


@dg.definitions
def failure_notification() -> dg.Definitions:
    """The sensor, if there is somebody to tell."""
    return dg.Definitions(sensors=[notify_of_failures] if FAILURE_WEBHOOK_URL.get() else [])
