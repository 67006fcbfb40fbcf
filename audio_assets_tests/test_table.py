"""A table's partitions on storage: read one, replace one, read any slice."""

import datetime as dt
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import audio_assets
from audio_assets import schema
from audio_assets.errors import ConflictError, StorageError
from audio_assets.partitions import FolderMinute, folder_of
from audio_assets.read import read_slice
from audio_assets.table import CONFLICT_ROUNDS, Snapshot, Table
from audio_assets_tests.support.audio import MINUTE
from audio_assets_tests.support.places import LocalPlace, Place, S3Place, delete_without_conditions
from audio_assets_tests.support.rows import at, row, rows, write


@pytest.fixture
def table(place: Place) -> Table:
    return Table(place.store, "audio_table", schema.AUDIO_TABLE)


# --- one partition --------------------------------------------------------------------------------------


def test_a_partition_reads_back_as_written(table: Table):
    made = rows(
        row("p225/a.flac", transcribed_text="Hello", tokenized_info=[1, 2], duration_s=1.5), row("p225/b")
    )
    assert table.read(at("p225")) == Snapshot(None, None)
    assert table.replace(at("p225"), made, Snapshot(None, None))
    assert table.read(at("p225")).rows == made
    assert table.partitions() == [at("p225")]


def test_the_same_rows_are_not_written_again(table: Table):
    write(table, at("p225"), row("p225/a.flac"))
    before = table.read(at("p225"))
    assert table.replace(at("p225"), rows(row("p225/a.flac")), before) == before.version
    version = table.replace(at("p225"), rows(row("p225/b.flac")), before)
    assert table.read(at("p225")).version == version != before.version


def test_a_partition_without_rows_leaves_no_file(table: Table):
    none = table.schema.empty_table()
    assert table.replace(at("p225"), none, Snapshot(None, None)) == ""
    assert list(table.files()) == []
    write(table, at("p225"), row("p225/a.flac"))
    stale = table.read(at("p225"))
    write(table, at("p225"), row("p225/b.flac"))
    with pytest.raises(ConflictError):
        table.replace(at("p225"), none, stale)
    assert table.replace(at("p225"), none, table.read(at("p225"))) == ""
    assert table.read(at("p225")) == Snapshot(None, None)
    assert list(table.files()) == []


def test_where_a_deletion_would_take_newer_rows_a_file_without_rows_stays(
    s3_place: S3Place, monkeypatch: pytest.MonkeyPatch
):
    delete_without_conditions(monkeypatch)
    table = Table(s3_place.store, "audio_table", schema.AUDIO_TABLE)
    none = table.schema.empty_table()
    assert table.replace(at("p225"), none, Snapshot(None, None)) == ""
    write(table, at("p225"), row("p225/a.flac"))
    stale = table.read(at("p225"))
    write(table, at("p225"), row("p225/b.flac"))
    with pytest.raises(ConflictError):
        table.replace(at("p225"), none, stale)
    version = table.replace(at("p225"), none, table.read(at("p225")))
    assert table.read(at("p225")) == Snapshot(none, version)
    assert table.replace(at("p225"), none, table.read(at("p225"))) == version
    write(table, at("p225"), row("p225/c.flac"))
    assert table.scan([at("p225")], ["Key"]).to_pylist() == [{"Key": "p225/c.flac"}]


def test_files_are_listed_with_their_versions_those_of_others_included(table: Table):
    write(table, at("p225"), row("p225/a.flac"))
    write(table, at("p226"), row("p226/a.flac"))
    table.store.replace("audio_table/FolderName=p226/notes.txt", b"", None)
    versions = {at(folder).path: table.read(at(folder)).version for folder in ("p225", "p226")}
    assert dict(table.files("p225")) == {at("p225").path: versions[at("p225").path]}
    listed = dict(table.files())
    assert listed.pop("FolderName=p226/notes.txt")
    assert listed == versions


def test_who_read_before_another_wrote_conflicts(table: Table):
    stale = table.read(at("p225"))
    write(table, at("p225"), row("p225/a.flac"))
    with pytest.raises(ConflictError):
        table.replace(at("p225"), rows(row("p225/b.flac")), stale)


# --- optimistic concurrency -----------------------------------------------------------------------------


class Contested(Table):
    """A table in which another run replaces some partitions' files just after they were read."""

    def compute(
        self, times: int, contested: list[FolderMinute]
    ) -> tuple[Callable[..., Any], list[list[str]]]:
        """Give what `update` calls, and a list of the partitions that it was called for.

        Args:
            times: how often the other run comes between.
        """
        calls: list[list[str]] = []

        def compute(partitions: Sequence[FolderMinute]) -> dict[FolderMinute, pa.Table]:
            calls.append([partition.folder for partition in partitions])
            for partition in contested if len(calls) <= times else []:
                write(self, partition, row(f"{partition.folder}/theirs.flac", Size=len(calls)))
            return {p: rows(row(f"{p.folder}/ours.flac", Size=len(calls))) for p in partitions}

        return compute, calls


@pytest.fixture
def contested(table: Table) -> Contested:
    return Contested(table.store, table.name, table.schema)


