"""The pipeline on a store that fails one request in ten: the tables are those of a store that never does."""

import logging
import re
from collections.abc import Callable

import pytest

from audio_assets_tests.support.faulty_bucket import fill, new_bucket, table_files
from audio_assets_tests.support.faulty_server import FaultyServer, Plan
from audio_assets_tests.support.metadata import number
from audio_assets_tests.support.places import S3Place
from audio_assets_tests.support.project import Project

SHARE = 0.1

KEY = "p225@2023-08-24-00:21"

OpenProject = Callable[[S3Place], Project]


@pytest.mark.seeds(2, 200)
def test_the_tables_are_those_of_a_store_without_faults(
    faulty: FaultyServer,
    open_project: OpenProject,
    reference: dict[str, bytes],
    seed: int,
    record_property: Callable[[str, object], None],
):
    place = new_bucket()
    fill(place)
    project = open_project(place)
    faulty.plan = plan = Plan(seed, SHARE)
    runs = project.catch_up()
    faulty.heal()
    assert table_files(place) == reference
    assert plan.injected.total() > 0
    record_property("plans of faults", 1)
    record_property("runs under faults", runs)
    record_property("requests under faults", plan.asked.total())
    for (method, fault), count in plan.injected.items():
        record_property(f"fault: {method} {fault}", count)


def test_an_object_that_no_retry_mends_fails_the_run_by_name(
    faulty: FaultyServer, open_project: OpenProject, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("S3_ATTEMPTS", "2")
    place = new_bucket()
    fill(place)
    project = open_project(place)
    [request] = project.tick()
    faulty.plan = Plan(always={("GET", "b.flac"): "500"})
    result = project.execute(request)
    assert not result.success
    [failure] = [e for e in result.all_events if e.is_step_failure and e.step_key == "speech"]
    assert failure.step_failure_data.error
    said = failure.step_failure_data.error.to_string()
    assert re.search(r"cannot read s3://\S+ silence/p225/b\.flac: InternalError", said)
    assert not any(path.startswith("output_parquet/audio_table/") for path in table_files(place))


def test_an_archived_object_is_a_row_that_says_so(faulty: FaultyServer, open_project: OpenProject):
    place = new_bucket()
    fill(place)
    project = open_project(place)
    faulty.plan = Plan(always={("GET", "b.flac"): "archived"})
    assert project.catch_up() == 1
    rows = project.table().set_index("Key")
    assert rows.loc["p225/a.flac", "status"] == "ok"
    assert rows.loc["p225/b.flac", "status"] == "failed"
    assert rows.loc["p225/b.flac", "error"].endswith("storage class; restore it from the archive")


def test_a_store_that_denies_everything_for_a_while_in_mid_run_costs_no_row(
    faulty: FaultyServer, open_project: OpenProject, reference: dict[str, bytes]
):
    place = new_bucket()
    fill(place)
    project = open_project(place)
    # Five objects are read; after the third, the store denies what is asked for until each was asked for.
    faulty.plan = Plan(always={("GET", ".flac"): "denied"}, after=3, times=2)
    assert project.catch_up() == 1
    assert faulty.plan.injected["GET", "denied"] == 2
    assert table_files(place) == reference


def test_a_store_that_denies_everything_from_mid_run_on_fails_the_run_until_it_gives_again(
    faulty: FaultyServer, open_project: OpenProject, reference: dict[str, bytes]
):
    place = new_bucket()
    fill(place)
    project = open_project(place)
    [request] = project.tick()
    faulty.plan = Plan(always={("GET", ".flac"): "denied"}, after=3)
    result = project.execute(request)
    assert not result.success
    [failure] = [e for e in result.all_events if e.is_step_failure and e.step_key == "speech"]
    assert failure.step_failure_data.error
    said = failure.step_failure_data.error.to_string()
    assert re.search(r"StorageError|ObjectRefusedError", said)
    assert re.search(r"cannot read s3://\S+ silence/p22\S+\.flac: AccessDenied", said)
    faulty.heal()
    assert project.execute(request).success
    assert table_files(place) == reference


def test_an_object_that_a_policy_keeps_from_the_account_is_a_row_that_says_so(
    faulty: FaultyServer, open_project: OpenProject
):
    place = new_bucket()
    fill(place)
    project = open_project(place)
    faulty.plan = Plan(always={("GET", "b.flac"): "denied"})
    assert project.catch_up() == 1
    rows = project.table().set_index("Key")
    assert rows.loc["p225/a.flac", "status"] == "ok"
    assert rows.loc["p225/b.flac", "status"] == "failed"
    assert "p225/b.flac: AccessDenied" in rows.loc["p225/b.flac", "error"]


def test_a_run_says_which_objects_it_had_to_read_again_and_why(
    faulty: FaultyServer, open_project: OpenProject
):
    place = new_bucket()
    fill(place)
    project = open_project(place)
    [request] = project.tick()
    faulty.plan = Plan(always={("GET", "b.flac"): "503"}, times=2)
    result = project.execute(request)
    assert result.success
    made = {m.partition: m.metadata for m in result.asset_materializations_for_node("speech")}
    # A slow machine may stall on others as well.
    assert number(made[KEY], "retries") >= 2
    assert "| p225/b.flac | 2 | SlowDown: Please reduce your request rate |" in str(
        made[KEY]["retried"].value
    )
    logged = [e.user_message for e in project.instance.all_logs(result.run_id) if e.level == logging.WARNING]
    assert len([message for message in logged if "p225/b.flac: SlowDown" in message]) == 2
