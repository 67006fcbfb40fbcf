"""Dagster goes by the tags that the sensor writes and reads."""

import dagster as dg
from dagster._core.storage.tags import TagType, get_tag_type

from audio_assets.defs.internals.tags import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    DATA_VERSION_TAG,
    HIDDEN_TAG_PREFIX,
    PARTITION_NAME_TAG,
)

KEYS = ["a", "b", "c", "d"]
PARTITIONS = dg.StaticPartitionsDefinition(KEYS)


@dg.asset(partitions_def=PARTITIONS, backfill_policy=dg.BackfillPolicy.single_run())
def asset(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"keys": list(context.partition_keys)})


job = dg.Definitions(assets=[asset], jobs=[dg.define_asset_job("all", [asset])])


def keys_of_a_run(tags: dict[str, str], partition_key: str | None = None) -> tuple[object, dict[str, str]]:
    with dg.DagsterInstance.ephemeral() as instance:
        made = job.resolve_job_def("all").execute_in_process(
            instance=instance, tags=tags, partition_key=partition_key
        )
        [event] = made.asset_materializations_for_node("asset")[:1]
        [run] = instance.get_runs()
        return event.metadata["keys"].value, dict(run.tags)


def test_a_run_over_a_range_covers_its_ends_and_what_lies_between():
    keys, _ = keys_of_a_run({ASSET_PARTITION_RANGE_START_TAG: "b", ASSET_PARTITION_RANGE_END_TAG: "d"})
    assert keys == ["b", "c", "d"]


def test_a_run_of_one_partition_names_it():
    keys, tags = keys_of_a_run({}, "c")
    assert keys == ["c"]
    assert tags[PARTITION_NAME_TAG] == "c"


def test_a_hidden_tag_is_on_the_run_and_not_among_those_that_the_ui_shows():
    tag = f"{HIDDEN_TAG_PREFIX}audio_assets/request"
    assert get_tag_type(tag) == TagType.HIDDEN
    _, tags = keys_of_a_run({tag: "x"}, "c")
    assert tags[tag] == "x"


def test_an_observation_is_found_by_its_data_version():
    with dg.DagsterInstance.ephemeral() as instance:
        for key, version in (("a", "1"), ("a", "2"), ("b", "3")):
            tags = {DATA_VERSION_TAG: version}
            instance.report_runless_asset_event(dg.AssetObservation("asset", partition=key, tags=tags))
        found = instance.event_log_storage.get_latest_tags_by_partition(
            dg.AssetKey("asset"), dg.DagsterEventType.ASSET_OBSERVATION, [DATA_VERSION_TAG]
        )
    assert found == {"a": {DATA_VERSION_TAG: "2"}, "b": {DATA_VERSION_TAG: "3"}}
