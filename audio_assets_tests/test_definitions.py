"""What the Dagster UI is told: names, groups, kinds, owners, columns, pools, policies."""

import subprocess
import sys

import dagster as dg
import pytest

from audio_assets import schema
from audio_assets.definitions import defs

TABLES = {
    "s3_inventory": schema.INVENTORY,
    "transcripts": schema.TRANSCRIPTS,
    "tokens": schema.TOKENS,
    "audio_table": schema.AUDIO_TABLE,
}


@pytest.fixture(scope="module")
def repository() -> dg.RepositoryDefinition:
    return defs().get_repository_def()


def test_a_code_location_loads_without_torch_and_whisper():
    code = """if True:
        import sys
        from audio_assets.definitions import defs
        defs().get_repository_def()
        sys.exit(bool({"torch", "whisper"} & set(sys.modules)))"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_assets_depend_on_each_other_as_data_flows(repository: dg.RepositoryDefinition):
    graph = repository.asset_graph
    parents = {
        key.to_user_string(): {parent.to_user_string() for parent in graph.get(key).parent_keys}
        for key in graph.materializable_asset_keys
    }
    assert {name: parents[name] for name in TABLES} == {
        "s3_inventory": set(),
        "transcripts": {"s3_inventory"},
        "tokens": {"s3_inventory"},
        "audio_table": {"s3_inventory", "transcripts", "tokens"},
    }


@pytest.mark.parametrize("name", TABLES)
def test_every_asset_is_described(repository: dg.RepositoryDefinition, name: str):
    node = repository.asset_graph.get(dg.AssetKey(name))
    assert node.group_name == "audio"
    assert node.kinds
    assert node.owners
    assert node.description
    assert node.code_version
    assert node.partitions_def == dg.DynamicPartitionsDefinition(name="folder_minute")
    assert node.backfill_policy == dg.BackfillPolicy.multi_run(100)
    columns = node.metadata["dagster/column_schema"].columns
    assert {c.name for c in columns} >= set(TABLES[name].names)
    assert all(c.description for c in columns)


def test_the_gpu_pool_guards_the_pass_over_the_audio_alone(repository: dg.RepositoryDefinition):
    graph = repository.asset_graph
    pools = {name: graph.get(dg.AssetKey(name)).pools for name in TABLES}
    assert pools == {"s3_inventory": set(), "transcripts": {"gpu"}, "tokens": {"gpu"}, "audio_table": set()}


def test_the_job_makes_the_four_assets(repository: dg.RepositoryDefinition):
    job = repository.get_job("process_audio")
    assert {key.to_user_string() for key in job.asset_layer.executable_asset_keys} == set(TABLES)


def test_the_sensor_runs_from_the_start(repository: dg.RepositoryDefinition):
    sensor = repository.get_sensor_def("new_s3_keys")
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    assert sensor.job_name == "process_audio"
