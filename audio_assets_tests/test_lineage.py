"""Column lineage: each column that people see is made from columns that exist."""

import dagster as dg
import pytest

from audio_assets import schema
from audio_assets.defs import lineage
from audio_assets.shards.columns import COLUMNS
from audio_assets_tests.support.audio import UPLOADED, flac
from audio_assets_tests.support.project import Project

READ_BY = {
    "s3_inventory": schema.INVENTORY.names,
    "transcripts": schema.TRANSCRIPTS.names,
    "tokens": schema.TOKENS.names,
    "audio_table": schema.with_partition_columns(schema.AUDIO_TABLE).names,
    "audio_table_daily": schema.with_partition_columns(schema.AUDIO_TABLE).names,
}


def deps_of(metadata: dict[str, dg.TableColumnLineageMetadataValue]) -> dict[str, set[tuple[str, str]]]:
    [value] = metadata.values()
    return {
        column: {(dep.asset_key.to_user_string(), dep.column_name) for dep in deps}
        for column, deps in value.column_lineage.deps_by_column.items()
    }


@pytest.mark.parametrize(
    ("made", "columns"),
    [
        (lineage.of_audio_table(), schema.AUDIO_TABLE.names),
        (lineage.of_daily(), READ_BY["audio_table"]),
        (lineage.of_shards(), [name for name in COLUMNS.names if name != "split"]),
    ],
    ids=["audio_table", "audio_table_daily", "training_shards"],
)
def test_each_column_comes_from_one_that_exists(
    made: dict[str, dg.TableColumnLineageMetadataValue], columns: list[str]
):
    deps = deps_of(made)
    assert list(deps) == columns
    for sources in deps.values():
        assert sources
        assert all(column in READ_BY[table] for table, column in sources)


def test_columns_of_audio_table_come_from_the_table_that_makes_them():
    deps = deps_of(lineage.of_audio_table())
    assert deps["Size"] == {("s3_inventory", "Size")}
    assert deps["transcribed_text"] == {("transcripts", "transcribed_text")}
    assert deps["tokenized_info"] == {("tokens", "tokenized_info")}
    assert deps["status"] == {("transcripts", "status"), ("tokens", "status")}


@pytest.mark.parametrize("place", ["local"], indirect=True)
def test_a_run_tells_the_lineage_once(project: Project):
    project.place.put("p225/a.flac", flac(0.1), UPLOADED)
    project.place.put("p226/a.flac", flac(0.1), UPLOADED)
    [request] = project.tick()
    assert project.execute(request).success
    records = project.instance.fetch_materializations(dg.AssetKey("audio_table"), limit=5).records
    told = [
        "dagster/column_lineage" in record.asset_materialization.metadata
        for record in records
        if record.asset_materialization
    ]
    assert sorted(told) == [False, True]
