"""The asset checks, on tables that are right and on tables that are wrong in one way each."""

import datetime as dt
import io
import pathlib
from collections.abc import Callable
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dagster_aws.s3 import S3Resource

from audio_assets import schema
from audio_assets.defs import checks
from audio_assets.defs.audio_table import audio_table
from audio_assets.defs.check_rules import CHECKS
from audio_assets.defs.checks import audio_table_checks
from audio_assets.defs.jobs import check_audio_table
from audio_assets.defs.partitions import FOLDER_MINUTE
from audio_assets.defs.resources import AudioTokeniser, Bucket, Whisper, _open_store
from audio_assets.partitions import FolderMinute
from audio_assets.rows import inventory_rows
from audio_assets.tokenisation import load_tokeniser
from audio_assets_tests.support.audio import MINUTE
from audio_assets_tests.support.places import LocalPlace

PARTITIONS = [FolderMinute("p225", MINUTE), FolderMinute("p226", MINUTE)]
TODAY = "whisper of today sha256=1 language=en"
Row = dict[str, Any]


class WhisperOfToday(Whisper):
    """Made the rows of these tests; hears nothing."""

    def expected_parts(self) -> tuple[str, ...]:
        return (self.model, "language=en")


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checks, "SENSOR_SECONDS", 0)
    monkeypatch.setenv("SETTLE_SECONDS", "60")


@pytest.fixture
def place(tmp_path: pathlib.Path) -> LocalPlace:
    """Two folders of forty objects each."""
    place = LocalPlace(tmp_path / "source")
    for partition in PARTITIONS:
        for i in range(40):
            place.put(f"{partition.folder}/{i}.flac", b"abc", MINUTE)
    return place


@pytest.fixture
def bucket(place: LocalPlace, tmp_path: pathlib.Path) -> Bucket:
    """All objects of `place` have their rows."""
    bucket = Bucket(source_uri=place.uri, table_uri=(tmp_path / "out").as_uri(), s3=S3Resource())
    for partition in PARTITIONS:
        write(bucket, partition, rows_of(bucket, partition))
    return bucket


@pytest.fixture
def instance() -> Any:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def rows_of(bucket: Bucket, partition: FolderMinute) -> list[Row]:
    """The right rows of a partition: what its objects are now, heard and tokenised today."""
    objects = [o for page in bucket.source.objects(partition.folder) for o in page]
    here = [o for o in objects if FolderMinute.of(o.key, o.last_modified) == partition]
    heard = dict(
        transcribed_text="One.",
        tokenized_info=[1, 2],
        status=schema.OK,
        whisper_model=TODAY,
        tokeniser=load_tokeniser("simulated").identity,
    )
    return [row | heard for row in inventory_rows(here).to_pylist()]


def write(bucket: Bucket, partition: FolderMinute, rows: list[Row]) -> None:
    table = bucket.audio_table
    table.replace(partition, pa.Table.from_pylist(rows, schema.AUDIO_TABLE), table.read(partition))


def write_bytes(bucket: Bucket, partition: FolderMinute, body: bytes) -> None:
    """As somebody does who works on the table by hand."""
    path = pathlib.Path(bucket.audio_table.store.uri.removeprefix("file://")) / "audio_table" / partition.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)


