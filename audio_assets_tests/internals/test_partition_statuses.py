"""The caches of partition statuses say what the records say, whatever keys come and go."""

import pathlib
import random
from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.events import AssetMaterializationPlannedData, DagsterEvent
from dagster._core.storage.partition_status_cache import get_and_update_asset_status_cache_value
from dagster._core.test_utils import create_run_for_test

from audio_assets.defs.internals.partition_statuses import keep_partition_statuses
from audio_assets.defs.partitions import ASSETS, FOLDER_MINUTE, folder_minute
from audio_assets_tests.support.project import Project

ASSET = dg.AssetKey("audio_table")
Statuses = tuple[set[str], set[str], set[str]]


@pytest.fixture
def instance(tmp_path: pathlib.Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


def statuses(instance: dg.DagsterInstance) -> Statuses:
    """Materialised, failed and in progress, as the UI is told; brings the cache up to date."""
    value = get_and_update_asset_status_cache_value(instance, ASSET, folder_minute)
    if value is None:
        return set(), set(), set()
    materialised, failed, in_progress = (
        set(subset.get_partition_keys())
        for subset in (
            value.deserialize_materialized_partition_subsets(folder_minute),
            value.deserialize_failed_partition_subsets(folder_minute),
            value.deserialize_in_progress_partition_subsets(folder_minute),
        )
    )
    # Dagster's cache goes on to count a failed one as failed while it is tried again.
    return materialised, failed - in_progress, in_progress


def is_kept(instance: dg.DagsterInstance) -> bool:
    """Whether Dagster will go on from its cache rather than count anew."""
    [record] = instance.get_asset_records([ASSET])
    cached = record.asset_entry.cached_status
    id_ = instance.get_dynamic_partitions_definition_id(FOLDER_MINUTE)
    return cached is not None and cached.partitions_def_id == id_


def plan(instance: dg.DagsterInstance, key: str, status: dg.DagsterRunStatus) -> None:
    """What a run leaves that has not materialised its partition."""
    run = create_run_for_test(instance, job_name="process_audio", status=status)
    planned = AssetMaterializationPlannedData(ASSET, partition=key)
    event = DagsterEvent.build_asset_materialization_planned_event("process_audio", "step", planned)
    instance.report_dagster_event(event, run.run_id)


def materialise(instance: dg.DagsterInstance, key: str) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization(ASSET, partition=key))


def change(instance: dg.DagsterInstance, *, add: tuple[str, ...] = (), delete: tuple[str, ...] = ()) -> None:
    registered = instance.get_dynamic_partitions(FOLDER_MINUTE)
    keep_partition_statuses(instance, registered, add=add, delete=delete)
    instance.add_dynamic_partitions(FOLDER_MINUTE, add)
    for key in delete:
        instance.delete_dynamic_partition(FOLDER_MINUTE, key)


def test_new_keys_leave_the_cache_of_the_others(instance: dg.DagsterInstance):
    change(instance, add=("a", "b"))
    materialise(instance, "a")
    plan(instance, "b", dg.DagsterRunStatus.FAILURE)
    assert statuses(instance) == ({"a"}, {"b"}, set())
    change(instance, add=("c", "d"))
    assert is_kept(instance)
    assert statuses(instance) == ({"a"}, {"b"}, set())
    materialise(instance, "c")
    assert statuses(instance) == ({"a", "c"}, {"b"}, set())


def test_deleted_keys_leave_the_cache(instance: dg.DagsterInstance):
    change(instance, add=("a", "b", "c"))
    for key in ("a", "b"):
        materialise(instance, key)
    plan(instance, "c", dg.DagsterRunStatus.STARTED)
    assert statuses(instance) == ({"a", "b"}, set(), {"c"})
    change(instance, delete=("a", "c"), add=("d",))
    assert is_kept(instance)
    assert statuses(instance) == ({"b"}, set(), set())


def test_a_key_that_comes_back_is_counted_by_its_records(instance: dg.DagsterInstance):
    change(instance, add=("a", "b"))
    for key in ("a", "b"):
        materialise(instance, key)
    change(instance, delete=("a",))
    assert statuses(instance) == ({"b"}, set(), set())
    change(instance, add=("a",))
    assert not is_kept(instance)
    assert statuses(instance) == ({"a", "b"}, set(), set())


def test_keys_that_others_add_are_not_taken_for_known(instance: dg.DagsterInstance):
    change(instance, add=("a",))
    materialise(instance, "a")
    statuses(instance)
    instance.add_dynamic_partitions(FOLDER_MINUTE, ["z"])
    change(instance, add=("b",))
    assert not is_kept(instance)


@pytest.mark.parametrize("place", ["local"], indirect=True)
def test_ticks_with_nothing_to_do_count_ahead_of_the_ui(project: Project):
    def uncounted() -> int:
        """Assets of which the UI's next query would have something to count."""
        id_ = project.instance.get_dynamic_partitions_definition_id(FOLDER_MINUTE)
        entries = [record.asset_entry for record in project.instance.get_asset_records(ASSETS)]
        assert len(entries) == len(ASSETS)
        return sum(
            not entry.cached_status
            or entry.cached_status.partitions_def_id != id_
            or entry.cached_status.latest_storage_id < (entry.last_materialization_storage_id or 0)
            for entry in entries
        )

    for folder in ("p225", "p226"):
        project.place.put(f"{folder}/a.txt")
        # The tick that finds nothing more to ask for has counted one.
        assert project.catch_up() == 1
        left = [uncounted()]
        for _ in ASSETS:
            assert not project.tick()
            left.append(uncounted())
        assert left == [3, 2, 1, 0, 0]
    assert statuses(project.instance) == (set(project.partition_keys), set(), set())


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_the_cache_says_what_the_records_say(instance: dg.DagsterInstance, seed: int):
    chance = random.Random(seed)
    known = [f"p{i}" for i in range(8)]
    kept = 0
    for _ in range(40):
        here = list(instance.get_dynamic_partitions(FOLDER_MINUTE))
        away = [key for key in known if key not in here]
        what = chance.choice(["add", "add and look", "delete", "materialise", "fail", "start", "look"])
        if what.startswith("add") and away:
            change(instance, add=tuple(chance.sample(away, chance.randint(1, len(away)))))
        elif what == "delete" and here:
            change(instance, delete=tuple(chance.sample(here, 1)))
        elif what == "materialise" and here:
            materialise(instance, chance.choice(here))
        elif what == "fail" and here:
            plan(instance, chance.choice(here), dg.DagsterRunStatus.FAILURE)
        elif what == "start" and here:
            plan(instance, chance.choice(here), dg.DagsterRunStatus.STARTED)
        if what in ("look", "add and look") and instance.get_asset_records([ASSET]):
            kept += is_kept(instance)
            told = statuses(instance)
            instance.wipe_asset_cached_status(ASSETS)
            assert told == statuses(instance)
    assert kept
