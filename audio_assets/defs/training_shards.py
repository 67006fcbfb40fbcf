"""`training_shards`: the selected rows of a day with their audio, the job, and the sensor that asks for it.

Off until SHARDS_SELECTION says which rows are wanted: the shards hold the audio once more. What a shard is
and which files a day has is plain Python in `audio_assets/shards/`; this module connects.
"""

import dataclasses
import datetime as dt
import hashlib

import dagster as dg

from audio_assets import schema
from audio_assets.daily import DayRecord
from audio_assets.defs import lineage
from audio_assets.defs.audio_table_daily import (
    MAKE_SHARDS,
    SHARDS,
    DayAttempt,
    attempts,
    audio_table_daily,
    day_partitions,
    day_records,
    parse_day,
    unfinished_days,
)
from audio_assets.defs.failures import known_errors
from audio_assets.defs.internals.instance_owner import claim
from audio_assets.defs.internals.partition_metadata import add_partition_metadata
from audio_assets.defs.metadata import TAGS, audio_hours, markdown_table, table_metadata
from audio_assets.defs.records import InstanceRecords, log_record
from audio_assets.defs.resources import Bucket
from audio_assets.errors import ArgumentError
from audio_assets.sensor.days import MAX_DAYS_IN_FLIGHT, DayRequest
from audio_assets.settings import SHARDS_SELECTION, SHARDS_SPLITS
from audio_assets.shards import Exported, Selection, Splits, export_shards
from audio_assets.shards.columns import COLUMNS
from audio_assets.shards.files import VERSION, ShardFiles
from audio_assets.shards.splits import SPLITS

MADE_FROM = "What this day's shards were made from; changed_shards goes by it."
OFF = "SHARDS_SELECTION is not set, so there are no training shards; set it to {} for all rows that are ok"


@dataclasses.dataclass(frozen=True)
class _Wanted:
    """What the settings ask for."""

    selection: Selection
    splits: Splits

    def fingerprint(self, daily: DayRecord | None) -> str:
        """Of all that shapes the shards of a day.

        Args:
            daily: what is recorded of the day's file in `audio_table_daily`; None for nothing.
        """
        made_from = None if daily is None else (daily.digest, daily.version)
        state = f"{VERSION} {made_from} {self.selection} {self.splits}"
        return hashlib.sha256(f"training_shards {state}".encode()).hexdigest()[:16]


def wanted() -> _Wanted | None:
    """What the settings ask for; None where they ask for no shards.

    Raises:
        ArgumentError: one of them is wrong.
    """
    selection = SHARDS_SELECTION.get()
    if selection is None:
        return None
    try:
        chosen = Selection.parse(selection)
    except ArgumentError as e:
        raise ArgumentError(SHARDS_SELECTION.name, f": {e}") from None
    try:
        return _Wanted(chosen, Splits.parse(SHARDS_SPLITS.get() or {}))
    except ArgumentError as e:
        raise ArgumentError(SHARDS_SPLITS.name, f": {e}") from None


@dg.asset(
    deps=[audio_table_daily],
    partitions_def=day_partitions,
    backfill_policy=dg.BackfillPolicy.multi_run(1),
    group_name="audio",
    kinds={"parquet", "huggingface"},
    tags=TAGS,
    owners=["team:speech"],
    code_version=str(VERSION),
    metadata=table_metadata(schema.TRAINING_SHARDS, COLUMNS),
)
def training_shards(context: dg.AssetExecutionContext, bucket: Bucket) -> dg.MaterializeResult:
    """The rows that SHARDS_SELECTION selects, with their audio: Parquet for Hugging Face, NeMo, Lhotse."""
    with known_errors():
        asked = wanted()
        if asked is None:
            raise dg.Failure(OFF)
        bucket.check(context.log)
        table = bucket.audio_table
        folder = f"{schema.TRAINING_SHARDS}/"
        files = ShardFiles(store=table.store, folder=folder, source=bucket.source.store, splits=asked.splits)
        metadata = {}
        for key in context.partition_keys:
            day = parse_day(key)
            made_at = dt.datetime.now(dt.UTC).timestamp()
            # Before the rows are read, so that a later compaction is noticed.
            daily = day_records(context.instance).get(key)
            made = export_shards(table, files, asked.selection, start=day, end=day + dt.timedelta(days=1))
            said = _describe(made, f"{table.store.uri}/{schema.TRAINING_SHARDS}")
            metadata[key] = said | lineage.of_shards()
            record = DayRecord(asked.fingerprint(daily), "", made_at, context.run.run_id)
            log_record(context, key, record, MADE_FROM)
        add_partition_metadata(context, schema.TRAINING_SHARDS, metadata)
    return dg.MaterializeResult()


