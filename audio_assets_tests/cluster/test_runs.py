"""Runs on a cluster: the table of a run without one, whatever dies meanwhile."""

import logging
import os
import re
import signal
import threading
import time
from collections.abc import Callable

import pyarrow.parquet as pq
import pytest

from audio_assets.cluster.connection import connected
from audio_assets.partitions import FolderMinute
from audio_assets_tests.cluster.conftest import GPUS, Backfill, metadata
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


def that_loaded(backfill: Backfill) -> set[int]:
    """The process ids of the actors that loaded a model in the last run.

    A cluster holds others too: one of an earlier test that got no work ends by itself within a minute, and
    may not even have begun yet.
    """
    lines = said(backfill, "the model is on")
    return {int(pid) for line in lines for pid in re.findall(r"\(process (\d+)\)", line)}


def asked_for(ray_cluster: RayCluster) -> list[str]:
    """The names of the actors that have a place in the cluster or wait for one."""
    import ray

    with connected(ray_cluster.address, logging.getLogger(__name__)):
        return ray.util.list_named_actors()


def test_a_cluster_makes_the_tables_of_a_run_without_one_and_a_second_run_loads_nothing(
    backfill: Backfill, ray_cluster: RayCluster
) -> None:
    slow = StandInWhisper(seconds=0.1)
    assert backfill.run(slow).success
    assert backfill.files() == backfill.expected
    loads = models_loaded(backfill)
    assert loads >= 1
    warm = that_loaded(backfill)
    assert len(warm) == loads

    backfill.forget()
    assert backfill.run(slow).success
    assert backfill.files() == backfill.expected
    assert warm <= set(ray_cluster.actors())
    # One that had nothing to do in the first run, being slow to start, loads in the second.
    assert not warm & that_loaded(backfill)
    assert loads + models_loaded(backfill) <= GPUS

    shown = metadata(backfill, backfill.keys[-1])
    assert "| worker | node | device | partitions | audio s/s |" in str(shown["workers"].value)
    assert float(str(shown["gpu_hours"].value)) > 0
    assert shown["device"].value == "cpu"


def test_an_actor_that_is_killed_costs_no_row(
    backfill: Backfill, ray_cluster: RayCluster, once_done: OnceDone
) -> None:
    killed: list[int] = []

    def kill() -> None:
        deadline = time.monotonic() + 90
        while not (busy := ray_cluster.at_work()):
            assert time.monotonic() < deadline
        killed.append(busy[0])
        os.kill(busy[0], signal.SIGKILL)

    # Beside the run, which gives an actor between two chunks its next one.
    once_done(3, threading.Thread(target=kill).start)
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
    # A recogniser of its own, so that whoever works loads it.
    assert backfill.run(StandInWhisper(seconds=0.01)).success
    before = that_loaded(backfill)
    assert before
    backfill.forget()
    monkeypatch.setenv("RAY_ACTOR_IDLE_MINUTES", "0.05")
    # It needs the place of every other one.
    monkeypatch.setenv("RAY_GPUS_PER_ACTOR", str(GPUS))
    assert backfill.run(StandInWhisper(batch_size="7")).success
    assert backfill.files() == backfill.expected
    [new] = that_loaded(backfill)
    assert new not in before
    assert not before & set(ray_cluster.actors())
    # It ends by itself after three seconds.
    # Patience for a machine that runs other tests beside this one.
    deadline = time.monotonic() + 90
    while new in ray_cluster.actors():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_run_that_ends_asks_for_no_place_any_more(
    backfill: Backfill, ray_cluster: RayCluster, once_done: OnceDone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_MAX_ACTORS", str(GPUS + 1))
    slow = StandInWhisper(seconds=0.2)
    once_done(2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert not backfill.run(slow).success
    assert len(asked_for(ray_cluster)) <= GPUS
    assert backfill.run(slow).success
    assert len(asked_for(ray_cluster)) <= GPUS
    assert backfill.files() == backfill.expected


def test_terminate_frees_the_work_within_five_seconds_and_leaves_the_actors(
    backfill: Backfill, ray_cluster: RayCluster, once_done: OnceDone
) -> None:
    sent: list[float] = []

    def terminate() -> None:
        sent.append(time.monotonic())
        threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGTERM]).start()

    slow = StandInWhisper(seconds=0.5)
    assert backfill.run(slow).success
    warm = that_loaded(backfill)
    backfill.forget()
    once_done(2, terminate)
    assert not backfill.run(slow).success
    assert time.monotonic() - sent[0] < 5
    assert warm
    assert warm <= set(ray_cluster.actors())
    assert backfill.run(slow).success
    assert not warm & that_loaded(backfill)
    assert warm <= set(ray_cluster.actors())
    assert backfill.files() == backfill.expected
