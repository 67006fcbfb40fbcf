"""What the UI shows of asset checks."""

import asyncio

import dagster as dg
from dagster._core.loader import LoadingContextForTest


def shown_result(instance: dg.DagsterInstance, key: dg.AssetCheckKey) -> dg.AssetCheckEvaluation | None:
    """What the UI shows of a check: GraphQL's `executionForLatestMaterialization`."""
    record = instance.event_log_storage.get_latest_asset_check_execution_by_key([key]).get(key)
    if record is None:
        return None
    current = asyncio.run(record.targets_latest_materialization(LoadingContextForTest(instance)))
    return record.evaluation if current else None
