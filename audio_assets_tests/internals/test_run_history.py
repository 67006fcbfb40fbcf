"""Logs of old runs are deleted; what the runs have made stays on record."""

import datetime as dt
import logging
import pathlib

import dagster as dg
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value

from audio_assets.defs.internals.run_history import purge_run_logs
from audio_assets.defs.partitions import folder_minute

LOG = logging.getLogger(__name__)
ASSET = dg.AssetKey("made")
CHECK = dg.AssetCheckKey(ASSET, "check")
KEYS = ["a", "b", "failed"]
LINES = 100
LATER = dt.timedelta(days=1)


@dg.asset(partitions_def=folder_minute, check_specs=[dg.AssetCheckSpec("check", asset="made")])
def made(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    for i in range(LINES):
        context.log.info(f"line {i} of what only the log has")
    if context.partition_key == "failed":
        raise RuntimeError("on purpose")
    context.log_event(
        dg.AssetObservation(ASSET, partition=context.partition_key, tags={"record": context.partition_key})
    )
    return dg.MaterializeResult(metadata={"rows": 7}, check_results=[dg.AssetCheckResult(passed=False)])


def run_all(instance: dg.DagsterInstance) -> list[str]:
    """Run each partition; gives the ids of the runs."""
    instance.add_dynamic_partitions("folder_minute", KEYS)
    return [
        dg.materialize([made], partition_key=key, instance=instance, raise_on_error=False).run_id
        for key in KEYS
    ]


def on_record(instance: dg.DagsterInstance) -> dict[str, object]:
    """What the UI and the sensor read of assets and runs."""
    instance.wipe_asset_cached_status([ASSET])
    status = get_and_update_asset_status_cache_value(instance, ASSET, folder_minute)
    assert status
    subsets = (
        status.serialized_materialized_partition_subset,
        status.serialized_failed_partition_subset,
        status.serialized_in_progress_partition_subset,
    )
    latest = instance.get_latest_materialization_event(ASSET)
    assert latest
    assert latest.asset_materialization
    observed = instance.fetch_observations(ASSET, limit=10).records
    checks = instance.event_log_storage.get_asset_check_execution_history(CHECK, limit=10)
    return {
        "partitions": [
            folder_minute.deserialize_subset(s).get_partition_keys() if s else [] for s in subsets
        ],
        "materialisations": [
            r.partition_key for r in instance.fetch_materializations(ASSET, limit=10).records
        ],
        "latest": latest.asset_materialization,
        "observations": [
            (o.partition_key, o.asset_observation and o.asset_observation.tags) for o in observed
        ],
        "tags": instance.get_event_tags_for_asset(ASSET)
        if hasattr(instance, "get_event_tags_for_asset")
        else [],
        "checks": [(check.run_id, check.status) for check in checks],
        "runs": [
            (r.dagster_run.run_id, r.dagster_run.status, r.start_time, r.end_time)
            for r in instance.get_run_records()
        ],
        "ended": [instance.get_run_stats(r.run_id).end_time for r in instance.get_runs()],
    }


def lines(instance: dg.DagsterInstance, run_id: str) -> int:
    return sum("what only the log has" in entry.user_message for entry in instance.all_logs(run_id))


def test_logs_go_and_what_was_made_stays(instance_of_the_project: dg.DagsterInstance, tmp_path: pathlib.Path):
    instance = instance_of_the_project
    runs = run_all(instance)
    before = on_record(instance)
    assert [sorted(keys) for keys in before["partitions"]] == [["a", "b"], ["failed"], []]  # type: ignore[union-attr]
    assert [lines(instance, run) for run in runs] == [LINES] * 3
    compute_logs = tmp_path / "storage"
    assert any(list((compute_logs / run).rglob("*")) for run in runs)
    size = database_size(instance, runs[0])

    assert purge_run_logs(instance, dt.datetime.now(dt.UTC) - LATER, LOG) == 0
    assert [lines(instance, run) for run in runs] == [LINES] * 3
    assert purge_run_logs(instance, dt.datetime.now(dt.UTC) + LATER, LOG) == len(runs)

    assert [lines(instance, run) for run in runs] == [0] * 3
    assert not any(list((compute_logs / run).rglob("*")) for run in runs)
    assert on_record(instance) == before
    if size:
        assert database_size(instance, runs[0]) < 0.75 * size
    # The next call goes on where this one ended.
    assert purge_run_logs(instance, dt.datetime.now(dt.UTC) + LATER, LOG) == 0
    [again, *_] = run_all(instance)
    assert purge_run_logs(instance, dt.datetime.now(dt.UTC) + LATER, LOG) == len(KEYS)
    assert lines(instance, again) == 0


def database_size(instance: dg.DagsterInstance, run_id: str) -> int:
    """Bytes of a run's own database, 0 where all runs share one."""
    storage = instance.event_log_storage
    if not isinstance(storage, SqliteEventLogStorage):
        return 0
    return sum(
        f.stat().st_size for f in pathlib.Path(storage.path_for_shard(run_id)).parent.glob(f"{run_id}*")
    )


def test_a_run_that_has_not_ended_keeps_its_logs(instance_of_the_project: dg.DagsterInstance):
    instance = instance_of_the_project
    [run, *_] = run_all(instance)
    found = instance.get_run_by_id(run)
    assert found
    instance.report_engine_event("goes on", found)
    other = instance.create_run_for_job(
        dg.define_asset_job("job", [made]).resolve(asset_graph=dg.Definitions([made]).resolve_asset_graph())
    )
    instance.report_engine_event("goes on", other)
    purge_run_logs(instance, dt.datetime.now(dt.UTC) + LATER, LOG)
    assert "goes on" not in [entry.message for entry in instance.all_logs(run)]
    assert "goes on" in [entry.message for entry in instance.all_logs(other.run_id)]
