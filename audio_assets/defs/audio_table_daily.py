"""`audio_table_daily`: the daily copy of `audio_table`, its job, and the sensor that asks for it.

Its partitions are the days that have audio, registered as they come. A `DailyPartitionsDefinition` begins at
one fixed date, and would show each day since then without audio as missing. What differs is decided in
`audio_assets/sensor/days.py`; this module connects.
"""

import dataclasses
import datetime as dt
from collections.abc import Collection, Sequence

import dagster as dg

from audio_assets import schema
from audio_assets.daily import DailyTable, DayRecord
from audio_assets.daily_compaction import Compacted, compact
from audio_assets.day_plots import svg
from audio_assets.defs import lineage
from audio_assets.defs.check_results import report
from audio_assets.defs.failures import known_errors
from audio_assets.defs.internals.instance_owner import claim
from audio_assets.defs.internals.partition_metadata import add_partition_metadata
from audio_assets.defs.internals.tags import PARTITION_NAME_TAG
from audio_assets.defs.metadata import TAGS, audio_hours, picture, status_counts, table_metadata
from audio_assets.defs.partitions import KEYS_AT_A_TIME, parts
from audio_assets.defs.records import FINGERPRINT_TAG, RECORD_TAG, UNFINISHED, InstanceRecords, log_record
from audio_assets.defs.resources import Bucket
from audio_assets.partitions import FolderMinute, day_path
from audio_assets.sensor.days import MAX_DAYS_IN_FLIGHT, DayPlan, DayRequest, days_of, desired, plan
from audio_assets.sensor.run_requests import retry_delay
from audio_assets.settings import DAILY_INTERVAL_MINUTES, SETTLE_SECONDS

DAY = "day"
DAILY = dg.AssetKey(schema.AUDIO_TABLE_DAILY)
EQUALS_AUDIO_TABLE = "equals_audio_table"
"""The check of the daily copy."""

SHARDS = dg.AssetKey(schema.TRAINING_SHARDS)
MAKE_SHARDS = "make_training_shards"
"""The job of `training_shards`."""
MADE_FROM = "What this day's file was made from; changed_days compares it with the minute files."

day_partitions = dg.DynamicPartitionsDefinition(name=DAY)


@dg.asset(
    deps=["audio_table"],
    partitions_def=day_partitions,
    # One day a run: a day can be large, and a failure costs no other day.
    backfill_policy=dg.BackfillPolicy.multi_run(1),
    group_name="audio",
    kinds={"parquet"},
    tags=TAGS,
    owners=["team:speech"],
    code_version="1",
    metadata=table_metadata(schema.AUDIO_TABLE_DAILY, schema.with_partition_columns(schema.AUDIO_TABLE)),
)
def audio_table_daily(context: dg.AssetExecutionContext, bucket: Bucket) -> dg.MaterializeResult:
    """All rows of a day in one large file, sorted by folder and time: the copy that analytics reads."""
    with known_errors():
        bucket.check(context.log)
        daily = bucket.audio_table_daily
        records = InstanceRecords(context.instance)
        metadata = {}
        for key in context.partition_keys:
            day = parse_day(key)
            made_at = dt.datetime.now(dt.UTC).timestamp()
            compacted = compact(daily, bucket.audio_table, day, lambda key=key: _minutes_of(records, key))
            metadata[key] = _describe(daily, day, compacted) | lineage.of_daily()
            record = DayRecord(str(compacted.digest), compacted.version, made_at, context.run.run_id)
            log_record(context, key, record, MADE_FROM)
        add_partition_metadata(context, daily.name, metadata)
    return dg.MaterializeResult()


compact_days = dg.define_asset_job(
    "compact_days",
    selection=dg.AssetSelection.assets(DAILY).without_checks(),
    description="Compacts all minutes of a day into one large file.",
    owners=["team:speech"],
)


def parse_day(key: str) -> dt.date:
    try:
        return dt.date.fromisoformat(key)
    except ValueError:
        raise dg.Failure(f"{key!r} is no day; it should read like 2023-08-24") from None


def _minutes_of(records: InstanceRecords, day: str) -> list[FolderMinute]:
    """The minutes of a day that have rows, those that were retired from Dagster included."""
    recorded = records.records()
    return [FolderMinute.parse(key) for key in recorded if recorded[key].version and days_of([key]) == {day}]


def _describe(daily: DailyTable, day: dt.date, compacted: Compacted) -> dict[str, dg.MetadataValue]:
    """What a day's file holds, the most asked for first."""
    return {
        **status_counts(compacted.rows),
        "audio_hours": audio_hours(compacted.duration_s),
        "plots": picture(svg(compacted.counts), f"the audio of {day}"),
        "folders": dg.MetadataValue.int(compacted.folders),
        "minutes": dg.MetadataValue.int(compacted.minutes),
        "file_mb": dg.MetadataValue.float(round(compacted.size / 1e6, 3)),
        "row_groups": dg.MetadataValue.int(compacted.row_groups),
        "dagster/partition_row_count": dg.MetadataValue.int(compacted.rows.total()),
        "file": dg.MetadataValue.path(day_path(day)),
        "dagster/uri": dg.MetadataValue.text(daily.uri),
    }


