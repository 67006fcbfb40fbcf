"""Launching a backfill from Python.

Why private: Dagster launches backfills from its UI and over GraphQL only. `PartitionBackfill` is what both
make, and `add_backfill` hands it to the daemon.
"""

import time
from collections.abc import Sequence

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.execution.backfill import PartitionBackfill
from dagster._core.utils import make_new_backfill_id


def launch_backfill(
    instance: dg.DagsterInstance,
    assets: Sequence[dg.AssetsDefinition],
    partition_keys: Sequence[str],
    *,
    title: str,
    description: str,
) -> str:
    """Launch a backfill of all the assets for these partitions; the daemon makes its runs.

    Returns:
        The id of the backfill, as the UI shows it.
    """
    graph = AssetGraph.from_assets(assets)
    backfill = PartitionBackfill.from_asset_partitions(
        make_new_backfill_id(),
        graph,
        partition_names=list(partition_keys),
        asset_selection=sorted(graph.materializable_asset_keys),
        backfill_timestamp=time.time(),
        tags={},
        dynamic_partitions_store=instance,
        all_partitions=False,
        title=title,
        description=description,
        run_config=None,
    )
    instance.add_backfill(backfill)
    return backfill.backfill_id
