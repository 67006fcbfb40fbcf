"""Metadata of many partitions, recorded by one call as by many calls of Dagster's own method."""

from collections.abc import Iterator

import dagster as dg
import pytest

from audio_assets.defs.internals.partition_metadata import add_partition_metadata

KEYS = ["a", "b", "c"]
partitions = dg.DynamicPartitionsDefinition(name="letters")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("letters", KEYS)
        yield instance


def recorded(instance: dg.DagsterInstance, asset: dg.AssetsDefinition) -> dict[str | None, dict[str, object]]:
    """The metadata of each partition's materialisation, in a run over a range."""
    result = dg.materialize(
        [asset],
        instance=instance,
        tags={
            "dagster/asset_partition_range_start": KEYS[0],
            "dagster/asset_partition_range_end": KEYS[-1],
        },
    )
    return {
        made.partition: {name: value.value for name, value in made.metadata.items()}
        for made in result.asset_materializations_for_node("letters")
    }


def test_each_partition_has_its_own_metadata_beside_that_of_the_run(instance: dg.DagsterInstance):
    @dg.asset(partitions_def=partitions, backfill_policy=dg.BackfillPolicy.single_run())
    def letters(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        rows = {key: {"rows": dg.MetadataValue.int(ord(key))} for key in KEYS[:2]}
        add_partition_metadata(context, "letters", rows)
        return dg.MaterializeResult(metadata={"device": "cpu"})

    assert recorded(instance, letters) == {
        "a": {"rows": 97, "device": "cpu"},
        "b": {"rows": 98, "device": "cpu"},
        "c": {"device": "cpu"},
    }


def test_it_records_what_dagsters_own_method_records(instance: dg.DagsterInstance):
    values = {key: {"rows": dg.MetadataValue.int(ord(key))} for key in KEYS}

    def asset(add: bool) -> dg.AssetsDefinition:
        @dg.asset(partitions_def=partitions, backfill_policy=dg.BackfillPolicy.single_run())
        def letters(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
            if add:
                add_partition_metadata(context, "letters", values)
            else:
                for key, metadata in values.items():
                    context.add_asset_metadata(metadata, "letters", partition_key=key)
            return dg.MaterializeResult()

        return letters

    ours = recorded(instance, asset(True))
    assert ours == recorded(instance, asset(False))
    assert ours["b"] == {"rows": 98}