# --- the sensor -----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class DayAttempt:
    """A run to ask for, and how many runs of the same fingerprint there were before it."""

    request: DayRequest
    tries: int

    @property
    def run_request(self) -> dg.RunRequest:
        """As Dagster takes it. With the number of tries in its key, a run without effect is repeated."""
        return dg.RunRequest(
            run_key=f"{self.request.fingerprint}-{self.tries}",
            partition_key=self.request.day,
            tags={FINGERPRINT_TAG: self.request.fingerprint},
        )


@dataclasses.dataclass(frozen=True)
class DaysOutcome:
    """What a look at the days asks for.

    Attributes:
        plan: what is to be done.
        runs: to ask for now, in order.
        compacting: the days that a queued or running run compacts already, or makes shards of.
    """

    plan: DayPlan
    runs: list[DayAttempt]
    compacting: Collection[str]

    @property
    def summary(self) -> str:
        """One line for the log."""
        counts = {
            "days differ from their minutes and wait": len(self.plan.waiting),
            "runs wait for others to end, or for their next try": len(self.plan.due) - len(self.runs),
            "days have no audio any more": len(self.plan.delete),
            "days to compact": len(self.runs),
        }
        return "; ".join(f"{count} {what}" for what, count in counts.items() if count) or "nothing to compact"


def look_at_days(
    instance: dg.DagsterInstance,
    bucket: Bucket,
    now: dt.datetime,
    interval: dt.timedelta,
    *,
    wait_after_failure: bool = True,
) -> DaysOutcome:
    """Compare the daily copy with the minute files, by what is recorded of both and one listing of the copy.

    Args:
        interval: how long after its last compaction an open day is compacted again.
        wait_after_failure: whether a run that had no effect is repeated only after a pause.

    Raises:
        StorageError: the daily copy cannot be listed.
    """
    records = InstanceRecords(instance)
    # Runs first: what one of them records meanwhile is then seen, or its day waits.
    unfinished = records.unfinished(records.registered())
    compacting = unfinished_days(instance)
    decided = plan(
        desired(records.records()),
        day_records(instance),
        {day.isoformat(): info.etag for day, info in bucket.audio_table_daily.days().items()},
        instance.get_dynamic_partitions(DAY),
        working=days_of(unfinished.covered),
        compacting=compacting,
        now=now,
        settle_time=SETTLE_SECONDS.get(),
        interval=interval,
    )
    found = attempts(decided.due, records, now, wait_after_failure=wait_after_failure)
    room = max(0, MAX_DAYS_IN_FLIGHT - len(compacting))
    return DaysOutcome(decided, found[:room], compacting)


def day_records(instance: dg.DagsterInstance, asset: dg.AssetKey = DAILY) -> dict[str, DayRecord]:
    """By day, what its last run recorded, as far as this version of the project can read it.

    Args:
        asset: the daily copy, or the training shards.
    """
    found: dict[str, DayRecord] = {}
    tags = instance.event_log_storage.get_latest_tags_by_partition(
        asset, dg.DagsterEventType.ASSET_OBSERVATION, [RECORD_TAG]
    )
    for day, said in tags.items():
        try:
            found[day] = DayRecord.from_json(said[RECORD_TAG])
        except (ValueError, TypeError):
            continue
    return found


def unfinished_days(instance: dg.DagsterInstance) -> Collection[str]:
    """The days that a queued or running run will compact, or make shards of.

    One of the two at a time: shards of a day that is compacted meanwhile would be made again.
    """
    runs = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
    jobs = (compact_days.name, MAKE_SHARDS)
    return {
        run.tags.get(PARTITION_NAME_TAG, "")
        for run in runs
        if run.job_name in jobs or {DAILY, SHARDS} & set(run.asset_selection or ())
    }


def attempts(
    due: Sequence[DayRequest], records: InstanceRecords, now: dt.datetime, *, wait_after_failure: bool
) -> list[DayAttempt]:
    """The runs to ask for, without those whose last try ended too recently."""
    tries = records.tries([request.fingerprint for request in due]) if due else {}
    found: list[DayAttempt] = []
    for request in due:
        ends = tries[request.fingerprint]
        pause = retry_delay(len(ends)).total_seconds() if ends and wait_after_failure else 0.0
        if now.timestamp() >= max(ends, default=0.0) + pause:
            found.append(DayAttempt(request, len(ends)))
    return found


@dg.sensor(
    job=compact_days,
    name="changed_days",
    description="Asks for every day whose minutes in audio_table are others than those that its copy was made"
    " from. Reads no object of the bucket, and lists the daily copy alone.",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def changed_days(context: dg.SensorEvaluationContext, bucket: Bucket) -> dg.SensorResult:
    """Compare the records of the minutes with those of the days."""
    claim(context.instance, bucket.source_uri, bucket.table_uri)
    outcome = look_at_days(context.instance, bucket, dt.datetime.now(dt.UTC), DAILY_INTERVAL_MINUTES.get())
    context.log.info(outcome.summary)
    working = bool(outcome.runs or outcome.compacting)
    report(context.instance, [], [EQUALS_AUDIO_TABLE], DAILY, working=working)
    requests: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = [
        day_partitions.build_add_request(part) for part in parts(outcome.plan.add, KEYS_AT_A_TIME)
    ]
    if outcome.plan.delete:
        requests.append(day_partitions.build_delete_request(outcome.plan.delete))
    return dg.SensorResult(
        run_requests=[attempt.run_request for attempt in outcome.runs],
        skip_reason=None if outcome.runs else outcome.summary,
        dynamic_partitions_requests=requests,
    )
