"""`s3_inventory`: which objects are in each partition now."""

import concurrent.futures
import datetime as dt
import itertools
from collections.abc import Sequence

import dagster as dg
import pyarrow as pa

from audio_assets import schema
from audio_assets.defs.failures import known_errors
from audio_assets.defs.internals.partition_metadata import add_partition_metadata
from audio_assets.defs.metadata import TAGS, partition_metadata, table_metadata
from audio_assets.defs.partitions import backfill_policy, folder_minute, partitions_of
from audio_assets.defs.resources import Bucket
from audio_assets.digest import group
from audio_assets.partitions import FolderMinute
from audio_assets.rows import inventory_rows
from audio_assets.source import AudioSource
from audio_assets.storage import ObjectInfo
from audio_assets.table import THREADS, Updated

# The inventory is made anew only where the bucket has changed. Three days without a change are a long
# weekend; a week without one means that uploads, the sensor or its runs have stopped.
freshness_policy = dg.FreshnessPolicy.time_window(
    fail_window=dt.timedelta(days=7), warn_window=dt.timedelta(days=3)
)


@dg.asset(
    partitions_def=folder_minute,
    backfill_policy=backfill_policy,
    freshness_policy=freshness_policy,
    group_name="audio",
    kinds={"s3", "parquet"},
    tags=TAGS,
    owners=["team:speech"],
    code_version="1",
    metadata=table_metadata("s3_inventory", schema.INVENTORY),
)
def s3_inventory(context: dg.AssetExecutionContext, bucket: Bucket) -> dg.MaterializeResult:
    """The objects of each folder and minute: key, ETag, size, time of last modification.

    A folder is listed once for all of its partitions in the run. A partition whose objects are gone
    leaves no file.
    """
    with known_errors():
        bucket.check(context.log)
        table = bucket.inventory

        def update(partitions: Sequence[FolderMinute]) -> dict[FolderMinute, Updated]:
            return table.update(partitions, lambda some: _list_folder(bucket.source, some))

        by_folder = itertools.groupby(sorted(partitions_of(context)), key=lambda partition: partition.folder)
        folders = [list(partitions) for _, partitions in by_folder]
        metadata = {}
        with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
            for updated in pool.map(update, folders):
                for partition, now in updated.items():
                    metadata[partition.key] = partition_metadata(table, partition, len(now.rows))
        add_partition_metadata(context, table.name, metadata)
    return dg.MaterializeResult()


def _list_folder(source: AudioSource, partitions: Sequence[FolderMinute]) -> dict[FolderMinute, pa.Table]:
    """The inventory of some partitions of one folder, from one listing of it."""
    found: dict[FolderMinute, list[ObjectInfo]] = {partition: [] for partition in partitions}
    # A page at a time: a folder may hold millions of objects of other minutes.
    for page in source.objects(partitions[0].folder):
        for partition, objects in group(page).items():
            if partition in found:
                found[partition] += objects
    return {partition: inventory_rows(objects) for partition, objects in found.items()}
