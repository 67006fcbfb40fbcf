"""The asset checks, on tables that are right and on tables that are wrong in one way each."""

import datetime as dt
import io
import pathlib

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dagster_aws.s3 import S3Resource

from audio_assets import schema
from audio_assets.defs.audio_table import audio_table
from audio_assets.defs.checks import audio_table_checks
from audio_assets.defs.resources import Bucket
from audio_assets.partitions import FolderMinute
from audio_assets.table import Snapshot, Table

MINUTE = dt.datetime(2023, 8, 24, 0, 21, tzinfo=dt.UTC)
PARTITIONS = [FolderMinute("p225", MINUTE), FolderMinute("p226", MINUTE)]
BLOCKING = {"schema", "unique_keys", "rows_equal_inventory"}


def row(key: str, **values: object) -> dict[str, object]:
    ok = {"transcribed_text": "One.", "tokenized_info": [1, 2], "status": schema.OK}
    return {"Key": key, "ETag": "e", "Size": 1, "LastModified": MINUTE, **ok, **values}


@pytest.fixture
def bucket(tmp_path: pathlib.Path) -> Bucket:
    """Two partitions of forty objects each, inventoried and in the table."""
    bucket = Bucket(source_uri=tmp_path.as_uri(), table_uri=(tmp_path / "out").as_uri(), s3=S3Resource())
    for partition in PARTITIONS:
        write(bucket, partition, [row(f"{partition.folder}/{i}.flac") for i in range(40)])
        rows = bucket.audio_table.read(partition).rows
        assert rows is not None
        bucket.inventory.replace(partition, rows.select(schema.INVENTORY.names), Snapshot(None, None))
    return bucket


def write(bucket: Bucket, partition: FolderMinute, rows: list[dict[str, object]]) -> None:
    table: Table = bucket.audio_table
    table.replace(partition, pa.Table.from_pylist(rows, schema.AUDIO_TABLE), table.read(partition))


def executed(bucket: Bucket) -> dict[str, dg.AssetCheckEvaluation]:
    job = dg.define_asset_job("checks", selection=dg.AssetSelection.checks_for_assets(audio_table))
    definitions = dg.Definitions(
        assets=[audio_table], asset_checks=[audio_table_checks], jobs=[job], resources={"bucket": bucket}
    )
    result = definitions.get_repository_def().get_job("checks").execute_in_process(raise_on_error=False)
    return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}


def failing(bucket: Bucket) -> set[str]:
    return {name for name, evaluation in executed(bucket).items() if not evaluation.passed}


def test_a_right_table_passes_all(bucket: Bucket):
    evaluations = executed(bucket)
    assert set(evaluations) == BLOCKING | {"allowed_values", "failed_rows", "empty_transcripts"}
    assert all(evaluation.passed for evaluation in evaluations.values())
    assert evaluations["schema"].metadata["rows"].value == 80


def test_only_what_makes_the_table_wrong_blocks():
    blocking = {spec.name for spec in audio_table_checks.check_specs if spec.blocking}
    assert blocking == BLOCKING


@pytest.mark.parametrize("change", ["a type", "a missing column", "no columns"])
def test_a_file_of_another_schema_is_found(bucket: Bucket, change: str):
    table = bucket.audio_table
    partition = PARTITIONS[0]
    found = table.read(partition)
    assert found.rows is not None
    wrong = {
        "a type": found.rows.set_column(2, "Size", found.rows["Size"].cast(pa.int32())),
        "a missing column": found.rows.drop_columns(["Size"]),
        "no columns": pa.table({}),
    }
    sink = io.BytesIO()
    pq.write_table(wrong[change], sink)
    table.store.replace(table.path(partition), sink.getvalue(), found.version)
    evaluations = executed(bucket)
    assert not evaluations["schema"].passed
    assert partition.key in str(evaluations["schema"].metadata["wrong"].value)


