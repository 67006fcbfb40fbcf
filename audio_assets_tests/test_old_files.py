"""A column is added to a table, and files that were written without it stay what they are."""

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import audio_assets.demo
from audio_assets import schema
from audio_assets.defs import daily_checks
from audio_assets.defs.partitions import AUDIO_TABLE
from audio_assets.errors import StorageError
from audio_assets.partitions import FolderMinute
from audio_assets.read import read_slice
from audio_assets.source import AudioSource
from audio_assets.speech import SpeechPass, Transcribing
from audio_assets.storage import ObjectStore
from audio_assets.table import Snapshot, Table
from audio_assets.transcription import Transcriber
from audio_assets_tests.support.audio import MINUTE, UPLOADED
from audio_assets_tests.support.places import LocalPlace, Place
from audio_assets_tests.support.project import Project

OLD = pathlib.Path(__file__).parent / "data" / "version_0.1.0"
SAMPLE = pathlib.Path(audio_assets.demo.__file__).parent / "sample"
EIGHT = "p225/p225_001_mic1.flac"
NOTES = "p225/notes.txt"
PARTITION = FolderMinute("p225", MINUTE)
TABLES = {
    "s3_inventory": schema.INVENTORY,
    "transcripts": schema.TRANSCRIPTS,
    "tokens": schema.TOKENS,
    "audio_table": schema.AUDIO_TABLE,
}


def put_old_files(place: Place, root: str = "") -> list[Table]:
    """Lay the old partition's files where the tables have them."""
    tables = [Table(place.store, f"{root}{name}", columns) for name, columns in TABLES.items()]
    for name, table in zip(TABLES, tables, strict=True):
        place.put(table.path(PARTITION), (OLD / f"{name}.parquet").read_bytes())
    return tables


def longer(table: Table, field: pa.Field, at: int) -> Table:
    """The table after a column was added to it."""
    return dataclasses.replace(table, schema=table.schema.insert(at, field))


def body(table: Table) -> bytes:
    found = table.store.read_latest(table.path(PARTITION))
    assert found is not None
    return found[0]


# --- files of an earlier version ------------------------------------------------------------------------


def test_old_files_have_todays_columns_types_and_values(local_place: LocalPlace):
    *_, table = tables = put_old_files(local_place)
    for old in tables:
        rows = old.read(PARTITION).rows
        assert rows is not None
        assert rows.schema.equals(old.schema)
        assert rows["Key"].to_pylist() == [NOTES, EIGHT]
    notes, eight = read_slice(table, "p225").to_dict("records")
    assert (notes["status"], eight["status"]) == ("not_flac", "ok")
    assert eight["transcribed_text"] == "Eight."
    assert (len(eight["tokenized_info"]), list(eight["tokenized_info"][:3])) == (137, [10309, 24687, 22074])
    assert (eight["duration_s"], eight["sample_rate_hz"], eight["channels"]) == (0.3320625, 48_000, 1)
    assert eight["LastModified"] == pd.Timestamp(UPLOADED)
    assert (eight["Size"], eight["ETag"]) == (11_076, "9102005a4a2fde603d7ef2f3c881c384")
    assert np.isnan(notes["transcribed_text"])


@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_a_run_over_an_old_partition_computes_nothing_and_adds_segments_to_its_rows(
    project: Project, monkeypatch: pytest.MonkeyPatch
):
    def load(*_: object, **__: object) -> Transcriber:
        raise AssertionError("the rows are there")

    monkeypatch.setattr(Transcriber, "load", load)
    monkeypatch.setenv("WHISPER_DEVICE", "cpu")
    monkeypatch.setattr(daily_checks, "SENSOR_SECONDS", 0)
    project.place.put(EIGHT, (SAMPLE / EIGHT).read_bytes(), UPLOADED)
    project.place.put(NOTES, b"hello", UPLOADED)
    tables = put_old_files(project.place, "output_parquet/")
    versions = [table.read(PARTITION).version for table in tables]
    project.reload()
    result = project.run(PARTITION.key)
    assert result.success
    made = {
        m.asset_key.to_user_string(): m.metadata for m in result.asset_materializations_for_node("speech")
    }
    assert {name: metadata["clips_computed"].value for name, metadata in made.items()} == {
        "transcripts": 0,
        "tokens": 0,
    }
    # The transcripts have had segments for longer than the rows that join them.
    *inputs, joined = tables
    assert [table.read(PARTITION).version for table in inputs] == versions[:-1]
    written = joined.read(PARTITION)
    assert written.rows is not None
    assert written.rows["segments"].null_count == 1
    assert project.run(PARTITION.key).success
    assert joined.read(PARTITION).version == written.version
    checked = project.repository.get_job("check_audio_table").execute_in_process(instance=project.instance)
    checks = {
        check.check_name: check.passed
        for check in checked.get_asset_check_evaluations()
        if check.asset_key == AUDIO_TABLE
    }
    assert checks["schema"]
    assert all(checks.values())