def parquet(rows: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(rows, sink)
    return sink.getvalue()


def executed(
    bucket: Bucket,
    instance: dg.DagsterInstance | None = None,
    *,
    model: str = "whisper of today",
    tokeniser: str = "simulated",
) -> dict[str, dg.AssetCheckEvaluation]:
    """Execute all checks on their own; gives what each says."""
    definitions = dg.Definitions(
        assets=[audio_table],
        asset_checks=[audio_table_checks],
        jobs=[check_audio_table],
        resources={
            "bucket": bucket,
            "whisper": WhisperOfToday(model=model),
            "tokeniser": AudioTokeniser(name=tokeniser),
        },
    )
    job = definitions.get_repository_def().get_job("check_audio_table")
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    return {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}


def failing(evaluations: dict[str, dg.AssetCheckEvaluation]) -> set[str]:
    assert set(evaluations) == set(CHECKS)
    return {name for name, evaluation in evaluations.items() if not evaluation.passed}


def said(evaluation: dg.AssetCheckEvaluation, name: str) -> str:
    return str(evaluation.metadata[name].value)


# --- a table that is right ----------------------------------------------------------------------------------


def test_a_right_table_passes_all_and_says_when_it_was_looked_at(bucket: Bucket):
    before = dt.datetime.now(dt.UTC).timestamp()
    evaluations = executed(bucket)
    assert failing(evaluations) == set()
    assert evaluations["schema"].metadata["rows"].value == 80
    for evaluation in evaluations.values():
        checked_at = evaluation.metadata["checked_at"]
        assert isinstance(checked_at, dg.TimestampMetadataValue)
        assert before <= checked_at.value <= dt.datetime.now(dt.UTC).timestamp()


def test_a_table_of_nothing_passes_all(tmp_path: pathlib.Path):
    (tmp_path / "source").mkdir()
    uri = (tmp_path / "source").as_uri()
    assert failing(executed(Bucket(source_uri=uri, table_uri=f"{uri}/out", s3=S3Resource()))) == set()


def test_none_blocks_the_run_of_another_partition():
    assert not [spec.name for spec in audio_table_checks.check_specs if spec.blocking]


# --- files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("a type", "Size is int32, not int64 not null"),
        ("a missing column", "it lacks Size"),
        ("another column", "extra is no column of the table"),
        ("another order", "its columns are in another order"),
        ("no columns", "it lacks Key"),
        ("no bytes", "it is empty"),
        ("no Parquet", "Parquet"),
        ("flipped bits", "c"),
    ],
)
def test_a_file_that_is_not_as_the_table_is_found(bucket: Bucket, change: str, problem: str):
    partition = PARTITIONS[0]
    rows = bucket.audio_table.read(partition).rows
    assert rows is not None
    found = bucket.audio_table.store.read_latest(bucket.audio_table.path(partition))
    assert found is not None
    damaged = bytearray(found[0])
    damaged[60:64] = bytes(b ^ 0xFF for b in damaged[60:64])
    wrong = {
        "a type": parquet(rows.set_column(2, "Size", rows["Size"].cast(pa.int32()))),
        "a missing column": parquet(rows.drop_columns(["Size"])),
        "another column": parquet(rows.append_column("extra", rows["Key"])),
        "another order": parquet(rows.select(rows.column_names[::-1])),
        "no columns": parquet(pa.table({})),
        "no bytes": b"",
        "no Parquet": b"Key,ETag\n",
        "flipped bits": bytes(damaged),
    }
    write_bytes(bucket, partition, wrong[change])
    evaluations = executed(bucket)
    # Its objects have no rows that anybody could read.
    assert failing(evaluations) == {"schema", "equals_bucket"}
    assert evaluations["schema"].metadata["found"].value == 1
    assert partition.key in said(evaluations["schema"], "wrong")
    assert problem in said(evaluations["schema"], "wrong")


def test_a_file_without_columns_that_are_younger_than_it_is_right(bucket: Bucket):
    rows = bucket.audio_table.read(PARTITIONS[0]).rows
    assert rows is not None
    write_bytes(bucket, PARTITIONS[0], parquet(rows.drop_columns(["language", "error"])))
    assert failing(executed(bucket)) == set()


def test_a_file_that_readers_would_read_with_the_table_is_found(bucket: Bucket):
    table = pathlib.Path(bucket.audio_table.store.uri.removeprefix("file://")) / "audio_table"
    partition = table / PARTITIONS[0].path
    for hidden in ("_SUCCESS", ".tmp.parquet", "_temporary/0.parquet"):
        (table / hidden).parent.mkdir(exist_ok=True)
        (table / hidden).write_bytes(b"")
    assert failing(executed(bucket)) == set()
    partition.with_name("copy.parquet").write_bytes(partition.read_bytes())
    evaluations = executed(bucket)
    assert failing(evaluations) == {"equals_bucket"}
    assert evaluations["equals_bucket"].metadata["stray_files"].value == 1
    assert "copy.parquet" in said(evaluations["equals_bucket"], "strays")
    assert "delete" in str(evaluations["equals_bucket"].description)


