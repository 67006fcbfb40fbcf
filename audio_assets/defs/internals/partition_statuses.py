"""Dagster's caches of partition statuses, kept where partition keys come and go.

Why private: Dagster caches what the UI shows of an asset's partitions under a hash of all partition keys, and
has no public way to say that only some of them have changed. At 100,000 partitions each new key would cost
the UI's next query seconds for each asset.
"""

from collections.abc import Collection, Sequence

import dagster as dg
from dagster._core.definitions.partitions.utils import generate_partition_key_based_definition_id
from dagster._core.storage.partition_status_cache import (
    AssetStatusCacheValue,
    get_and_update_asset_status_cache_value,
)

from audio_assets.defs.partitions import ASSETS, KEYS_AT_A_TIME, folder_minute, parts

_MATERIALISED_OR_PLANNED = (
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
)


def keep_partition_statuses(
    instance: dg.DagsterInstance,
    registered: Sequence[str],
    *,
    add: Sequence[str] = (),
    delete: Collection[str] = (),
) -> None:
    """Let the cached statuses hold for other partition keys; to be called ahead of the change itself.

    Dagster caches the statuses of an asset's partitions under a hash of all partition keys
    (`dagster._core.storage.partition_status_cache`), so that a single new key has the UI's next query count
    every record of the asset anew: seconds for each asset at 100,000 partitions. What the cache says of the
    other keys stays true, though. A cache that would not be right is left as it is, for Dagster to rebuild.

    Args:
        registered: all partition keys, in Dagster's order.
        add: those that follow, in the order in which they will be added; none is registered.
        delete: those that will be deleted.
    """
    if not (add or delete) or not instance.can_read_asset_status_cache():
        return
    gone = set(delete)
    after = [*(key for key in registered if key not in gone), *add]
    old_id = generate_partition_key_based_definition_id(registered)
    new_id = generate_partition_key_based_definition_id(after)
    for record in instance.get_asset_records(ASSETS):
        key = record.asset_entry.asset_key
        cached = record.asset_entry.cached_status
        if cached and cached.partitions_def_id == old_id and not _has_records(instance, key, add):
            kept = _without(cached, gone) if gone else cached
            instance.update_asset_cached_status_data(key, kept._replace(partitions_def_id=new_id))


def refresh_partition_statuses(instance: dg.DagsterInstance) -> None:
    """Bring the cached statuses of one asset up to date, if those of any are not.

    Otherwise the UI's next query does that, and counts all that was recorded since the query before it. One
    asset at a time, because that may take a second at 100,000 partitions.
    """
    if not instance.can_read_asset_status_cache():
        return
    for record in instance.get_asset_records(ASSETS):
        entry = record.asset_entry
        counted = entry.cached_status.latest_storage_id if entry.cached_status else 0
        if counted < (entry.last_materialization_storage_id or 0):
            get_and_update_asset_status_cache_value(instance, entry.asset_key, folder_minute)
            return


def _has_records(instance: dg.DagsterInstance, asset: dg.AssetKey, keys: Sequence[str]) -> bool:
    """Whether keys are registered again: the cache lacks what was materialised of them before."""
    return any(
        instance.event_log_storage.get_latest_storage_id_by_partition(asset, event, set(some))
        for event in _MATERIALISED_OR_PLANNED
        for some in parts(keys, KEYS_AT_A_TIME)
    )


def _without(cached: AssetStatusCacheValue, keys: set[str]) -> AssetStatusCacheValue:
    def left(serialized: str | None) -> str | None:
        if serialized is None:
            return None
        subset = folder_minute.deserialize_subset(serialized)
        return folder_minute.subset_with_partition_keys(set(subset.get_partition_keys()) - keys).serialize()

    return cached._replace(
        serialized_materialized_partition_subset=left(cached.serialized_materialized_partition_subset),
        serialized_failed_partition_subset=left(cached.serialized_failed_partition_subset),
        serialized_in_progress_partition_subset=left(cached.serialized_in_progress_partition_subset),
    )
