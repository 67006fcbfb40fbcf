"""Runs on a cluster: the table of a run without one, whatever dies meanwhile."""

import os
import re
import signal
import threading
import time
from collections.abc import Callable

import pyarrow.parquet as pq
import pytest

from audio_assets.partitions import FolderMinute
from audio_assets_tests.cluster.conftest import Backfill, metadata
from audio_assets_tests.support.audio import flac
from audio_assets_tests.support.ray_cluster import RayCluster
from audio_assets_tests.support.stand_in import StandInWhisper

pytestmark = pytest.mark.xdist_group("ray")

OnceDone = Callable[[int, Callable[[], object]], None]


def said(backfill: Backfill, pattern: str) -> list[str]:
    return [line for line in backfill.log if re.search(pattern, line)]


def models_loaded(backfill: Backfill) -> int:
    """How many actors loaded a model in the last run, by its summary."""
    [summary] = said(backfill, r"12 of 12 partitions by \d actors in .* hours of a GPU")
    found = re.search(r"; (\d+) loaded the model", summary)
    assert found
    return int(found[1])


def test_a_cluster_makes_the_tables_of_a_run_without_one_and_a_second_run_loads_nothing(
    backfill: Backfill, ray_cluster: RayCluster
) -> None:
    slow = StandInWhisper(seconds=0.1)
    assert backfill.run(slow).success
    assert backfill.files() == backfill.expected
    loads = models_loaded(backfill)
    assert loads >= 1
    actors = ray_cluster.actors()

    backfill.forget()
    assert backfill.run(slow).success
    assert backfill.files() == backfill.expected
    assert ray_cluster.actors() == actors
    # One that had nothing to do in the first run, being slow to start, loads in the second.
    assert loads + models_loaded(backfill) <= len(actors)

    shown = metadata(backfill, backfill.keys[-1])
    assert "| worker | node | device | partitions | audio s/s |" in str(shown["workers"].value)
    assert float(str(shown["gpu_hours"].value)) > 0
    assert shown["device"].value == "cpu"


def test_an_actor_that_is_killed_costs_no_row(
    backfill: Backfill, ray_cluster: RayCluster, once_done: OnceDone
) -> None:
    killed: list[int] = []

    def kill() -> None:
        killed.append(ray_cluster.actors()[0])
        os.kill(killed[0], signal.SIGKILL)

    once_done(3, kill)
    assert backfill.run(StandInWhisper(seconds=0.05)).success
    assert backfill.files() == backfill.expected
    assert said(backfill, r"\(process \d+\) died")
    assert not set(killed) & set(ray_cluster.actors())


def test_an_object_that_kills_its_process_is_a_failed_row_and_costs_no_other_partition_its_rows(
    backfill: Backfill,
) -> None:
    few = backfill.keys[0], backfill.keys[2]
    partition = FolderMinute.parse(backfill.keys[1])
    key = f"{partition.folder}/poison.flac"
    backfill.place.put(key, flac(), partition.minute)
    try:
        assert backfill.project.run(*few, assets=["s3_inventory"]).success
        assert backfill.run(partitions=few).success
        made = backfill.files()
        assert len(made) == 6
        different = [path for path in made if made[path] != backfill.expected[path]]
        assert len(different) == 2
        for path in different:
            rows = pq.read_table(backfill.place.folder / "output_parquet" / path).to_pylist()
            status = {row["Key"]: row["status"] for row in rows}
            assert status.pop(key) == "failed"
            assert set(status.values()) == {"ok"}
            [error] = [row["error"] for row in rows if row["Key"] == key]
            assert "2 processes that worked on it died" in error
    finally:
        backfill.place.delete(key)
        assert backfill.project.run(*few, assets=["s3_inventory"]).success


def test_an_idle_actor_of_other_settings_makes_room_and_never_works_for_a_run(
    backfill: Backfill, ray_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert backfill.run().success
    before = set(ray_cluster.actors())
    backfill.forget()
    monkeypatch.setenv("RAY_ACTOR_IDLE_MINUTES", "0.05")
    assert backfill.run(StandInWhisper(batch_size="7")).success
    assert backfill.files() == backfill.expected
    assert said(backfill, "the model is on")
    assert before - set(ray_cluster.actors())
    # One of the new ones that has worked ends by itself after three seconds.
    new = set(ray_cluster.actors()) - before
    # Patience for a machine that runs other tests beside this one.
    deadline = time.monotonic() + 90
    while new <= set(ray_cluster.actors()):
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_terminate_frees_the_work_within_five_seconds_and_leaves_the_actors(
    backfill: Backfill, ray_cluster: RayCluster, once_done: OnceDone
) -> None:
    sent: list[float] = []

    def terminate() -> None:
        sent.append(time.monotonic())
        threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGTERM]).start()

    slow = StandInWhisper(seconds=0.5)
    # One of an earlier test that got no work ends by itself, within a minute.
    others = set(ray_cluster.actors())
    assert backfill.run(slow).success
    warm = set(ray_cluster.actors()) - others
    backfill.forget()
    once_done(2, terminate)
    assert not backfill.run(slow).success
    assert time.monotonic() - sent[0] < 5
    # An actor that is still being started ends with the run that waits for it.
    warm &= set(ray_cluster.actors())
    assert warm
    assert backfill.run(slow).success
    assert warm <= set(ray_cluster.actors())
    assert backfill.files() == backfill.expected
