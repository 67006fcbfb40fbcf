"""Runs in processes of their own: two at once, and one that is killed at any moment and then retried as the
instance is configured."""

import contextlib
import os
import pathlib
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator

import dagster as dg
import pytest

from audio_assets.partitions import FolderMinute
from audio_assets.schema import AUDIO_TABLE_DAILY
from audio_assets_tests.support.dagster_dev import DagsterDev, dagster_dev
from audio_assets_tests.support.faulty_bucket import SAMPLE, new_bucket, table_files
from audio_assets_tests.support.metadata import number
from audio_assets_tests.support.places import LocalPlace, Place
from audio_assets_tests.support.postgres import NewHome
from audio_assets_tests.support.run_process import Runs, settings, start

# All of them in one worker, which starts a code server and imports PyTorch for its processes once.
pytestmark = pytest.mark.xdist_group("processes of runs")

FOLDERS = [f"p{i}" for i in range(4)]
KEYS = [f"{folder}@2023-08-24-00:21" for folder in FOLDERS]
CLIPS = 2


@pytest.fixture(scope="module")
def runs(new_home: NewHome, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    with Runs.on(new_home(tmp_path_factory.mktemp("runs") / "home")) as runs:
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
    # A batch for each partition, so that they are finished one after the other.
    return settings() | {"AUDIO_SOURCE_URI": place.uri, "WHISPER_BATCH_SIZE": str(CLIPS)}


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


@pytest.mark.seeds(1, 10)
def test_two_daemons_at_once_have_each_clip_computed_once(
    runs: Runs,
    places: list[Place],
    new_home: NewHome,
    tmp_path: pathlib.Path,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
):
    place = places[0]
    expected, _ = undisturbed(runs, place)
    wipe(place)
    monkeypatch.setenv("AUDIO_SOURCE_URI", place.uri)
    home = new_home(tmp_path / "home")
    with Runs.on(home) as one, Runs.on(home) as two:
        # Only one of two daemons can; the other would not tick.
        one.note_sensors()
        together = threading.Barrier(2)
        ticking = [threading.Thread(target=daemon.tick, args=[together]) for daemon in (one, two)]
        for thread in ticking:
            thread.start()
        for thread in ticking:
            thread.join()
        queued = one.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED]))
        assert 1 <= len(queued) <= 2
        assert {run.tags["dagster/asset_partition_range_start"] for run in queued} == {KEYS[0]}
        for process in [one.start(run, environment(place)) for run in queued]:
            process.join()
        assert {one.status(run) for run in queued} == {dg.DagsterRunStatus.SUCCESS}
        assert table_files(place) == expected
        computed = [clips_computed(one.instance, run) for run in queued]
    assert {key: sum(of.get(key, 0) for of in computed) for key in KEYS} == dict.fromkeys(KEYS, CLIPS)
    record_property("pairs of daemons that ticked at once", 1)
    record_property("runs that they queued", len(queued))


# Some runs end before they can be killed.
@pytest.mark.seeds(2, 120)
def test_a_killed_run_is_retried_and_redoes_nothing_that_is_done(
    runs: Runs, places: list[Place], s3: str, seed: int, record_property: Callable[[str, object], None]
):
    place = places[seed % 2]
    expected, _ = undisturbed(runs, place)
    wipe(place)

    run = runs.create(KEYS[0], KEYS[-1])
    process = runs.start(run, environment(place))
    # By what is written, which spreads the moments over the whole run however busy the machine is.
    chance = random.Random(seed)
    written = chance.randrange(len(expected))
    while process.is_alive() and len(table_files(place)) < written:
        time.sleep(0.01)
    process.join(chance.uniform(0, 0.5))
    process.kill()
    process.join()
    record_property("runs killed", int(process.exitcode != 0))
    if process.exitcode == 0:
        record_property("runs that ended before they could be killed", 1)
        assert table_files(place) == expected
        return
    done = [key for key in KEYS if is_done(place, key)]

    killed = runs.instance.get_run_by_id(run.run_id)
    assert killed
    retried = runs.retry(killed)
    if retried is None:
        record_property("runs killed after their last step", 1)
        assert table_files(place) == expected
        return
    runs.start(retried, environment(place)).join()
    assert runs.status(retried) == dg.DagsterRunStatus.SUCCESS
    assert table_files(place) == expected
    computed = clips_computed(runs.instance, retried)
    assert not any(computed.get(key) for key in done)
    record_property("partitions that were finished when the run was killed", len(done))
    record_property("clips of those computed again", sum(computed.get(key, 0) for key in done))
    record_property("clips of others computed by the retry", sum(computed.values()))


def is_done(place: Place, key: str) -> bool:
    path = FolderMinute.parse(key).path
    files = table_files(place)
    return all(f"output_parquet/{table}/{path}" in files for table in ("transcripts", "tokens"))


def clips_computed(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dict[str, int]:
    """What a run says that it computed, by partition."""
    events = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    made = [e.asset_materialization for e in events if e.asset_materialization]
    return {
        m.partition or "": number(m.metadata, "clips_computed")
        for m in made
        if m.asset_key == dg.AssetKey("transcripts")
    }


@pytest.mark.seeds(0, 1)
def test_the_daemon_retries_what_is_killed(
    tmp_path: pathlib.Path,
    new_home: NewHome,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
):
    """As above, by the services that `make dev` starts: sensor, launcher, monitoring and retries."""
    place = LocalPlace(tmp_path / "bucket")
    place.folder.mkdir()
    monkeypatch.setenv("AUDIO_SOURCE_URI", place.uri)
    chance = random.Random(seed)
    seen: set[int] = set()
    with dagster_dev(tmp_path, {"AUDIO_SOURCE_URI": place.uri}) as dev:
        for folder in FOLDERS:
            for i, clip in enumerate(SAMPLE):
                place.put(f"{folder}/{i}.flac", clip.read_bytes())
            pid = dev.wait_for("run", lambda seen=seen: next(iter(processes(dev) - seen), None))
            seen = processes(dev)
            time.sleep(chance.uniform(0, 5))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            path = f"output_parquet/audio_table/{FolderMinute.parse(f'{folder}@2023-08-24-00:21').path}"
            dev.wait_for(f"table of {folder}", lambda path=path: path in table_files(place), seconds=400)
            seen = processes(dev)
        retries = dev.query("{ runsOrError { ... on Runs { results { tags { key } } } } }")
    tags = [{tag["key"] for tag in run["tags"]} for run in retries["runsOrError"]["results"]]
    record_property("runs that the daemon retried", sum("dagster/retry_number" in keys for keys in tags))
    # The services also keep the daily copy, which the run below does not make.
    found = {path: body for path, body in table_files(place).items() if AUDIO_TABLE_DAILY not in path}
    wipe(place)
    home = new_home(tmp_path / "another home")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.add_dynamic_partitions("folder_minute", KEYS)
    process = start(home, KEYS[0], KEYS[-1], settings())
    process.join()
    assert process.exitcode == 0
    assert found == table_files(place)


def processes(dev: DagsterDev) -> set[int]:
    """Of runs, as the launcher notes them."""
    runs = dev.query("{ runsOrError { ... on Runs { results { runId } } } }")["runsOrError"]["results"]
    query = """query ($run: ID!) { logsForRun(runId: $run, limit: 1000) { ... on EventConnection { events {
                 ... on MessageEvent { message } } } } }"""
    events = [dev.query(query, run=run["runId"])["logsForRun"]["events"] for run in runs]
    said = " ".join(event.get("message", "") for found in events for event in found)
    return set(map(int, re.findall(r"Started process for run \(pid: (\d+)\)", said)))
