"""The sensor `new_s3_keys`, which asks for runs of `process_audio`.

It only connects: what Dagster has on record goes into a tick (`audio_assets/sensor/tick.py`), which decides,
and what the tick asks for goes back to Dagster.
"""

import datetime as dt
import time
from collections.abc import Callable, Collection, Sequence

import dagster as dg

from audio_assets.defs.check_results import report
from audio_assets.defs.check_rules import CHECKS, Results
from audio_assets.defs.internals.instance_owner import claim
from audio_assets.defs.internals.partition_statuses import (
    keep_partition_statuses,
    refresh_partition_statuses,
)
from audio_assets.defs.internals.pool import wake_waiting_step
from audio_assets.defs.internals.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from audio_assets.defs.jobs import process_audio
from audio_assets.defs.partitions import KEYS_AT_A_TIME, folder_minute, parts
from audio_assets.defs.producers import current_producers
from audio_assets.defs.records import FINGERPRINT_TAG, InstanceRecords
from audio_assets.defs.resources import AudioTokeniser, Bucket, Whisper
from audio_assets.errors import EventQueueError, StorageError
from audio_assets.partitions import FolderMinute, shortened_key
from audio_assets.rows import inventory_objects
from audio_assets.sensor.event_queue import Event, EventQueue, Received
from audio_assets.sensor.run_requests import RunLimits, RunRange
from audio_assets.sensor.state import Cursor, ReportProgress
from audio_assets.sensor.table_files import TableFiles
from audio_assets.sensor.tick import RunAttempt, TickInputs, TickOutcome, tick
from audio_assets.settings import (
    BACKFILL_ORDER,
    MAX_RUNS_IN_FLIGHT,
    OBJECTS_PER_RUN,
    PARTITIONS_PER_RUN,
    REDO_STALE,
    SETTLE_SECONDS,
)
from audio_assets.staleness import Producers, stale_partitions
from audio_assets.storage import ObjectInfo

# With what a tick does besides, well below the 60 s after which Dagster gives it up.
LISTING_SECONDS = 12