def test_update_computes_and_writes_each_partition(contested: Contested):
    partitions = [at("p225"), at("p226")]
    compute, calls = contested.compute(0, [])
    updated = contested.update(partitions, compute)
    assert calls == [["p225", "p226"]]
    assert list(updated) == partitions
    for partition in partitions:
        assert contested.read(partition).rows == updated[partition].rows
    versions = [contested.read(partition).version for partition in partitions]
    assert [updated[partition].version for partition in partitions] == versions
    again, _ = contested.compute(0, [])
    assert contested.update(partitions, again) == updated
    assert [contested.read(partition).version for partition in partitions] == versions


def test_only_what_another_run_replaced_is_computed_again(contested: Contested):
    compute, calls = contested.compute(2, [at("p226")])
    updated = contested.update([at("p225"), at("p226"), at("p227")], compute)
    assert calls == [["p225", "p226", "p227"], ["p226"], ["p226"]]
    assert {p.folder: now.rows["Size"].to_pylist() for p, now in updated.items()} == {
        "p225": [1],
        "p226": [3],
        "p227": [1],
    }
    assert contested.read(at("p226")).rows == updated[at("p226")].rows


def test_a_partition_that_others_keep_replacing_is_an_error_that_names_it(contested: Contested):
    compute, calls = contested.compute(CONFLICT_ROUNDS, [at("p226")])
    with pytest.raises(
        ConflictError,
        match=r"other runs keep replacing \['p226@2023-08-24-00:21'\]; let them finish first",
    ):
        contested.update([at("p225"), at("p226")], compute)
    assert len(calls) == CONFLICT_ROUNDS
    assert contested.read(at("p225")).rows == rows(row("p225/ours.flac", Size=1))
    assert contested.read(at("p226")).rows == rows(row("p226/theirs.flac", Size=CONFLICT_ROUNDS))


# --- files that are not the table's ---------------------------------------------------------------------


def test_rows_of_another_schema_are_refused(table: Table):
    with pytest.raises((KeyError, pa.ArrowException)):
        table.replace(at("p225"), pa.table({"Key": ["p225/a.flac"]}), Snapshot(None, None))
    wrong = rows(row("p225/a.flac")).set_column(2, "Size", pa.array(["many"]))
    with pytest.raises(pa.ArrowException):
        table.replace(at("p225"), wrong, Snapshot(None, None))
    assert table.partitions() == []


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"no Parquet", id="no Parquet"),
        pytest.param(pa.table({"Key": ["a"], "Other": [1]}), id="another table"),
        pytest.param(pa.table({"Key": ["a"], "ETag": ["e"]}), id="columns missing"),
    ],
)
def test_a_file_that_is_not_the_tables_is_named(table: Table, tmp_path: pathlib.Path, body: pa.Table | bytes):
    if isinstance(body, pa.Table):
        pq.write_table(body, tmp_path / "x.parquet")
        body = (tmp_path / "x.parquet").read_bytes()
    table.store.replace(table.path(at("p225")), body, None)
    for read in (lambda: table.read(at("p225")), lambda: table.scan([at("p225")])):
        with pytest.raises(StorageError, match=r"p225_2023-08-24_00-21\.parquet is no file of audio_table"):
            read()


def test_a_file_that_was_damaged_is_not_taken_for_rows(table: Table, place: Place):
    table.replace(at("p225"), rows(row("p225/a.flac", transcribed_text="eight")), Snapshot(None, None))
    path = table.path(at("p225"))
    whole, version = table.store.read_latest(path) or (b"", "")
    columns = pq.ParquetFile(pa.BufferReader(whole)).metadata.row_group(0)
    for chunk in map(columns.column, range(columns.num_columns)):
        damaged = bytearray(whole)
        # The last byte of its last page.
        damaged[
            (chunk.dictionary_page_offset or chunk.data_page_offset) + chunk.total_compressed_size - 1
        ] ^= 1
        table.store.replace(path, bytes(damaged), version)
        with pytest.raises(StorageError, match=r"p225_2023-08-24_00-21\.parquet is no file of audio_table"):
            table.read(at("p225"))
        _, version = table.store.read_latest(path) or (b"", "")


def test_only_the_tables_own_files_are_its_partitions(table: Table, place: Place):
    write(table, at("p225"), row("p225/a.flac"))
    directory = table.path(at("p225")).rpartition("/")[0]
    for stray in (
        f"{directory}/copy.parquet",
        f"{directory}/.x.tmp",
        "audio_table/_SUCCESS",
        "other/x.parquet",
    ):
        place.put(stray)
    assert table.partitions() == [at("p225")]


# --- any slice ------------------------------------------------------------------------------------------


@pytest.fixture
def filled(table: Table) -> Table:
    """Two folders with three days of one minute each, and a neighbour whose name starts the same."""
    for folder in ("p225", "p226", "p2255"):
        for day in range(3):
            for minute in (0, 1):
                key = f"{folder}/{day}{minute}.flac"
                write(table, at(folder, day * 1440 + minute), row(key, transcribed_text=key))
    return table


