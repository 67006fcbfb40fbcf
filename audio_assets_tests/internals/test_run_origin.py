"""Runs that are executed here belong to the code location, so that the UI's first page has them."""

import os
import signal

import dagster as dg
import pytest

from audio_assets.defs.internals.run_origin import execute_here, was_asked_for
from audio_assets.defs.internals.tags import PARTITION_NAME_TAG

SENSOR = "new_s3_keys"
KEYS = dg.DynamicPartitionsDefinition(name="keys")


@dg.asset(partitions_def=KEYS)
def asset(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    if context.partition_key == "bad":
        raise ValueError("this one is bad")
    if context.partition_key == "interrupted":
        os.kill(os.getpid(), signal.SIGINT)
    return dg.MaterializeResult(metadata={"key": context.partition_key})


definitions = dg.Definitions(
    assets=[asset], jobs=[dg.define_asset_job("all", [asset])], executor=dg.in_process_executor
)


@pytest.fixture
def instance() -> dg.DagsterInstance:
    instance = dg.DagsterInstance.ephemeral()
    instance.add_dynamic_partitions("keys", ["good", "bad", "interrupted"])
    return instance


def execute(instance: dg.DagsterInstance, key: str) -> dg.DagsterRun:
    request = dg.RunRequest(run_key=f"{key}-0", partition_key=key, tags={"why": "test"})
    job = definitions.resolve_job_def("all")
    return execute_here(instance, job, request, sensor=SENSOR, location="audio_assets")


def test_a_run_is_found_by_the_label_of_its_repository(instance: dg.DagsterInstance):
    made = execute(instance, "good")
    assert made.is_success
    # What the UI's first page asks for, and what a run of the daemon has.
    [found] = instance.get_runs(dg.RunsFilter(tags={".dagster/repository": "__repository__@audio_assets"}))
    assert found.run_id == made.run_id
    assert made.remote_job_origin is not None
    assert made.remote_job_origin.location_name == "audio_assets"
    assert made.remote_job_origin.repository_origin.repository_name == "__repository__"
    assert made.remote_job_origin.job_name == "all"


def test_it_covers_its_partition_and_has_the_tags_that_it_was_asked_for_with(instance: dg.DagsterInstance):
    made = execute(instance, "good")
    assert made.tags[PARTITION_NAME_TAG] == "good"
    assert made.tags["why"] == "test"
    assert instance.get_materialized_partitions(dg.AssetKey("asset")) == {"good"}


def test_a_failure_is_the_end_of_the_run_and_not_of_this_process(instance: dg.DagsterInstance):
    made = execute(instance, "bad")
    assert made.status == dg.DagsterRunStatus.FAILURE
    assert instance.get_materialized_partitions(dg.AssetKey("asset")) == set()


def test_what_was_asked_for_is_known_by_sensor_and_run_key(instance: dg.DagsterInstance):
    assert not was_asked_for(instance, SENSOR, "good-0")
    execute(instance, "good")
    assert was_asked_for(instance, SENSOR, "good-0")
    assert not was_asked_for(instance, SENSOR, "good-1")
    assert not was_asked_for(instance, "another_sensor", "good-0")


def test_an_interruption_ends_the_run_and_what_comes_after_it(instance: dg.DagsterInstance):
    with pytest.raises(KeyboardInterrupt):
        execute(instance, "interrupted")
    [run] = instance.get_runs()
    assert run.is_finished
    assert not run.is_success
