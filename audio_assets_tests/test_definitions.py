"""What the Dagster UI is told: names, groups, kinds, owners, columns, pools, policies."""

import datetime as dt
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


def test_a_code_location_loads_without_warnings_and_without_torch_whisper_and_pandas():
    code = """if True:
        import sys
        from audio_assets.definitions import defs
        defs().get_repository_def()
        print({"torch", "whisper", "pandas"} & set(sys.modules))"""
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert loaded.stdout == "set()\n"
    assert loaded.stderr == ""


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


def column(repository: dg.RepositoryDefinition, table: str, name: str) -> dg.TableColumn:
    columns = repository.asset_graph.get(dg.AssetKey(table)).metadata["dagster/column_schema"].columns
    return next(c for c in columns if c.name == name)


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
    assert node.tags["domain"] == "speech"
    assert node.metadata["dagster/table_name"] == name
    assert node.metadata["dagster/storage_kind"] == "parquet"
    columns = node.metadata["dagster/column_schema"].columns
    assert {c.name for c in columns} >= set(TABLES[name].names)
    assert all(c.description for c in columns)


@pytest.mark.parametrize(
    ("name", "constraints"),
    [
        ("duration_s", ["unit: s", "allowed: 0 or more"]),
        ("sample_rate_hz", ["unit: Hz", "allowed: 1 or more"]),
        ("temperature", ["allowed: 0 to 1"]),
        ("LastModifiedHour", ["allowed: 0 to 23"]),
        ("status", ["allowed: ok, not_flac, failed"]),
        ("transcribed_text", []),
    ],
)
def test_a_column_shows_its_unit_and_what_it_may_hold(
    repository: dg.RepositoryDefinition, name: str, constraints: list[str]
):
    assert list(column(repository, "audio_table", name).constraints.other) == constraints


def test_a_column_shows_whether_it_may_be_null(repository: dg.RepositoryDefinition):
    assert not column(repository, "audio_table", "Key").constraints.nullable
    assert column(repository, "audio_table", "transcribed_text").constraints.nullable


def test_an_inventory_of_a_week_ago_is_stale(repository: dg.RepositoryDefinition):
    policies = {name: repository.asset_graph.get(dg.AssetKey(name)).freshness_policy for name in TABLES}
    assert policies == {
        "s3_inventory": dg.FreshnessPolicy.time_window(
            fail_window=dt.timedelta(days=7), warn_window=dt.timedelta(days=3)
        ),
        **dict.fromkeys(["transcripts", "tokens", "audio_table"]),
    }


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
