"""`audio_table`: the training table, a row for each object."""

import concurrent.futures
from collections.abc import Callable, Sequence

import dagster as dg
import pyarrow as pa

from audio_assets import schema
from audio_assets.defs import lineage
from audio_assets.defs.failures import known_errors
from audio_assets.defs.internals.partition_metadata import add_partition_metadata
from audio_assets.defs.metadata import (
    TAGS,
    audio_hours,
    failures,
    partition_metadata,
    preview,
    status_counts,
    table_metadata,
)
from audio_assets.defs.partitions import backfill_policy, folder_minute, partitions_of
from audio_assets.defs.producers import current_producers
from audio_assets.defs.records import InstanceRecords, log_record
from audio_assets.defs.resources import AudioTokeniser, Bucket, Whisper
from audio_assets.errors import MissingInputError, StaleRowsError
from audio_assets.partition_rows import read_inventory
from audio_assets.partitions import FolderMinute
from audio_assets.record import PartitionRecord
from audio_assets.rows import audio_rows
from audio_assets.table import THREADS, Table

MADE_FROM = "What this partition's file was made from; new_s3_keys compares it with the bucket."


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
def audio_table(
    context: dg.AssetExecutionContext, bucket: Bucket, whisper: Whisper, tokeniser: AudioTokeniser
) -> dg.MaterializeResult:
    """A row for each object, FLAC or not: its text, its tokens, how sure Whisper was, where it came from."""
    with known_errors():
        bucket.check(context.log)
        table = bucket.audio_table
        is_stale = _stale_rows_of_others(context, whisper, tokeniser)

        def compute(partitions: Sequence[FolderMinute]) -> dict[FolderMinute, pa.Table]:
            return {partition: _join(bucket, partition, is_stale) for partition in partitions}

        before = InstanceRecords(context.instance).records(context.partition_keys)
        metadata = {}
        partitions = partitions_of(context)
        with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
            # One at a time and many side by side, rather than all in one update: a partition's rows are read
            # and written in a row, which leaves other runs little time to come between.
            for updated in pool.map(lambda partition: table.update([partition], compute), partitions):
                for partition, now in updated.items():
                    made = PartitionRecord.of(now.rows, now.version, context.run.run_id)
                    record = made.after(before.get(partition.key))
                    metadata[partition.key] = _describe(table, partition, now.rows, record)
                    log_record(context, partition.key, record, MADE_FROM)
        if partitions:
            metadata[context.partition_keys[-1]] |= lineage.of_audio_table()
        add_partition_metadata(context, table.name, metadata)
        return dg.MaterializeResult()


def _stale_rows_of_others(
    context: dg.AssetExecutionContext, whisper: Whisper, tokeniser: AudioTokeniser
) -> Callable[[pa.Table], int]:
    """Counts rows that this run cannot make anew, because it does not make `transcripts` or `tokens`."""
    selected = context.run.asset_selection
    made_here = {key.to_user_string() for key in selected} if selected else {"transcripts", "tokens"}
    producers = current_producers(
        whisper,
        tokeniser,
        models="transcripts" not in made_here,
        tokenisers="tokens" not in made_here,
    )
    return producers.cached().stale_rows


def _join(bucket: Bucket, partition: FolderMinute, is_stale: Callable[[pa.Table], int]) -> pa.Table:
    inventory = read_inventory(bucket.source, bucket.inventory, partition)
    try:
        rows = audio_rows(
            inventory, *(_read(table, partition, inventory) for table in (bucket.transcripts, bucket.tokens))
        )
    except MissingInputError as e:
        raise MissingInputError(f"{partition.key}: {e}") from e
    if stale := is_stale(rows):
        raise StaleRowsError(
            f"{partition.key}: {stale} of {len(rows)} rows were made by other settings than today's, which"
            " audio_table alone does not make anew; materialise transcripts and tokens with it, or launch the"
            " job redo_stale"
        )
    return rows


def _read(table: Table, partition: FolderMinute, inventory: pa.Table) -> pa.Table:
    rows = table.read(partition).rows
    if rows is not None:
        return rows
    if len(inventory):
        raise MissingInputError(f"{table.name} has no such partition; materialise that first")
    return table.schema.empty_table()


def _describe(
    table: Table, partition: FolderMinute, rows: pa.Table, record: PartitionRecord
) -> dict[str, dg.MetadataValue]:
    """What the partition's file holds, the most asked for first."""
    return {
        **status_counts({status: getattr(record, status) for status in schema.STATUSES}),
        "audio_hours": audio_hours(sum(filter(None, rows["duration_s"].to_pylist()))),
        "whisper_model": dg.MetadataValue.text(", ".join(record.whisper_models) or "none"),
        "tokeniser": dg.MetadataValue.text(", ".join(record.tokenisers) or "none"),
        **failures(rows),
        "preview": preview(rows),
        **partition_metadata(table, partition, len(rows)),
    }
