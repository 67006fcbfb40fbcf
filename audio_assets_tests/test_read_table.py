"""What `read_table` refuses, warns of and keeps: arguments, whole numbers, folders, `.env`."""

import datetime as dt
import os
import pathlib
import subprocess
import sys
import warnings

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

import audio_assets
from audio_assets import read, schema, settings
from audio_assets.read import PARTITIONS_AT_A_TIME, read_rows, read_slice
from audio_assets.table import Table
from audio_assets_tests.support.places import LocalPlace, S3Place
from audio_assets_tests.support.rows import at, row, write


@pytest.fixture
def table(local_place: LocalPlace) -> Table:
    table = Table(local_place.store, "output_parquet/audio_table", schema.AUDIO_TABLE)
    write(table, at("p225"), row("p225/a.flac", sample_rate_hz=48000, channels=2), row("p225/b.txt"))
    write(table, at("p226"), row("p226/c.flac", sample_rate_hz=16000, channels=1))
    return table


@pytest.fixture
def elsewhere(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """An empty working directory; what `.env` sets is unset afterwards."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    return folder


# --- arguments ------------------------------------------------------------------------------------------


def test_a_column_asked_for_twice_is_refused_by_its_name(table: Table):
    with pytest.raises(ValueError, match="columns names 'Key' more than once"):
        read_slice(table, columns=["Key", "ETag", "Key"])


@pytest.mark.parametrize("value", ["", "yesterday week", pd.NaT, float("nan"), np.datetime64("NaT"), []])
@pytest.mark.parametrize("argument", ["start", "end"])
def test_what_is_no_moment_is_refused_rather_than_empty(table: Table, argument: str, value: object):
    with pytest.raises(ValueError, match=f"{argument}=.* is no moment"):
        read_slice(table, **{argument: value})  # type: ignore[arg-type]


def test_without_columns_the_rows_are_still_counted(table: Table):
    frame = read_slice(table, columns=[])
    assert frame.shape == (3, 0)
    assert read_slice(table, "p226", columns=[]).shape == (1, 0)
    assert read_slice(table, end="2000", columns=[]).shape == (0, 0)


# --- values ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", [None, "p226"])
def test_whole_numbers_stay_whole_beside_nulls_and_without(table: Table, folder: str | None):
    frame = read_slice(table, folder)
    assert frame["sample_rate_hz"].dtype == pd.Int32Dtype()
    assert frame["channels"].dtype == pd.Int16Dtype()
    rates = dict(zip(frame["Key"], frame["sample_rate_hz"], strict=True))
    assert rates["p226/c.flac"] == 16000
    assert folder or rates["p225/b.txt"] is pd.NA
    # What is never null stays as numpy has it.
    assert frame["Size"].dtype == np.int64
    assert frame["LastModifiedMinute"].dtype == np.int32


def test_a_limit_reads_no_more_partitions_than_it_needs(
    local_place: LocalPlace, monkeypatch: pytest.MonkeyPatch
):
    table = Table(local_place.store, "audio_table", schema.AUDIO_TABLE)
    for minute in range(PARTITIONS_AT_A_TIME + 1):
        write(table, at("p225", minute), row(f"p225/{minute:03}.flac"))
    read: list[int] = []
    scan = Table.scan_each

    def counted(self: Table, partitions: object, *others: object) -> object:
        read.append(len(partitions))  # type: ignore[arg-type]
        return scan(self, partitions, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(Table, "scan_each", counted)
    rows = read_rows(table, columns=["Key"], limit=2)
    assert rows["Key"].to_pylist() == ["p225/000.flac", "p225/001.flac"]
    assert read == [PARTITIONS_AT_A_TIME]
    assert len(read_rows(table, limit=PARTITIONS_AT_A_TIME + 5)) == PARTITIONS_AT_A_TIME + 1
    assert len(read_rows(table, "p225", end="2000", limit=2)) == 0


# --- folders --------------------------------------------------------------------------------------------


def test_a_misspelt_folder_is_warned_of_with_the_nearest(table: Table, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AUDIO_TABLE_URI", table.store.uri + "/output_parquet")
    with pytest.warns(UserWarning, match="has no folder 'p2225'; the nearest that it has: 'p225'") as said:
        assert len(audio_assets.read_table("p2225")) == 0
    # The warning points at the line that misspells.
    assert said[0].filename == __file__


def test_a_folder_without_rows_in_the_time_asked_for_is_no_misspelling(table: Table):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read_slice(table, "p225", end="2000")) == 0
        assert len(read_slice(table, [])) == 0


def test_a_table_without_files_says_so(local_place: LocalPlace):
    empty = Table(local_place.store, "nothing", schema.AUDIO_TABLE)
    with pytest.warns(UserWarning, match="has no folder 'p225'; it has none yet"):
        assert len(read_slice(empty, "p225")) == 0


# --- which table ----------------------------------------------------------------------------------------


def test_the_frame_says_which_table_it_was_read_from(table: Table):
    assert read_slice(table).attrs["uri"] == table.uri
    assert read_slice(table, columns=["Key"]).attrs["uri"] == table.uri


def test_read_table_goes_by_the_env_file_of_the_working_directory_as_dagster_dev_does(
    table: Table, elsewhere: pathlib.Path
):
    os.environ["AUDIO_SOURCE_URI"] = "file:///nowhere"
    (elsewhere / ".env").write_text(f"AUDIO_SOURCE_URI={table.store.uri}\nNOTHING\nAUDIO_TABLE_URI=\n")
    frame = audio_assets.read_table(columns=["Key"])
    assert frame["Key"].tolist() == ["p225/a.flac", "p225/b.txt", "p226/c.flac"]
    assert frame.attrs["uri"] == table.uri
    assert "NOTHING" not in os.environ


def test_the_env_file_of_the_project_counts_where_the_working_directory_has_none(
    elsewhere: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(settings, "PROJECT", tmp_path)
    assert settings.load_env() is None
    (tmp_path / ".env").write_text("S3_ATTEMPTS=7\n")
    assert settings.load_env() == tmp_path / ".env"
    assert settings.S3_ATTEMPTS.get() == 7
    (elsewhere / ".env").write_text("S3_ATTEMPTS=8\n")
    assert settings.load_env() == elsewhere / ".env"
    assert settings.S3_ATTEMPTS.get() == 8


def test_keys_in_the_env_file_reach_s3(s3_place: S3Place, s3: str, tmp_path: pathlib.Path):
    table = Table(s3_place.store, "output_parquet/audio_table", schema.AUDIO_TABLE)
    write(table, at("p225"), row("p225/a.flac"))
    lines = [f"AUDIO_SOURCE_URI='{s3_place.uri}'"]
    lines += [f"{name}={os.environ.pop(name)}" for name in sorted(os.environ) if name.startswith("AWS_")]
    (tmp_path / ".env").write_text("\n".join(lines))
    done = subprocess.run(
        [sys.executable, "-c", "import audio_assets; print(list(audio_assets.read_table('p225')['Key']))"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "['p225/a.flac']\n", done.stderr


# --- forms, moments, filters ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "day",
    [
        *("2023-08-24", dt.date(2023, 8, 24), dt.datetime(2023, 8, 24), pd.Timestamp("2023-08-24")),
        *(pd.Timestamp("2023-08-24 02:00+02:00"), np.datetime64("2023-08-24")),
    ],
    ids=repr,
)
def test_a_moment_may_be_a_text_a_date_a_datetime_or_a_timestamp(table: Table, day: object):
    assert len(read_slice(table, start=day)) == 3
    assert len(read_slice(table, end=day)) == 0


def test_rows_come_as_pandas_arrow_polars_or_a_relation_of_duckdb(table: Table):
    columns = ["Key", "sample_rate_hz"]
    rows = [("p225/a.flac", 48000), ("p225/b.txt", None), ("p226/c.flac", 16000)]
    arrow = read_slice(table, columns=columns, format="arrow")
    assert [tuple(row.values()) for row in arrow.to_pylist()] == rows
    frame = read_slice(table, columns=columns, format="polars")
    assert isinstance(frame, pl.DataFrame)
    assert frame.rows() == rows
    relation = read_slice(table, columns=columns, format="duckdb")
    assert relation.order("Key").fetchall() == rows
    assert read_slice(table, columns=columns)["Key"].tolist() == [key for key, _ in rows]
    with pytest.raises(ValueError, match="format='spark' is none of pandas, arrow, polars, duckdb"):
        read_slice(table, format="spark")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["polars", "duckdb"])
def test_a_form_whose_package_is_not_installed_names_it(
    table: Table, name: read.Format, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        ImportError, match=f"needs the package {name}, which is not installed; pip install {name}"
    ):
        read_slice(table, format=name)


def test_an_empty_slice_has_the_columns_and_types_of_a_full_one(table: Table):
    full = table.columns()
    assert read_slice(table, end="2000", format="arrow").schema == full
    assert read_slice(table, end="2000", format="polars").schema == read_slice(table, format="polars").schema
    empty = read_slice(table, end="2000", format="duckdb")
    assert (empty.columns, empty.types) == (full.names, read_slice(table, format="duckdb").types)
    pandas = read_slice(table, end="2000")
    assert pandas["sample_rate_hz"].dtype == pd.Int32Dtype()
    assert list(pandas.columns) == full.names
    assert read.read_batches(table, end="2000").schema == full
    assert read.read_batches(table, end="2000").read_all().num_rows == 0


@pytest.mark.parametrize(
    ("condition", "keys"),
    [
        ([("sample_rate_hz", "==", 48000)], ["p225/a.flac"]),
        ([("Key", "in", ["p225/b.txt", "p226/c.flac"]), ("channels", "<", 2)], ["p226/c.flac"]),
        ([[("FolderName", "==", "p226")], [("Key", "==", "p225/b.txt")]], ["p225/b.txt", "p226/c.flac"]),
        (ds.field("channels").is_null(), ["p225/b.txt"]),
        ([], ["p225/a.flac", "p225/b.txt", "p226/c.flac"]),
    ],
)
def test_a_filter_may_go_by_columns_that_are_not_read(table: Table, condition: read.Filter, keys: list[str]):
    assert read_slice(table, columns=["Key"], filter=condition)["Key"].tolist() == keys
    assert read.read_batches(table, columns=["Key"], filter=condition).read_all()["Key"].to_pylist() == keys
    assert read_rows(table, columns=["Key"], filter=condition, limit=2)["Key"].to_pylist() == keys[:2]


@pytest.mark.parametrize("wrong", [[("Loudness", ">", 3)], [("Size", "~", 3)], [("Size", ">", "large")]])
def test_a_filter_that_does_not_fit_the_columns_is_refused(table: Table, wrong: read.Filter):
    with pytest.raises(ValueError, match=r"filter=.* does not fit the columns \['Key'"):
        read_slice(table, filter=wrong)


def test_several_folders_come_in_the_order_asked_for(table: Table):
    frame = read_slice(table, ["p226", "p225"])
    assert frame["FolderName"].tolist() == ["p226", "p225", "p225"]


def test_duckdb_queries_batches_like_a_table(table: Table):
    batches = read.read_batches(table, "p225")
    found = duckdb.connect().execute("SELECT count(*), max(sample_rate_hz) FROM batches").fetchall()
    assert found == [(2, 48000)]
    assert isinstance(batches, pa.RecordBatchReader)
