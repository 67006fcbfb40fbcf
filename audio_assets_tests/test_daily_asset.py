"""`audio_table_daily` in Dagster: what the sensor asks for, what its runs leave, what the UI shows."""

import datetime as dt
import itertools
import pathlib
from collections.abc import Iterator, Mapping

import dagster as dg
import pyarrow as pa
import pytest
from dagster._core.test_utils import create_run_for_test

from audio_assets import schema
from audio_assets.daily import DailyTable
from audio_assets.daily_compaction import write_day
from audio_assets.defs import checks, daily_checks
from audio_assets.defs.audio_table_daily import DAILY, DAY, EQUALS_AUDIO_TABLE, day_records
from audio_assets.digest import EMPTY
from audio_assets.partitions import FolderMinute
from audio_assets.read import open_audio_table
from audio_assets.record import PartitionRecord
from audio_assets.retire import choose, retire
from audio_assets.table import Snapshot, Table, with_partition_columns
from audio_assets_tests.support.audio import UPLOADED
from audio_assets_tests.support.checks import shown_result
from audio_assets_tests.support.environment import clear_settings
from audio_assets_tests.support.places import LocalPlace
from audio_assets_tests.support.project import Project
from audio_assets_tests.support.rows import at, row, rows


class Days:
    """The part of the daemon that looks after the daily copy of a project.

    The minutes are written as `audio_table` writes and records them, without audio.
    """

    def __init__(self, project: Project) -> None:
        self.project = project
        self.instance = project.instance
        self._sizes = itertools.count()

    @property
    def table(self) -> Table:
        return open_audio_table()

    @property
    def copy(self) -> DailyTable:
        return DailyTable(self.table.store, schema.AUDIO_TABLE_DAILY, schema.of_day(schema.AUDIO_TABLE))

    def write(self, partition: FolderMinute, count: int = 1) -> None:
        """Give a minute so many new rows and record them."""
        size = next(self._sizes)
        made = rows(*(row(f"{partition.folder}/{i}.flac", Size=size) for i in range(count)))
        version = self.table.replace(partition, made, self.table.read(partition))
        record = PartitionRecord.of(made, version)
        self.instance.add_dynamic_partitions("folder_minute", [partition.key])
        self.instance.report_runless_asset_event(
            dg.AssetObservation(
                "audio_table", partition=partition.key, tags={"dagster/data_version": record.to_json()}
            )
        )

    def tick(self) -> list[dg.RunRequest]:
        """Evaluate the sensor and register what it asks for."""
        return self.project.tick_of("changed_days")

    def run(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        return self.project.repository.get_job("compact_days").execute_in_process(
            instance=self.instance,
            partition_key=request.partition_key,
            tags={**request.tags, "dagster/run_key": request.run_key or ""},
            raise_on_error=False,
        )

    def catch_up(self) -> list[str]:
        """Tick and run until the sensor is content; gives the days that were compacted."""
        compacted: list[str] = []
        while requests := self.tick():
            for request in requests:
                assert self.run(request).success
                compacted.append(str(request.partition_key))
        return compacted

    def assert_equal(self) -> None:
        """The daily copy holds what the minutes hold."""
        by_day: dict[dt.date, list[pa.Table]] = {}
        for partition in sorted(self.table.partitions()):
            found = with_partition_columns(self.table.read(partition).rows or rows(), partition)
            by_day.setdefault(partition.minute.date(), []).append(found.select(self.copy.schema.names))
        days = self.copy.days()
        assert days.keys() == by_day.keys()
        for day, info in days.items():
            file = self.copy.open(day, info)
            found = file.fragment.to_table(schema=self.copy.schema).cast(self.copy.schema)
            assert found.equals(pa.concat_tables(by_day[day]))


@pytest.fixture
def days(local_place: LocalPlace, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Days]:
    """On a disk: the store makes no difference here, and `test_daily.py` reads and writes S3."""
    clear_settings(monkeypatch)
    monkeypatch.setenv("AUDIO_SOURCE_URI", local_place.uri)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield Days(Project(local_place, instance))


# --- what is compacted ----------------------------------------------------------------------------------


def test_new_late_changed_and_deleted_minutes_are_followed_and_nothing_else_is_done(days: Days):
    days.write(at("p1"))
    days.write(at("p2", 1440), 2)
    assert days.catch_up() == ["2023-08-25", "2023-08-24"]
    days.assert_equal()
    assert days.instance.get_dynamic_partitions(DAY) == ["2023-08-24", "2023-08-25"]
    before = days.copy.days()
    # Unchanged.
    assert days.catch_up() == []
    # Late.
    days.write(at("p9", 3))
    assert days.catch_up() == ["2023-08-24"]
    days.assert_equal()
    # Changed.
    days.write(at("p2", 1440), 2)
    assert days.catch_up() == ["2023-08-25"]
    days.assert_equal()
    after = days.copy.days()
    assert all(before[day].etag != after[day].etag for day in before)
    # Deleted, in part and as a whole.
    days.write(at("p9", 3), 0)
    days.write(at("p2", 1440), 0)
    assert days.catch_up() == ["2023-08-25", "2023-08-24"]
    days.assert_equal()
    assert days.tick() == []
    assert days.instance.get_dynamic_partitions(DAY) == ["2023-08-24"]
    assert days.project.evaluated.skip_message == "nothing to compact"


def test_a_day_whose_file_is_deleted_or_edited_by_hand_is_made_again(days: Days):
    days.write(at("p1"))
    days.catch_up()
    [info] = days.copy.days().values()
    days.copy.store.delete(info.key, info.etag)
    assert days.catch_up() == ["2023-08-24"]
    [info] = days.copy.days().values()
    days.copy.store.replace(info.key, b"edited", info.etag)
    assert days.catch_up() == ["2023-08-24"]
    days.assert_equal()


def test_minutes_that_were_retired_stay_in_their_day(days: Days):
    days.write(at("p1"))
    days.write(at("p2"))
    choice = choose(days.instance, at("p1", 1440).minute)
    retire(days.instance, choice.retire)
    assert days.instance.get_dynamic_partitions("folder_minute") == []
    assert days.catch_up() == ["2023-08-24"]
    days.assert_equal()


def test_a_failed_run_is_made_again_later_under_another_run_key(days: Days):
    days.write(at("p1"))
    [request] = days.tick()
    key = days.table.path(at("p1"))
    found = days.table.store.read_latest(key)
    assert found is not None
    version = days.table.store.replace(key, b"no Parquet", found[1])
    result = days.run(request)
    assert not result.success
    # Its minute has not passed yet.
    assert days.tick() == []
    assert "1 runs wait for others to end, or for their next try" in str(days.project.evaluated.skip_message)
    days.table.store.replace(key, found[0], version)


def test_days_under_way_are_not_asked_for_again_and_no_more_than_a_few_at_a_time(days: Days):
    for day in range(6):
        days.write(at("p1", 1440 * day))
    requests = days.tick()
    assert [r.partition_key for r in requests] == [f"2023-08-{day}" for day in (29, 28, 27, 26)]
    for request in requests[:3]:
        create_run_for_test(
            days.instance,
            job_name="compact_days",
            status=dg.DagsterRunStatus.STARTED,
            tags={"dagster/partition": str(request.partition_key)},
        )
    assert [r.partition_key for r in days.tick()] == ["2023-08-26"]


def test_the_sensor_of_the_bucket_is_not_disturbed_by_the_daily_copy(days: Days):
    project = days.project
    project.place.put("p1/a.txt")
    project.place.put("p2/b.txt")
    project.catch_up()
    assert days.catch_up() == ["2023-08-24"]
    days.assert_equal()
    assert project.tick() == []
    assert "nothing to ask for now" in str(project.evaluated.skip_message)
    project.place.delete("p2/b.txt")
    project.catch_up()
    assert days.catch_up() == ["2023-08-24"]
    days.assert_equal()


# --- what Dagster is told -------------------------------------------------------------------------------


def test_a_day_shows_its_rows_by_status_its_hours_and_its_file(days: Days):
    days.write(at("p1"), 3)
    days.catch_up()
    record = days.instance.get_latest_materialization_event(DAILY)
    assert record is not None
    assert record.asset_materialization is not None
    metadata = {name: value.value for name, value in record.asset_materialization.metadata.items()}
    assert record.asset_materialization.partition == "2023-08-24"
    assert list(metadata)[:4] == ["ok", "failed", "not_flac", "audio_hours"]
    expected = {"ok": 3, "failed": 0, "folders": 1, "minutes": 1, "dagster/partition_row_count": 3}
    assert {name: metadata[name] for name in expected} == expected
    assert str(metadata["plots"]).startswith("![the audio of 2023-08-24](data:image/svg+xml;base64,")
    assert metadata["file"] == "LastModifiedDate=2023-08-24/audio_table_2023-08-24.parquet"
    [(day, made)] = day_records(days.instance).items()
    assert day == "2023-08-24"
    assert made.version == days.copy.days()[UPLOADED.date()].etag


def test_a_day_that_never_had_rows_is_materialised_empty(days: Days):
    days.instance.add_dynamic_partitions(DAY, ["2023-08-24"])
    assert days.run(dg.RunRequest("by hand", partition_key="2023-08-24")).success
    assert day_records(days.instance)["2023-08-24"].digest == str(EMPTY)
    assert days.copy.files() == {}


def test_what_is_no_day_is_refused_in_words(days: Days):
    days.instance.add_dynamic_partitions(DAY, ["today"])
    result = days.run(dg.RunRequest("by hand", partition_key="today"))
    [failure] = result.get_step_failure_events()
    assert "'today' is no day; it should read like 2023-08-24" in str(failure.step_failure_data.error)


def test_the_asset_is_described_and_its_sensor_runs_from_the_start(days: Days):
    repository = days.project.repository
    node = repository.asset_graph.get(DAILY)
    assert node.group_name == "audio"
    assert {key.to_user_string() for key in node.parent_keys} == {"audio_table"}
    assert node.partitions_def == dg.DynamicPartitionsDefinition(name="day")
    assert node.backfill_policy == dg.BackfillPolicy.multi_run(1)
    columns = node.metadata["dagster/column_schema"].columns
    assert [c.name for c in columns] == schema.with_partition_columns(schema.AUDIO_TABLE).names
    sensor = repository.get_sensor_def("changed_days")
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    assert sensor.job_name == "compact_days"


# --- the check ------------------------------------------------------------------------------------------


def checked(days: Days, monkeypatch: pytest.MonkeyPatch) -> tuple[bool, Mapping[str, object], str]:
    """Whether the check passed, its metadata and its description; the sensor has had its time."""
    monkeypatch.setattr(daily_checks, "SENSOR_SECONDS", 0)
    bucket = days.project.repository.get_top_level_resources()
    with dg.build_resources(bucket, days.instance) as resources:
        context = dg.build_asset_check_context(instance=days.instance)
        result = daily_checks.equals_audio_table(context, bucket=resources.bucket)
    assert isinstance(result, dg.AssetCheckResult)
    metadata = {name: value.value for name, value in (result.metadata or {}).items()}
    return result.passed, metadata, result.description or ""


def test_the_check_passes_where_every_day_equals_its_minutes(days: Days, monkeypatch: pytest.MonkeyPatch):
    assert checked(days, monkeypatch)[0]
    days.write(at("p1"), 3)
    days.write(at("p2", 1440), 2)
    days.catch_up()
    passed, metadata, _ = checked(days, monkeypatch)
    assert passed
    assert (metadata["days"], metadata["rows"], metadata["waiting"]) == (2, 5, 0)


def test_the_check_counts_days_that_wait_and_fails_for_those_that_nobody_compacts(
    days: Days, monkeypatch: pytest.MonkeyPatch
):
    days.write(at("p1"))
    passed, metadata, description = checked(days, monkeypatch)
    assert not passed
    assert description == "1 days are not what audio_table says"
    assert "no run compacts it" in str(metadata["wrong"])
    create_run_for_test(
        days.instance,
        job_name="compact_days",
        status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/partition": "2023-08-24"},
    )
    passed, metadata, _ = checked(days, monkeypatch)
    assert (passed, metadata["waiting"]) == (True, 1)


def test_the_check_finds_rows_that_differ_in_a_day_that_claims_to_be_fresh(
    days: Days, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
):
    days.write(at("p1"), 3)
    days.write(at("p2"), 2)
    days.catch_up()
    [(day, info)] = days.copy.days().items()
    read = Table.read

    def other_rows(self: Table, partition: FolderMinute) -> Snapshot:
        found = read(self, partition)
        assert found.rows is not None
        return Snapshot(found.rows.slice(1), found.version)

    path = str(tmp_path / "day.parquet")
    with monkeypatch.context() as patched:
        patched.setattr(Table, "read", other_rows)
        write_day(path, days.copy.schema, days.table, [at("p1"), at("p2")])
    days.copy.store.replace_by_file(info.key, path, info.etag)
    passed, metadata, _ = checked(days, monkeypatch)
    assert not passed
    assert "its rows of p1@2023-08-24-00:21 are others than in that minute's file" in str(metadata["wrong"])
    write_day(path, days.copy.schema, days.table, [at("p1"), at("p2")])
    days.copy.store.replace_by_file(info.key, path, days.copy.days()[day].etag)
    assert checked(days, monkeypatch)[0]


def test_the_check_names_files_that_are_no_days_and_days_that_are_damaged(
    days: Days, monkeypatch: pytest.MonkeyPatch
):
    days.write(at("p1"))
    days.catch_up()
    days.copy.store.replace(f"{days.copy.name}/LastModifiedDate=2023-08-24/other.parquet", b"x", None)
    days.copy.store.replace(f"{days.copy.name}/_SUCCESS", b"", None)
    passed, metadata, description = checked(days, monkeypatch)
    assert not passed
    assert description == "1 files are no day's and would be read with the copy; delete them"
    assert metadata["strays"] == ["LastModifiedDate=2023-08-24/other.parquet"]
    [info] = [info for day, info in days.copy.days().items() if day == UPLOADED.date()]
    days.copy.store.replace(info.key, b"damaged", info.etag)
    _, metadata, _ = checked(days, monkeypatch)
    assert "is no Parquet file" in str(metadata["wrong"])


def test_the_result_stays_in_sight_when_another_day_is_compacted(days: Days, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(daily_checks, "SENSOR_SECONDS", 0)
    monkeypatch.setattr(checks, "SENSOR_SECONDS", 0)
    key = dg.AssetCheckKey(DAILY, EQUALS_AUDIO_TABLE)
    days.write(at("p1"))
    days.catch_up()
    assert shown_result(days.instance, key) is None
    days.project.repository.get_job("check_audio_table").execute_in_process(instance=days.instance)
    looked = shown_result(days.instance, key)
    assert looked
    assert looked.passed
    days.write(at("p2", 1440))
    days.catch_up()
    repeated = shown_result(days.instance, key)
    assert repeated
    assert repeated.metadata == looked.metadata


def test_the_check_is_made_every_hour_with_those_of_audio_table(days: Days):
    job = days.project.repository.get_job("check_audio_table")
    keys = {key.to_user_string() for key in job.asset_layer.asset_graph.asset_check_keys}
    assert {"audio_table_daily:equals_audio_table", "audio_table:equals_bucket"} <= keys
