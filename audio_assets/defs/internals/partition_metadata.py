"""Metadata for many partitions of one run at a time."""

from collections.abc import Mapping

import dagster as dg


def add_partition_metadata(
    context: dg.AssetExecutionContext, asset: str, metadata: Mapping[str, Mapping[str, dg.MetadataValue]]
) -> None:
    """Do what `context.add_asset_metadata` does, for many partitions of this run at once.

    That method reads all registered partition keys from the instance at every call, only to check one. With
    tens of thousands registered, that takes longer than the work; these keys come from the run itself. So
    this writes where that method writes: the private `_metadata_accumulator` of the step's context.

    Args:
        asset: the asset's name; the step makes it.
        metadata: by partition key.
    """
    step = context.get_step_execution_context()
    accumulator = step._metadata_accumulator
    for key, values in metadata.items():
        accumulator = accumulator.with_additional_asset_metadata(dg.AssetKey(asset), key, values)
    step._metadata_accumulator = accumulator
