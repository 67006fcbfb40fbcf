"""`process_audio`, and the sensor `new_s3_keys` that asks for it."""

import dataclasses
import datetime as dt
import functools
import itertools
import json
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.storage.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    PARTITION_NAME_TAG,
)

from audio_assets.defs.audio_table import audio_table
from audio_assets.defs.internals.partition_statuses import (
    keep_partition_statuses,
    refresh_partition_statuses,
)
from audio_assets.defs.jobs import process_audio
from audio_assets.defs.partitions import FOLDER_MINUTE, KEYS_AT_A_TIME, folder_minute, parts
from audio_assets.defs.resources import Bucket
from audio_assets.errors import StorageError
from audio_assets.partitions import FolderMinute, folder_of_partition
from audio_assets.rows import inventory_objects
from audio_assets.sensor.event_queue import EventQueue, Received
from audio_assets.sensor.plan import Request, plan, retry_delay
from audio_assets.sensor.state import Watch
from audio_assets.settings import BACKFILL_ORDER, SETTLE_SECONDS
from audio_assets.storage import ObjectInfo

REQUEST_TAG = "audio_assets/request"
# With what a tick does else, well below the 60 s after which Dagster gives it up.
LISTING_SECONDS = 12
MAX_RUNS_IN_FLIGHT = 25
# The daemon deletes them one by one; the rest is met again by the next walk.
DELETED_AT_A_TIME = 1_000
REQUESTS_AT_A_TIME = 500
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]

# By queue: the cursor that marks what the last tick's messages told of, and their receipts.
_unacknowledged: dict[str, tuple[str | None, list[str]]] = {}


@dg.sensor(
    job=process_audio,
    name="new_s3_keys",
    description="Asks for every folder and minute in which the bucket and the table differ.",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def new_s3_keys(context: dg.SensorEvaluationContext, bucket: Bucket) -> dg.SensorResult:
    """Compare bucket and table, folder by folder; a tick that runs out of time goes on in the next."""
    bucket.check(context.log)
    instance, source, queue = context.instance, bucket.source, bucket.events
    now = dt.datetime.now(dt.UTC)
    started = time.monotonic()

    def stop() -> bool:
        return time.monotonic() - started > LISTING_SECONDS

    before = read_cursor(context.cursor)
    if queue is None:
        before, received = Watch(before.walk), Received([], [])
    else:
        _acknowledge(queue, context.cursor)
        received = queue.receive()
    happened = [(source.key_of(event.bucket, event.key), event.removed) for event in received.events]

    registered = list(instance.get_dynamic_partitions(FOLDER_MINUTE))
    sweep = before.sweeps(now) and not bucket.inventory_manifest
    everything = sweep or bool(bucket.inventory_manifest)
    recorded = recorded_digests(instance) if everything else {}
    listing, watch = before.look(
        source,
        [key for key, removed in happened if key is not None and not removed],
        [key for key, removed in happened if key is not None and removed],
        known={folder_of_partition(key) for key in (*registered, *recorded)} if sweep else None,
        inventory=functools.partial(_inventory, bucket),
        now=now,
        stop=stop,
    )
    if not everything:
        here = [key for key in registered if folder_of_partition(key) in listing.folders]
        recorded = recorded_digests(instance, {*here, *(p.key for p in listing.partitions)})
    reported, report = (
        read_report(bucket, context.cursor, stop) if bucket.inventory_manifest else (None, None)
    )

    unfinished = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
    busy = covered(unfinished, registered)
    decided = plan(
        listing,
        recorded,
        registered,
        busy,
        now,
        SETTLE_SECONDS.get(),
        reported=reported,
        newest_first=BACKFILL_ORDER.get() == "newest",
    )
    room = max(0, MAX_RUNS_IN_FLIGHT - len(unfinished))
    runs = list(itertools.islice(_run_requests(instance, decided.requests), room))
    if queue is None:
        # Without events there is nothing but the walk.
        watch = Watch(watch.walk)
    else:
        watch = watch.settle(listing, recorded, decided, starved=len(runs) < len(decided.requests))
    # Never empty: Dagster would keep the last one.
    cursor = json.dumps(watch.to_json() | ({"report": report} if report else {}))
    if queue is not None:
        _unacknowledged[queue.url] = cursor, received.receipts

    delete = decided.delete[:DELETED_AT_A_TIME]
    dynamic: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = [
        folder_minute.build_add_request(part) for part in parts(decided.add, KEYS_AT_A_TIME)
    ]
    if delete:
        dynamic.append(folder_minute.build_delete_request(delete))
    keep_partition_statuses(instance, registered, add=decided.add, delete=delete)
    # Not in ticks by events, which should cost what is new.
    if everything and not runs and not dynamic:
        refresh_partition_statuses(instance)
    said = [f"{len(listing.partitions)} partitions in {len(listing.folders)} folders looked at"]
    if reported is not None:
        said = [f"{len(reported)} partitions read from the inventory report"]
    if decided.open:
        said.append(f"{decided.open} wait for their minute to close")
    if waiting := len(decided.requests) - len(runs):
        said.append(f"{waiting} runs wait for others to end, or for their next try")
    return dg.SensorResult(
        run_requests=runs,
        skip_reason=None if runs else "; ".join([*said, "nothing to ask for now"]),
        dynamic_partitions_requests=dynamic,
        cursor=cursor,
    )


def read_cursor(cursor: str | None) -> Watch:
    """Where the last tick left off.

    A cursor that says nothing sensible, be it damaged or of another version, looks at everything anew: that
    costs time and loses nothing.
    """
    try:
        return Watch.from_json(json.loads(cursor or "{}"))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, zlib.error):
        return Watch()


