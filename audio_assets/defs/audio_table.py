"""`audio_table`: the training table, a row for each object."""

import concurrent.futures
from collections.abc import Sequence

import dagster as dg
import pyarrow as pa

from audio_assets import schema
from audio_assets.defs.internals.partition_metadata import add_partition_metadata
from audio_assets.defs.internals.tags import DATA_VERSION_TAG
from audio_assets.defs.metadata import TAGS, partition_metadata, preview, table_metadata
from audio_assets.defs.partitions import backfill_policy, folder_minute, partitions_of
from audio_assets.defs.resources import Bucket
from audio_assets.digest import Digest
from audio_assets.errors import MissingInputError
from audio_assets.partitions import FolderMinute
from audio_assets.rows import audio_rows, inventory_objects
from audio_assets.table import THREADS, Table


@dg.asset(
    deps=["s3_inventory", "transcripts", "tokens"],
    partitions_def=folder_minute,
    backfill_policy=backfill_policy,
    group_name="audio",
    kinds={"parquet"},
    tags=TAGS,
    owners=["team:speech"],
    code_version="1",
    metadata=table_metadata("audio_table", schema.with_partition_columns(schema.AUDIO_TABLE)),
)
def audio_table(context: dg.AssetExecutionContext, bucket: Bucket) -> dg.MaterializeResult:
    """A row for each object, FLAC or not: its text, its tokens, how sure Whisper was, where it came from."""
    bucket.check(context.log)
    table = bucket.audio_table
    inputs = (bucket.inventory, bucket.transcripts, bucket.tokens)

    def compute(partitions: Sequence[FolderMinute]) -> dict[FolderMinute, pa.Table]:
        return {partition: _join(inputs, partition) for partition in partitions}

    metadata = {}
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        # One at a time and many side by side, rather than all in one update: a partition's rows are read and
        # written in a row, which leaves other runs little time to come between.
        for updated in pool.map(lambda partition: table.update([partition], compute), partitions_of(context)):
            for partition, rows in updated.items():
                metadata[partition.key] = _describe(table, partition, rows)
                _record_digest(context, partition, rows)
    add_partition_metadata(context, table.name, metadata)
    return dg.MaterializeResult()


def _join(inputs: Sequence[Table], partition: FolderMinute) -> pa.Table:
    try:
        return audio_rows(*(_read(table, partition) for table in inputs))
    except MissingInputError as e:
        raise MissingInputError(f"{partition.key}: {e}") from e


def _read(table: Table, partition: FolderMinute) -> pa.Table:
    rows = table.read(partition).rows
    if rows is None:
        raise MissingInputError(f"{table.name} has no such partition; materialise that first")
    return rows


def _describe(table: Table, partition: FolderMinute, rows: pa.Table) -> dict[str, dg.MetadataValue]:
    failed = rows["status"].to_pylist().count(schema.FAILED)
    return partition_metadata(table, table.path(partition), len(rows)) | {
        "failed": dg.MetadataValue.int(failed),
        "preview": preview(rows),
    }


def _record_digest(context: dg.AssetExecutionContext, partition: FolderMinute, rows: pa.Table) -> None:
    """Record which objects the partition is made from; the sensor compares this with the bucket.

    It is an observation because the materialisations of a range share their tags, and each partition needs
    its own.
    """
    digest = Digest.of(inventory_objects(rows))
    context.log_event(
        dg.AssetObservation(
            context.asset_key,
            partition=partition.key,
            description="The objects that this table is made from; new_s3_keys compares with it.",
            tags={DATA_VERSION_TAG: str(digest)},
        )
    )
