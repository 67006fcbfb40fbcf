"""The jobs: the sensor asks for `process_audio`, a person launches `retry_failed_objects`."""

import concurrent.futures

import dagster as dg

from audio_assets import schema
from audio_assets.defs import speech
from audio_assets.defs.audio_table import audio_table
from audio_assets.defs.internals.backfill import launch_backfill
from audio_assets.defs.inventory import s3_inventory
from audio_assets.defs.metadata import markdown_table
from audio_assets.defs.partitions import ASSETS, FOLDER_MINUTE
from audio_assets.defs.resources import Bucket
from audio_assets.parallel import map_ahead
from audio_assets.table import THREADS

OWNERS = ["team:speech"]

process_audio = dg.define_asset_job(
    "process_audio",
    selection=ASSETS,
    description="From objects to rows, for a partition or a range of them.",
    owners=OWNERS,
)


@dg.op(name="ask_for_failed_objects", out=dg.Out(dg.Nothing))
def ask_for_failed_objects(context: dg.OpExecutionContext, bucket: Bucket) -> None:
    """Launch a backfill of the partitions that have failed rows; rows that are ok are reused by it."""
    table = bucket.audio_table
    registered = set(context.instance.get_dynamic_partitions(FOLDER_MINUTE))
    # Partitions that were retired from Dagster keep their rows as they are.
    partitions = [p for p in table.partitions() if p.key in registered]
    failed: dict[str, int] = {}
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        read = map_ahead(pool, lambda p: (p, table.scan([p], ["status"])), partitions, ahead=64)
        for partition, rows in read:
            if count := rows["status"].to_pylist().count(schema.FAILED):
                failed[partition.key] = count
    context.add_output_metadata(
        {
            "partitions": len(failed),
            "objects": sum(failed.values()),
            "failed": markdown_table([{"partition": key, "failed": count} for key, count in failed.items()]),
        }
    )
    if not failed:
        context.log.info("No object has failed")
        return
    description = f"{sum(failed.values())} failed objects in {len(failed)} partitions"
    backfill = launch_backfill(
        context.instance,
        [s3_inventory, speech.speech, audio_table],
        list(failed),
        title="retry_failed_objects",
        description=description,
    )
    context.log.info(f"Backfill {backfill} tries {description} again; see Runs, Backfills")


@dg.job(
    description="Tries every failed object again, by a backfill of the partitions that have one.",
    owners=OWNERS,
)
def retry_failed_objects() -> None:
    ask_for_failed_objects()
