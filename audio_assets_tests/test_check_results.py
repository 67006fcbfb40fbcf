"""Results of the checks that stay in sight: repeated in runs over partitions, reported without a run."""

import asyncio
import datetime as dt
import time
from collections.abc import Iterator

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.definitions.asset_health.asset_check_health import AssetCheckHealthState
from dagster._core.definitions.asset_health.asset_health import AssetHealthStatus
from dagster._core.loader import LoadingContextForTest

from audio_assets.defs import checks, daily_checks
from audio_assets.defs.audio_table import audio_table
from audio_assets.defs.check_results import CHECKED_AT, REPEATED_AFTER_SECONDS, latest_results, report
from audio_assets.defs.check_rules import CHECKS, Results
from audio_assets.defs.partitions import ASSETS, AUDIO_TABLE, FOLDER_MINUTE
from audio_assets.quality import Summary
from audio_assets.record import PartitionRecord
from audio_assets.staleness import Producers
from audio_assets_tests.support.audio import UPLOADED, flac
from audio_assets_tests.support.checks import shown_result
from audio_assets_tests.support.project import Project
from audio_assets_tests.support.rows import at

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
on_disk = pytest.mark.parametrize("place", ["local"], indirect=True)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch):
    for module in (checks, daily_checks):
        monkeypatch.setattr(module, "SENSOR_SECONDS", 0)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def key_of(name: str) -> dg.AssetCheckKey:
    return dg.AssetCheckKey(AUDIO_TABLE, name)


def shown(instance: dg.DagsterInstance, name: str) -> dg.AssetCheckEvaluation | None:
    return shown_result(instance, key_of(name))


def health(instance: dg.DagsterInstance, *names: str) -> AssetHealthStatus:
    """What the asset's health says of some checks."""
    computed = AssetCheckHealthState.compute_for_asset_checks(
        {key_of(name) for name in names}, LoadingContextForTest(instance)
    )
    return asyncio.run(computed).health_status


# --- runs ---------------------------------------------------------------------------------------------------


def materialize(project: Project, *keys: str) -> dg.ExecuteInProcessResult:
    """What *Materialize…* on the asset's page runs: one partition or a range, with the checks."""
    project.instance.add_dynamic_partitions(FOLDER_MINUTE, keys)
    tags = {"dagster/asset_partition_range_start": keys[0], "dagster/asset_partition_range_end": keys[-1]}
    return project.repository.get_implicit_global_asset_job_def().execute_in_process(
        instance=project.instance,
        partition_key=keys[0] if len(keys) == 1 else None,
        tags=tags if len(keys) > 1 else None,
        asset_selection=list(ASSETS),
        raise_on_error=False,
    )


def check_all(project: Project) -> dg.ExecuteInProcessResult:
    return project.repository.get_job("check_audio_table").execute_in_process(instance=project.instance)


