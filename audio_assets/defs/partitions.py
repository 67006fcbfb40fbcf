"""The partitions that all assets share: one key for each folder and minute that has audio."""

import dagster as dg

from audio_assets.partitions import FolderMinute

FOLDER_MINUTE = "folder_minute"
folder_minute = dg.DynamicPartitionsDefinition(name=FOLDER_MINUTE)

# A run covers a range, so that the model is loaded once; its size bounds what a failure can cost.
backfill_policy = dg.BackfillPolicy.multi_run(max_partitions_per_run=100)


def partitions_of(context: dg.AssetExecutionContext) -> list[FolderMinute]:
    """The partitions of this run, one or a range."""
    return [FolderMinute.parse(key) for key in context.partition_keys]
