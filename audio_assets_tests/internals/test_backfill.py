"""A backfill that is launched from Python is one that Dagster's daemon works on."""

import dagster as dg
from dagster._core.execution.backfill import BulkActionStatus

from audio_assets.defs.internals.backfill import launch_backfill

PARTITIONS = dg.StaticPartitionsDefinition(["a", "b", "c"])


@dg.asset(partitions_def=PARTITIONS)
def first() -> None: ...


@dg.asset(partitions_def=PARTITIONS, deps=[first])
def second() -> None: ...


def test_a_backfill_asks_for_all_assets_of_its_partitions_and_for_no_others():
    with dg.DagsterInstance.ephemeral() as instance:
        id_ = launch_backfill(
            instance, [first, second], ["a", "c"], title="again", description="two partitions"
        )
        [backfill] = instance.get_backfills()
        assert backfill.backfill_id == id_
        assert backfill.status == BulkActionStatus.REQUESTED
        assert (backfill.title, backfill.description) == ("again", "two partitions")
        graph = dg.Definitions(assets=[first, second]).resolve_asset_graph()
        targets = backfill.get_asset_backfill_data(graph).target_subset.iterate_asset_partitions()
        assert {(t.asset_key.to_user_string(), t.partition_key) for t in targets} == {
            (asset, key) for asset in ("first", "second") for key in ("a", "c")
        }