def read_report(
    bucket: Bucket, cursor: str | None, stop: Callable[[], bool]
) -> tuple[set[FolderMinute], dict[str, object]]:
    """Partitions that the S3 Inventory report names, and for the cursor, how far it has been read.

    Raises:
        ValueError, StorageError: it is of no use, or cannot be read; names the setting.
    """
    from audio_assets.sensor.inventory_report import Progress

    try:
        done = Progress(**json.loads(cursor or "{}")["report"])
    except (ValueError, KeyError, TypeError):
        done = Progress()
    try:
        found, done = bucket.inventory_report.advance(bucket.source, done, stop)
    except (ValueError, StorageError) as e:
        kind = StorageError if isinstance(e, StorageError) else ValueError
        raise kind(f"{e} (S3_INVENTORY_MANIFEST)") from e
    return found, dataclasses.asdict(done)


def _acknowledge(queue: EventQueue, cursor: str | None) -> None:
    """Delete the messages of the last tick, once the instance holds the cursor that it gave.

    That cursor marks what they told of. Those of a tick that was lost come again.
    """
    held_by, receipts = _unacknowledged.pop(queue.url, (None, []))
    if receipts and held_by == cursor:
        queue.delete(receipts)


def _inventory(bucket: Bucket, partition: FolderMinute) -> list[ObjectInfo]:
    rows = bucket.inventory.read(partition).rows
    return [] if rows is None else inventory_objects(rows)


def recorded_digests(instance: dg.DagsterInstance, keys: Collection[str] | None = None) -> dict[str, str]:
    """By partition key, the digest that `audio_table` was last made from.

    Args:
        keys: of which partitions, by default of all.
    """
    some = [None] if keys is None else parts(sorted(keys), KEYS_AT_A_TIME)
    return {
        key: tags[DATA_VERSION_TAG]
        for part in some
        for key, tags in instance.event_log_storage.get_latest_tags_by_partition(
            audio_table.key, dg.DagsterEventType.ASSET_OBSERVATION, [DATA_VERSION_TAG], part
        ).items()
    }


def covered(runs: Collection[dg.DagsterRun], registered: Sequence[str]) -> set[str]:
    """The partition keys that runs will write."""
    place = {key: at for at, key in enumerate(registered)} if runs else {}
    covered = set()
    for run in runs:
        if run.asset_selection is not None and audio_table.key not in run.asset_selection:
            continue
        if key := run.tags.get(PARTITION_NAME_TAG):
            covered.add(key)
        start, end = (
            place.get(run.tags.get(tag, ""))
            for tag in (ASSET_PARTITION_RANGE_START_TAG, ASSET_PARTITION_RANGE_END_TAG)
        )
        if start is not None and end is not None:
            covered.update(registered[start : end + 1])
    return covered


def _run_requests(instance: dg.DagsterInstance, requests: Sequence[Request]) -> Iterator[dg.RunRequest]:
    """A run for each request, but for those whose last try ended too recently.

    Dagster forgets no run key, so that the number of tries is part of it: a run that was lost is asked for
    again, one that two daemons ask for at once is made once.
    """
    for some in parts(requests, REQUESTS_AT_A_TIME):
        tries: dict[str, list[float]] = {request.fingerprint: [] for request in some}
        for record in instance.get_run_records(dg.RunsFilter(tags={REQUEST_TAG: list(tries)})):
            ended = record.end_time or record.update_timestamp.timestamp()
            tries[record.dagster_run.tags[REQUEST_TAG]].append(ended)
        for request in some:
            ends = tries[request.fingerprint]
            if ends and time.time() < max(ends) + retry_delay(len(ends)).total_seconds():
                continue
            run_key = f"{request.fingerprint}-{len(ends)}"
            tags = {REQUEST_TAG: request.fingerprint}
            if request.start == request.end:
                yield dg.RunRequest(run_key=run_key, partition_key=request.start, tags=tags)
            else:
                tags[ASSET_PARTITION_RANGE_START_TAG] = request.start
                tags[ASSET_PARTITION_RANGE_END_TAG] = request.end
                yield dg.RunRequest(run_key=run_key, tags=tags)
