"""`training_shards` in Dagster: what the sensor asks for, what its runs leave, what the UI shows."""

import datetime as dt
import pathlib
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from audio_assets.daily import DayRecord
from audio_assets.defs.audio_table_daily import DAY, SHARDS
from audio_assets.defs.records import RECORD_TAG
from audio_assets.defs.training_shards import OFF
from audio_assets.partitions import FolderMinute
from audio_assets_tests.support.environment import clear_settings
from audio_assets_tests.support.places import LocalPlace
from audio_assets_tests.support.project import Project
from audio_assets_tests.support.rows import at
from audio_assets_tests.support.training import Corpus, keys_of

DAY_1 = "2023-08-24"
DAY_2 = "2023-08-25"


class Days:
    """A project whose daily copy is recorded by hand, as `audio_table_daily` records it."""

    def __init__(self, project: Project, place: LocalPlace) -> None:
        self.project = project
        self.instance = project.instance
        self.place = place
        self.corpus = Corpus(place)
        self._versions = 0

    def put(self, partition: FolderMinute, *keys: str, **values: Any) -> None:
        """Upload clips, give the minute their rows, and record that its day was compacted."""
        self.corpus.put(partition, *keys, **values)
        self._versions += 1
        day = partition.minute.date().isoformat()
        record = DayRecord(f"{self._versions}", f"{self._versions}", dt.datetime.now(dt.UTC).timestamp())
        self.instance.add_dynamic_partitions(DAY, [day])
        self.instance.report_runless_asset_event(
            dg.AssetObservation("audio_table_daily", partition=day, tags={RECORD_TAG: record.to_json()})
        )

    def tick(self) -> list[dg.RunRequest]:
        return self.project.tick_of("changed_shards")

    def run(self, day: str, tags: dict[str, str] | None = None) -> dg.ExecuteInProcessResult:
        return self.project.repository.get_job("make_training_shards").execute_in_process(
            instance=self.instance, partition_key=day, tags=tags or {}, raise_on_error=False
        )

    def catch_up(self) -> list[str]:
        """Tick and run until the sensor is content; gives the days that were made."""
        made: list[str] = []
        while requests := self.tick():
            for request in requests:
                assert self.run(str(request.partition_key), dict(request.tags)).success
                made.append(str(request.partition_key))
        return made


@pytest.fixture
def days(local_place: LocalPlace, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Days]:
    clear_settings(monkeypatch)
    monkeypatch.setenv("AUDIO_SOURCE_URI", local_place.uri)
    monkeypatch.setenv("AUDIO_TABLE_URI", f"{local_place.uri}/tables")
    monkeypatch.setenv("SHARDS_SELECTION", "{}")
    monkeypatch.setenv("SHARDS_SPLITS", '{"by": "key", "validation": 0.2, "test": 0.2}')
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield Days(Project(local_place, instance), local_place)


def test_shards_follow_the_daily_copy_and_the_settings_and_nothing_else_is_done(
    days: Days, monkeypatch: pytest.MonkeyPatch
):
    days.put(at("p1"), *keys_of("p1", 5))
    days.put(at("p2", 1440), *keys_of("p2", 5))
    assert days.catch_up() == [DAY_2, DAY_1]
    days.corpus.assert_equal(*keys_of("p1", 5), *keys_of("p2", 5))
    assert days.tick() == []
    # Late.
    days.put(at("p3", 3), "p3/late.flac")
    assert days.catch_up() == [DAY_1]
    days.corpus.assert_equal(*keys_of("p1", 5), *keys_of("p2", 5), "p3/late.flac")
    # Gone, as a whole day, which Dagster may not know any more.
    days.put(at("p2", 1440))
    days.instance.delete_dynamic_partition(DAY, DAY_2)
    assert days.catch_up() == [DAY_2]
    days.corpus.assert_equal(*keys_of("p1", 5), "p3/late.flac")
    # Another selection.
    monkeypatch.setenv("SHARDS_SELECTION", '{"folders": ["p3"]}')
    assert sorted(days.catch_up()) == [DAY_1, DAY_2]
    days.corpus.assert_equal("p3/late.flac")


def test_without_a_selection_nothing_is_made_and_the_way_to_switch_it_on_is_said(
    days: Days, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("SHARDS_SELECTION")
    days.put(at("p1"), "p1/a.flac")
    assert days.tick() == []
    assert days.project.evaluated.skip_message == OFF
    result = days.run(DAY_1)
    assert not result.success
    assert OFF in str(failure_of(result))
    assert days.corpus.shards() == {}


@pytest.mark.parametrize(
    ("setting", "text", "message"),
    [
        ("SHARDS_SELECTION", "[]", "SHARDS_SELECTION is a JSON object, not '[]'"),
        ("SHARDS_SELECTION", '{"min": 1}', "SHARDS_SELECTION: min is no part of a selection"),
        ("SHARDS_SPLITS", '{"by": "x"}', "SHARDS_SPLITS: by='x' is neither folder nor key"),
    ],
)
def test_a_wrong_setting_fails_the_run_by_its_name(
    days: Days, monkeypatch: pytest.MonkeyPatch, setting: str, text: str, message: str
):
    monkeypatch.setenv(setting, text)
    days.put(at("p1"), "p1/a.flac")
    assert message in str(failure_of(days.run(DAY_1)))


def failure_of(result: dg.ExecuteInProcessResult) -> object:
    [event] = [e for e in result.all_events if e.event_type == dg.DagsterEventType.STEP_FAILURE]
    data = event.step_failure_data
    assert data.user_failure_data or data.error
    return (data.user_failure_data and data.user_failure_data.description) or data.error


def test_a_run_without_effect_is_asked_for_again_only_after_a_pause(days: Days):
    days.put(at("p1"), "p1/a.flac")
    [request] = days.tick()
    (days.place.folder / "tables" / "training_shards").write_text("in the way")
    assert not days.run(str(request.partition_key), dict(request.tags)).success
    assert days.tick() == []


def test_the_metadata_say_what_was_made_and_what_was_left_out(days: Days, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SHARDS_SELECTION", '{"min_avg_logprob": -1}')
    days.put(at("p1"), *keys_of("p1", 20))
    days.put(at("p1", 1), *keys_of("p1", 2, first=20), avg_logprob=-3.0)
    assert days.catch_up() == [DAY_1]
    latest = days.instance.get_latest_materialization_event(SHARDS)
    assert latest
    assert latest.asset_materialization
    said: dict[str, Any] = {
        name: value.value for name, value in latest.asset_materialization.metadata.items()
    }
    assert said["train"] + said["validation"] + said["test"] == 20
    assert said["dagster/partition_row_count"] == 20
    assert said["left_out"] == 2
    assert "| avg_logprob below -1 | 2 |" in said["left_out_by_reason"]
    assert "train-00000-of-00001.parquet" in said["files"]
    assert said["audio_hours"] == round(20 * 0.05 / 3600, 4)
    assert said["dagster/uri"] == f"{days.corpus.place.uri}/tables/training_shards"