def keys(frame: pd.DataFrame) -> list[str]:
    return frame["Key"].tolist()


def test_everything_is_read_in_order_of_folder_and_time(filled: Table):
    found = keys(read_slice(filled))
    assert len(found) == 18
    assert found == sorted(found)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("2023-08-24 00:21", "2023-08-24 00:22", ["00"]),
        ("2023-08-24 00:00", "2023-08-24 01:00", ["00", "01"]),
        ("2023-08-24", "2023-08-25", ["00", "01"]),
        ("2023-08-25", None, ["10", "11", "20", "21"]),
        (None, "2023-08-24 00:22", ["00"]),
        ("2023-08-24T02:21+02:00", "2023-08-24T02:22+02:00", ["00"]),
        (MINUTE.replace(tzinfo=None), MINUTE.replace(tzinfo=None) + dt.timedelta(minutes=1), ["00"]),
        (dt.date(2023, 8, 26), dt.date(2024, 1, 1), ["20", "21"]),
        (pd.Timestamp("2023-08-26", tz="UTC"), None, ["20", "21"]),
        (np.datetime64("2023-08-26"), None, ["20", "21"]),
        ("2024", None, []),
    ],
)
def test_time_is_cut_at_any_granularity(filled: Table, start: object, end: object, expected: list[str]):
    assert keys(read_slice(filled, "p225", start, end)) == [f"p225/{name}.flac" for name in expected]


def test_one_folder_or_several(filled: Table):
    assert {folder_of(k) for k in keys(read_slice(filled, "p225"))} == {"p225"}
    assert {folder_of(k) for k in keys(read_slice(filled, ["p226", "p225"]))} == {"p225", "p226"}
    assert len(read_slice(filled, ["p225", "p225"])) == 6
    assert keys(read_slice(filled, [])) == []
    with pytest.warns(UserWarning, match="has no folder 'p2'"):
        assert keys(read_slice(filled, "p2")) == []


def test_columns_are_those_asked_for_in_that_order(filled: Table):
    frame = read_slice(filled, "p225", columns=["LastModifiedMinute", "transcribed_text"])
    assert list(frame.columns) == ["LastModifiedMinute", "transcribed_text"]
    assert frame["LastModifiedMinute"].tolist() == [21, 22] * 3
    frame = read_slice(filled, "p225", columns=["FolderName"])
    assert frame["FolderName"].tolist() == ["p225"] * 6
    with pytest.raises(ValueError, match=r"audio_table has no column \['text'\]; it has \['Key'"):
        read_slice(filled, columns=["text"])


def test_a_table_that_is_not_there_yet_is_empty_with_its_columns(table: Table):
    frame = read_slice(table)
    assert len(frame) == 0
    assert list(frame.columns) == schema.with_partition_columns(schema.AUDIO_TABLE).names


def test_null_is_nan_and_types_are_those_of_the_contract(table: Table):
    write(
        table,
        at("p225"),
        row("p225/a.flac", transcribed_text="", tokenized_info=[1], channels=2, avg_logprob=-0.5),
        row("p225/b.txt", status="not_flac"),
    )
    frame = read_slice(table)
    spoken, other = frame.to_dict("records")
    assert spoken["transcribed_text"] == ""
    assert spoken["tokenized_info"].tolist() == [1]
    assert frame["channels"].isna().tolist() == [False, True]
    for name in ("transcribed_text", "tokenized_info", "avg_logprob", "whisper_model", "error"):
        assert isinstance(other[name], float), name
        assert np.isnan(other[name]), name
    assert spoken["LastModified"] == pd.Timestamp(MINUTE)
    assert spoken["LastModifiedDate"] == dt.date(2023, 8, 24)
    assert frame["LastModifiedHour"].dtype == frame["LastModifiedMinute"].dtype == np.int32
    assert frame["Size"].dtype == np.int64


def test_read_table_reads_the_table_that_the_environment_names(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AUDIO_SOURCE_URI", place.uri)
    monkeypatch.delenv("AUDIO_TABLE_URI", raising=False)
    write(
        Table(place.store, "output_parquet/audio_table", schema.AUDIO_TABLE), at("p225"), row("p225/a.flac")
    )
    assert keys(audio_assets.read_table("p225", "2023", "2024", ["Key"])) == ["p225/a.flac"]
    monkeypatch.setenv("AUDIO_TABLE_URI", f"{place.uri}/elsewhere")
    assert len(audio_assets.read_table()) == 0


def test_read_table_loads_neither_dagster_nor_torch(local_place: LocalPlace):
    write(
        Table(local_place.store, "output_parquet/audio_table", schema.AUDIO_TABLE),
        at("p225"),
        row("p225/a.flac"),
    )
    command = (
        "import sys, audio_assets\n"
        "print(list(audio_assets.read_table('p225')['Key']))\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "print(loaded & {'dagster', 'dagster_aws', 'torch', 'whisper'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", command],
        env=os.environ | {"AUDIO_SOURCE_URI": local_place.uri, "AUDIO_TABLE_URI": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["['p225/a.flac']", "set()"]