# --- each key once ------------------------------------------------------------------------------------------


def test_a_key_that_has_two_rows_in_a_file_is_found(bucket: Bucket):
    rows = rows_of(bucket, PARTITIONS[0])
    write(bucket, PARTITIONS[0], [*rows, rows[7]])
    evaluations = executed(bucket)
    assert failing(evaluations) == {"unique_keys", "equals_bucket"}
    assert rows[7]["Key"] in said(evaluations["unique_keys"], "repeated")
    assert "several rows" in said(evaluations["equals_bucket"], "differing")


@pytest.mark.parametrize(
    "other", [PARTITIONS[1], FolderMinute("p225", MINUTE - dt.timedelta(minutes=3))], ids=["folder", "minute"]
)
def test_a_key_that_has_rows_in_two_files_is_found(bucket: Bucket, other: FolderMinute):
    doubled = rows_of(bucket, PARTITIONS[0])[7]
    write(bucket, other, [*rows_of(bucket, other), doubled])
    evaluations = executed(bucket)
    assert failing(evaluations) == {"unique_keys", "equals_bucket"}
    assert evaluations["unique_keys"].metadata["found"].value == 1
    for name in (doubled["Key"], PARTITIONS[0].key, other.key):
        assert name in said(evaluations["unique_keys"], "repeated")


# --- the bucket ---------------------------------------------------------------------------------------------


def without_a_row(bucket: Bucket, place: LocalPlace) -> None:
    write(bucket, PARTITIONS[0], rows_of(bucket, PARTITIONS[0])[:-1])


def without_a_file(bucket: Bucket, place: LocalPlace) -> None:
    write(bucket, PARTITIONS[0], [])


def of_an_older_version(bucket: Bucket, place: LocalPlace) -> None:
    rows = rows_of(bucket, PARTITIONS[0])
    write(bucket, PARTITIONS[0], [rows[0] | {"ETag": "older"}, *rows[1:]])


def of_an_earlier_second(bucket: Bucket, place: LocalPlace) -> None:
    rows = rows_of(bucket, PARTITIONS[0])
    earlier = {"LastModified": MINUTE - dt.timedelta(seconds=1)}
    write(bucket, PARTITIONS[0], [rows[0] | earlier, *rows[1:]])


def without_an_object(bucket: Bucket, place: LocalPlace) -> None:
    place.delete("p225/3.flac")


def without_any_object(bucket: Bucket, place: LocalPlace) -> None:
    for i in range(40):
        place.delete(f"p225/{i}.flac")


def moved(bucket: Bucket, place: LocalPlace) -> None:
    place.put("p225/3.flac", b"new", MINUTE + dt.timedelta(minutes=5))


def without_rows(bucket: Bucket, place: LocalPlace) -> None:
    write_bytes(bucket, FolderMinute("gone", MINUTE), parquet(schema.AUDIO_TABLE.empty_table()))


@pytest.mark.parametrize(
    ("change", "objects", "what"),
    [
        (without_a_row, 1, "it has no row"),
        (without_a_file, 40, "it has no row"),
        (of_an_older_version, 1, "its row is of an older version"),
        (of_an_earlier_second, 1, "its row is of an older version"),
        (without_an_object, 1, "| p225/3.flac | {0} | there is no such object |"),
        (without_any_object, 40, "there is no such object"),
        (moved, 2, "it is in {1} now"),
        (without_rows, 1, "a file without rows"),
    ],
)
def test_a_table_that_differs_from_the_bucket_is_found(
    bucket: Bucket,
    place: LocalPlace,
    change: Callable[[Bucket, LocalPlace], None],
    objects: int,
    what: str,
):
    change(bucket, place)
    evaluations = executed(bucket)
    assert failing(evaluations) == {"equals_bucket"}
    found = evaluations["equals_bucket"]
    assert found.severity == dg.AssetCheckSeverity.ERROR
    assert found.metadata["differing_objects"].value == objects
    later = FolderMinute("p225", MINUTE + dt.timedelta(minutes=5))
    assert what.format(PARTITIONS[0].key, later.key) in said(found, "differing")
    assert found.metadata["waiting"].value == 0


