"""`process_audio`, and the sensor `new_s3_keys` that asks for it."""

import datetime as dt
import json
import time

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)

from audio_assets.defs.audio_table import audio_table
from audio_assets.defs.partitions import FOLDER_MINUTE, folder_minute
from audio_assets.defs.resources import Bucket, settle_time
from audio_assets.reconcile import Digest, Listing, Request, folder_of_partition, group, plan, retry_delay
from audio_assets.source import AudioSource, folder_order

REQUEST_TAG = "audio_assets/request"
# Well below the 60 s after which Dagster gives a tick up.
LISTING_SECONDS = 20
MAX_RUNS_IN_FLIGHT = 25
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

process_audio = dg.define_asset_job(
    "process_audio",
    selection=["s3_inventory", "transcripts", "tokens", "audio_table"],
    description="From objects to rows, for a partition or a range of them.",
)


@dg.sensor(
    job=process_audio,
    name="new_s3_keys",
    description="Asks for every folder and minute in which the bucket and the table differ.",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def new_s3_keys(context: dg.SensorEvaluationContext, bucket: Bucket) -> dg.SensorResult:
    """Compare bucket and table, folder by folder; a tick that runs out of time goes on in the next."""
    instance = context.instance
    recorded = {
        key: tags[DATA_VERSION_TAG]
        for key, tags in instance.event_log_storage.get_latest_tags_by_partition(
            audio_table.key, dg.DagsterEventType.ASSET_OBSERVATION, [DATA_VERSION_TAG]
        ).items()
    }
    registered = list(instance.get_dynamic_partitions(FOLDER_MINUTE))
    folders = map(folder_of_partition, (*registered, *recorded))
    known = {folder for folder in folders if folder is not None}
    after = json.loads(context.cursor)["after"] if context.cursor else None
    listing, last = list_folders(bucket.source, known, after)

    unfinished = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
    busy = {key for run in unfinished for key in _covered(run, registered)}
    decided = plan(listing, recorded, registered, busy, dt.datetime.now(dt.UTC), settle_time())
    room = max(0, MAX_RUNS_IN_FLIGHT - len(unfinished))
    runs = []
    for request in decided.requests:
        if len(runs) >= room:
            break
        if run := _run_request(instance, request):
            runs.append(run)

    dynamic = []
    if decided.add:
        dynamic.append(folder_minute.build_add_request(decided.add))
    if decided.delete:
        dynamic.append(folder_minute.build_delete_request(decided.delete))
    said = [f"{len(listing.partitions)} partitions in {len(listing.folders)} folders looked at"]
    if decided.open:
        said.append(f"{decided.open} wait for their minute to close")
    if waiting := len(decided.requests) - len(runs):
        said.append(f"{waiting} runs wait for others to end, or for their next try")
    return dg.SensorResult(
        run_requests=runs,
        skip_reason=None if runs else "; ".join([*said, "nothing to ask for now"]),
        dynamic_partitions_requests=dynamic,
        # Dagster keeps the last cursor where it is given an empty one.
        cursor=json.dumps({"after": last}) if last is not None or context.cursor else None,
    )


def list_folders(source: AudioSource, known: set[str], after: str | None) -> tuple[Listing, str | None]:
    """List folders for as long as the tick may.

    Args:
        known: folders that the table has; those that a listing passes without meeting them are gone.
        after: where the last tick left off.

    Returns:
        What was listed, and where to go on; None where the walk came to its end.
    """
    started = time.monotonic()
    partitions, folders = {}, set()
    last: str | None = None
    for folder, objects in source.folders(after):
        partitions |= {p: Digest.of(found) for p, found in group(objects).items()}
        folders.add(folder)
        if time.monotonic() - started > LISTING_SECONDS:
            last = folder
            break
    passed = {
        folder
        for folder in known
        if (after is None or folder_order(folder) > folder_order(after))
        and (last is None or folder_order(folder) <= folder_order(last))
    }
    return Listing(folders | passed, partitions), last


def _covered(run: dg.DagsterRun, registered: list[str]) -> list[str]:
    """The partition keys that a run will write."""
    if run.asset_selection is not None and audio_table.key not in run.asset_selection:
        return []
    if key := run.tags.get(PARTITION_NAME_TAG):
        return [key]
    start, end = (
        run.tags.get(tag) for tag in (ASSET_PARTITION_RANGE_START_TAG, ASSET_PARTITION_RANGE_END_TAG)
    )
    if start in registered and end in registered:
        return registered[registered.index(start) : registered.index(end) + 1]
    return []


def _run_request(instance: dg.DagsterInstance, request: Request) -> dg.RunRequest | None:
    """A run for the request, None where the last try ended too recently.

    Dagster forgets no run key, so that the number of tries is part of it: a run that was lost is asked for
    again, one that two daemons ask for at once is made once.
    """
    tries = instance.get_run_records(dg.RunsFilter(tags={REQUEST_TAG: request.fingerprint}))
    if tries:
        ended = max(record.end_time or record.update_timestamp.timestamp() for record in tries)
        if time.time() < ended + retry_delay(len(tries)).total_seconds():
            return None
    tags = {REQUEST_TAG: request.fingerprint}
    run_key = f"{request.fingerprint}-{len(tries)}"
    if request.start == request.end:
        return dg.RunRequest(run_key=run_key, partition_key=request.start, tags=tags)
    tags |= {ASSET_PARTITION_RANGE_START_TAG: request.start, ASSET_PARTITION_RANGE_END_TAG: request.end}
    return dg.RunRequest(run_key=run_key, tags=tags)