# --- a column that is added -----------------------------------------------------------------------------

SPEAKER = pa.field("speaker", pa.string())


@pytest.mark.parametrize("at", [0, 3, 18], ids=["first", "in between", "last"])
def test_a_nullable_column_that_a_file_lacks_is_null(local_place: LocalPlace, at: int):
    *_, table = put_old_files(local_place)
    table = longer(table, SPEAKER, at)
    rows = table.read(PARTITION).rows
    assert rows is not None
    assert rows.schema.equals(table.schema)
    assert rows["speaker"].to_pylist() == [None, None]
    assert rows["Key"].to_pylist() == [NOTES, EIGHT]
    assert (
        table.scan([PARTITION], ["speaker", "FolderName"]).to_pylist()
        == [{"speaker": None, "FolderName": "p225"}] * 2
    )
    frame = read_slice(table, columns=["speaker"])
    assert frame["speaker"].isna().tolist() == [True, True]
    assert len(read_slice(table)) == 2


def test_files_with_and_without_the_column_are_read_side_by_side(local_place: LocalPlace):
    *_, table = put_old_files(local_place)
    table = longer(table, SPEAKER, 3)
    new = FolderMinute("p226", MINUTE)
    row = dict(Key="p226/a.flac", ETag="e", Size=1, LastModified=MINUTE, status="ok", speaker="Ann")
    table.replace(new, pa.Table.from_pylist([row], table.schema), Snapshot(None, None))
    scanned = table.scan(table.partitions(), ["Key", "speaker"])
    assert scanned["speaker"].to_pylist() == [None, None, "Ann"]


def test_old_rows_are_reused_as_they_are_where_a_column_was_added(local_place: LocalPlace):
    inventory, transcripts, *_ = put_old_files(local_place)
    old = transcripts.read(PARTITION).rows
    assert old is not None
    identity = old["whisper_model"].to_pylist()[1]
    table = longer(transcripts, SPEAKER, 3)
    before = body(table)

    def load() -> Transcriber:
        raise AssertionError("the rows are there")

    # The source has no objects: whoever read one would fail.
    source = AudioSource(local_place.store, ObjectStore(f"{local_place.uri}/../tables"))
    speech_pass = SpeechPass(source, inventory, Transcribing(table, identity, load))
    [finished] = speech_pass.run([PARTITION])
    assert finished.computed == 0
    assert finished.statuses["transcripts"] == {"ok": 1, "not_flac": 1}
    assert body(table) == before


def test_a_column_that_holds_no_null_is_missed(local_place: LocalPlace):
    *_, table = put_old_files(local_place)
    table = longer(table, pa.field("speaker", pa.string(), nullable=False), 3)
    for read in (lambda: table.read(PARTITION), lambda: table.scan([PARTITION], ["speaker"])):
        with pytest.raises(
            StorageError,
            match=r"p225_2023-08-24_00-21\.parquet is no file of audio_table: it lacks the columns "
            r"\['speaker'\], which hold no null; delete it and materialise again",
        ):
            read()
    assert table.scan([PARTITION], ["Key"]).num_rows == 2


def test_a_column_of_a_type_that_does_not_fit_is_named(local_place: LocalPlace):
    *_, table = put_old_files(local_place)
    at = table.schema.get_field_index("transcribed_text")
    table = dataclasses.replace(table, schema=table.schema.set(at, pa.field("transcribed_text", pa.int64())))
    with pytest.raises(StorageError, match=r"is no file of audio_table: .*Eight"):
        table.read(PARTITION)


@pytest.mark.parametrize(
    ("change", "right"),
    [
        (lambda old: old, True),
        (lambda old: old.drop_columns(["language", "error"]), True),
        (lambda old: old.drop_columns(["Size"]), False),
        (lambda old: old.append_column(SPEAKER, pa.array(["Ann", None])), False),
        (lambda old: old.set_column(2, "Size", old["Size"].cast(pa.int32())), False),
        (lambda old: old.select([*old.column_names[1:], "Key"]), False),
    ],
    ids=["as it was", "nullable columns less", "a column less", "unknown", "a type", "an order"],
)
def test_which_files_are_of_the_table(change: Callable[[pa.Table], pa.Table], right: bool):
    old = pq.read_table(OLD / "audio_table.parquet")
    assert schema.matches(change(old).schema, schema.AUDIO_TABLE) == right
