"""Runs in processes of their own: two at once, and one that is killed at any moment and then retried as the
instance is configured."""

import pathlib
import random
import shutil
import time
from collections.abc import Callable, Iterator

import dagster as dg
import pytest

from audio_assets.partitions import FolderMinute
from audio_assets_tests.conftest import LocalPlace, Place
from audio_assets_tests.faults.conftest import SAMPLE, new_bucket, table_files
from audio_assets_tests.faults.run_process import Runs, settings

FOLDERS = [f"p{i}" for i in range(4)]
KEYS = [f"{folder}|2023-08-24-00:21" for folder in FOLDERS]
CLIPS = 2


@pytest.fixture(scope="module")
def runs(new_home: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    home = tmp_path_factory.mktemp("runs") / "home"
    shutil.copytree(new_home, home)
    with Runs.on(home) as runs:
        runs.instance.add_dynamic_partitions("folder_minute", KEYS)
        yield runs


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, s3_server: str) -> list[Place]:
    """Speech on a local folder and on S3."""
    places = [LocalPlace(tmp_path_factory.mktemp("bucket")), new_bucket()]
    for place in places:
        clips = iter(SAMPLE)
        for folder in FOLDERS:
            for i in range(CLIPS):
                place.put(f"{folder}/{i}.flac", next(clips).read_bytes())
    return places


def wipe(place: Place) -> None:
    for path in table_files(place):
        place.delete(path)


_undisturbed: dict[str, tuple[dict[str, bytes], float]] = {}


def undisturbed(runs: Runs, place: Place) -> tuple[dict[str, bytes], float]:
    """The files that a run makes which nobody disturbs, and the seconds that it takes."""
    if place.uri not in _undisturbed:
        for _ in range(2):
            # The second one is as fast as those to come.
            wipe(place)
            run = runs.create(KEYS[0], KEYS[-1])
            began = time.monotonic()
            runs.start(run, environment(place)).join()
            assert runs.status(run) == dg.DagsterRunStatus.SUCCESS
            _undisturbed[place.uri] = table_files(place), time.monotonic() - began
    return _undisturbed[place.uri]


def environment(place: Place) -> dict[str, str]:
    return settings() | {"AUDIO_SOURCE_URI": place.uri}


@pytest.mark.seeds(1, 20)
def test_two_processes_at_once_make_the_table_of_one(
    runs: Runs, places: list[Place], s3: str, seed: int, record_property: Callable[[str, object], None]
):
    place = places[seed % 2]
    expected, seconds = undisturbed(runs, place)
    wipe(place)
    # Else the pool lets one wait for the other.
    runs.instance.event_log_storage.set_concurrency_slots("gpu", 2)
    both = [runs.create(KEYS[0], KEYS[-1]) for _ in range(2)]
    first = runs.start(both[0], environment(place))
    time.sleep(random.Random(seed).uniform(0, seconds / 4))
    second = runs.start(both[1], environment(place))
    first.join()
    second.join()
    runs.instance.event_log_storage.set_concurrency_slots("gpu", 1)
    assert {runs.status(run) for run in both} == {dg.DagsterRunStatus.SUCCESS}
    assert table_files(place) == expected
    record_property("pairs of processes on the same partitions", 1)


@pytest.mark.seeds(2, 100)
def test_a_killed_run_is_retried_and_redoes_nothing_that_is_done(
    runs: Runs, places: list[Place], s3: str, seed: int, record_property: Callable[[str, object], None]
):
    place = places[seed % 2]
    expected, seconds = undisturbed(runs, place)
    wipe(place)

    run = runs.create(KEYS[0], KEYS[-1])
    process = runs.start(run, environment(place))
    process.join(random.Random(seed).uniform(0, seconds))
    process.kill()
    process.join()
    record_property("runs killed", int(process.exitcode != 0))
    if process.exitcode == 0:
        record_property("runs that ended before they could be killed", 1)
        assert table_files(place) == expected
        return
    done = [key for key in KEYS if is_done(place, key)]

    retried = runs.retry(runs.instance.get_run_by_id(run.run_id))
    runs.start(retried, environment(place)).join()
    assert runs.status(retried) == dg.DagsterRunStatus.SUCCESS
    assert table_files(place) == expected
    computed = clips_computed(runs.instance, retried)
    assert not any(computed.get(key) for key in done)
    record_property("partitions that were finished when the run was killed", len(done))
    record_property("clips of those computed again", sum(computed.get(key, 0) for key in done))
    record_property("clips of others computed by the retry", sum(computed.values()))


def is_done(place: Place, key: str) -> bool:
    path, files = FolderMinute.parse(key).path, table_files(place)
    return all(f"output_parquet/{table}/{path}" in files for table in ("transcripts", "tokens"))


def clips_computed(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dict[str, int]:
    """What a run says that it computed, by partition."""
    events = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    made = [e.asset_materialization for e in events if e.asset_materialization]
    return {
        m.partition or "": m.metadata["clips_computed"].value
        for m in made
        if m.asset_key == dg.AssetKey("transcripts")
    }
