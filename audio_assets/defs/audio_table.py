"""`audio_table`: the training table, a row for each object."""

import concurrent.futures

import dagster as dg
import pyarrow as pa
from dagster._core.definitions.data_version import DATA_VERSION_TAG

from audio_assets import schema
from audio_assets.defs.metadata import add_partition_metadata, column_schema, partition_metadata, preview
from audio_assets.defs.partitions import backfill_policy, folder_minute, partitions_of
from audio_assets.defs.resources import Bucket
from audio_assets.digest import Digest
from audio_assets.errors import ConflictError, MissingInputError
from audio_assets.partitions import FolderMinute
from audio_assets.rows import audio_rows, inventory_objects
from audio_assets.table import CONFLICT_ROUNDS, THREADS, Table


@dg.asset(
    deps=["s3_inventory", "transcripts", "tokens"],
    partitions_def=folder_minute,
    backfill_policy=backfill_policy,
    group_name="audio",
    kinds={"parquet"},
    owners=["team:speech"],
    code_version="1",
    metadata=column_schema(schema.with_partition_columns(schema.AUDIO_TABLE)),
)
def audio_table(context: dg.AssetExecutionContext, bucket: Bucket) -> dg.MaterializeResult:
    """A row for each object, FLAC or not: its text, its tokens, how sure Whisper was, where it came from."""
    bucket.check(context.log)
    table = bucket.audio_table
    inputs = bucket.inventory, bucket.transcripts, bucket.tokens
    partitions = partitions_of(context)

    def replace(partition: FolderMinute) -> tuple[FolderMinute, pa.Table]:
        for _ in range(CONFLICT_ROUNDS):
            # The version is read before the inputs: who reads inputs later writes last.
            version = table.read(partition)
            try:
                rows = audio_rows(*(_read(input_table, partition) for input_table in inputs))
            except MissingInputError as e:
                raise MissingInputError(f"{partition.key}: {e}") from e
            try:
                table.replace(partition, rows, version)
                return partition, rows
            except ConflictError:
                continue
        raise ConflictError(f"other runs keep replacing {partition.key}; let them finish first")

    metadata = {}
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        for partition, rows in pool.map(replace, partitions):
            failed = rows["status"].to_pylist().count(schema.FAILED)
            metadata[partition.key] = partition_metadata(table, table.path(partition), len(rows)) | {
                "failed": dg.MetadataValue.int(failed),
                "preview": preview(rows),
            }
            # The sensor compares this with the bucket. It is an observation because the materialisations of
            # a range share their tags, and each partition needs its own.
            digest = Digest.of(inventory_objects(rows))
            context.log_event(
                dg.AssetObservation(
                    context.asset_key,
                    partition=partition.key,
                    description="The objects that this table is made from; new_s3_keys compares with it.",
                    tags={DATA_VERSION_TAG: str(digest)},
                )
            )
    add_partition_metadata(context, table.name, metadata)
    return dg.MaterializeResult()


def _read(table: Table, partition: FolderMinute) -> pa.Table:
    rows = table.read(partition).rows
    if rows is None:
        raise MissingInputError(f"{table.name} has no such partition; materialise that first")
    return rows