@dg.sensor(
    job=process_audio,
    name="new_s3_keys",
    description="Asks for every folder and minute in which the bucket and the table differ.",
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def new_s3_keys(
    context: dg.SensorEvaluationContext, bucket: Bucket, whisper: Whisper, tokeniser: AudioTokeniser
) -> dg.SensorResult:
    """Compare bucket and table, folder by folder; a tick that runs out of time goes on in the next."""
    now = dt.datetime.now(dt.UTC)
    wake_waiting_step(context.instance)
    try:
        # Before anything is written: a second source on this instance must not leave a trace.
        claim(context.instance, bucket.source_uri, bucket.table_uri)
        bucket.check(context.log)
        queue = bucket.events
        received = _read_events(queue, context.cursor)
        records = InstanceRecords(context.instance)
        events = None if received is None else received.events
        producers = producers_of(context.log.warning, bucket, whisper, tokeniser)
        stop = _stop_after(LISTING_SECONDS)
        inputs = tick_inputs(bucket, records, now, context.cursor, stop, events, producers)
        outcome = tick(inputs)
    except (StorageError, EventQueueError, ValueError) as e:
        # A tick that fails is seen by whoever looks at ticks; a check by whoever looks at the table.
        report(context.instance, [Results(now).bucket_readable(str(e))], (), working=False)
        raise
    context.log.info(outcome.summary)
    cursor = outcome.cursor.to_json()
    if queue is not None and received is not None:
        queue.delete_once_held(received.receipts, cursor)

    keep_partition_statuses(context.instance, inputs.registered, add=outcome.add, delete=outcome.delete)
    # A tick that looks only where events point costs no more than they do: it does not count for the UI.
    if outcome.table is not None and outcome.idle:
        refresh_partition_statuses(context.instance)
    report_checks(context.instance, bucket, outcome, producers, now)
    return dg.SensorResult(
        run_requests=[run_request(attempt) for attempt in outcome.runs],
        skip_reason=None if outcome.runs else outcome.summary,
        dynamic_partitions_requests=_partition_requests(outcome),
        cursor=cursor,
    )


def report_checks(
    instance: dg.DagsterInstance,
    bucket: Bucket,
    outcome: TickOutcome,
    producers: Producers | None,
    now: dt.datetime,
) -> None:
    """Put on record what this tick found out about the table, and keep the other checks' results in sight."""
    results = Results(now)
    found = [results.bucket_readable("")]
    if outcome.table is not None and outcome.table.partitions:
        found.append(results.audio_found(outcome.table, bucket.source_uri))
        if producers is not None:
            found.append(results.current_settings(outcome.table, producers))
    report(instance, found, CHECKS, working=bool(outcome.runs or outcome.pending))


def _stop_after(seconds: float) -> Callable[[], bool]:
    started = time.monotonic()
    return lambda: time.monotonic() - started > seconds


def _read_events(queue: EventQueue | None, cursor: str | None) -> Received | None:
    """Read the queue, once the messages that led to `cursor` are deleted; None where there is no queue."""
    if queue is None:
        return None
    queue.delete_held(cursor)
    return queue.receive()


def producers_of(
    warn: Callable[[str], object], bucket: Bucket, whisper: Whisper, tokeniser: AudioTokeniser
) -> Producers | None:
    """What tells rows of other settings; None where a setting is wrong, which fails the runs that need it."""
    try:
        return current_producers(whisper, tokeniser)
    except ValueError as e:
        warn(f"rows are not compared with today's settings: {e}")
        return None


def tick_inputs(
    bucket: Bucket,
    records: InstanceRecords,
    now: dt.datetime,
    cursor: str | None = None,
    stop: Callable[[], bool] = lambda: False,
    events: Sequence[Event] | None = None,
    producers: Producers | None = None,
) -> TickInputs:
    """What a tick goes by, as the settings say; by default one that looks at everything until it is done."""

    def inventory(partition: FolderMinute) -> list[ObjectInfo]:
        rows = bucket.inventory.read(partition).rows
        return [] if rows is None else inventory_objects(rows)

    def read_report(
        done: ReportProgress, stop: Callable[[], bool]
    ) -> tuple[set[FolderMinute], ReportProgress]:
        try:
            return bucket.inventory_report.advance(bucket.source, done, stop)
        except StorageError as e:
            raise StorageError(f"{e} (S3_INVENTORY_MANIFEST)") from e
        except ValueError as e:
            raise ValueError(f"{e} (S3_INVENTORY_MANIFEST)") from e

    def files(folders: Collection[str] | None) -> TableFiles:
        others = (bucket.inventory, bucket.transcripts, bucket.tokens)
        return TableFiles.read(bucket.audio_table, others, folders)

    return TickInputs(
        source=bucket.source,
        files=files,
        inventory=inventory,
        registered=records.registered(),
        records=records,
        cursor=Cursor.from_json(cursor),
        now=now,
        stop=stop,
        settle_time=SETTLE_SECONDS.get(),
        newest_first=BACKFILL_ORDER.get() == "newest",
        stale=lambda records: stale_partitions(records, producers) if producers else (),
        redo_stale=REDO_STALE.get() == "sensor",
        events=events,
        read_report=read_report if bucket.inventory_manifest else None,
        limits=RunLimits(PARTITIONS_PER_RUN.get(), OBJECTS_PER_RUN.get(), MAX_RUNS_IN_FLIGHT.get()),
    )


def run_request(attempt: RunAttempt) -> dg.RunRequest:
    """What a tick asks for, as Dagster takes it."""
    wanted = attempt.range
    tags = {FINGERPRINT_TAG: wanted.fingerprint}
    if wanted.start == wanted.end:
        return dg.RunRequest(run_key=attempt.run_key, partition_key=wanted.start, tags=tags)
    tags[ASSET_PARTITION_RANGE_START_TAG] = wanted.start
    tags[ASSET_PARTITION_RANGE_END_TAG] = wanted.end
    return dg.RunRequest(run_key=attempt.run_key, tags=tags | _shown(wanted))


def _shown(wanted: RunRange) -> dict[str, str]:
    """Which partitions a run covers, for the list of runs.

    Of Dagster's own tags the list shows the partition of a run that has one, and not the ends of a range.
    """
    return {
        "partitions": str(wanted.partitions),
        "first": shortened_key(wanted.start),
        "last": shortened_key(wanted.end),
    }


def _partition_requests(
    outcome: TickOutcome,
) -> list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest]:
    requests: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = [
        folder_minute.build_add_request(part) for part in parts(outcome.add, KEYS_AT_A_TIME)
    ]
    if outcome.delete:
        requests.append(folder_minute.build_delete_request(outcome.delete))
    return requests
