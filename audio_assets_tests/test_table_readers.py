"""What other readers make of a table: DuckDB, pyarrow, pandas, Polars."""

import dataclasses
import pathlib
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs
import pytest

from audio_assets import schema
from audio_assets.read import read_slice
from audio_assets.table import Snapshot, Table
from audio_assets_tests.support.places import LocalPlace, S3Place
from audio_assets_tests.support.rows import at, row, write

FOLDERS = [
    *("p225", "0225", "0", "1e5", "true", "null", "2023-08-24", ".", "..", "...", "", "a/b", "a//b"),
    *("sp ace", " lead", "trail ", "ünï/日本", "😀", "50%", "%41", "a+b", "a=b", "a&b", "q?", "h#", "c:d"),
    *("star*", "br[1]{2}", "a'b", 'a"b', "a\\b", "a|b", "a,b", "tab\there", "_u", ".h", "~x", "__init__"),
]


@pytest.fixture
def folders_table(local_place: LocalPlace) -> Table:
    """One row for each of FOLDERS, whose key says which folder must come back."""
    table = Table(local_place.store, "audio_table", schema.AUDIO_TABLE)
    for i, folder in enumerate(FOLDERS):
        write(table, at(folder, i), row(f"{folder}/x.flac", tokenized_info=[1, -2]))
    return table


HIVE = pyarrow.dataset.partitioning(schema.PARTITION_SCHEMA, flavor="hive")
POLARS_HIVE = {
    "FolderName": pl.String,
    "LastModifiedDate": pl.Date,
    "LastModifiedHour": pl.Int32,
    "LastModifiedMinute": pl.Int32,
}
DUCKDB_HIVE = (
    "hive_partitioning = true, hive_types = {'FolderName': VARCHAR, 'LastModifiedDate': DATE, "
    "'LastModifiedHour': INTEGER, 'LastModifiedMinute': INTEGER}"
)


def local_path(table: Table) -> str:
    return str(pathlib.Path(table.store.uri.removeprefix("file://").replace("%20", " "), table.name))


def sql(query: str) -> list[tuple[Any, ...]]:
    return duckdb.connect().execute(query).fetchall()


def assert_folders_are_right(found: list[tuple[str, str]]) -> None:
    assert dict(found) == {f"{folder}/x.flac": folder for folder in FOLDERS}


def test_read_table_gives_every_folder_its_name(folders_table: Table):
    frame = read_slice(folders_table)
    assert_folders_are_right(list(zip(frame["Key"], frame["FolderName"], strict=True)))
    for folder in FOLDERS:
        assert read_slice(folders_table, folder)["Key"].tolist() == [f"{folder}/x.flac"]


def test_pyarrow_reads_it(folders_table: Table):
    dataset = pyarrow.dataset.dataset(local_path(folders_table), partitioning=HIVE)
    found = dataset.to_table()
    assert_folders_are_right(
        list(zip(found["Key"].to_pylist(), found["FolderName"].to_pylist(), strict=True))
    )
    for field in schema.with_partition_columns(schema.AUDIO_TABLE):
        assert found.schema.field(field.name).type == field.type
    one = dataset.to_table(filter=pyarrow.dataset.field("FolderName") == "0225")
    assert one["Key"].to_pylist() == ["0225/x.flac"]


def test_pandas_reads_it(folders_table: Table):
    frame = pd.read_parquet(local_path(folders_table), partitioning=HIVE)
    assert_folders_are_right(list(zip(frame["Key"], frame["FolderName"], strict=True)))
    assert frame["LastModifiedMinute"].dtype == np.int32
    assert frame["tokenized_info"][0].tolist() == [1, -2]


def test_polars_reads_it(folders_table: Table):
    frame = pl.scan_parquet(local_path(folders_table), hive_schema=POLARS_HIVE).collect()
    assert_folders_are_right(frame.select("Key", "FolderName").rows())
    assert frame.schema["LastModifiedDate"] == pl.Date
    assert frame.schema["tokenized_info"] == pl.List(pl.Int16)
    assert frame.schema["LastModified"] == pl.Datetime("ms", "UTC")


