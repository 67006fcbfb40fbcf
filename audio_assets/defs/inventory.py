"""`s3_inventory`: what is in each partition now."""

import concurrent.futures
import itertools

import dagster as dg

from audio_assets import schema
from audio_assets.defs.metadata import add_partition_metadata, column_schema, partition_metadata
from audio_assets.defs.partitions import backfill_policy, folder_minute, partitions_of
from audio_assets.defs.resources import Bucket
from audio_assets.digest import group
from audio_assets.errors import ConflictError
from audio_assets.partitions import FolderMinute
from audio_assets.rows import inventory_rows
from audio_assets.storage import ObjectInfo
from audio_assets.table import CONFLICT_ROUNDS, THREADS


@dg.asset(
    partitions_def=folder_minute,
    backfill_policy=backfill_policy,
    group_name="audio",
    kinds={"s3", "parquet"},
    owners=["team:speech"],
    code_version="1",
    metadata=column_schema(schema.INVENTORY),
)
def s3_inventory(context: dg.AssetExecutionContext, bucket: Bucket) -> dg.MaterializeResult:
    """The objects of each folder and minute: key, ETag, size, time of last modification.

    A folder is listed once for all of its partitions in the run. A partition whose objects are gone keeps
    a file without rows.
    """
    bucket.check(context.log)
    source, table = bucket.source, bucket.inventory

    def replace(folder: str, partitions: list[FolderMinute]) -> dict[FolderMinute, int]:
        for _ in range(CONFLICT_ROUNDS):
            # Versions are read before the listing: who lists later writes last.
            versions = {p: table.read(p) for p in partitions}
            found: dict[FolderMinute, list[ObjectInfo]] = {p: [] for p in partitions}
            # A folder may hold millions of objects of other minutes.
            for page in source.objects(folder):
                for p, objects in group(page).items():
                    if p in found:
                        found[p] += objects
            conflicts = []
            for p in partitions:
                try:
                    table.replace(p, inventory_rows(found[p]), versions[p])
                except ConflictError:
                    conflicts.append(p)
            if not conflicts:
                return {p: len(found[p]) for p in partitions}
        raise ConflictError(f"other runs keep replacing the inventory of {folder!r}; let them finish first")

    by_folder = itertools.groupby(sorted(partitions_of(context)), key=lambda p: p.folder)
    folders = [(folder, list(partitions)) for folder, partitions in by_folder]
    metadata = {}
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        for counts in pool.map(lambda item: replace(*item), folders):
            for p, count in counts.items():
                metadata[p.key] = partition_metadata(table, table.path(p), count)
    add_partition_metadata(context, table.name, metadata)
    return dg.MaterializeResult()