def test_a_folder_whose_name_its_path_cuts_is_compared_like_any_other(bucket: Bucket, place: LocalPlace):
    long = FolderMinute("/".join("ä" * 100 for _ in range(3)), MINUTE)
    read_back = FolderMinute.from_path(long.path)
    assert read_back is not None
    assert read_back.shortened
    place.put(f"{long.folder}/a.flac", b"abc", MINUTE)
    write(bucket, long, rows_of(bucket, long))
    assert failing(executed(bucket)) == set()
    place.put(f"{long.folder}/a.flac", b"longer", MINUTE)
    evaluations = executed(bucket)
    assert failing(evaluations) == {"equals_bucket"}
    assert "its row is of an older version" in said(evaluations["equals_bucket"], "differing")


def test_objects_of_a_minute_that_is_not_over_wait(bucket: Bucket, place: LocalPlace):
    place.put("p225/new.flac", b"abc", dt.datetime.now(dt.UTC))
    evaluations = executed(bucket)
    assert failing(evaluations) == set()
    assert evaluations["equals_bucket"].metadata["waiting"].value == 1


def test_a_row_waits_for_the_minute_in_which_its_object_was_overwritten(bucket: Bucket, place: LocalPlace):
    place.put("p225/3.flac", b"new", dt.datetime.now(dt.UTC))
    evaluations = executed(bucket)
    assert failing(evaluations) == set()
    assert evaluations["equals_bucket"].metadata["waiting"].value == 2


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED])
def test_objects_that_a_run_covers_wait(
    bucket: Bucket, place: LocalPlace, instance: dg.DagsterInstance, status: dg.DagsterRunStatus
):
    rows = rows_of(bucket, PARTITIONS[0])
    write(bucket, PARTITIONS[0], [*rows[2:], rows[5]])
    place.delete("p226/1.flac")
    run_of(instance, status, PARTITIONS[0])
    evaluations = executed(bucket, instance)
    assert failing(evaluations) == {"equals_bucket"}
    assert evaluations["equals_bucket"].metadata["differing_objects"].value == 1
    assert evaluations["equals_bucket"].metadata["waiting"].value == 40


def run_of(instance: dg.DagsterInstance, status: dg.DagsterRunStatus, partition: FolderMinute) -> None:
    instance.add_dynamic_partitions(FOLDER_MINUTE, [partition.key])
    job = dg.define_asset_job("some", selection=[audio_table.key])
    made = dg.Definitions(
        assets=[audio_table],
        jobs=[job],
        resources=dict.fromkeys(("bucket", "whisper", "tokeniser"), object()),
    )
    instance.create_run_for_job(
        made.get_repository_def().get_job("some"), tags={"dagster/partition": partition.key}, status=status
    )


