"""`retry_failed_objects`: the one action that tries all failed objects again, and nothing else."""

import concurrent.futures
import time

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.execution.backfill import PartitionBackfill
from dagster._core.utils import make_new_backfill_id

from audio_assets import schema
from audio_assets.defs.audio_table import audio_table
from audio_assets.defs.internals.partition_statuses import ASSETS
from audio_assets.defs.inventory import s3_inventory
from audio_assets.defs.metadata import markdown_table
from audio_assets.defs.partitions import FOLDER_MINUTE
from audio_assets.defs.resources import Bucket
from audio_assets.defs.speech import speech
from audio_assets.parallel import map_ahead
from audio_assets.table import THREADS

process_audio = dg.define_asset_job(
    "process_audio",
    selection=ASSETS,
    description="From objects to rows, for a partition or a range of them.",
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
    assets = AssetGraph.from_assets([s3_inventory, speech, audio_table])
    backfill = PartitionBackfill.from_asset_partitions(
        make_new_backfill_id(),
        assets,
        partition_names=list(failed),
        asset_selection=sorted(assets.materializable_asset_keys),
        backfill_timestamp=time.time(),
        tags={},
        dynamic_partitions_store=context.instance,
        all_partitions=False,
        title="retry_failed_objects",
        description=f"{sum(failed.values())} failed objects in {len(failed)} partitions",
        run_config=None,
    )
    context.instance.add_backfill(backfill)
    context.log.info(
        f"Backfill {backfill.backfill_id} tries {backfill.description} again; see Runs, Backfills"
    )


@dg.job(description="Tries every failed object again, by a backfill of the partitions that have one.")
def retry_failed_objects() -> None:
    ask_for_failed_objects()