def passed(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    """Of each check of `audio_table`, whether it passed."""
    return {
        e.check_name: e.passed for e in result.get_asset_check_evaluations() if e.asset_key == AUDIO_TABLE
    }


OF_THE_SENSOR = {"bucket_readable", "audio_found", "current_settings"}
"""What a tick of the sensor reports."""


@on_disk
def test_the_run_of_a_healthy_partition_repeats_what_is_known_of_the_table(project: Project):
    good = at("p225").key
    other = at("p226").key
    for i in range(3):
        project.place.put(f"p225/{i}.flac", flac(0.1, i), UPLOADED)
    project.place.put("p226/a.flac", b"no audio", UPLOADED)
    project.place.put("p226/b.flac", b"no audio", UPLOADED)
    project.catch_up()
    # The sensor's runs make rows and check nothing; its ticks tell what they look at anyway.
    assert latest_results(project.instance, CHECKS).keys() == OF_THE_SENSOR

    checked = check_all(project)
    assert {name for name, fine in passed(checked).items() if not fine} == {"failed_rows"}
    before = latest_results(project.instance, CHECKS)
    assert set(before) == set(CHECKS)

    for keys in ([good], [good, other]):
        result = materialize(project, *keys)
        assert result.success
        assert passed(result) == passed(checked)
        for evaluation in result.get_asset_check_evaluations():
            first = before[evaluation.check_name]
            assert evaluation.metadata == first.metadata
            assert evaluation.severity == first.severity
            assert evaluation.description == first.description
        for name in CHECKS:
            assert shown(project.instance, name) is not None
    assert health(project.instance, *CHECKS) == AssetHealthStatus.WARNING

    # Only looking at the table changes what is said of it.
    project.place.delete("p226/a.flac")
    project.place.delete("p226/b.flac")
    project.catch_up()
    assert not passed(materialize(project, good))["failed_rows"]
    assert all(passed(check_all(project)).values())
    assert all(passed(materialize(project, good)).values())


@on_disk
def test_the_run_of_a_partition_reads_the_whole_table_where_nothing_is_known_of_it(project: Project):
    project.place.put("p225/a.flac", flac(0.1), UPLOADED)
    project.place.put("p226/a.flac", b"no audio", UPLOADED)
    project.catch_up()
    result = materialize(project, at("p225").key)
    found = {e.check_name: e for e in result.get_asset_check_evaluations()}
    assert set(found) == set(CHECKS)
    assert found["failed_rows"].metadata["rows"].value == 2
    assert not found["failed_rows"].passed


@on_disk
def test_rows_say_what_made_them_unless_they_are_no_audio(project: Project):
    """So that a row of audio without a producer is one of an older version, which has to be made anew."""
    project.place.put("p225/a.flac", flac(0.1), UPLOADED)
    project.place.put("p225/b.flac", b"no audio", UPLOADED)
    project.place.put("p225/c.txt", b"text", UPLOADED)
    project.catch_up()
    assert set(project.table()["status"]) == {"ok", "failed", "not_flac"}
    found = {e.check_name: e for e in check_all(project).get_asset_check_evaluations()}
    assert found["current_settings"].passed


# --- without a run ------------------------------------------------------------------------------------------


def test_the_evaluation_that_looked_last_counts_and_not_the_one_that_came_last(instance: dg.DagsterInstance):
    for minute, fine in ((5, False), (9, True), (7, False)):
        later = Results(NOW + dt.timedelta(minutes=minute))
        instance.report_runless_asset_event(evaluation(later.bucket_readable("" if fine else "refused")))
    # As older versions of this project left it, for the partitions of one run.
    instance.report_runless_asset_event(
        dg.AssetCheckEvaluation(
            asset_key=AUDIO_TABLE, check_name="bucket_readable", passed=False, metadata={}
        )
    )
    found = latest_results(instance, ["bucket_readable", "schema"])
    assert set(found) == {"bucket_readable"}
    assert found["bucket_readable"].passed
    assert found["bucket_readable"].metadata[CHECKED_AT].value == (NOW + dt.timedelta(minutes=9)).timestamp()


def evaluation(result: dg.AssetCheckResult) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=AUDIO_TABLE,
        check_name=str(result.check_name),
        passed=result.passed,
        metadata=result.metadata or {},
    )


def reported(instance: dg.DagsterInstance, *results: dg.AssetCheckResult, working: bool = False) -> list[str]:
    return report(instance, results, CHECKS, working=working)


@dg.asset(key=AUDIO_TABLE)
def some_table() -> None:
    pass


def made(instance: dg.DagsterInstance) -> None:
    """Materialise it by a run without checks, as the sensor's runs do."""
    assert dg.materialize([some_table], instance=instance).success


def test_what_the_sensor_finds_is_the_latest_execution_of_its_check(instance: dg.DagsterInstance):
    assert reported(instance, Results(NOW).bucket_readable("cannot list s3://b: AccessDenied")) == [
        "bucket_readable"
    ]
    found = shown(instance, "bucket_readable")
    assert found is not None
    assert not found.passed
    assert found.severity == dg.AssetCheckSeverity.ERROR
    assert found.description == "cannot list s3://b: AccessDenied"
    assert found.metadata[CHECKED_AT].value == NOW.timestamp()
    assert health(instance, "bucket_readable") == AssetHealthStatus.DEGRADED
    assert reported(instance, Results(NOW).bucket_readable("")) == ["bucket_readable"]
    assert health(instance, "bucket_readable") == AssetHealthStatus.HEALTHY


def test_only_what_has_changed_is_reported(instance: dg.DagsterInstance):
    said = [("", 1), ("", 0), ("refused", 1), ("refused", 0), ("gone", 1), ("", 1), ("", 0)]
    for error, times in said:
        assert len(reported(instance, Results(NOW).bucket_readable(error))) == times, error