def test_a_repeated_key_is_found(bucket: Bucket):
    write(bucket, PARTITIONS[0], [row(f"p225/{i}.flac") for i in [*range(40), 7]])
    evaluations = executed(bucket)
    assert not evaluations["unique_keys"].passed
    assert "p225/7.flac" in str(evaluations["unique_keys"].metadata["repeated"].value)


@pytest.mark.parametrize(
    ("rows", "differing"),
    [
        ([row(f"p225/{i}.flac") for i in range(39)], "p225/39.flac"),
        ([row(f"p225/{i}.flac") for i in range(41)], "p225/40.flac"),
        ([row(f"p225/{i}.flac", ETag="old" if i == 3 else "e") for i in range(40)], "p225/3.flac"),
    ],
    ids=["a row is missing", "a row too many", "a row of an older version"],
)
def test_rows_that_differ_from_the_inventory_are_found(bucket: Bucket, rows: list, differing: str):
    write(bucket, PARTITIONS[0], rows)
    evaluations = executed(bucket)
    assert failing(bucket) == {"rows_equal_inventory"}
    assert differing in str(evaluations["rows_equal_inventory"].metadata["differing"].value)


def test_more_failed_rows_than_one_in_twenty_warn_and_say_why(bucket: Bucket):
    bad = {"status": schema.FAILED, "error": "the object is empty", "transcribed_text": None}
    few = [row(f"p225/{i}.flac", **(bad if i < 4 else {})) for i in range(40)]
    write(bucket, PARTITIONS[0], few)
    assert failing(bucket) == set()
    write(bucket, PARTITIONS[0], [row(f"p225/{i}.flac", **(bad if i < 5 else {})) for i in range(40)])
    evaluations = executed(bucket)
    assert failing(bucket) == {"failed_rows"}
    assert evaluations["failed_rows"].severity == dg.AssetCheckSeverity.WARN
    assert "the object is empty" in str(evaluations["failed_rows"].metadata["reasons"].value)


def test_more_empty_transcripts_than_one_in_twenty_warn(bucket: Bucket):
    rows = [row(f"p225/{i}.flac", transcribed_text="" if i < 5 else "One.") for i in range(40)]
    write(bucket, PARTITIONS[0], rows)
    assert failing(bucket) == {"empty_transcripts"}


def test_objects_that_are_not_flac_count_as_neither(bucket: Bucket):
    other = {"status": schema.NOT_FLAC, "transcribed_text": None, "tokenized_info": None}
    write(bucket, PARTITIONS[0], [row(f"p225/{i}.flac", **other) for i in range(40)])
    evaluations = executed(bucket)
    assert failing(bucket) == set()
    assert evaluations["failed_rows"].metadata["share"].value == 0


def test_a_file_without_columns_that_are_younger_than_it_is_right(bucket: Bucket):
    found = bucket.audio_table.read(PARTITIONS[0])
    assert found.rows is not None
    sink = io.BytesIO()
    pq.write_table(found.rows.drop_columns(["language", "error"]), sink)
    bucket.audio_table.store.replace(bucket.audio_table.path(PARTITIONS[0]), sink.getvalue(), found.version)
    assert failing(bucket) == set()


def test_a_value_that_its_column_does_not_allow_warns_and_says_which(bucket: Bucket):
    odd = {"temperature": 1.5, "status": "unsure"}
    write(bucket, PARTITIONS[0], [row(f"p225/{i}.flac", **(odd if i == 3 else {})) for i in range(40)])
    evaluations = executed(bucket)
    assert failing(bucket) == {"allowed_values"}
    assert evaluations["allowed_values"].severity == dg.AssetCheckSeverity.WARN
    assert evaluations["allowed_values"].metadata["disallowed"].value == 2
    examples = str(evaluations["allowed_values"].metadata["examples"].value)
    assert "| p225/3.flac | temperature | 1.5 | 0 to 1 |" in examples
    assert "| p225/3.flac | status | 'unsure' | ok, not_flac, failed |" in examples
