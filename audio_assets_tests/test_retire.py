"""Old partitions leave Dagster; their rows stay, and what changes later comes back."""

import datetime as dt

import dagster as dg
import pytest
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from dagster._core.test_utils import create_run_for_test

from audio_assets.cli.__main__ import app
from audio_assets.defs.partitions import folder_minute
from audio_assets.retire import choose, parse_moment, retire
from audio_assets_tests.support.audio import UPLOADED
from audio_assets_tests.support.project import Project

pytestmark = pytest.mark.parametrize("place", ["local"], indirect=True)

OLD = "p225@2023-08-24-00:21"
NEW = "p225@2026-01-01-00:00"
BEFORE = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)


@pytest.fixture
def processed(project: Project) -> Project:
    """An old and a new partition, both in the table."""
    project.place.put("p225/old.txt")
    project.place.put("p225/new.txt", uploaded=dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    project.catch_up()
    assert project.partition_keys == [OLD, NEW]
    return project


def run_command(project: Project, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setenv("DAGSTER_HOME", project.instance.root_directory)
    app(["retire", *arguments], standalone_mode=False)


def test_without_yes_only_a_table_is_printed(
    processed: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    run_command(processed, monkeypatch, "--before", "2025-01-01")
    said = capsys.readouterr().out
    assert [line.split() for line in said.splitlines()[:3]] == [
        ["month", "retire", "keep"],
        ["2023-08", "1", "0"],
        ["all", "1", "0"],
    ]
    assert "Nothing has been changed" in said
    assert processed.partition_keys == [OLD, NEW]


def test_old_partitions_leave_dagster_and_their_rows_stay(
    processed: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    before = processed.table()
    run_command(processed, monkeypatch, "--before", "2025-01-01", "--yes")
    assert "1 partitions retired" in capsys.readouterr().out
    assert processed.partition_keys == [NEW]
    assert processed.table().equals(before)
    assert len(before) == 2


def test_the_sensor_does_not_ask_for_retired_partitions(processed: Project):
    retire(processed.instance, [OLD])
    assert processed.catch_up() == 0
    assert processed.partition_keys == [NEW]


@pytest.mark.parametrize("change", ["overwritten", "late", "deleted"])
def test_a_change_brings_a_retired_partition_back(processed: Project, change: str):
    retire(processed.instance, [OLD])
    if change == "overwritten":
        processed.place.put("p225/old.txt", b"changed")
    elif change == "late":
        processed.place.put("p225/late.txt", uploaded=UPLOADED)
    else:
        processed.place.delete("p225/old.txt")
    [request] = processed.tick()
    assert request.partition_key == OLD
    assert processed.partition_keys == [NEW, OLD]
    assert processed.execute(request).success
    assert processed.catch_up() == 0
    rows = processed.table().set_index("Key")["Size"].to_dict()
    expected = {"overwritten": {"p225/old.txt": 7}, "late": {"p225/old.txt": 0, "p225/late.txt": 0}}
    assert rows == {"p225/new.txt": 0} | expected.get(change, {})


def test_what_is_not_in_the_table_or_in_a_run_is_kept(processed: Project):
    processed.place.put("p226/waiting.txt")
    processed.tick()
    processed.instance.add_dynamic_partitions("folder_minute", ["made up"])
    choice = choose(processed.instance, BEFORE)
    assert (choice.retire, choice.keep) == ([OLD], ["p226@2023-08-24-00:21"])
    create_run_for_test(
        processed.instance,
        job_name="process_audio",
        status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/asset_partition_range_start": OLD, "dagster/asset_partition_range_end": NEW},
    )
    choice = choose(processed.instance, BEFORE)
    assert (choice.retire, choice.keep) == ([], [OLD, "p226@2023-08-24-00:21"])


def test_a_minute_counts_by_its_beginning(processed: Project):
    for moment, old in (("00:21", []), ("00:22", [OLD]), ("02:22+02:00", [OLD]), ("02:21+02:00", [])):
        assert choose(processed.instance, parse_moment(f"2023-08-24T{moment}")).retire == old


def test_the_ui_counts_what_is_left(processed: Project):
    def materialised() -> int:
        status = get_and_update_asset_status_cache_value(
            processed.instance, dg.AssetKey("audio_table"), folder_minute
        )
        assert status is not None
        return len(status.deserialize_materialized_partition_subsets(folder_minute))

    assert materialised() == 2
    retire(processed.instance, [OLD])
    assert materialised() == 1