def test_a_result_is_shown_again_after_a_partition_was_materialised(instance: dg.DagsterInstance):
    made(instance)
    reported(instance, Results(NOW).bucket_readable(""), Results(NOW).audio_found(Summary(), "s3://b"))
    move_clock(instance, +2)
    assert reported(instance) == []
    move_clock(instance, -4)
    made(instance)
    assert shown(instance, "bucket_readable") is None
    later = NOW + dt.timedelta(minutes=1)
    assert sorted(reported(instance, Results(later).bucket_readable(""))) == [
        "audio_found",
        "bucket_readable",
    ]
    move_clock(instance, +2)
    for name in ("bucket_readable", "audio_found"):
        found = shown(instance, name)
        assert found is not None
        assert found.passed
        # When the table was last looked at, not when that was repeated.
        assert found.metadata[CHECKED_AT].value == NOW.timestamp()
    assert reported(instance) == []


def test_while_runs_are_under_way_a_result_is_repeated_now_and_then(instance: dg.DagsterInstance):
    reported(instance, Results(NOW).bucket_readable(""))
    move_clock(instance, -2)
    made(instance)
    assert reported(instance, working=True) == []
    move_clock(instance, -REPEATED_AFTER_SECONDS)
    assert reported(instance, working=True) == ["bucket_readable"]


def move_clock(instance: dg.DagsterInstance, seconds: int) -> None:
    """Change when the results were put on record; the database's clock knows whole seconds only."""
    moved = f"datetime(create_timestamp, '{seconds:+d} seconds')"
    with instance.event_log_storage.index_connection() as connection:  # type: ignore[attr-defined]
        connection.execute(sa.text(f"UPDATE asset_check_executions SET create_timestamp = {moved}"))


@on_disk
def test_nothing_is_reported_behind_a_check_that_is_under_way(project: Project):
    """What is reported meanwhile would stand before the result of the run, which was planned before it."""
    project.place.put("p225/a.flac", b"no audio", UPLOADED)
    project.catch_up()
    run = project.instance.create_run_for_job(project.repository.get_job("check_audio_table"))
    assert reported(project.instance, Results(NOW).bucket_readable("refused")) == []
    project.instance.report_run_canceled(run)
    assert "bucket_readable" in reported(project.instance, Results(NOW).bucket_readable("refused"))


@on_disk
def test_after_a_run_of_the_sensor_the_last_results_are_shown_again(project: Project):
    project.place.put("p225/a.flac", b"no audio", UPLOADED)
    project.catch_up()
    check_all(project)
    assert all(shown(project.instance, name) for name in CHECKS)
    assert reported(project.instance) == []
    project.place.put("p226/a.flac", flac(0.1), UPLOADED)
    [request] = project.tick()
    assert project.execute(request).success
    assert not any(shown(project.instance, name) for name in CHECKS)
    # SQLite has the moments of results in whole seconds; within one, Dagster shows none as the later.
    time.sleep(1.1)
    assert project.tick() == []
    assert all(shown(project.instance, name) for name in CHECKS)
    assert reported(project.instance) == []


# --- from records -------------------------------------------------------------------------------------------


def result_of(*records: PartitionRecord) -> dict[str, dg.AssetCheckResult]:
    summary = Summary.of(records)
    results = Results(NOW)
    producers = Producers("new".__eq__, "t".__eq__)
    found = [results.audio_found(summary, "s3://b"), results.current_settings(summary, producers)]
    return {str(result.check_name): result for result in found}


@pytest.mark.parametrize(
    ("records", "failing"),
    [
        ([], []),
        ([PartitionRecord("", "", ok=1, whisper_models={"new": 1}, tokenisers={"t": 1})], []),
        (
            [PartitionRecord("", "", ok=1, whisper_models={"old": 1}, tokenisers={"t": 1})],
            ["current_settings"],
        ),
        (
            [PartitionRecord("", "", ok=1, whisper_models={"new": 1}, tokenisers={"u": 1})],
            ["current_settings"],
        ),
        ([PartitionRecord("", "", ok=1, whisper_models={"new": 1})], ["current_settings"]),
        ([PartitionRecord("", "", not_flac=2)], ["audio_found"]),
        (
            [PartitionRecord("", "", not_flac=2, suffixes={".txt": 1, ".flac": 1})],
            ["audio_found", "current_settings"],
        ),
        ([PartitionRecord("", "", not_flac=2), PartitionRecord("", "", failed=1)], ["current_settings"]),
    ],
)
def test_the_sensor_knows_from_the_records_what_two_checks_say(
    records: list[PartitionRecord], failing: list[str]
):
    found = result_of(*records)
    assert [name for name, result in found.items() if not result.passed] == failing
    for result in found.values():
        assert result.severity == dg.AssetCheckSeverity.WARN


def test_the_checks_are_those_of_the_audio_table():
    assert audio_table.key == AUDIO_TABLE
    assert [spec.name for spec in checks.audio_table_checks.check_specs] == list(CHECKS)