make_training_shards = dg.define_asset_job(
    MAKE_SHARDS,
    selection=dg.AssetSelection.assets(training_shards).without_checks(),
    description="Makes the training shards of a day what its rows and SHARDS_SELECTION ask for.",
    owners=["team:speech"],
)


def _describe(made: Exported, uri: str) -> dict[str, dg.MetadataValue]:
    """What the shards of a day hold, and what they do not."""
    reasons = sorted(made.refused.items(), key=lambda one: -one[1])
    left_out = [{"reason": reason, "rows": count} for reason, count in reasons]
    changes = [("written", made.written), ("unchanged", made.kept), ("deleted", made.deleted)]
    listed = [{"file": path, "was": what} for what, paths in changes for path in paths]
    return {
        **{split: dg.MetadataValue.int(made.rows[split]) for split in SPLITS},
        "audio_hours": audio_hours(made.duration_s),
        "left_out": dg.MetadataValue.int(made.refused.total()),
        "left_out_by_reason": markdown_table(left_out, characters=1000),
        "files": markdown_table(listed, characters=1000),
        "size_mb": dg.MetadataValue.float(round(made.size / 1e6, 3)),
        "dagster/partition_row_count": dg.MetadataValue.int(made.rows.total()),
        "dagster/uri": dg.MetadataValue.text(uri),
    }


# --- the sensor -----------------------------------------------------------------------------------------


def look_at_shards(instance: dg.DagsterInstance, asked: _Wanted, now: dt.datetime) -> list[DayAttempt]:
    """The runs to ask for now, the newest days first: of each day that was compacted since its shards were
    made, or whose shards were made by other settings."""
    # Runs first, as in `look_at_days`.
    busy = unfinished_days(instance)
    daily = day_records(instance)
    made = day_records(instance, SHARDS)
    due: list[DayRequest] = []
    for day in sorted(daily.keys() - busy, reverse=True):
        never_had_any = day not in made and not daily[day].version
        fingerprint = asked.fingerprint(daily[day])
        if not never_had_any and (day not in made or made[day].digest != fingerprint):
            # A day that changes and changes back is asked for again.
            last = made[day].run if day in made else ""
            request = hashlib.sha256(f"{day} {last} {fingerprint}".encode()).hexdigest()[:16]
            due.append(DayRequest(day, request))
    found = attempts(due, InstanceRecords(instance), now, wait_after_failure=True)
    return found[: max(0, MAX_DAYS_IN_FLIGHT - len(busy))]


@dg.sensor(
    job=make_training_shards,
    name="changed_shards",
    description="Asks for the shards of every day that was compacted since they were made, and of all days"
    " after SHARDS_SELECTION or SHARDS_SPLITS has changed. Reads nothing but Dagster's records.",
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def changed_shards(context: dg.SensorEvaluationContext, bucket: Bucket) -> dg.SensorResult | dg.SkipReason:
    """Compare the records of the days with those of their shards."""
    asked = wanted()
    if asked is None:
        return dg.SkipReason(OFF)
    claim(context.instance, bucket.source_uri, bucket.table_uri)
    found = look_at_shards(context.instance, asked, dt.datetime.now(dt.UTC))
    if not found:
        return dg.SkipReason("every day's shards are made or under way")
    # A day that has no rows any more is gone from Dagster, and its shards are still there.
    days = [attempt.request.day for attempt in found]
    known = set(context.instance.get_dynamic_partitions(day_partitions.name or ""))
    missing = [day for day in days if day not in known]
    return dg.SensorResult(
        run_requests=[attempt.run_request for attempt in found],
        dynamic_partitions_requests=[day_partitions.build_add_request(missing)] if missing else [],
    )