def test_duckdb_reads_it(folders_table: Table):
    # The glob would take [ ] * ? of the table's own location for patterns; its partitions hold none.
    source = f"read_parquet('{local_path(folders_table)}/**/*.parquet', {DUCKDB_HIVE})"
    assert_folders_are_right(sql(f"SELECT Key, FolderName FROM {source}"))
    types = {name: kind for name, kind, *_ in sql(f"DESCRIBE SELECT * FROM {source}")}
    assert types["FolderName"] == types["transcribed_text"] == "VARCHAR"
    assert types["LastModifiedDate"] == "DATE"
    assert types["LastModifiedMinute"] == "INTEGER"
    assert types["tokenized_info"] == "SMALLINT[]"
    assert types["LastModified"] == "TIMESTAMP WITH TIME ZONE"
    one = sql(f"SELECT Key FROM {source} WHERE FolderName = '0225'")
    assert one == [("0225/x.flac",)]


# --- files that are older than a column -----------------------------------------------------------------


@pytest.fixture
def grown_table(local_place: LocalPlace) -> Table:
    """A file that was written before the column `speaker` was added, and one that was written after."""
    table = Table(local_place.store, "audio_table", schema.AUDIO_TABLE)
    write(table, at("p225"), row("p225/a.flac"))
    longer = dataclasses.replace(table, schema=table.schema.append(pa.field("speaker", pa.string())))
    made = pa.Table.from_pylist([row("p226/b.flac", speaker="Ann")], longer.schema)
    longer.replace(at("p226"), made, Snapshot(None, None))
    return longer


SPEAKERS = {"p225/a.flac": None, "p226/b.flac": "Ann"}


def test_read_table_fills_the_column_of_older_files_with_null(grown_table: Table):
    scanned = grown_table.scan(grown_table.partitions(), ["Key", "speaker"])
    assert dict(zip(*scanned.to_pydict().values(), strict=True)) == SPEAKERS


def test_pyarrow_fills_it_given_the_schema(grown_table: Table):
    columns = schema.with_partition_columns(grown_table.schema)
    dataset = pyarrow.dataset.dataset(local_path(grown_table), schema=columns, partitioning=HIVE)
    found = dataset.to_table(columns=["Key", "speaker"])
    assert dict(zip(*found.to_pydict().values(), strict=True)) == SPEAKERS


def test_polars_fills_it_given_the_schema(grown_table: Table):
    columns = pl.Schema(pl.DataFrame(grown_table.schema.empty_table()).schema)
    frame = pl.scan_parquet(
        local_path(grown_table), schema=columns, hive_schema=POLARS_HIVE, missing_columns="insert"
    )
    assert dict(frame.select("Key", "speaker").collect().rows()) == SPEAKERS


def test_duckdb_fills_it_by_name(grown_table: Table):
    source = f"read_parquet('{local_path(grown_table)}/**/*.parquet', {DUCKDB_HIVE}, union_by_name = true)"
    assert dict(sql(f"SELECT Key, speaker FROM {source}")) == SPEAKERS


# --- on S3 ----------------------------------------------------------------------------------------------


def test_a_table_on_s3_is_read_by_arrow_and_polars(s3_place: S3Place, s3: str):
    table = Table(s3_place.store, "audio_table", schema.AUDIO_TABLE)
    expected = {}
    for i, folder in enumerate(("0225", "ünï/日本", "50% a+b&c", "a/b")):
        write(table, at(folder, i), row(f"{folder}/x.flac"))
        expected[f"{folder}/x.flac"] = folder
    server = pyarrow.fs.S3FileSystem(
        access_key="somebody", secret_key="secret", endpoint_override=s3, region="us-east-1"
    )
    dataset = pyarrow.dataset.dataset(table.uri.removeprefix("s3://"), filesystem=server, partitioning=HIVE)
    found = dataset.to_table()
    assert dict(zip(found["Key"].to_pylist(), found["FolderName"].to_pylist(), strict=True)) == expected
    options = {
        **{"aws_access_key_id": "somebody", "aws_secret_access_key": "secret"},
        **{"aws_endpoint_url": s3, "aws_region": "us-east-1", "aws_allow_http": "true"},
    }
    # Without the slash, Polars takes the folder for an object, which is not there.
    frame = pl.scan_parquet(f"{table.uri}/", hive_schema=POLARS_HIVE, storage_options=options).collect()
    assert dict(frame.select("Key", "FolderName").rows()) == expected
    with pytest.raises(FileNotFoundError):
        pl.scan_parquet(table.uri, hive_schema=POLARS_HIVE, storage_options=options).collect()
    frame = pl.read_parquet(
        f"{table.uri}/**/*.parquet",
        hive_partitioning=True,
        hive_schema=POLARS_HIVE,
        storage_options=options,
    )
    assert dict(frame.select("Key", "FolderName").rows()) == expected