def test_partitions_never_made_wait_while_the_sensor_may_ask_for_no_more_runs(
    bucket: Bucket, place: LocalPlace, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    place.put("new/a.flac", b"abc", MINUTE)
    run_of(instance, dg.DagsterRunStatus.NOT_STARTED, FolderMinute("other", MINUTE))
    assert failing(executed(bucket, instance)) == {"equals_bucket"}
    monkeypatch.setenv("MAX_RUNS_IN_FLIGHT", "1")
    evaluations = executed(bucket, instance)
    assert failing(evaluations) == set()
    assert evaluations["equals_bucket"].metadata["waiting"].value == 1
    place.delete("p226/1.flac")
    assert failing(executed(bucket, instance)) == {"equals_bucket"}


def test_what_a_run_mends_while_the_check_looks_is_no_fault(
    bucket: Bucket, place: LocalPlace, monkeypatch: pytest.MonkeyPatch
):
    rows = rows_of(bucket, PARTITIONS[0])
    write(bucket, PARTITIONS[0], [*rows, rows[3]])
    place.delete("p226/1.flac")
    waited: list[float] = []

    def mend(seconds: float) -> None:
        waited.append(seconds)
        write(bucket, PARTITIONS[0], rows)
        write(bucket, PARTITIONS[1], rows_of(bucket, PARTITIONS[1]))

    monkeypatch.setattr(checks, "SENSOR_SECONDS", 60)
    monkeypatch.setattr("time.sleep", mend)
    assert failing(executed(bucket)) == set()
    assert waited == [60]
    assert failing(executed(bucket)) == set()
    assert waited == [60], "a table that is right is not waited for"


def test_a_run_that_is_asked_for_while_the_check_looks_makes_its_objects_wait(
    bucket: Bucket, place: LocalPlace, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
):
    place.delete("p225/1.flac")
    look_again = checks.look_again

    def asked_for_meanwhile(*args: Any) -> Any:
        found = look_again(*args)
        assert found.wrong
        run_of(instance, dg.DagsterRunStatus.NOT_STARTED, PARTITIONS[0])
        return found

    monkeypatch.setattr(checks, "look_again", asked_for_meanwhile)
    evaluations = executed(bucket, instance)
    assert failing(evaluations) == set()
    assert evaluations["equals_bucket"].metadata["waiting"].value == 39


def test_a_bucket_that_cannot_be_listed_is_said_before_the_table_is_read(bucket: Bucket, place: LocalPlace):
    for i in range(40):
        place.delete(f"p225/{i}.flac")
        place.delete(f"p226/{i}.flac")
    for folder in (place.folder / "p225", place.folder / "p226", place.folder):
        folder.rmdir()
    # Another process has not opened it before.
    _open_store.cache_clear()
    evaluations = executed(bucket)
    assert failing(evaluations) == {"bucket_readable", "equals_bucket"}
    for name in ("bucket_readable", "equals_bucket"):
        assert evaluations[name].severity == dg.AssetCheckSeverity.ERROR
        assert place.uri in str(evaluations[name].description)
    assert next(iter(evaluations)) == "bucket_readable"


def test_a_bucket_that_is_too_large_to_list_is_not_listed(bucket: Bucket, place: LocalPlace):
    place.delete("p225/1.flac")
    reported = Bucket(
        source_uri=bucket.source_uri,
        table_uri=bucket.table_uri,
        inventory_manifest="s3://reports/manifest.json",
        s3=S3Resource(),
    )
    evaluations = executed(reported)
    assert failing(evaluations) == set()
    assert str(evaluations["equals_bucket"].description).startswith("not compared")


# --- what the rows say --------------------------------------------------------------------------------------


def change(bucket: Bucket, number: int, **values: object) -> None:
    """Change the first rows of a partition."""
    rows = rows_of(bucket, PARTITIONS[0])
    write(bucket, PARTITIONS[0], [row | (values if i < number else {}) for i, row in enumerate(rows)])


def test_more_failed_rows_than_one_in_twenty_warn_and_say_why(bucket: Bucket):
    bad = {"status": schema.FAILED, "error": "the object is empty", "transcribed_text": None}
    change(bucket, 4, **bad)
    assert failing(executed(bucket)) == set()
    change(bucket, 5, **bad)
    evaluations = executed(bucket)
    assert failing(evaluations) == {"failed_rows"}
    assert evaluations["failed_rows"].severity == dg.AssetCheckSeverity.WARN
    assert evaluations["failed_rows"].metadata["failed"].value == 5
    assert "the object is empty" in said(evaluations["failed_rows"], "reasons")


def test_more_empty_transcripts_than_one_in_twenty_warn(bucket: Bucket):
    change(bucket, 4, transcribed_text="")
    assert failing(executed(bucket)) == set()
    change(bucket, 5, transcribed_text="")
    evaluations = executed(bucket)
    assert failing(evaluations) == {"empty_transcripts"}
    assert evaluations["empty_transcripts"].severity == dg.AssetCheckSeverity.WARN


def test_objects_that_are_not_flac_count_as_neither(bucket: Bucket):
    change(bucket, 40, status=schema.NOT_FLAC, transcribed_text=None, whisper_model=None, tokeniser=None)
    evaluations = executed(bucket)
    # Their suffix has a decoder, so they are stale.
    assert failing(evaluations) == {"current_settings"}
    assert evaluations["current_settings"].metadata["stale_not_flac"].value == 40
    assert evaluations["failed_rows"].metadata["share"].value == 0
    assert evaluations["audio_found"].metadata["other"].value == 40


def test_a_value_that_its_column_does_not_allow_warns_and_says_which(bucket: Bucket):
    change(bucket, 1, temperature=1.5, channels=0)
    evaluations = executed(bucket)
    assert failing(evaluations) == {"allowed_values"}
    assert evaluations["allowed_values"].severity == dg.AssetCheckSeverity.WARN
    assert evaluations["allowed_values"].metadata["disallowed"].value == 2
    examples = said(evaluations["allowed_values"], "examples")
    assert "| p225/0.flac | temperature | 1.5 | 0 to 1 |" in examples
    assert "| p225/0.flac | channels | 0 | 1 or more |" in examples


@pytest.mark.parametrize(
    ("values", "which", "row"),
    [
        ({"whisper_model": "older"}, "transcripts", "| older | 3 | False |"),
        ({"tokeniser": "older"}, "tokens", "| older | 3 | False |"),
        ({"whisper_model": TODAY.replace("en", "de")}, "transcripts", "language=de | 3 | False |"),
        ({"whisper_model": None}, "transcripts", "| not said | 3 | False |"),
    ],
)
def test_rows_made_by_other_settings_warn_and_are_counted(bucket: Bucket, values: Row, which: str, row: str):
    change(bucket, 3, **values)
    evaluations = executed(bucket)
    assert failing(evaluations) == {"current_settings"}
    found = evaluations["current_settings"]
    assert found.severity == dg.AssetCheckSeverity.WARN
    assert f"some {which} were made by other settings" in str(found.description)
    assert "redo_stale" in str(found.description)
    assert {n: found.metadata[n].value for n in ("stale_transcripts", "stale_tokens")} == {
        "stale_transcripts": 3 * (which == "transcripts"),
        "stale_tokens": 3 * (which == "tokens"),
    }
    assert row in said(found, "whisper_models") + said(found, "tokenisers")
    assert f"| {TODAY} | {77 if which == 'transcripts' else 80} | True |" in said(found, "whisper_models")


def test_another_setting_makes_all_rows_stale(bucket: Bucket):
    evaluations = executed(bucket, model="whisper of tomorrow")
    assert failing(evaluations) == {"current_settings"}
    assert evaluations["current_settings"].metadata["stale_transcripts"].value == 80


def test_a_setting_that_names_nothing_warns_in_its_own_words(bucket: Bucket):
    evaluations = executed(bucket, tokeniser="no.such:tokeniser")
    assert failing(evaluations) == {"current_settings"}
    assert "TOKENISER='no.such:tokeniser'" in str(evaluations["current_settings"].description)


def test_a_bucket_without_audio_warns(bucket: Bucket):
    not_audio = dict(status=schema.NOT_FLAC, transcribed_text=None, whisper_model=None, tokeniser=None)
    for partition in PARTITIONS:
        rows = rows_of(bucket, partition)
        write(bucket, partition, [row | not_audio for row in rows])
    evaluations = executed(bucket)
    assert failing(evaluations) == {"audio_found", "current_settings"}
    assert evaluations["audio_found"].severity == dg.AssetCheckSeverity.WARN
    assert f"no object of {bucket.source_uri} ends in .flac; " in str(evaluations["audio_found"].description)
    failed = dict(status=schema.FAILED, whisper_model=TODAY, tokeniser=load_tokeniser("simulated").identity)
    write(bucket, PARTITIONS[0], [rows_of(bucket, PARTITIONS[0])[0] | failed])
    assert "audio_found" not in failing(executed(bucket))
